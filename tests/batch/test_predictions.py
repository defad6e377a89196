"""A file of pairs is answered row by row: in order, ids as they came, and with the reason where there is no rating."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from recsys.batch.predictions import NO_HISTORY, UNKNOWN_ITEM, file_format, predict_rows, read_pairs, write_predictions
from recsys.data.interactions import Vocabulary
from recsys.data.matrix import UserItemMatrix, sparse_rows
from recsys.data.reading import ReadingOptions
from recsys.errors import ConfigError, DataError

# User 007 rated a 5 and b 0; the user "new" has no history.
HISTORIES = UserItemMatrix(
    sparse_rows(np.array([0, 0, 1]), np.array([0, 1, 1]), np.array([5.0, 0.0, 2.0]), (3, 3)),
    Vocabulary.of(["007", "8", "new"]),
    Vocabulary.of(["a", "b", "c"]),
)


def score(history):
    """The user's mean rating, an item apart each."""
    mean = torch.tensor([row.data.mean() for row in (history[[at]] for at in range(history.shape[0]))])
    return mean[:, None] + torch.arange(3.0)


def answer(source, target):
    ratings, reason = predict_rows(score, HISTORIES, read_pairs(source))
    write_predictions(target, file_format(target), read_pairs(source), ratings, reason)
    return target


PAIRS = "user,item\n8,c\n007,a\n7,a\n007,zz\n8,c\nnew,a\n"
ANSWERS = [
    ("8", "c", 4.0, None),
    ("007", "a", 2.5, None),  # (5 + 0) / 2: a zero is a rating
    ("7", "a", None, NO_HISTORY),  # 7 is not 007
    ("007", "zz", None, UNKNOWN_ITEM),
    ("8", "c", 4.0, None),
    ("new", "a", None, NO_HISTORY),
]


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
def test_every_row_is_answered_in_order(tmp_path, name):
    (tmp_path / "pairs.csv").write_text(PAIRS)
    file = answer(tmp_path / "pairs.csv", tmp_path / name)
    table = pd.read_csv(file, dtype={"user_id": str}) if name.endswith("csv") else pd.read_parquet(file)
    assert list(table.columns) == ["user_id", "item_id", "rating", "reason"]
    rows = table.astype(object).where(table.notna(), None).itertuples(index=False, name=None)
    assert list(rows) == ANSWERS


def test_a_file_without_header_and_one_in_parquet_are_read_as_ratings_are(tmp_path):
    (tmp_path / "plain.csv").write_text("8,c\n")
    pq.write_table(pa.table({"item_id": ["c"], "user_id": ["8"], "more": [1]}), tmp_path / "pairs.parquet")
    for name in ("plain.csv", "pairs.parquet"):
        file = answer(tmp_path / name, tmp_path / "out.parquet")
        assert pq.read_table(file).to_pylist() == [{"user_id": "8", "item_id": "c", "rating": 4.0, "reason": None}]


def test_ids_that_are_integers_stay_integers(tmp_path):
    pq.write_table(pa.table({"user_id": [8], "item_id": ["c"]}), tmp_path / "pairs.parquet")
    table = pq.read_table(answer(tmp_path / "pairs.parquet", tmp_path / "out.parquet"))
    assert table.to_pylist() == [{"user_id": 8, "item_id": "c", "rating": 4.0, "reason": None}]


def test_a_row_that_cannot_be_answered_is_refused_with_its_line(tmp_path):
    (tmp_path / "pairs.csv").write_text("user,item\n8,c\n\n,c\n")
    with pytest.raises(DataError, match=r"missing user id.* in line 4"):
        list(read_pairs(tmp_path / "pairs.csv"))


def test_a_file_larger_than_one_part_is_answered_whole(tmp_path):
    rows = 300_000
    table = pa.table({"user_id": ["8", "007"] * (rows // 2), "item_id": ["a", "c"] * (rows // 2)})
    pq.write_table(table, tmp_path / "pairs.parquet")
    found = pq.read_table(answer(tmp_path / "pairs.parquet", tmp_path / "out.parquet"))
    assert found["rating"].to_numpy().tolist() == [2.0, 4.5] * (rows // 2)
    assert found.select(["user_id", "item_id"]).equals(table)


def test_a_folder_or_a_missing_file_is_refused(tmp_path):
    for place, found in ((tmp_path, "a folder"), (tmp_path / "none.csv", "nothing")):
        with pytest.raises(DataError, match=f"found {found} at"):
            list(read_pairs(place))


def test_an_unknown_format_is_refused():
    with pytest.raises(ConfigError, match=r"ends in .csv or .parquet"):
        file_format("out.xlsx")


@pytest.mark.parametrize("header", ["Kunde;Artikel;Note", "user_id;item_id;Note", "item_id;user_id"])
def test_pairs_are_found_by_the_names_of_the_ratings_or_by_the_usual_ones(tmp_path, header):
    row = {"Kunde": "8", "Artikel": "c", "user_id": "8", "item_id": "c", "Note": "1"}
    (tmp_path / "pairs.csv").write_text(f"{header}\n" + ";".join(row[name] for name in header.split(";")) + "\n")
    pq.write_table(pa.table({name: [row[name]] for name in header.split(";")}), tmp_path / "pairs.parquet")
    reading = ReadingOptions(user_column="Kunde", item_column="Artikel", separator=";")
    for name in ("pairs.csv", "pairs.parquet"):
        (rows,) = read_pairs(tmp_path / name, reading)
        assert (rows.user.to_pylist(), rows.item.to_pylist()) == (["8"], ["c"])


def test_a_file_that_holds_no_pairs_is_refused_by_what_was_given(tmp_path):
    (tmp_path / "pairs.csv").write_text("ab\nxy\n")
    with pytest.raises(DataError, match=r"found one with the separator '\|'"):
        list(read_pairs(tmp_path / "pairs.csv", ReadingOptions(separator="|", item_column="7")))
