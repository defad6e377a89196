"""Reading tables of items: kinds of columns, wide and long files, the account of rows."""

import gzip
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.data.interactions import Vocabulary
from recsys.data.item_features import FeatureOptions, read_item_table
from recsys.errors import ConfigError, DataError


def read(tmp_path, text, **options):
    file = tmp_path / "items.csv"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_item_table(file, FeatureOptions(**options))


def read_parquet(tmp_path, columns, **options):
    pq.write_table(pa.table(columns), tmp_path / "items.parquet")
    return read_item_table(tmp_path / "items.parquet", FeatureOptions(**options))


def kinds(table):
    return {name: column.kind for name, column in table.columns.items()}


FILMS = """movieId,genres,price,released,plot,color
10,Drama|War,9.5,2001-05-03,"A man, who walks far to the sea",red
9,Comedy,,2003-01-31,"Two friends open
a small hotel by the lake",blue
7,Drama,7,2002-12-24,A dog finds its way home again,red
8,War,8,2002-12-25,A spy who loves nothing but chess,red
"""


def test_columns_are_found_from_their_values(tmp_path):
    table = read(tmp_path, FILMS)
    assert kinds(table) == {
        "genres": "categories",
        "price": "number",
        "released": "date",
        "plot": "text",
        "color": "categories",
    }
    assert table.item_column == "movieId"
    assert table.ids.to_list() == ["7", "8", "9", "10"]  # canonical order
    assert table.columns["genres"].values.to_pylist() == [["Drama"], ["War"], ["Comedy"], ["Drama", "War"]]
    np.testing.assert_array_equal(table.columns["price"].numbers(), [7, 8, np.nan, 9.5])
    assert table.columns["released"].values.to_pylist()[2] == datetime(2003, 1, 31)
    assert table.columns["plot"].values.to_pylist()[2] == "Two friends open\na small hotel by the lake"
    assert table.columns["price"].missing == 1


def test_a_file_of_two_columns_in_which_items_repeat_is_long(tmp_path):
    table = read(tmp_path, "item,tag\n2,x\n1,y\n2,z\n2,\n3,\n")
    assert table.columns["tag"].values.to_pylist() == [["y"], ["x", "z"], None]
    assert table.ledger.line() == "rows read 5 = kept 5"


def test_a_few_repeated_rows_do_not_make_a_table_of_prices_long(tmp_path):
    rows = "".join(f"{i},{i}.5\n" for i in range(1, 40))
    table = read(tmp_path, f"item,price\n{rows}7,7.5\n")
    assert table.columns["price"].kind == "number"
    assert table.ledger.rejected["repeated item id"] == 1
    said = read(tmp_path, f"item,price\n{rows}7,8\n", feature_columns=("price:categories",))
    assert said.columns["price"].values.to_pylist()[6] == ["7.5", "8"]
    tags = "".join(f"{i},{'xyz'[i % 3]}\n" for i in range(1, 40))
    assert read(tmp_path, f"item,tag\n{tags}3,q\n").columns["tag"].values.to_pylist()[2] == ["x", "q"]


def test_numbers_of_a_long_file_are_names(tmp_path):
    cells, names = read(tmp_path, "item_id,attribute\n5,10\n5,9\n6,9\n").columns["attribute"].labels()
    assert names == ["10", "9"]
    assert cells.toarray().tolist() == [[1, 1], [0, 1]]


def test_every_row_is_accounted_for(tmp_path):
    table = read(tmp_path, 'id,a,b\n1,x,y\n1,z,z\n,x,y\n2,x\n3,"x"y,z\n4,x,y\n')
    assert table.ids.to_list() == ["1", "4"]
    assert table.ledger.read == 6 == table.ledger.kept + 4
    assert {reason for reason, count in table.ledger.rejected.items() if count == 1} == {
        "repeated item id",
        "missing item id",
        "wrong number of columns",
        "quotes that do not pair",
    }
    assert table.columns["a"].values.to_pylist() == [["x"], ["x"]]  # of an item twice in it, the first row


def test_a_quote_that_stays_open_is_refused_and_swallows_nothing(tmp_path):
    with pytest.raises(DataError, match="quotes that close"):
        read(tmp_path, 'id,a\n1,"x\n2,y\n3,z\n')


def test_a_few_odd_values_do_not_make_a_column_of_numbers_text_and_are_counted(tmp_path):
    rows = "".join(f"{i},{i}.5\n" for i in range(100))
    column = read(tmp_path, f"id,price\n{rows}x,free\n").columns["price"]
    assert (column.kind, column.missing, column.unreadable) == ("number", 1, 1)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["007", "008", "007", "008"], "categories"),  # codes, no numbers
        (["1995", "1996", "1997", "1998"], "number"),
        (["31/12/2026", "01/02/2026", "03/04/2026", "05/06/2026"], "date"),
        (["Brown", "White", "Brown", "White"], "categories"),
        (["Toy Story", "Jumanji", "Heat", "Sabrina"], "text"),  # no value twice
        (["n/a", "NA", "", "null"], "categories"),
        (["1e3", "-5", "nan", "0.25"], "number"),
    ],
)
def test_the_kind_of_a_column(tmp_path, values, kind):
    table = read(tmp_path, "id,x,y\n" + "".join(f"{i},{value},k\n" for i, value in enumerate(values)))
    assert table.columns["x"].kind == kind


def test_what_a_column_holds_may_be_said(tmp_path):
    table = read(tmp_path, FILMS, feature_columns=("price:categories", "color:text"))
    assert kinds(table) == {"price": "categories", "color": "text"}
    assert table.columns["price"].values.to_pylist() == [["7"], ["8"], None, ["9.5"]]
    assert table.unread == ("genres", "released", "plot")


def test_columns_can_be_ignored(tmp_path):
    assert list(read(tmp_path, FILMS, ignore_columns=("plot", "price")).columns) == ["genres", "released", "color"]


@pytest.mark.parametrize("options", [{"feature_columns": ("genre",)}, {"ignore_columns": ("movieId",)}])
def test_a_column_that_is_not_there_is_an_error_that_names_the_others(tmp_path, options):
    with pytest.raises(DataError, match="among genres, price, released, plot, color"):
        read(tmp_path, FILMS, **options)


@pytest.mark.parametrize(
    "options",
    [{"feature_columns": ("year:color",)}, {"feature_columns": ("a", "b"), "ignore_columns": ("b",)}],
)
def test_nonsense_is_refused_at_once(options):
    with pytest.raises(ConfigError):
        FeatureOptions(**options)


def test_other_separators_encodings_and_gzip(tmp_path):
    assert read(tmp_path, "id\ta\n1\tx\n2\tx\n").ids.to_list() == ["1", "2"]
    assert read(tmp_path, "id::a\n1::x\n2::x\n").columns["a"].values.to_pylist() == [["x"], ["x"]]
    assert read(tmp_path, gzip.compress(b"id;a\n1;x\n2;x\n")).ids.to_list() == ["1", "2"]
    latin = "id,a\n1,café\n2,café\n".encode("latin-1")
    assert read(tmp_path, latin).columns["a"].values.to_pylist() == [["café"], ["café"]]


def test_types_of_parquet_say_what_a_column_holds(tmp_path):
    table = read_parquet(
        tmp_path,
        {
            "item_id": pa.array([4, 2], pa.int64()),
            "tags": pa.array([["a", "b"], None], pa.list_(pa.string())),
            "vector": pa.array([[3.0, 4.0], None], pa.list_(pa.float64())),  # as pandas writes it
            "available": pa.array([True, False]),
            "stars": pa.array([5, None], pa.int32()),
            "since": pa.array([datetime(2020, 1, 1), None], pa.timestamp("us")),
        },
    )
    assert table.ids.to_list() == [2, 4]
    assert list(kinds(table).values()) == ["categories", "embedding", "categories", "number", "date"]
    assert table.columns["vector"].values.to_pylist() == [None, [3, 4]]
    assert table.columns["vector"].values.type == pa.list_(pa.float32(), 2)
    assert table.columns["available"].values.to_pylist() == [["false"], ["true"]]
    assert table.columns["tags"].values.to_pylist() == [None, ["a", "b"]]


def test_embeddings_of_several_lengths_and_other_types_are_refused(tmp_path):
    with pytest.raises(DataError, match="of one length"):
        read_parquet(tmp_path, {"id": ["a", "b"], "v": [[1.0], [1.0, 2.0]]})
    with pytest.raises(DataError, match="ignore_columns"):
        read_parquet(tmp_path, {"id": ["a", "b"], "v": [{"x": 1}, {"x": 2}]})
    assert read_parquet(tmp_path, {"id": ["a"], "v": [{"x": 1}], "w": [1]}, ignore_columns=("v",)).unread == ("v",)


def test_a_damaged_file_and_one_that_is_not_there(tmp_path):
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="damaged"):
        read_item_table(tmp_path / "broken.parquet")
    with pytest.raises(DataError, match="found no file"):
        read_item_table(tmp_path / "absent.csv")


def test_rows_in_the_order_of_a_vocabulary(tmp_path):
    table = read(tmp_path, FILMS).aligned(Vocabulary.of([10, 99, 7]))
    assert table.columns["genres"].values.to_pylist() == [["Drama", "War"], None, ["Drama"]]
    np.testing.assert_array_equal(table.columns["price"].numbers(), [9.5, np.nan, 7])
    with pytest.raises(DataError, match="a column of genres, price"):
        table.column("genre")


def test_a_column_read_as_something_else_is_refused(tmp_path):
    table = read(tmp_path, FILMS)
    with pytest.raises(DataError, match="numbers or dates"):
        table.columns["genres"].numbers()
    with pytest.raises(DataError, match="of categories"):
        table.columns["price"].labels()
