"""Ids are exactly as in the source."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reading_case import cells, read

from recsys.data.reading import read_interactions
from recsys.errors import DataError


@pytest.mark.parametrize(
    "name",
    ["007", "9007199254740993", "NA", "null", "None", "nan", "1e5", "-0", "True", "жук", "🦊", " x ", "a'b", "="],
)
def test_ids_are_exactly_as_in_the_source(tmp_path, name):
    found = read(tmp_path, f"user_id,item_id\n{name},{name}\nother,thing\n")
    assert sorted(found.users.to_list()) == sorted([name, "other"])
    assert sorted(found.items.to_list()) == sorted([name, "thing"])


def test_ids_may_hold_quotes_and_separators_where_quoted(tmp_path):
    found = read(tmp_path, 'user_id,item_id\n"a,b","say ""hi"""\nc,5" pipe\n')
    assert found.users.to_list() == ["a,b", "c"]
    assert found.items.to_list() == ['5" pipe', 'say "hi"']


@pytest.mark.parametrize("kind", [pa.int32(), pa.int64(), pa.uint64(), pa.string(), pa.large_string()])
def test_parquet_keeps_the_type_of_ids(tmp_path, kind):
    ids = pa.array([7, 2**31 - 1], pa.int64()).cast(kind)
    pq.write_table(pa.table({"user_id": ids, "item_id": ids}), tmp_path / "r.parquet")
    found = read_interactions(tmp_path / "r.parquet")
    assert found.users.ids.type == kind
    assert found.users.ids.to_pylist() == ids.to_pylist()


def test_a_data_frame_goes_through_the_same_door():
    frame = pd.DataFrame({"user": [9007199254740993, 1], "item": ["a", "NA"], "rating": [0.0, -2.5]}, index=[5, 5])
    assert cells(read_interactions(frame)) == {(9007199254740993, "a"): 0.0, (1, "NA"): -2.5}


def test_a_nullable_frame_loses_only_its_missing_rows():
    frame = pd.DataFrame({"user": pd.array([1, None, 3], "Int64"), "item": ["a", "b", None], "rating": [1, 2, 3]})
    found = read_interactions(frame)
    assert found.users.to_list() == [1]
    assert found.ledger.line() == "rows read 3 = kept 1 + missing user id 1 + missing item id 1"


def test_categories_are_read_as_what_they_stand_for():
    frame = pd.DataFrame({"user": pd.Categorical(["x", "y"]), "item": [1, 2]})
    assert read_interactions(frame).users.to_list() == ["x", "y"]


@pytest.mark.parametrize("users", [[1.5, 2.0], [1, "a"], [b"a", b"b"], [True, False]])
def test_ids_of_another_type_are_refused(users):
    with pytest.raises(DataError, match="Cast"):
        read_interactions(pd.DataFrame({"user": users, "item": [1, 2]}))
