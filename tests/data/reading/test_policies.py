"""Duplicates, thresholds and the account of rejected rows."""

from __future__ import annotations

import csv

import pytest
from reading_case import cells, read

from recsys.data.matrix import UserItemMatrix
from recsys.data.reading import ReadingOptions, read_interactions
from recsys.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("policy", "rating", "time"),
    [("last", 1, 30), ("first", 5, 10), ("mean", 3, 30), ("max", 5, 30), ("sum", 9, 30)],
)
def test_duplicates_by_policy_and_time(tmp_path, policy, rating, time):
    found = read(tmp_path, "user,item,rating,time\nu,a,1,30\nu,a,5,10\nu,b,2,1\nu,a,3,20\n", duplicates=policy)
    assert cells(found) == {("u", "a"): rating, ("u", "b"): 2}
    assert found.timestamp[0] == time * 1000
    assert found.ledger.kept == 2
    assert sum(found.ledger.rejected.values()) == 2


def test_without_times_the_last_row_counts(tmp_path):
    assert cells(read(tmp_path, "user,item,rating\nu,a,5\nu,a,1\n"))["u", "a"] == 1
    assert cells(read(tmp_path, "user,item,rating\nu,a,5\nu,a,1\n", duplicates="first"))["u", "a"] == 5


def test_real_zeros_and_negative_ratings_survive_into_the_matrix(tmp_path):
    found = read(tmp_path, "user,item,rating\nu,a,0\nu,b,-7.5\nv,a,2\n")
    matrix = UserItemMatrix.from_interactions(found, ratings=True).matrix
    assert matrix.nnz == 3
    assert matrix.data.tolist() == [0, -7.5, 2]


def test_the_core_is_cut_until_both_minima_hold(tmp_path):
    rows = ["u,a", "u,b", "v,a", "v,b", "w,b", "w,c"]  # c has one user; without c, w has one item
    found = read(tmp_path, "user,item\n" + "\n".join(rows), min_user_items=2, min_item_users=2)
    assert set(cells(found)) == {("u", "a"), ("u", "b"), ("v", "a"), ("v", "b")}
    assert found.items.to_list() == ["a", "b"]
    assert found.ledger.rejected == {"item below min_item_users": 1, "user below min_user_items": 1}


def test_rejected_rows_are_written_with_file_line_reason_and_text(tmp_path):
    text = "user,item,rating\nu,a,5\n\nbroken\nu,a,4\nv,b,1\nw,,3\nx,c,3\n"
    read(tmp_path, text, rejects=tmp_path / "out.csv", min_rating=3)
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["file", "line", "reason", "row"]
    assert sorted(tuple(row[1:]) for row in rows[1:]) == [
        ("2", "duplicate (last kept)", "u,a,5.0"),
        ("4", "unparsable line", "broken"),
        ("6", "below min_rating", "v,b,1.0"),
        ("7", "missing item id", "w,,3"),
    ]


def test_rejected_rows_never_go_over_the_ratings(tmp_path):
    with pytest.raises(ConfigError, match="the ratings themselves"):
        read(tmp_path, "user,item\nu,a\n", rejects=tmp_path / "." / "ratings.csv")
    assert (tmp_path / "ratings.csv").read_text() == "user,item\nu,a\n"
    with pytest.raises(DataError, match="nothing at"):
        read_interactions(tmp_path / "no.csv", ReadingOptions(rejects=tmp_path / "out.csv"))
    assert not (tmp_path / "out.csv").exists()


def test_a_second_file_of_a_job_has_its_own_file_of_rejected_rows(tmp_path):
    options = ReadingOptions(rejects=tmp_path / "out.csv")
    for name, lines, used in (("train", "u,a\nlost\n", options), ("test", "u,b\ngone\n", options.beside("test"))):
        (tmp_path / name).write_text("user,item\n" + lines)
        read_interactions(tmp_path / name, used)
    assert "lost" in (tmp_path / "out.csv").read_text()
    assert "gone" in (tmp_path / "out-test.csv").read_text()
    assert ReadingOptions().beside("test") == ReadingOptions()


def test_lines_are_counted_in_their_own_file(tmp_path):
    (tmp_path / "1.csv").write_text("user,item\nu,a\n")
    (tmp_path / "2.csv").write_text("user,item\nv,b\nbad\n")
    with pytest.raises(DataError, match=r"line 3 of 2\.csv"):
        read_interactions(tmp_path, ReadingOptions(on_bad_row="fail"))


@pytest.mark.parametrize(
    "wrong", [{"min_user_items": -1}, {"min_rating": float("inf")}, {"duplicates": "any"}, {"encoding": "x"}]
)
def test_options_refuse_nonsense_at_once(wrong):
    with pytest.raises(ConfigError, match="xpected"):
        ReadingOptions(**wrong)
