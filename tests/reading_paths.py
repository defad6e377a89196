"""The fast paths of reading against line by line parsing: for tests, and for a fuzzer to call."""

from __future__ import annotations

from unittest import mock

from recsys.data.reading import ReadingOptions, delimited
from recsys.data.reading.layout import Columns, Layout, find_layout
from recsys.data.reading.lines import parse_lines
from recsys.data.reading.records import one_line_each
from recsys.data.reading.rows import Rows
from recsys.data.reading.streams import without_byte_order_marks
from recsys.errors import DataError

TIMES = (("integer", False), ("decimal", True), ("date", False), ("zoned date", False), ("day first", True))
LAYOUTS = [
    Layout(separator, False, ("1", "2", "3", "4"), Columns(0, 1, 2, 3), time=time, numbered=numbered, truth=truth)
    for separator in (",", "\t", ";", "|", " ", "::")
    for time, truth in (
        ("integer", False),
        ("decimal", True),
        ("date", False),
        ("zoned date", False),
        ("day first", True),
    )
    for numbered in (False, True)
]


def flat_rows(pieces: list[Rows]) -> list[tuple]:
    """Rows of all pieces: number, user, item, rating, time; and what was rejected, with the reason."""
    rows: list[tuple] = []
    start = 0
    for piece in pieces:
        places = range(piece.length) if piece.row is None else piece.row.tolist()
        columns = [piece.user.to_pylist(), piece.item.to_pylist()]
        columns += [
            [None] * len(piece.user) if part is None else part.tolist() for part in (piece.rating, piece.timestamp)
        ]
        rows += zip((start + place for place in places), *columns, strict=True)
        rows += [(start + reject.row, reject.reason, reject.detail, reject.text) for reject in piece.rejects]
        start += piece.length
    return sorted(rows, key=lambda row: row[0])


def compare_paths(data: bytes, layout: Layout | None = None) -> list[tuple]:
    """Raise AssertionError where the fast and the slow path differ on a text; returns the rows.

    Without a layout, the one that is detected; a text whose layout is not found has no rows.
    """
    block = without_byte_order_marks(data + b"\n")
    if layout is None:
        try:
            layout = find_layout(
                [line.decode("utf-8", "replace") for line in block.split(b"\n")], ReadingOptions(), "x"
            )
        except DataError:
            return []
    block = b"".join(one_line_each(iter([block]), layout))
    if layout.adjacency:
        return flat_rows(delimited.parse(block, layout))
    slow = flat_rows([parse_lines(block, layout)])
    for few in (1, 256):
        with mock.patch.object(delimited, "FEW_LINES", few):
            fast = flat_rows(delimited.parse(block, layout))
        assert fast == slow, (layout, block)
    return slow
