"""Records over several lines: joined where quotes hold them together, and never else."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.reading import ReadingOptions, read_interactions, records
from recsys.data.reading.layout import Columns, Layout
from recsys.data.reading.records import one_line_each

LAYOUT = Layout(",", True, ("user", "item", "rating", "review"), Columns(0, 1, 2))


def joined(text, size=None, layout=LAYOUT):
    """The text after joining, given in blocks of so many lines."""
    lines = text.splitlines(keepends=True)
    size = size or max(1, len(lines))
    blocks = ["".join(lines[start : start + size]).encode() for start in range(0, len(lines), size)]
    return b"".join(one_line_each(iter(blocks), layout)).decode()


@pytest.mark.parametrize("size", [1, 2, 3, None])
def test_a_record_over_several_lines_becomes_one_and_blank_ones(size):
    text = 'u,a,5,"fine\nslow, dear, 1, loud"\nv,b,4,good\nw,c,3,"a\n""b""\r\nc"\n'
    assert joined(text, size) == 'u,a,5,"fine slow, dear, 1, loud"\n\nv,b,4,good\nw,c,3,"a ""b"" c"\n\n\n'


@pytest.mark.parametrize(
    "text",
    [
        'u,a,5,plain\nv,b,4,"in quotes"\n',
        'u,a,5,5" screen\nv,b,4,6" screen\n',  # signs of inches: joined they would be seven columns
        'u,a,5,"never closed\nv,b,4,good\n',
        'u,"a,5,fine\nv,"b,4,good\n',  # two stray quotes: a closing one stands at the end of its field
        'u,a,5,"closed too late\nv,b,4",3,x\n',
    ],
)
@pytest.mark.parametrize("size", [1, None])
def test_other_lines_stay_as_they_are(text, size):
    assert joined(text, size) == text


def test_a_line_break_in_a_column_that_is_read_is_joined_by_a_carriage_return():
    assert joined('u,"a\nb",5,fine\nv,b,4,good\n') == 'u,"a\rb",5,fine\n\nv,b,4,good\n'
    without_text = Layout(",", True, ("user", "item", "rating"), Columns(0, 1, 2))
    assert joined('u,a,"5\n"\n', layout=without_text) == 'u,a,"5\r"\n\n'


def test_a_separator_of_several_characters_knows_no_quotes():
    text = 'u::a::"5\n"\n'
    assert joined(text, layout=Layout("::", True, ("user", "item", "rating", "review"), Columns(0, 1, 2))) == text


def test_a_quote_open_for_too_long_is_a_stray_one(monkeypatch):
    monkeypatch.setattr(records, "MAX_LINES", 3)
    short, long = 'u,a,5,"1\n2\n3"\n', 'u,a,5,"1\n2\n3\n4"\n'
    assert joined(short) == 'u,a,5,"1 2 3"\n\n\n'
    assert joined(long) == joined(long, 1) == long


TEXT = st.text(st.sampled_from('ab ,"\n'), max_size=6)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("uvw"), st.sampled_from("abc"), TEXT), min_size=1, max_size=12), st.data())
def test_every_row_a_csv_writer_wrote_is_read(rows, data):
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([user, item, "5", text] for user, item, text in rows)
    found = joined(file.getvalue(), data.draw(st.integers(1, 5)))
    assert found.count("\n") == file.getvalue().count("\n")
    lines = [line for line in found.split("\n") if line]
    read = [next(csv.reader([line])) for line in lines]
    assert [row[:2] for row in read] == [[user, item] for user, item, _ in rows]
    assert [row[3] for row in read] == [text.replace("\n", " ") for _, _, text in rows]


def test_reviews_of_several_lines_lose_no_row_and_make_none(tmp_path):
    file, rejects = tmp_path / "reviews.csv", tmp_path / "rejects.csv"
    rows = [
        (f"u{n % 30}", f"i{n % 7}", str(1 + n % 5), f'a "line" of words\nslow, dear, {n % 5}, loud\nand more {n}')
        for n in range(1000)
    ]
    with file.open("w", newline="") as out:
        csv.writer(out, lineterminator="\n").writerows(
            [("user", "item", "rating", "review"), *rows, ("u1", "i1", "bad", "x")]
        )
    table = read_interactions(file, ReadingOptions(duplicates="last", rejects=rejects))
    ledger = table.ledger
    assert ledger.read == 1001
    assert sum(ledger.rejected.values()) + len(table) == 1001
    assert set(table.users.to_list()) == {f"u{n}" for n in range(30)}
    assert "3002" in rejects.read_text()  # the line it stands on
