"""The fast path for whole numbers as ids."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from reading_case import cells, read

from recsys.data.reading import ReadingOptions, assembly, delimited, text_layout
from recsys.data.reading.layout import Columns, Layout

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
    assert found.item.tolist() == [0, 1, 2, 2, 0, 1, 2, 0]  # in canonical order: a, b, c
    assert found.row.tolist() == [2, 1, 3, 4, 6, 7, 5, 8]
