from __future__ import annotations

import csv
import gzip
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from paths import SHARED

from pipelines.cli.main import main
from recsys.data.matrix import UserItemMatrix
from recsys.data.reading import ReadingOptions, assembly, delimited, read_interactions, text_layout
from recsys.data.reading.layout import Columns, Layout
from recsys.errors import ConfigError, DataError


def read(path, text: str | bytes, **options):
    path = path / "ratings.csv" if path.is_dir() else path
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_interactions(path, ReadingOptions(**options))


def cells(found) -> dict:
    """{(user id, item id): rating} of interactions."""
    users, items = found.users.take(found.user).to_pylist(), found.items.take(found.item).to_pylist()
    ratings = [None] * len(found) if found.rating is None else found.rating.tolist()
    return dict(zip(zip(users, items, strict=True), ratings, strict=True))


# ids


@pytest.mark.parametrize(
    "name",
    ["007", "9007199254740993", "NA", "null", "None", "nan", "1e5", "-0", "True", "жук", "🦊", " x ", "a'b", "="],
)
def test_ids_come_back_exactly_as_they_went_in(tmp_path, name):
    found = read(tmp_path, f"user_id,item_id\n{name},{name}\nother,thing\n")
    assert found.users.to_list() == [name, "other"]
    assert found.items.to_list() == [name, "thing"]


def test_ids_may_hold_quotes_and_separators_where_quoted(tmp_path):
    found = read(tmp_path, 'user_id,item_id\n"a,b","say ""hi"""\nc,5" pipe\n')
    assert found.users.to_list() == ["a,b", "c"]
    assert found.items.to_list() == ['say "hi"', '5" pipe']


@pytest.mark.parametrize("kind", [pa.int32(), pa.int64(), pa.uint64(), pa.string(), pa.large_string()])
def test_parquet_keeps_the_type_of_ids(tmp_path, kind):
    ids = pa.array([2**31 - 1, 7], pa.int64()).cast(kind)
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


# formats


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


def test_columns_may_stand_anywhere_and_be_told(tmp_path):
    text = "when,who,what,how\n5,u,a,2\n"
    told = {"user_column": "who", "item_column": "what", "rating_column": "how", "timestamp_column": "when"}
    found = read(tmp_path, text, **told)
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
        assert found.users.to_list() == ["v", "u", "w"]
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
    assert read_interactions(tmp_path / "days").items.ids.to_pylist() == ["b", "a"]
    assert read_interactions(tmp_path / "years").items.ids.to_pylist() == ["a", "b"]
    assert read_interactions(tmp_path / "days").timestamp is None  # a column that nobody named


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


# times


@pytest.mark.parametrize(
    "text",
    [
        *("1425211200", "1425211200000", "1425211200000000", "1425211200000000000", "1425211200.0", "1.4252112e9"),
        *("2015-03-01 12:00:00", "2015-03-01T12:00:00", "2015-03-01T12:00:00Z", "2015-03-01T14:00:00.000+02:00"),
    ],
)
def test_times_become_milliseconds_whatever_they_are_written_in(tmp_path, text):
    found = read(tmp_path, f"user;item;timestamp\nu;a;{text}\nv;b;{text}\n")
    assert found.timestamp.tolist() == [1425211200000] * 2
    assert np.datetime64(1425211200000, "ms") == np.datetime64("2015-03-01T12:00")


@pytest.mark.parametrize("kind", [pa.duration("s"), pa.time32("s"), pa.string()])
def test_times_of_parquet_that_are_no_dates_are_refused_by_their_type(tmp_path, kind):
    times = pa.array(["2020-01-01" if kind == pa.string() else 5], kind)
    pq.write_table(pa.table({"user_id": ["u"], "item_id": ["a"], "timestamp": times}), tmp_path / "r.parquet")
    with pytest.raises(DataError, match="Expected numbers, dates or timestamps as times"):
        read_interactions(tmp_path / "r.parquet")


def test_days_and_times_of_parquet_and_frames_are_read(tmp_path):
    when = pd.Timestamp("2015-03-01 12:00")
    frame = pd.DataFrame({"user": [1], "item": [1], "timestamp": [when]})
    assert read_interactions(frame).timestamp.tolist() == [1425211200000]
    frame["timestamp"] = frame["timestamp"].dt.tz_localize("Europe/Berlin")
    assert read_interactions(frame).timestamp.tolist() == [1425211200000 - 3_600_000]
    pq.write_table(pa.table({"user": [1], "item": [1], "date": [when.date()]}), tmp_path / "r.parquet")
    assert read_interactions(tmp_path / "r.parquet").timestamp.tolist() == [1425211200000 - 43_200_000]


# duplicates, thresholds


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
    for name, lines, told in (("train", "u,a\nlost\n", options), ("test", "u,b\ngone\n", options.beside("test"))):
        (tmp_path / name).write_text("user,item\n" + lines)
        read_interactions(tmp_path / name, told)
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


# the property: reading equals a slow, obvious reference

IDS = st.one_of(
    st.sampled_from(["1", "2", "03", "NA", "x"]),
    st.text(st.sampled_from("ab1 ,;|\t:\"'é€🦊\u2003N"), min_size=1, max_size=5).filter(lambda name: name.strip()),
)
RATINGS = st.sampled_from(["1", "2.5", "-3", "0", " 4", "4.0"])
BAD = st.sampled_from(["", "x", "inf", "NaN", "1_0", "1,5,2", "0x1F"])
ROWS = st.lists(
    st.tuples(IDS, IDS, st.one_of(RATINGS, RATINGS, RATINGS, BAD), st.integers(0, 5)), min_size=1, max_size=40
)
JUNK = st.lists(st.tuples(st.integers(0, 39), st.sampled_from(["", "junk", 'u,"a,3,1', "a,b,c,d,e,f"])), max_size=4)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example([("u", '"', "1", 0), ("u", '"', "2", 0)], [(1, 'u,"a,3,1')], ",", "\n", True, True, "last", True, 1, 1)
@given(
    rows=ROWS,
    junk=JUNK,
    separator=st.sampled_from([",", ";", "\t", "|", "::"]),
    end=st.sampled_from(["\n", "\r\n"]),
    closed=st.booleans(),
    quoted=st.booleans(),
    policy=st.sampled_from(["last", "first", "mean", "max", "sum"]),
    timed=st.booleans(),
    least=st.sampled_from([0, 1, 2]),
    few=st.sampled_from([1, 3, 256]),
)
def test_reading_equals_a_slow_obvious_reference(
    tmp_path, monkeypatch, rows, junk, separator, end, closed, quoted, policy, timed, least, few
):
    with monkeypatch.context() as patch:
        patch.setattr(delimited, "FEW_LINES", few)
        patch.setattr(delimited, "BLOCK", 64 * few)
        names = ["user_id", "item_id", "rating", *(["timestamp"] if timed else [])]
        table = [[*row[:3], *([str(row[3])] if timed else [])] for row in rows]
        lines = [separator.join(quote(cell, separator, quoted) for cell in row) for row in [names, *table]]
        for place, line in junk:
            lines.insert(1 + place % len(lines), line)
        path = tmp_path / "ratings.csv"
        path.write_bytes((end.join(lines) + (end if closed else "")).encode())
        options = ReadingOptions(separator=separator, header=True, duplicates=policy, min_user_items=least)
        expected, counts, users = reference(lines[1:], separator, len(names), policy, least)
        if not expected:
            with pytest.raises(DataError, match=r"found none|only the header"):
                read_interactions(path, options)
            return
        found = read_interactions(path, options)
    assert cells(found) == pytest.approx(expected)
    assert found.users.to_list() == users
    assert {"read": found.ledger.read, **found.ledger.rejected} == counts
    assert found.ledger.kept == len(found) == len(expected)
    matrix = UserItemMatrix.from_interactions(found, ratings=True)
    assert matrix.matrix.nnz == len(expected)
    for (user, item), rating in expected.items():
        position = matrix.users.positions([user])[0], matrix.items.positions([item])[0]
        assert matrix.matrix[position] == pytest.approx(rating)


def quote(cell: str, separator: str, always: bool) -> str:
    if separator == "::":
        return cell.replace(":", "")  # it knows no quotes
    if always or separator in cell or '"' in cell:
        return '"' + cell.replace('"', '""') + '"'
    return cell


def fields_of(line: str, separator: str) -> list[str] | None:
    """The fields of a line, sign by sign."""
    if len(separator) > 1:
        return line.split(separator)
    fields, field, place, inside = [], "", 0, False
    while place < len(line):
        if inside and line.startswith('""', place):
            field, place = field + '"', place + 2
        elif inside and line[place] == '"':
            inside, place = False, place + 1
        elif not inside and line[place] == '"' and field == "":
            inside, place = True, place + 1
        elif not inside and line.startswith(separator, place):
            fields, field, place = [*fields, field], "", place + len(separator)
        else:
            field, place = field + line[place], place + 1
    return None if inside or "\0" in line else [*fields, field]


def reference(lines, separator, width, policy, least):
    """({(user, item): rating}, counts by reason, users in order): rows one by one, in plain Python."""
    counts: dict[str, int] = defaultdict(int)
    pairs: dict[tuple[str, str], list] = defaultdict(list)
    for line in lines:
        if not line.strip(" "):
            continue
        counts["read"] += 1
        fields = fields_of(line, separator)
        reason = why_bad(fields, width)
        if reason:
            counts[reason] += 1
        else:
            pairs[fields[0], fields[1]].append((int(fields[3]) if width > 3 else 0, float(fields[2])))
    values = {}
    for pair, rows in pairs.items():
        in_time = [rating for _, rating in sorted(rows, key=lambda row: row[0])]
        fold = {
            "last": lambda r: r[-1],
            "first": lambda r: r[0],
            "mean": lambda r: sum(r) / len(r),
            "max": max,
            "sum": sum,
        }
        values[pair] = fold[policy](in_time)
        if len(rows) > 1:
            how = "kept" if policy in ("first", "last") else "taken"
            counts[f"duplicate ({policy} {how})"] += len(rows) - 1
    sizes = {user: sum(pair[0] == user for pair in values) for user, _ in values}
    kept = {pair: rating for pair, rating in values.items() if sizes[pair[0]] >= least}
    if len(kept) < len(values):
        counts["user below min_user_items"] = len(values) - len(kept)
    return kept, dict(counts), list(dict.fromkeys(user for user, _ in kept))


def why_bad(fields, width):
    if fields is None or len(fields) != width:
        return "unparsable line"
    if not fields[0].strip() or not fields[1].strip():
        return "missing user id" if not fields[0].strip() else "missing item id"
    text = fields[2].strip()
    if text in ("", "NaN"):
        return "missing rating"
    if text == "inf":
        return "infinite rating"
    if text in ("x", "1_0", "1,5,2", "0x1F"):
        return "non-numeric rating"
    if width > 3 and not fields[3].strip().isdecimal():
        return "missing or unreadable timestamp"
    return None


# the fast way for whole numbers

PLAIN = ["0", "7", "42", "138493", "1000000", "9223372036854775807"]
ODD = ["007", "00", "-7", "-0", "+7", " 7", "7 ", '"7"', "0xF4240", "0x7", "9223372036854775808", "1e3", "", "a", "7.0"]
NUMBERS = st.one_of(st.sampled_from(PLAIN), st.sampled_from(PLAIN), st.sampled_from(PLAIN), st.sampled_from(ODD))
NUMBERED = Layout(",", False, ("1", "2", "3", "4"), Columns(0, 1, 2, 3), numbered=True)


def flat(pieces) -> list:
    """Rows of all pieces: number, user, item, rating, time; and what was rejected."""
    rows, start = [], 0
    for piece in pieces:
        places = range(piece.length) if piece.row is None else piece.row.tolist()
        numbers = [start + place for place in places]
        columns = [piece.user.to_pylist(), piece.item.to_pylist(), piece.rating.tolist(), piece.timestamp.tolist()]
        rows += [*zip(numbers, *columns, strict=True)]
        rows += [(start + reject.row, reject.reason, reject.text) for reject in piece.rejects]
        start += piece.length
    return rows


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example([("0x3B9ACA00", "7", "3", "9")], "\n", 1)
@example([("0xF4240", "7", '"3"', "9")], "\n", 1)
@example([("007", "7", "3", '"9')], "\n", 1)
@given(
    rows=st.lists(
        st.tuples(
            NUMBERS,
            NUMBERS,
            st.sampled_from(["1", "2.5", "4.50", " 4", '"3"', "1e1", "-2", "nan", "x"]),
            st.sampled_from(["9", "10", "99", "1000000000", "-5", "010", " 9", '"9"', "0x65000000"]),
        ),
        min_size=1,
        max_size=8,
    ),
    end=st.sampled_from(["\n", "\r\n", "\n\n"]),
    few=st.sampled_from([1, 256]),
)
def test_whole_numbers_are_read_as_text_is(monkeypatch, rows, end, few):
    block = "".join(",".join(row) + end for row in rows).encode()
    with monkeypatch.context() as patch:
        patch.setattr(delimited, "FEW_LINES", few)
        assert flat(delimited.parse(block, NUMBERED)) == flat(delimited.parse(block, replace(NUMBERED, numbered=False)))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_plain_whole_numbers_take_the_fast_way(end):
    lines = ["7,10,2.5,999999999", "42,7,4,1000000000", "7,0,4.50,1", "138493,9223372036854775807,0,0"]
    found = delimited._rows_with_numbers("".join(line + end for line in lines).encode(), NUMBERED)
    assert found is not None
    assert found.user.to_pylist() == ["7", "42", "7", "138493"]
    assert found.item.to_pylist() == ["10", "7", "0", "9223372036854775807"]
    assert found.rating.tolist() == [2.5, 4, 4.5, 0]
    assert found.timestamp.tolist() == [999_999_999, 1_000_000_000, 1, 0]


@pytest.mark.parametrize(
    "line",
    [
        "007,7,3,9",
        "7,+7,3,9",
        "7, 7,3,9",
        '"7",7,3,9',
        "0xF4240,7,3,9",
        "7,7,3,-9",
        '7,7,"3",9',
        "7,7,nan,9",
        "7,7,3,9\n",
    ],
)
def test_anything_else_does_not(line):
    assert delimited._rows_with_numbers(f"1,2,3,4\n{line}\n".encode(), NUMBERED) is None


@pytest.mark.parametrize(
    ("text", "numbered"), [("7,8\n9,10\n", True), ("7,08\n", False), ("7,x\n", False), ("1,2,3,4,5\n", False)]
)
def test_the_layout_says_whether_ids_are_whole_numbers(tmp_path, text, numbered):
    (tmp_path / "r.csv").write_text(text)
    assert text_layout(tmp_path / "r.csv", ReadingOptions()).numbered == numbered


def test_rows_of_many_users_are_sorted_a_few_at_a_time(monkeypatch, tmp_path):
    monkeypatch.setattr(assembly, "SEGMENT", 2)
    rows = [("u", "b"), ("u", "a"), ("u", "c"), ("v", "c"), ("w", "c"), ("w", "a"), ("w", "b"), ("x", "a")]
    text = "".join(f"{user},{item},{place}\n" for place, (user, item) in enumerate(rows))
    found = read(tmp_path, "user,item,rating\n" + text)
    assert cells(found) == {pair: place for place, pair in enumerate(rows)}
    assert found.user.tolist() == [0, 0, 0, 1, 2, 2, 2, 3]
    assert found.item.tolist() == [0, 1, 2, 2, 0, 1, 2, 1]  # in order of first appearance: b, a, c
    assert found.row.tolist() == [1, 2, 3, 4, 7, 6, 5, 8]


# real files

REAL = [
    ("ml-latest-small/ratings.csv", 610, 9_724, 100_836),
    ("ml-100k/u.data", 943, 1_682, 100_000),
    ("ml-1m/ratings.csv", 6_040, 3_706, 1_000_209),
    ("ml-1m/random-80-10-10/train.csv", 6_040, None, 791_718),
    ("ml-1m/random-90-10/test.csv", None, None, 100_020),
    ("ml-1m/leave-one-out/train.csv", 6_040, 3_704, 994_169),
    ("gowalla/train.csv", 29_858, 40_981, 810_128),
    ("filmtrust/ratings.txt", 1_508, 2_071, 35_497),
    ("amazon-musical-instruments/ratings.csv", 1_429, 900, 10_261),
    ("lastfm-hetrec2011/user_artists.dat", 1_892, 17_632, 92_834),
    ("steam-200k/game_play.dat", 11_350, 3_600, 70_489),
    ("steam-200k/game_purchase.dat", 12_393, 5_155, 129_511),
    ("jester-1/ratings.csv.gz", 24_983, 100, 1_810_455),
]


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data, which is not there")
@pytest.mark.parametrize(("name", "users", "items", "rows"), REAL, ids=[row[0] for row in REAL])
def test_real_files_are_read_without_being_told_anything(name, users, items, rows):
    found = json.loads(CliRunner().invoke(main, ["--json", "check", str(SHARED / name)]).output)
    assert found["ledger"]["read"] == rows
    assert users in (None, found["facts"]["users"])
    assert items in (None, found["facts"]["items"])
    assert set(found["ledger"]["rejected"]) <= {"duplicate (last kept)"}


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data, which is not there")
def test_the_zeros_of_jester_are_ratings():
    found = read_interactions(SHARED / "jester-1/ratings.csv.gz")
    assert (found.rating == 0).sum() == 5_383
    assert (found.scale.min, found.scale.max) == (-9.95, 10)
