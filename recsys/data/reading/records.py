"""Text that goes on over several lines, in quotes, in a column nobody reads: such lines are one record, made one line.

```
user,item,rating,review
u,a,5,"fine            becomes       u,a,5,"fine slow, dear, 1, loud"
slow, dear, 1, loud"                 (a blank line, so that the numbers of lines stay true)
```
Left apart, the pieces of a review would be lost, or worse, pass for rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from recsys.data.reading.layout import Layout, split_line

MOST_LINES = 500  # of a record; a quote still open then is a stray one
LONGEST_LINE = 1 << 20  # bytes; a longer line is no row of ratings
_MARK = "\x1f"  # where lines were joined


def one_line_each(blocks: Iterator[bytes], layout: Layout) -> Iterator[bytes]:
    """The blocks, of whole lines, with each record on a line of its own and as many lines as before.

    Lines whose quotes do not pair stay as they are unless, joined, they fill the file's columns exactly.
    """
    if len(layout.separator) > 1 or len(layout.columns.used()) == len(layout.names):  # no quotes, or no text
        yield from blocks
        return
    rest = b""
    for block in blocks:
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
            if len(starts) - first <= MOST_LINES and len(block) - begins <= LONGEST_LINE:
                return b"".join([*joined, block[done:begins]]), block[begins:]
            break
        last = int(odd[place + 1])
        ends = int(starts[last + 1])
        record = _record(block[begins:ends], layout) if last - first < MOST_LINES else None
        if record is not None:
            joined += [block[done:begins], record]
            done = ends
        place += 1 if record is None else 2
    return b"".join([*joined, block[done:]]) if done else block, b""


def _lines(block: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each line starts, and the end of the last; and which lines hold an odd number of quotes."""
    signs = np.frombuffer(block, np.uint8)
    quotes = np.flatnonzero(signs == ord('"'))
    if not len(quotes):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    starts = np.concatenate([[0], np.flatnonzero(signs == ord("\n")) + 1])
    return starts, np.flatnonzero(np.diff(np.searchsorted(quotes, starts)) % 2)


def _record(lines: bytes, layout: Layout) -> bytes | None:
    """The lines as one, and as many blank ones after it as it took; None where they are no record."""
    parts = [line.removesuffix("\r") for line in lines.decode("utf-8", "surrogateescape").split("\n")[:-1]]
    text = _MARK.join(parts)
    fields = split_line(text, layout.separator)
    if fields is None or len(fields) != len(layout.names):
        return None
    if any(_MARK in fields[place] for place in layout.columns.used()):
        return None
    return text.replace(_MARK, " ").encode("utf-8", "surrogateescape") + b"\n" * len(parts)
