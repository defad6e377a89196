"""The fast and the slow path of reading agree on any text."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reading_paths import LAYOUTS, compare_paths

from recsys.data.reading import ReadingOptions, read_interactions
from recsys.data.reading.layout import Columns, Layout

UNUSUAL = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e\x1f\ufeff\xa0\u200b"
TIMES = ["881250949", "0", "-5", "0x65", "1e9", "12.5", "", "2020-01-31", "2020-01-31 10:00:00Z", "31/12/2020", "soon"]
IDS = st.one_of(
    st.sampled_from(["1", "42", "007", "u", "0x1F", "NULL", "\\N", '"a,b"', '"a""b"', '"', "", " ", "\u2003", "ü"]),
    st.text(st.sampled_from("a1 ,;|\t:\"'" + UNUSUAL), max_size=4),
)
RATINGS = st.sampled_from(
    ["1", "2.5", " 4", "4\t", "nan", "inf", "1e39", "1e-50", "True", "false", "x", "4,5", '"3"', "0x1"]
)
ROWS = st.lists(st.tuples(IDS, IDS, RATINGS, st.sampled_from(TIMES)), min_size=1, max_size=6)


@settings(max_examples=400, deadline=None)
@given(rows=ROWS, layout=st.sampled_from(LAYOUTS), end=st.sampled_from(["\n", "\r\n", "\n\n", "\n\ufeff"]))
def test_on_rows_with_every_kind_of_cell(rows, layout, end):
    compare_paths("".join(layout.separator.join(row) + end for row in rows).encode(), layout)


@settings(max_examples=400, deadline=None)
@example(data=b"0x1,2,3,0x65", layout=LAYOUTS[0])
@example(data="a\u2028b,c\x85,3,1\n".encode(), layout=LAYOUTS[0])
@example(data=b"\x1c,a,3,1\n", layout=LAYOUTS[0])
@given(data=st.binary(max_size=60) | st.text(max_size=40).map(str.encode), layout=st.sampled_from(LAYOUTS))
def test_on_arbitrary_small_texts(data, layout):
    compare_paths(data, layout)


@settings(max_examples=200, deadline=None)
@example("2;3\n\r1;1")
@example("a;b\n\rc;d")
@example("1;2\r\n3;4\r\r\n5;6")
@given(st.text(st.sampled_from('ui15,;\t "\n\r:xN.' + UNUSUAL), max_size=60))
def test_on_texts_whose_layout_is_detected(text):
    compare_paths(text.encode())


@pytest.mark.parametrize("rows", ["2;3\n\r1;1\n", "a;b\n\rc;d\n"])
def test_a_carriage_return_before_a_row_rejects_it(rows, tmp_path):
    (tmp_path / "ratings.csv").write_text("user;item\n" + rows, newline="")
    found = read_interactions(tmp_path / "ratings.csv", ReadingOptions())
    assert len(found) == 1


@pytest.mark.parametrize("mark", "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e")
@pytest.mark.parametrize("fault", ["", "too,short\n", 'u,"open,3\n'])
@pytest.mark.parametrize("separator", [",", " "])
def test_unusual_line_separators_stay_in_ids_whatever_else_is_in_the_file(tmp_path, mark, fault, separator):
    text = f"user,item,rating\nu{mark}v,{mark}a,5\nw,b{mark},4\n{fault}".replace(",", separator)
    (tmp_path / "r.csv").write_bytes(text.encode())
    found = read_interactions(tmp_path / "r.csv", ReadingOptions(separator=separator))
    assert found.users.to_list() == [f"u{mark}v", "w"]
    assert sorted(found.items.to_list()) == sorted([f"b{mark}", f"{mark}a"])


def test_the_header_that_comes_again_is_rejected_on_both_paths():
    layout = Layout(",", True, ("user", "item"), Columns(0, 1))
    rows = compare_paths(b"u,a\nuser,item\nv,b\n", layout)
    assert [row[1] for row in rows] == ["u", "repeated header", "v"]
