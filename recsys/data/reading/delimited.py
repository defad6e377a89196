"""Ratings in text files: blocks of whole lines, parsed by Arrow where it can be trusted, else line by line.

```
file --streams--> blocks of whole lines --records--> one line a row --parse--> Rows
                                                       |  whole numbers as ids, proven: done, the fast path
                                                       |  text as ids, and Arrow accepts all of it: done
                                                       |  else: halve it and try again; a few lines: one by one
```
Arrow alone would let an open quote swallow the lines after it, so its rows are counted. Whichever path a block takes,
its rows are those of recsys.data.reading.lines.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from recsys.data.reading.adjacency import parse_adjacency
from recsys.data.reading.layout import Layout, find_layout
from recsys.data.reading.lines import BLANKS, BadLineError, parse_lines, parse_rating
from recsys.data.reading.options import ReadingOptions
from recsys.data.reading.records import MAX_LINE, one_line_each
from recsys.data.reading.rows import Rows
from recsys.data.reading.streams import read_pieces, read_sample, whole_lines
from recsys.data.reading.times import DATE_ORDERS, parse_time
from recsys.system.threads import map_in_order

FEW_LINES = 256  # at most so many are parsed one by one
UNIT = b"\x1f"  # stands for a separator of several bytes: Arrow takes one

DICTIONARY = pa.dictionary(pa.int32(), pa.string())
TIME_TYPES = {
    "integer": pa.int64(),
    "decimal": pa.float64(),
    "date": pa.timestamp("us"),
    "zoned date": pa.timestamp("us", "UTC"),
}


def sniff(path: Path, options: ReadingOptions) -> Layout:
    """Detect the layout of a text file.

    Parameters
    ----------
    path : Path
    options : ReadingOptions
        What is given is not detected.

    Returns
    -------
    Layout

    Raises
    ------
    DataError
        If the file is no text, or if its layout cannot be detected.
    """
    lines = read_sample(path, options.encoding)
    layout = find_layout(_decoded(lines), options, path.name)
    joined = b"".join(one_line_each(iter([b"\n".join(lines) + b"\n"]), layout)).split(b"\n")[:-1]
    return layout if joined == lines else find_layout(_decoded(joined), options, path.name)


def _decoded(lines: list[bytes]) -> list[str]:
    return [line.decode("utf-8", "replace") for line in lines]


def read_text(path: Path, layout: Layout, options: ReadingOptions) -> Generator[Rows, None, None]:
    """Read the rows of a text file. Memory: a few blocks, whatever the size of the file.

    Parameters
    ----------
    path : Path
    layout : Layout
        As `sniff` returns it.
    options : ReadingOptions

    Yields
    ------
    Rows
        In the order of the file.

    Raises
    ------
    DataError
        If the file is damaged or in another encoding.
    """
    blocks = _after_head(whole_lines(read_pieces(path, options.encoding)), layout.skip)
    for rows in map_in_order(lambda block: parse(block, layout), one_line_each(blocks, layout)):
        yield from rows


def _after_head(blocks: Iterator[bytes], skip: int) -> Iterator[bytes]:
    """The blocks without their first `skip` lines."""
    for block in blocks:
        start = 0
        while skip and start < len(block):
            start, skip = block.index(b"\n", start) + 1, skip - 1
        yield block[start:] if start else block


def parse(block: bytes, layout: Layout) -> list[Rows]:
    """Parse a block of whole lines.

    Parameters
    ----------
    block : bytes
        Lines in UTF-8, each with its line feed and on one line.
    layout : Layout

    Returns
    -------
    list of Rows
        In the order of the block.
    """
    if layout.adjacency:
        return [parse_adjacency(block)]
    separator = layout.separator.encode()
    fields = block if len(separator) == 1 else block.replace(separator, UNIT) if UNIT not in block else b""
    if b"\r" in block and _count(block, b"\r") != block.count(b"\r\n"):
        fields = b""  # a carriage return within a line is a fault, but a line end to the fast parsers
    rows = _rows_with_numbers(fields, layout) if layout.numbered and fields else None
    if rows is not None:
        return [rows]
    lines = _count(block, b"\n")
    rows = _rows_with_text(fields, lines, layout) if lines and fields else None
    if rows is not None:
        return [rows]
    if lines <= FEW_LINES:
        return [parse_lines(block, layout)]
    middle = block.find(b"\n", len(block) // 2, len(block) - 1) + 1
    middle = middle or block.rindex(b"\n", 0, len(block) - 1) + 1  # one line may fill the second half
    return parse(block[:middle], layout) + parse(block[middle:], layout)


def _rows_with_numbers(block: bytes, layout: Layout) -> Rows | None:
    """Rows of a block with ids parsed as integers, which is faster; None unless every id is certain to stay as it is.

    The proof counts bytes. Any other spelling of a whole number (007, +7, ' 7', "7") is longer than the plain one,
    except hexadecimal ones. So if the plain spellings, the ratings as they stand, separators and line ends fill the
    block, each id stood there plainly, and nothing else did.
    """
    if layout.time != "integer" or b"x" in block or b"X" in block or _may_hold_a_long_line(block):
        return None
    try:
        columns = _columns(block, layout, pa.int64(), DICTIONARY)
        user, item, ratings, time = columns["user"], columns["item"], columns["rating"], columns["timestamp"]
        if not len(user):
            return None
        user, item = _as_text(user), _as_text(item)
        rating = None if ratings is None else ratings.dictionary.cast(pa.float32()).to_numpy()
    except pa.ArrowInvalid:
        return None
    times = None if time is None else time.to_numpy()
    if times is not None and (times.dtype.kind != "i" or times.min() < 0):
        return None
    size = _text_size(user) + _text_size(item) + len(user) * len(layout.names)
    size += _count(block, b"\r") if b"\r" in block else 0
    size += 0 if ratings is None else _text_size(ratings)
    size += 0 if times is None else _digits(times)
    if size != len(block) or (rating is not None and not np.isfinite(rating).all()):
        return None
    rating = None if rating is None else rating.take(ratings.indices.to_numpy())
    return Rows(user, item, rating, times, None, len(user), len(user))


def _rows_with_text(block: bytes, lines: int, layout: Layout) -> Rows | None:
    """Rows of a block without any fault, whatever its ids, else None."""
    if b"\0" in block or _may_hold_a_long_line(block):
        return None
    if b'"' in block and block.count(b'"') % 2:  # one does not close
        return None
    try:
        columns = _columns(block, layout, DICTIONARY, DICTIONARY if layout.truth else pa.float32())
        user, item = columns["user"], columns["item"]
        for ids in (user, item):
            ids.dictionary.validate(full=True)  # UTF-8 of each id once, not of each row
        rating, times = _ratings(columns["rating"], layout), _times(columns["timestamp"], layout)
    except (pa.ArrowInvalid, BadLineError, UnicodeDecodeError):
        return None
    numbers = None if len(user) == lines else _filled(block)
    if len(user) != (lines if numbers is None else len(numbers)):
        return None
    if _is_odd(user.dictionary) or _is_odd(item.dictionary) or _may_hold_the_header(columns, layout):
        return None
    if any(part is not None and part.dtype.kind == "f" and not np.isfinite(part).all() for part in (rating, times)):
        return None
    return Rows(user, item, rating, times, numbers, lines, len(user))


def _ratings(column: Any, layout: Layout) -> NDArray[np.float32] | None:
    """Ratings of a column as Arrow read it. Raises BadLineError."""
    if column is None:
        return None
    if not layout.truth:
        return np.asarray(column.to_numpy())
    return _by_value(column, lambda text: parse_rating(text, truth=True), "float32")


def _times(column: Any, layout: Layout) -> NDArray[Any] | None:
    """Times of a column as Arrow read it. Raises BadLineError."""
    if column is None:
        return None
    if not pa.types.is_dictionary(column.type):
        times = np.asarray(column.to_numpy())
        return times.astype("datetime64[ms]") if times.dtype.kind == "M" else times

    def parsed(text: str) -> int | float:
        time = parse_time(text, layout.time)
        if time is None:
            raise BadLineError("", "")
        return time

    return _by_value(column, parsed, "float64" if layout.time in ("integer", "decimal") else "datetime64[ms]")


def _by_value(column: pa.DictionaryArray, parsed: Callable[[str], int | float], dtype: str) -> NDArray[Any]:
    """A text column parsed as line by line, each distinct text once."""
    values = [parsed(text.strip()) for text in column.dictionary.to_pylist()]
    return np.asarray(np.array(values, dtype=dtype)[column.indices.to_numpy()])


def _may_hold_the_header(columns: dict[str, Any], layout: Layout) -> bool:
    """Whether the names of the id columns are among the ids: the header may come again."""
    places = {"user": layout.columns.user, "item": layout.columns.item}
    return layout.header and all(
        pc.index(columns[kind].dictionary, pa.scalar(layout.names[place], pa.string())).as_py() >= 0
        for kind, place in places.items()
    )


def _columns(block: bytes, layout: Layout, ids: pa.DataType, ratings: pa.DataType) -> dict[str, Any]:
    """The four columns of a block as Arrow arrays, None for one that the file does not have."""
    times = DICTIONARY if layout.time in DATE_ORDERS else TIME_TYPES[layout.time]
    if layout.time == "integer" and any(sign in block and b"0" + sign in block for sign in (b"x", b"X")):
        times = DICTIONARY  # Arrow would take hexadecimal numbers; the search for one byte alone is far faster
    types = {"user": ids, "item": ids, "rating": ratings, "timestamp": times}
    places = {kind: getattr(layout.columns, kind) for kind in types}
    wanted = {str(place): types[kind] for kind, place in places.items() if place is not None}
    single = len(layout.separator) == 1  # else no quotes
    parse_options = pyarrow.csv.ParseOptions(
        delimiter=layout.separator if len(layout.separator.encode()) == 1 else UNIT.decode(),
        quote_char='"' if single else False,
    )
    names = [str(place) for place in range(len(layout.names))]
    table = pyarrow.csv.read_csv(
        pa.BufferReader(block),
        pyarrow.csv.ReadOptions(column_names=names, use_threads=False, block_size=len(block) + 1),
        parse_options,
        pyarrow.csv.ConvertOptions(column_types=wanted, include_columns=list(wanted), null_values=[], check_utf8=False),
    )
    return {kind: None if place is None else table[str(place)].combine_chunks() for kind, place in places.items()}


def _as_text(numbers: pa.Int64Array) -> pa.DictionaryArray:
    coded = numbers.dictionary_encode()
    return pa.DictionaryArray.from_arrays(coded.indices, coded.dictionary.cast(pa.string()), safe=False)


def _text_size(column: pa.DictionaryArray) -> int:
    """Bytes of all texts of a column together."""
    counts = np.bincount(column.indices.to_numpy(), minlength=len(column.dictionary))
    return int(counts @ pc.binary_length(column.dictionary).to_numpy())


def _digits(numbers: NDArray[Any]) -> int:
    """Number of digits of all these numbers, none of them negative."""
    least, most = len(str(numbers.min())), len(str(numbers.max()))
    return least * len(numbers) + sum(int(np.count_nonzero(numbers >= 10**power)) for power in range(least, most))


def _count(block: bytes, sign: bytes) -> int:
    """How often a byte occurs: much faster than bytes.count."""
    return int(np.count_nonzero(np.frombuffer(block, np.uint8) == ord(sign)))


def _filled(block: bytes) -> NDArray[np.int32]:
    """Numbers of the lines that are not empty."""
    ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))
    return np.flatnonzero(np.diff(ends, prepend=-1) > 1).astype(np.int32)


def _may_hold_a_long_line(block: bytes) -> bool:
    """Whether a line may be longer than MAX_LINE: it then fills one of these windows."""
    window = MAX_LINE // 2
    return any(block.find(b"\n", start, start + window) < 0 for start in range(0, len(block) - window, window))


def _is_odd(ids: pa.Array) -> bool:
    """Whether an id is blank, or holds a line end: an open quote swallowed one."""
    blank = pc.equal(pc.binary_length(pc.utf8_trim(ids, characters=BLANKS)), 0)
    return bool(pc.any(blank).as_py() or pc.any(pc.match_substring_regex(ids, "[\r\n]")).as_py())
