"""Records over several lines: text in quotes that holds line breaks is joined to one line.

```
user,item,rating,review
u,a,5,"fine            becomes       u,a,5,"fine slow, dear, 1, loud"
slow, dear, 1, loud"                 (a blank line, so that line numbers stay true)
```
Left apart, the pieces of a review would be lost, or worse, taken for rows. Where a column that is read holds the line
break, the lines are joined by a carriage return, and line by line parsing rejects the record by that reason.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from recsys.data.reading.layout import Layout

MAX_LINES = 500  # of a record; a quote still open then is a stray one
MAX_LINE = 1 << 20  # bytes; a longer line is no row of ratings


def one_line_each(blocks: Iterator[bytes], layout: Layout) -> Iterator[bytes]:
    """Join the lines of each record.

    Lines whose quotes do not pair stay as they are unless, joined, they fill the file's columns exactly.

    Parameters
    ----------
    blocks : iterator of bytes
        Whole lines in UTF-8.
    layout : Layout

    Yields
    ------
    bytes
        Whole lines, as many as before.
    """
    if len(layout.separator) > 1:  # no quotes
        yield from blocks
        return
    rest = b""
    for block in blocks:
        if not rest and b'"' not in block:
            yield block
            continue
        whole, rest = _join(rest + block, layout)
        if whole:
            yield whole
    if rest:
        yield rest


def _join(block: bytes, layout: Layout) -> tuple[bytes, bytes]:
    """The block with its records joined, and its end, which may go on in the next block."""
    starts, odd = _lines(block)
    joined: list[bytes] = []
    done, place = 0, 0
    while place < len(odd):
        first = int(odd[place])
        begins = int(starts[first])
        if place + 1 == len(odd):  # the last that does not pair: it may go on
            if len(starts) - first <= MAX_LINES and len(block) - begins <= MAX_LINE:
                return b"".join([*joined, block[done:begins]]), block[begins:]
            break
        last = int(odd[place + 1])
        ends = int(starts[last + 1])
        record = _record(block[begins:ends], layout) if last - first < MAX_LINES else None
        if record is not None:
            joined += [block[done:begins], record]
            done = ends
        place += 1 if record is None else 2
    return b"".join([*joined, block[done:]]) if done else block, b""


def _lines(block: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Starts of all lines and the end of the last, and the lines that hold an odd number of quotes."""
    signs = np.frombuffer(block, np.uint8)
    quotes = np.flatnonzero(signs == ord('"'))
    if not len(quotes):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    starts = np.concatenate([[0], np.flatnonzero(signs == ord("\n")) + 1])
    return starts, np.flatnonzero(np.diff(np.searchsorted(quotes, starts)) % 2)


def _record(lines: bytes, layout: Layout) -> bytes | None:
    """The lines joined to one, and blank lines in place of the others; None where they are no record."""
    parts = [line.removesuffix("\r") for line in lines.decode("utf-8", "surrogateescape").split("\n")[:-1]]
    fields = _split(parts, layout.separator)
    if fields is None or len(fields) != len(layout.names):
        return None
    used = any("\n" in fields[place] for place in layout.columns.used())
    if used and _split(parts, layout.separator, strict=True) is None:
        return None  # stray quotes in an id
    return ("\r" if used else " ").join(parts).encode("utf-8", "surrogateescape") + b"\n" * len(parts)


def _split(parts: list[str], separator: str, strict: bool = False) -> list[str] | None:
    """The fields of a record of several lines; None where a line ends outside quotes.

    strict: whether a quote that closes must stand at the end of its field.
    """
    if any("\r" in part or "\0" in part for part in parts):
        return None
    lines = [part + "\n" for part in parts]
    try:
        rows = list(csv.reader(lines, delimiter=separator, skipinitialspace=separator == " ", strict=strict))
    except csv.Error:
        return None
    return rows[0] if len(rows) == 1 else None
