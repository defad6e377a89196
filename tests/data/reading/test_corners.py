"""What public bug reports and adversaries bring: each is read right or refused by its name, and never a traceback."""

from __future__ import annotations

import encodings.aliases
import uuid
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reading_case import cells, read

from recsys.data.reading import ReadingOptions, read_interactions, read_titles
from recsys.data.reading.hints import hints
from recsys.data.reading.id_files import read_columns, read_ids
from recsys.data.reading.layout import find_layout
from recsys.data.reading.rows import Account
from recsys.errors import ConfigError, DataError, RecsysError

GOOD = "user,item,rating\nu,a,5\nv,b,4\n"


@pytest.mark.parametrize(
    ("rating", "advice"),
    [
        ("4,000", "write 4000, without"),
        ("1,234,567.5", "write 1234567.5, without"),
        ("4'000", "write 4000, without"),
        ("4 000", "write 4000, without"),
        ("4.000,5", "write 4000.5"),
        ("4,5", "write a point"),
    ],
)
def test_advice_on_numbers_never_changes_their_value(tmp_path, rating, advice):
    with pytest.raises(DataError, match=advice):
        read(tmp_path, f'user,item,rating\nu,a,"{rating}"\n', on_bad_row="fail")


@pytest.mark.parametrize("text", ['u,"a\nb",5\n', '"u\r\nv",a,5\n', 'u,a,"5\n"\n', 'u,"a\n\nb",5\n'])
def test_a_quoted_line_break_in_a_column_that_is_read_is_rejected_by_its_name(tmp_path, text):
    found = read(tmp_path, "user,item,rating\n" + text + "w,c,3\n")
    assert cells(found) == {("w", "c"): 3}
    assert dict(found.ledger.rejected) == {"line break in an id, rating or time": 1}
    assert found.row[0] == 1 + text.count("\n")  # line numbers stay true


def test_a_byte_order_mark_between_files_is_no_part_of_an_id(tmp_path):
    mark = b"\xef\xbb\xbf"
    parts = [b"user,item,rating\nu,a,5\n", b"user,item,rating\nu,b,4\n", b"v,a,3\n"]
    found = read(tmp_path, b"".join(mark + part for part in parts))
    assert cells(found) == {("u", "a"): 5, ("u", "b"): 4, ("v", "a"): 3}
    assert dict(found.ledger.rejected) == {"repeated header": 1}
    again = read(tmp_path, "\ufeffuser,item\nu,a\n\ufeffv,b\n".encode("utf-16-le"), encoding="utf-16-le")
    assert again.users.to_list() == ["u", "v"]


@pytest.mark.parametrize("name", [*sorted(set(encodings.aliases.aliases.values())), "a\0b", "", "x" * 999, "undefined"])
def test_every_codec_reads_or_is_refused(tmp_path, name):
    (tmp_path / "r.csv").write_text(GOOD)
    try:
        assert len(read_interactions(tmp_path / "r.csv", ReadingOptions(encoding=name))) > 0
    except RecsysError as error:
        assert "encoding" in str(error) or "Expected" in str(error)


@pytest.mark.parametrize("name", ["base64", "hex", "rot13", "zlib", "bz2", "uu", "quopri", "idna", "unicode_escape"])
def test_codecs_that_are_no_text_encodings_are_refused_at_once(name):
    with pytest.raises(ConfigError, match="text encoding"):
        ReadingOptions(encoding=name)


def test_a_nul_in_a_name_is_refused(tmp_path):
    (tmp_path / "r.csv").write_text(GOOD)
    with pytest.raises(DataError, match="nothing at"):
        read_interactions("a\0b")
    with pytest.raises(ConfigError, match="path without NUL"):
        read_interactions(tmp_path / "r.csv", ReadingOptions(rejects=Path("a\0b")))
    with pytest.raises(DataError, match="the column"):
        read_interactions(tmp_path / "r.csv", ReadingOptions(item_column="a\0b"))


@pytest.mark.parametrize(
    "ids",
    [
        [10**25, 1],
        [b"a", b"b"],
        [Decimal(1), Decimal(2)],
        [1.0, 2.0],
        [1, "a"],
        [True, False],
        [uuid.uuid4(), uuid.uuid4()],
        pd.to_datetime(["2020", "2021"]),
        pd.to_datetime(["2020", "2021"], utc=True),
        pd.to_timedelta([1, 2], unit="D"),
        pd.period_range("2020", periods=2),
        pd.interval_range(0, 2),
        pd.arrays.SparseArray([1, 0]),
        [1j, 2j],
        [{1: 2}, {2: 3}],
        [(1, 2), (3, 4)],
    ],
)
def test_ids_of_other_types_in_a_data_frame_are_refused_with_what_to_do(ids):
    with pytest.raises(DataError, match="Cast"):
        read_interactions(pd.DataFrame({"user": ids, "item": ["a", "b"]}))


@pytest.mark.parametrize(
    ("ratings", "values"),
    [
        ([True, False], [1, 0]),
        (pd.array([True, None], "boolean"), [1]),
        ([Decimal("1.5"), None], [1.5]),
        (pd.array([3, None], "Int8"), [3]),
        (pd.Categorical([1, 2]), [1, 2]),
        ([10**25, 1], [np.float32(1e25), 1]),
        ([1e300, 1], [1]),
        ([1e-7, 1e30], [np.float32(1e-7), np.float32(1e30)]),
    ],
)
def test_ratings_of_every_numeric_type_are_read(ratings, values):
    found = read_interactions(pd.DataFrame({"user": [1, 2], "item": ["a", "b"], "rating": ratings}))
    assert found.rating.tolist() == values
    assert hints(found)


@pytest.mark.parametrize("source", [None, 5, b"r.csv", [("u", "a")], pa.table({"user": ["u"], "item": ["a"]})])
def test_a_source_of_another_type_is_refused(source):
    with pytest.raises(DataError, match="Expected a path, a list of paths or a pandas DataFrame"):
        read_interactions(source)


def test_an_empty_data_frame_is_refused():
    with pytest.raises(DataError, match="found none"):
        read_interactions(pd.DataFrame({"user": [], "item": []}))


@pytest.mark.parametrize("words", [("True", "False"), ("true", "false"), ("TRUE", "FALSE")])
@pytest.mark.parametrize("name", ["rating", "liked", "recommended"])
def test_true_and_false_are_ratings_of_one_and_zero(tmp_path, words, name):
    yes, no = words
    text = f"user,item,{name}\nu,a,{yes}\nu,b,{no}\nv,a,{yes}\n"
    assert cells(read(tmp_path, text)) == {("u", "a"): 1, ("u", "b"): 0, ("v", "a"): 1}
    assert dict(read(tmp_path, text + "v,b,yes\n").ledger.rejected) == {"non-numeric rating": 1}
    frame = pd.DataFrame({"user": ["u", "u", "v"], "item": ["a", "b", "a"], name: [True, False, True]})
    assert cells(read_interactions(frame)) == {("u", "a"): 1, ("u", "b"): 0, ("v", "a"): 1}


def test_a_column_of_second_choice_gives_way_to_a_rating(tmp_path):
    assert cells(read(tmp_path, "user,item,label,rating\nu,a,0,5\n")) == {("u", "a"): 5}


@pytest.mark.parametrize("stray", ["five", ""])
def test_one_stray_below_it_does_not_make_a_row_of_a_header_of_unknown_names(stray):
    rows = [f"u{number};i{number % 7};{number % 5}" for number in range(30)]
    lines = ["Customer;Product Code;stars", *rows, f"u1;i9;{stray}"]
    options = ReadingOptions(user_column="1", item_column="2")
    assert find_layout(lines, ReadingOptions(user_column="Customer", item_column="Product Code"), "f").header
    with pytest.raises(
        DataError, match="Expected a column of user ids in f, found the columns 'Customer', 'Product Code'"
    ):
        find_layout(lines, ReadingOptions(), "f")
    rows[0] = "u0;i0;four"  # a row with digits is no header, whatever its rating
    assert not find_layout([*rows, "u1;i9;five"], options, "f").header


@pytest.mark.parametrize("date", ["2024-01-0{}", "0{}.01.2024 10:00"])
def test_unknown_names_above_dates_are_a_header(date):
    rows = [f"ann;cup;{date.format(day)}" for day in range(1, 10)]
    named = ReadingOptions(user_column="Buyer", item_column="Article", timestamp_column="none")
    assert find_layout(["Buyer;Article;When", *rows], named, "f").header
    with pytest.raises(DataError, match="Buyer"):  # names to choose from, and no row of a rating "When"
        find_layout(["Buyer;Article;When", *rows], ReadingOptions(), "f")
    assert not find_layout(rows, ReadingOptions(user_column="1", item_column="2", timestamp_column="none"), "f").header


def test_headers_of_recbole_are_known(tmp_path):
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    found = read(tmp_path, header + "\n1\t2\t3.5\t978300000\n")
    assert (cells(found), found.timestamp.tolist()) == ({("1", "2"): 3.5}, [978300000000])
    assert cells(read(tmp_path, "user_id:token\titem_id_list:token_seq\titem_id:token\nu\ta b\tc\n")) == {
        ("u", "c"): None
    }


def test_adjacency_lines_are_a_user_and_all_of_its_items(tmp_path):
    found = read(tmp_path, "0 10 11 12\n1 10 13\n2 11 14 15 16 17\n3\n4 \n")
    assert set(cells(found)) == {("0", i) for i in ("10", "11", "12")} | {("1", "10"), ("1", "13")} | {
        ("2", i) for i in ("11", "14", "15", "16", "17")
    }
    assert found.ledger.line() == "rows read 10 = kept 10"
    assert found.row.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 2, 2]


def test_rare_items_of_adjacency_lines_are_kept_aside_as_seen(tmp_path):
    found = read(tmp_path, "0 10 11 12\n1 10 13\n2 11 14 15 16 17\n", min_item_users=2)
    assert set(cells(found)) == {("0", "10"), ("0", "11"), ("1", "10"), ("2", "11")}
    assert len(found.seen_only) == 6


def test_blank_separated_ratings_are_no_adjacency_lines(tmp_path):
    assert cells(read(tmp_path, "1 10 5\n2 10 4\n3 11 3\n1 12\n")) == {("1", "10"): 5, ("2", "10"): 4, ("3", "11"): 3}


@pytest.mark.parametrize("first", ["sep=;\r\n", "SEP=;\n", '"sep=;"\n', "\ufeffsep=;\n"])
def test_the_separator_line_of_spreadsheets_is_obeyed(tmp_path, first):
    assert cells(read(tmp_path, first + "user;item;rating\nu;a,b;4\n")) == {("u", "a,b"): 4}
    found = read(tmp_path, first + "1;2;4\n3;4;5\n")
    assert (cells(found), found.row.tolist()) == ({("1", "2"): 4, ("3", "4"): 5}, [1, 2])


POINTERS = [
    ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git lfs pull"),
    ("/annex/objects/MD5E-s5--0.csv\n", "git annex get"),
    ("<!DOCTYPE html>\n<html></html>\n", "web page"),
]


@pytest.mark.parametrize(("text", "words"), POINTERS)
def test_what_stands_in_place_of_the_data_is_refused_by_its_name(tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        read(tmp_path, text)
    with pytest.raises(DataError, match=words):
        read_titles(tmp_path / "ratings.csv")
    with pytest.raises(DataError, match=words):
        read_ids(tmp_path / "ratings.csv", "item")


def test_which_columns_are_read_is_known_for_every_source(tmp_path):
    line = "columns read: user = userId, item = movieId, rating = rating; not read: title, year"
    text = "userId,title,movieId,rating,year\n1,x,2,3,1999\n"
    assert read(tmp_path, text).columns.line() == line
    frame = pd.read_csv(tmp_path / "ratings.csv")
    assert read_interactions(frame).columns.line() == line
    frame.to_parquet(tmp_path / "r.parquet")
    assert read_interactions(tmp_path / "r.parquet").columns.line() == line
    assert read(tmp_path, "1,2,3\n4,5,6\n").columns.line() == "columns read: user = 1, item = 2, rating = 3"


def test_tables_of_ids_are_validated(tmp_path):
    pq.write_table(pa.table({"item_id": ["a", None]}), tmp_path / "r.parquet")
    with pytest.raises(DataError, match="every row"):
        read_ids(tmp_path / "r.parquet", "item")
    pq.write_table(pa.table({"item_id": [1.5], "x": [1.5]}), tmp_path / "r.parquet")
    with pytest.raises(DataError, match="Cast"):
        read_ids(tmp_path / "r.parquet", "item")
    pq.write_table(pa.table({"item_id": ["a"], "x": [1.5]}), tmp_path / "r.parquet")
    assert read_ids(tmp_path / "r.parquet", "item").to_list() == ["a"]
    (tmp_path / "r.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="damaged"):
        read_ids(tmp_path / "r.parquet", "item")
    (tmp_path / "r.csv").write_bytes(b"caf\xe9\n")
    with pytest.raises(DataError, match="UTF-8"):
        read_columns(tmp_path / "r.csv", "item", 1)


def test_damage_in_the_names_and_in_the_texts_of_parquet_is_refused(tmp_path):
    pq.write_table(pa.table({"user": ["u", "v"], "item": ["a", "b"]}), tmp_path / "r.parquet", compression="none")
    whole = (tmp_path / "r.parquet").read_bytes()
    for name in (b"user", b"item"):
        (tmp_path / "r.parquet").write_bytes(whole.replace(name, b"\xb2" + name[1:]))
        with pytest.raises(DataError, match="Parquet"):
            read_interactions(tmp_path / "r.parquet")
    ids = pa.array([b"\xff", b"u"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"user": ids, "item": ["a", "b"]}), tmp_path / "r.parquet")
    with pytest.raises(DataError, match="UTF-8"):
        read_interactions(tmp_path / "r.parquet")


@pytest.mark.parametrize("values", [[10**400, 1], [10**25, "x"]])
def test_numbers_of_a_frame_that_no_float_holds_are_refused(values):
    frame = pd.DataFrame({"user_id": ["a", "b"], "item_id": ["x", "y"], "rating": pd.Series(values, dtype=object)})
    with pytest.raises(DataError, match="Expected numbers in the column 'rating'"):
        read_interactions(frame)


def test_the_rejects_file_appears_whole_or_not_at_all(tmp_path):
    ratings, rejects = tmp_path / "ratings.csv", tmp_path / "rejects.csv"
    ratings.write_text("user_id,item_id,rating\nu,a,5\nv,b,x\n")
    rejects.write_text("earlier\n")
    options = ReadingOptions(rejects=rejects)
    with pytest.raises(KeyboardInterrupt), Account(options):
        raise KeyboardInterrupt
    assert rejects.read_text() == "earlier\n"
    read_interactions(ratings, options)
    assert len(rejects.read_text().splitlines()) == 2
    ratings.write_text("user_id,item_id,rating\nu,a,x\nv,b,x\n")
    with pytest.raises(DataError, match="Expected usable rows"):
        read_interactions(ratings, ReadingOptions(rejects=rejects, user_column="user_id"))
    assert len(rejects.read_text().splitlines()) == 3  # why nothing is left
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ratings.csv", "rejects.csv"]


def test_comment_lines_at_the_top_are_skipped_and_line_numbers_stay_true(tmp_path):
    file = tmp_path / "ratings.csv"
    file.write_bytes("\ufeff# made by the shop\r\n# on Friday, at noon\r\nuser;item\r\na;x\r\n;y\r\n".encode())
    found = read_interactions(file, ReadingOptions(rejects=tmp_path / "rejects.csv"))
    assert (found.users.to_list(), found.items.to_list(), found.ledger.read) == (["a"], ["x"], 2)
    assert "ratings.csv,5,missing user id" in (tmp_path / "rejects.csv").read_text()
    file.write_text("# no header\n1,2\n3,4\n")
    assert read_interactions(file).users.to_list() == ["1", "3"]


@pytest.mark.parametrize("text", ["#1,x\nb,y\n", "# u\n#1,x\nb,y\n"])
def test_a_user_that_begins_with_a_hash_sign_is_no_comment(tmp_path, text):
    (tmp_path / "ratings.csv").write_text(text)
    found = read_interactions(tmp_path / "ratings.csv", ReadingOptions(header=False))
    assert found.users.to_list() == ["#1", "b"]
