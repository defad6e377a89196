"""Features of items: what each kind of column becomes, what is remembered, what is refused."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file
from sklearn.feature_extraction.text import TfidfVectorizer

from recsys.data.interactions import Vocabulary
from recsys.data.item_features import FeatureOptions, read_item_table
from recsys.data.item_features.encoder import FeatureEncoder
from recsys.data.item_features.features import ItemFeatures, read_item_features
from recsys.errors import DataError

TEXTS = ["a small dog", "a small cat", "the dog and the cat", "one horse"]
TABLE = "id,genre,price,since,text\n" + "".join(
    f"{i},{genre},{price},{since},{text}\n"
    for i, (genre, price, since, text) in enumerate(
        zip(["A|B", "A", "B", "C"], [1, 2, 3, ""], ["2020-01-01", "2019-01-01", "2018-01-01", ""], TEXTS, strict=True)
    )
)


@pytest.fixture
def table(tmp_path):
    return read(tmp_path, TABLE)


def read(tmp_path, text, **options):
    (tmp_path / "items.csv").write_text(text)
    return read_item_table(
        tmp_path / "items.csv", FeatureOptions(feature_columns=("genre", "price", "since", "text:text"), **options)
    )


def part(encoder, matrix, column):
    names = encoder.names
    return matrix.toarray()[:, [at for at, name in enumerate(names) if name.startswith(column)]]


def test_categories_are_ones_where_an_item_has_them(table):
    encoder = FeatureEncoder.fit(table)
    assert [name for name in encoder.names if name.startswith("genre")] == ["genre=A", "genre=B"]  # C: of one item
    assert part(encoder, encoder.transform(table), "genre").tolist() == [[1, 1], [1, 0], [0, 1], [0, 0]]


def test_numbers_are_shares_of_the_nearest_quantiles_and_nothing_where_missing(table, tmp_path):
    encoder = FeatureEncoder.fit(table)
    assert [name for name in encoder.names if name.startswith("price")] == ["price (1)", "price (2)", "price (3)"]
    assert part(encoder, encoder.transform(table), "price").tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]
    later = read(tmp_path, TABLE.replace(",1,", ",1.25,").replace(",3,", ",99,"))
    assert part(encoder, encoder.transform(later), "price")[[0, 2]].tolist() == [[0.75, 0.25, 0], [0, 0, 1]]


def test_a_number_has_at_most_eleven_quantiles(tmp_path):
    (tmp_path / "items.csv").write_text("id,price\n" + "".join(f"i{n},{n}.5\n" for n in range(101)))
    encoder = FeatureEncoder.fit(read_item_table(tmp_path / "items.csv"))
    assert encoder.encodings[0].quantiles.tolist() == [10 * n + 0.5 for n in range(11)]


def test_dates_are_ages_by_their_logarithm(table, tmp_path):
    encoder = FeatureEncoder.fit(table)
    assert part(encoder, encoder.transform(table), "since").tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]
    later = read(tmp_path, TABLE.replace("2019-01-01", "2018-07-02"))  # 548 days before the latest
    ages = np.log1p(np.array([365, 548, 730]) / 365.25)
    share = (ages[1] - ages[0]) / (ages[2] - ages[0])
    found = part(encoder, encoder.transform(later), "since")[1]
    np.testing.assert_allclose(found, [0, 1 - share, share], rtol=1e-5)


def test_text_is_the_tf_idf_of_scikit_learn(table):
    encoder = FeatureEncoder.fit(table)
    sklearn = TfidfVectorizer(sublinear_tf=True, min_df=2).fit(TEXTS)
    assert [name for name in encoder.names if name.startswith("text")] == ["text: cat", "text: dog", "text: small"]
    np.testing.assert_allclose(
        part(encoder, encoder.transform(table), "text"), sklearn.transform(TEXTS).toarray(), rtol=1e-6
    )


def test_embeddings_have_length_one(tmp_path):
    pq.write_table(pa.table({"id": ["a", "b"], "v": [[3.0, 4.0], None]}), tmp_path / "items.parquet")
    found = read_item_features(tmp_path / "items.parquet")
    np.testing.assert_allclose(found.matrix.toarray(), [[0.6, 0.8], [0, 0]], rtol=1e-6)
    assert found.encoder.names == ["v[0]", "v[1]"]


def test_items_of_tomorrow_get_the_features_of_today(table, tmp_path):
    encoder = FeatureEncoder.fit(table)
    new = "id,genre,price,since,text\n9,A|Z,1000,2030-01-01,small dog unicorn\n"
    (tmp_path / "new.csv").write_text(new)
    found = encoder.transform(read_item_table(tmp_path / "new.csv", encoder.options))
    assert found.shape == (1, len(encoder))
    assert part(encoder, found, "genre").tolist() == [[1, 0]]  # Z is no feature
    assert part(encoder, found, "price").tolist() == [[0, 0, 1]]  # beyond the greatest
    newest = part(encoder, encoder.transform(table), "since")[0, 0]
    assert part(encoder, found, "since")[0, 0] == newest  # not younger than the youngest


def test_what_was_saved_makes_the_same_features(table, tmp_path):
    encoder = FeatureEncoder.fit(table)
    encoder.save(tmp_path)
    again = FeatureEncoder.load(tmp_path)
    assert again.names == encoder.names
    assert again.options == encoder.options
    assert (again.transform(table) != encoder.transform(table)).nnz == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c.update(format=2),
        lambda c: c.pop("columns"),
        lambda c: c["columns"].pop(),
        lambda c: c["columns"][0].update(kind="pickle"),
        lambda c: c["columns"][0].update(width=99),
        lambda c: c["columns"][0].update(values=["A", "A"]),
        lambda c: c["columns"][0].update(values="AB"),
        lambda c: c["columns"][1].update(width=-1),
        lambda c: c["columns"][3]["values"].append("more"),
        lambda c: c["columns"][0].update(name=None),
    ],
)
def test_a_crafted_description_is_refused(table, tmp_path, damage):
    FeatureEncoder.fit(table).save(tmp_path)
    content = json.loads((tmp_path / "features.json").read_text())
    damage(content)
    (tmp_path / "features.json").write_text(json.dumps(content))
    with pytest.raises(DataError):
        FeatureEncoder.load(tmp_path)


@pytest.mark.parametrize("numbers", [np.array([np.nan, 1.0]), np.array([1.0]), np.float32([1, 2])])
def test_crafted_numbers_are_refused(table, tmp_path, numbers):
    FeatureEncoder.fit(table).save(tmp_path)
    save_file({**load_file(tmp_path / "features.safetensors"), "1": numbers}, tmp_path / "features.safetensors")
    with pytest.raises(DataError):
        FeatureEncoder.load(tmp_path)


def test_a_column_that_is_gone_or_holds_something_else_is_refused(table, tmp_path):
    encoder = FeatureEncoder.fit(table)
    (tmp_path / "new.csv").write_text("id,genre,price\n9,A,1\n")
    with pytest.raises(DataError, match="since"):
        read_item_table(tmp_path / "new.csv", encoder.options)
    with pytest.raises(DataError, match="in the column 'genre', found text"):
        encoder.transform(read_item_table(tmp_path / "new.csv"))


def test_a_table_that_tells_no_items_apart_is_refused(tmp_path):
    (tmp_path / "items.csv").write_text("id,price,color\n1,5,red\n2,5,blue\n")
    with pytest.raises(DataError, match="tells items apart"):
        read_item_features(tmp_path / "items.csv")


def test_features_in_the_order_of_another_vocabulary_and_the_items_beyond_it(tmp_path):
    (tmp_path / "items.csv").write_text("id,color\n10,red\n2,red\n3,blue\n4,blue\n")
    features = read_item_features(tmp_path / "items.csv")
    known = Vocabulary.of([3, 77])
    assert features.over(known).toarray().tolist() == [[1, 0], [0, 0]]
    assert features.beyond(known).to_pylist() == [2, 4, 10]  # canonical order, in the type of the known ones
    assert ItemFeatures(features.items).over(known) is None
