"""Formats: separators, headers, encodings, folders, partitions."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reading_case import cells, read

from recsys.data.reading import ReadingOptions, read_interactions, text_layout
from recsys.errors import DataError


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("separator", [",", "\t", "::", ";", "|", " "])
@pytest.mark.parametrize("header", [True, False])
def test_the_layout_is_found(tmp_path, separator, header, end):
    rows = [["user_id", "item_id", "rating", "timestamp"]] * header + [["u", "a", "3.5", "10"], ["v", "b", "4", "20"]]
    found = read(tmp_path, end.join(separator.join(row) for row in rows))
    assert cells(found) == {("u", "a"): 3.5, ("v", "b"): 4.0}
    assert found.timestamp.tolist() == [10_000, 20_000]
    layout = text_layout(tmp_path / "ratings.csv", ReadingOptions())
    assert (layout.separator, layout.header) == (separator, header)


def test_columns_in_any_order_can_be_named(tmp_path):
    text = "when,who,what,how\n5,u,a,2\n"
    options = {"user_column": "who", "item_column": "what", "rating_column": "how", "timestamp_column": "when"}
    found = read(tmp_path, text, **options)
    assert (cells(found), found.timestamp.tolist()) == ({("u", "a"): 2.0}, [5000])
    found = read(tmp_path, "5,u,a,2\n", user_column="2", item_column="3", rating_column="4", timestamp_column="1")
    assert (cells(found), found.timestamp.tolist()) == ({("u", "a"): 2.0}, [5000])


def test_columns_may_be_left_unread(tmp_path):
    found = read(tmp_path, "user,item,rating,timestamp\nu,a,x,\n", rating_column="none", timestamp_column="none")
    assert (cells(found), found.timestamp) == ({("u", "a"): None}, None)


def test_a_third_column_of_epochs_is_no_rating(tmp_path):
    found = read(tmp_path, "1\t2\t881250949\n1\t3\t881250950\n")
    assert found.rating is None
    assert found.timestamp.tolist() == [881250949000, 881250950000]


def test_byte_order_mark_gzip_and_latin_1(tmp_path):
    assert read(tmp_path, b"\xef\xbb\xbfuser,item\nu,a\n").users.to_list() == ["u"]
    assert read(tmp_path, gzip.compress(b"user,item\nu,a\n")).users.to_list() == ["u"]
    assert read(tmp_path, "user,item\nü,a\n".encode("latin-1"), encoding="latin-1").users.to_list() == ["ü"]
    assert read(tmp_path, "user,item\nü,a\n".encode("utf-16"), encoding="utf-16").users.to_list() == ["ü"]
    assert read(tmp_path, "\ufeffuser,item\nü,a\n".encode("utf-16-le"), encoding="utf-16-le").users.to_list() == ["ü"]


def test_a_folder_is_its_files_in_order_of_name(tmp_path):
    (tmp_path / "2.csv").write_text("item,user\nb,u\n")
    (tmp_path / "1.tsv").write_text("user\titem\nv\ta\n")
    (tmp_path / "_SUCCESS").write_text("")
    pq.write_table(pa.table({"user": ["w"], "item": ["c"]}), tmp_path / "3.parquet")
    for source in (tmp_path, [tmp_path / "1.tsv", tmp_path / "2.csv", tmp_path / "3.parquet"]):
        found = read_interactions(source)
        assert [found.users.to_list()[user] for user in found.user[np.argsort(found.row)]] == ["v", "u", "w"]
        assert found.ledger.read == 3


def test_a_file_without_the_header_of_the_others_is_refused(tmp_path):
    (tmp_path / "1.csv").write_text("item,user\n1,2\n")
    (tmp_path / "2.csv").write_text("3,4\n")
    with pytest.raises(DataError, match=r"header in all.*2\.csv"):
        read_interactions(tmp_path)


def write_partitions(folder: Path, *names: str) -> Path:
    """A Parquet file in each of the folders, in which the user u took one item: a, b, ... in this order."""
    for name, item in zip(names, "abcdef", strict=False):
        (folder / name).mkdir(parents=True)
        pq.write_table(pa.table({"user_id": ["u"], "item_id": [item]}), folder / name / "part-0.parquet")
    return folder


def test_partitions_are_read_in_order_whatever_divides_them(tmp_path):
    write_partitions(tmp_path / "days", "date=2026-01-02", "date=2026-01-01", "_temporary/0")
    write_partitions(tmp_path / "years", "2025/12/31", "2026/01/01")
    (tmp_path / "days" / "_SUCCESS").touch()
    assert read_interactions(tmp_path / "days").row.tolist() == [1, 0]  # a is of the second day
    assert read_interactions(tmp_path / "years").row.tolist() == [0, 1]
    assert read_interactions(tmp_path / "days").timestamp is None  # a column that is not named


@pytest.mark.parametrize("days", [("date=2026-01-01", "date=2026-01-02"), ("date=20260101", "date=20260102")])
def test_a_partition_is_a_column_for_who_names_it(days, tmp_path):
    found = read_interactions(write_partitions(tmp_path, *days), ReadingOptions(timestamp_column="date"))
    assert found.timestamp.astype("datetime64[ms]").astype(str).tolist() == [
        "2026-01-01T00:00:00.000",
        "2026-01-02T00:00:00.000",
    ]


def test_partitions_may_be_ids_ratings_and_epochs(tmp_path):
    folder = write_partitions(tmp_path, "shop=Z%C3%BCrich/stars=4/at=1700000000", "shop=b/stars=2.5/at=1700000001")
    found = read_interactions(folder, ReadingOptions(user_column="shop", rating_column="stars", timestamp_column="at"))
    assert cells(found) == {("Zürich", "a"): 4.0, ("b", "b"): 2.5}
    assert found.timestamp.tolist() == [1_700_000_000_000, 1_700_000_001_000]


def test_the_partition_without_a_value_is_a_missing_cell(tmp_path):
    folder = write_partitions(tmp_path, "stars=5", "stars=__HIVE_DEFAULT_PARTITION__")
    found = read_interactions(folder, ReadingOptions(rating_column="stars"))
    assert cells(found) == {("u", "a"): 5.0}
    assert dict(found.ledger.rejected) == {"missing rating": 1}


def test_a_row_left_out_is_named_with_its_partition(tmp_path):
    folder = write_partitions(tmp_path / "in", "2026/01", "2026/02")
    pq.write_table(pa.table({"user_id": [""], "item_id": ["a"]}), folder / "2026" / "02" / "part-0.parquet")
    read_interactions(folder, ReadingOptions(rejects=tmp_path / "rejects.csv"))
    assert (tmp_path / "rejects.csv").read_text().splitlines()[1].startswith("2026/02/part-0.parquet,1,missing user id")


@pytest.mark.parametrize("name", ["at=2026", "at=soon"])
def test_a_partition_that_is_no_time_is_refused_as_one(name, tmp_path):
    with pytest.raises(DataError, match=r"a date \(2026-01-31\) or an epoch after at="):
        read_interactions(write_partitions(tmp_path, name), ReadingOptions(timestamp_column="at"))


def test_a_folder_within_a_folder_is_not_passed_over(tmp_path):
    (tmp_path / "1.csv").write_text("user,item\n1,2\n")
    (tmp_path / "more").mkdir()
    with pytest.raises(DataError, match="the folder more"):
        read_interactions(tmp_path)


def test_files_that_differ_in_kind_are_refused(tmp_path):
    (tmp_path / "1.csv").write_text("user,item,rating\nu,a,1\n")
    (tmp_path / "2.csv").write_text("user,item\nu,b\n")
    with pytest.raises(DataError, match=r"2\.csv to differ"):
        read_interactions(tmp_path)
    pq.write_table(pa.table({"user": [1], "item": [2], "rating": [3.0]}), tmp_path / "2.csv")
    with pytest.raises(DataError, match="text in some and integers in others"):
        read_interactions(tmp_path)
