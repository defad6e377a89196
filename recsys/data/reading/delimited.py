"""Ratings in text files: a stream of blocks of whole lines, parsed by Arrow, looked at line by line where it stumbles.

```
file --pieces--> UTF-8 bytes --blocks--> whole lines --parse--> Rows
                                           |  whole numbers as ids, proven: done, the fast way
                                           |  text as ids, and Arrow likes all of it: done
                                           |  it does not: halve it, try again; a few lines: one by one
```
One line is one row, once recsys.reading.records has joined what quotes hold together. Arrow alone would let an open
quote swallow the lines after it, so its rows are counted.
"""

from __future__ import annotations

import codecs
import gzip
import math
import re
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from recsys.data.reading.layout import Layout, find_layout, split_line
from recsys.data.reading.options import ReadingOptions
from recsys.data.reading.records import LONGEST_LINE, one_line_each
from recsys.data.reading.rows import (
    BAD_RATING,
    BAD_TIME,
    INFINITE_RATING,
    MISSING_ITEM,
    MISSING_RATING,
    MISSING_USER,
    UNDECODABLE,
    UNPARSABLE,
    Reject,
    Rows,
)
from recsys.errors import DataError
from recsys.system.threads import in_order

BLOCK = 8 << 20  # bytes; large enough for Arrow, small enough for many in flight
SAMPLE = 1 << 18  # bytes to find the layout from
FEW_LINES = 256  # so many are read one by one
UNIT = b"\x1f"  # stands for a separator of several bytes: Arrow takes one

LARGEST_RATING = float(np.finfo(np.float32).max)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIME_DTYPES = {  # of the few lines read one by one; floats, as "1.1e9" is an integer too
    "integer": "float64",
    "decimal": "float64",
    "date": "datetime64[ms]",
    "zoned date": "datetime64[ms]",
}
SIGNS = {  # first bytes of what people also pass, by mistake
    b"PK\x03\x04": "a zip archive",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"SQLite format 3": "an SQLite database",
    b"\x80\x04": "a pickle, which recsys never opens",
    b"\x80\x05": "a pickle, which recsys never opens",
    b"%PDF": "a PDF",
    b"ARROW1": "an Arrow file",
}

CONTROL = bytes(set(range(32)) - set(b"\t\n\r\x1f"))  # bytes that no text holds many of

DICTIONARY = pa.dictionary(pa.int32(), pa.string())
TIME_TYPES = {
    "integer": pa.int64(),
    "decimal": pa.float64(),
    "date": pa.timestamp("us"),
    "zoned date": pa.timestamp("us", "UTC"),
}


def sniff(path: Path, options: ReadingOptions) -> Layout:
    """The layout of a text file. Raises DataError for a binary file and for one whose layout cannot be told."""
    sample = b""
    for piece in _pieces(path, options.encoding):
        sample += piece
        if len(sample) >= SAMPLE:
            sample = sample[:SAMPLE]
            break
    _refuse_binary(sample, path)
    lines = sample.split(b"\n")
    if len(sample) == SAMPLE and len(lines) > 1:
        lines.pop()  # cut somewhere
    layout = find_layout(_decoded(lines), options, path.name)
    joined = b"".join(one_line_each(iter([b"\n".join(lines) + b"\n"]), layout)).split(b"\n")[:-1]
    return layout if joined == lines else find_layout(_decoded(joined), options, path.name)


def _decoded(lines: list[bytes]) -> list[str]:
    return [line.decode("utf-8", "replace") for line in lines]


def read_text(path: Path, layout: Layout, options: ReadingOptions) -> Iterator[Rows]:
    """Rows of a text file after its header, piece by piece, in order. Memory: a few blocks, whatever the size."""
    blocks = one_line_each(_after_head(_blocks(_pieces(path, options.encoding)), layout.skip), layout)
    for rows in in_order(lambda block: parse(block, layout), blocks):
        yield from rows


def read_lines(path: Path, encoding: str) -> list[str]:
    """All lines of a small text file, without their ends. Raises UnicodeDecodeError for bytes that are not UTF-8."""
    return [line.rstrip("\r") for line in b"".join(_pieces(path, encoding)).decode().split("\n")]


def _after_head(blocks: Iterator[bytes], skip: int) -> Iterator[bytes]:
    """The blocks without their first `skip` lines."""
    for block in blocks:
        start = 0
        while skip and start < len(block):
            start, skip = block.index(b"\n", start) + 1, skip - 1
        yield block[start:] if start else block


def _pieces(path: Path, encoding: str) -> Iterator[bytes]:
    """The file's text as UTF-8, unpacked, without byte order mark."""
    codec = codecs.lookup(encoding).name
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    opened: Callable[..., Any] = gzip.open if packed else open
    try:
        with opened(path, "rb") as file:
            if codec in ("utf-8", "utf-8-sig"):
                first = file.read(BLOCK)
                yield first.removeprefix(codecs.BOM_UTF8)
                while piece := file.read(BLOCK):
                    yield piece
            else:
                decoder = codecs.getincrementaldecoder(encoding)()
                yield decoder.decode(file.read(BLOCK)).removeprefix("\ufeff").encode()
                while piece := file.read(BLOCK):
                    yield decoder.decode(piece).encode()
                yield decoder.decode(b"", final=True).encode()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"Expected a whole gzip file, found {path.name} damaged: {error}. Fetch it again.") from error
    except UnicodeError as error:
        raise DataError(
            f"Expected text in the encoding {encoding}, found {path.name} to be another ({error}). "
            "Give the right one with --encoding."
        ) from error


def _blocks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Blocks of whole lines, line ends included. What a line has over LONGEST_LINE is dropped, and NUL marks it."""
    rest = b""
    for piece in pieces:
        end = piece.rfind(b"\n") + 1
        if end:
            yield b"".join((rest, memoryview(piece)[:end]))
            rest = piece[end:]
        else:
            rest = rest + piece if len(rest) <= LONGEST_LINE else rest
        if len(rest) > LONGEST_LINE:
            rest = rest[:LONGEST_LINE] + b"\0"
    if rest:
        yield rest + b"\n"


def parse(block: bytes, layout: Layout) -> list[Rows]:
    """Rows of a block of whole lines, in pieces, in order."""
    separator = layout.separator.encode()
    fields = block if len(separator) == 1 else block.replace(separator, UNIT) if UNIT not in block else b""
    rows = _rows_with_numbers(fields, layout) if layout.numbered and fields else None
    if rows is not None:
        return [rows]
    lines = _count(block, b"\n")
    rows = _rows_with_text(fields, lines, layout) if lines and fields else None
    if rows is not None:
        return [rows]
    if lines <= FEW_LINES:
        return [_parse_by_line(block, layout)]
    middle = block.find(b"\n", len(block) // 2, len(block) - 1) + 1
    middle = middle or block.rindex(b"\n", 0, len(block) - 1) + 1  # one line may fill the second half
    return parse(block[:middle], layout) + parse(block[middle:], layout)


def _rows_with_numbers(block: bytes, layout: Layout) -> Rows | None:
    """Rows of a block, ids parsed as integers, which is faster; None unless every id is certain to read as it stood.

    The proof counts bytes. Any other spelling of a whole number (007, +7, ' 7', "7") is longer than the plain one,
    except hexadecimal ones. So if the plain spellings, the ratings as they stand, separators and line ends fill the
    block, each id stood there plainly, and nothing else did.
    """
    if b"x" in block or b"X" in block or _may_hold_a_long_line(block):
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
    """Rows of a block in which nothing is amiss, whatever its ids, else None."""
    if b"\0" in block or _may_hold_a_long_line(block):
        return None
    if b'"' in block and block.count(b'"') % 2:  # one does not close
        return None
    try:
        columns = _columns(block, layout, DICTIONARY, pa.float32())
        user, item, ratings, time = columns["user"], columns["item"], columns["rating"], columns["timestamp"]
        for ids in (user, item):
            ids.dictionary.validate(full=True)  # UTF-8 of each id once, not of each row
    except pa.ArrowInvalid:
        return None
    numbers = None if len(user) == lines else _filled(block)
    if len(user) != (lines if numbers is None else len(numbers)):
        return None
    if _is_odd(user.dictionary) or _is_odd(item.dictionary):
        return None
    rating = None if ratings is None else ratings.to_numpy()
    if rating is not None and not np.isfinite(rating).all():
        return None
    times = None if time is None else time.to_numpy()
    if times is not None and times.dtype.kind == "M":
        times = times.astype("datetime64[ms]")
    elif times is not None and times.dtype.kind == "f" and not np.isfinite(times).all():
        return None
    return Rows(user, item, rating, times, numbers, lines, len(user))


def _columns(block: bytes, layout: Layout, ids: pa.DataType, ratings: pa.DataType) -> dict[str, Any]:
    """The four columns of a block as Arrow arrays of the given types, None for one that the file has not."""
    types = {"user": ids, "item": ids, "rating": ratings, "timestamp": TIME_TYPES[layout.time]}
    places = {kind: getattr(layout.columns, kind) for kind in types}
    wanted = {str(place): types[kind] for kind, place in places.items() if place is not None}
    one_sign = len(layout.separator) == 1  # else no quotes
    parse_options = pyarrow.csv.ParseOptions(
        delimiter=layout.separator if len(layout.separator.encode()) == 1 else UNIT.decode(),
        quote_char='"' if one_sign else False,
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
    """Bytes of all texts of a column."""
    counts = np.bincount(column.indices.to_numpy(), minlength=len(column.dictionary))
    return int(counts @ pc.binary_length(column.dictionary).to_numpy())


def _digits(numbers: NDArray[Any]) -> int:
    """Digits of all these whole numbers from 0 up."""
    least, most = len(str(numbers.min())), len(str(numbers.max()))
    return least * len(numbers) + sum(int(np.count_nonzero(numbers >= 10**power)) for power in range(least, most))


def _count(block: bytes, sign: bytes) -> int:
    """How often a byte occurs: far faster than bytes.count."""
    return int(np.count_nonzero(np.frombuffer(block, np.uint8) == ord(sign)))


def _filled(block: bytes) -> NDArray[np.int32]:
    """Numbers of the lines that are not empty."""
    ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))
    return np.flatnonzero(np.diff(ends, prepend=-1) > 1).astype(np.int32)


def _may_hold_a_long_line(block: bytes) -> bool:
    """True if a line is longer than LONGEST_LINE: it then fills one of these windows."""
    window = LONGEST_LINE // 2
    return any(block.find(b"\n", start, start + window) < 0 for start in range(0, len(block) - window, window))


def _is_odd(ids: pa.Array) -> bool:
    """Whether an id is blank, or holds a line end: an open quote swallowed one."""
    blank = pc.equal(pc.binary_length(pc.utf8_trim_whitespace(ids)), 0)
    return bool(pc.any(blank).as_py() or pc.any(pc.match_substring_regex(ids, "[\r\n]")).as_py())


def _parse_by_line(block: bytes, layout: Layout) -> Rows:
    """Rows of a few lines, each looked at by itself."""
    cells: list[tuple[int, str, str, float, int | float]] = []
    rejects: list[Reject] = []
    lines = block.split(b"\n")[:-1]
    for number, line in enumerate(lines):
        if line.strip(b" \r"):
            try:
                cells.append((number, *_cells(line, layout)))
            except _BadLineError as bad:
                text = line.decode("utf-8", "replace").rstrip("\r")
                rejects.append(Reject(number, bad.reason, bad.detail, text))
    user, item, rating, timestamp = ([cell[place] for cell in cells] for place in (1, 2, 3, 4))
    return Rows(
        pa.array(user, pa.string()).dictionary_encode(),
        pa.array(item, pa.string()).dictionary_encode(),
        None if layout.columns.rating is None else np.array(rating, dtype=np.float32),
        None if layout.columns.timestamp is None else np.array(timestamp, TIME_DTYPES[layout.time]),
        np.array([cell[0] for cell in cells], dtype=np.int32),
        len(lines),
        len(cells) + len(rejects),
        tuple(rejects),
    )


class _BadLineError(Exception):
    """A line that holds no usable row."""

    def __init__(self, reason: str, found: str):
        self.reason, self.detail = reason, f"found {found}"


def _cells(line: bytes, layout: Layout) -> tuple[str, str, float, int | float]:
    """User id, item id, rating, time of one line (0 for what the file has not); raises _BadLineError."""
    if len(line) > LONGEST_LINE:
        raise _BadLineError(UNPARSABLE, f"a line longer than {LONGEST_LINE:,} bytes")
    # what is not UTF-8 matters only in an id
    fields, columns = split_line(line.decode("utf-8", "surrogateescape"), layout.separator), layout.columns
    if fields is None:
        raise _BadLineError(UNPARSABLE, "a quote that does not close, or a control character")
    if len(fields) != len(layout.names):
        raise _BadLineError(UNPARSABLE, f"{len(fields)} columns for {len(layout.names)}")
    for place, reason in ((columns.user, MISSING_USER), (columns.item, MISSING_ITEM)):
        if not fields[place].strip():
            raise _BadLineError(reason, "nothing there")
        if any("\udc80" <= sign <= "\udcff" for sign in fields[place]):
            raise _BadLineError(UNDECODABLE, "other bytes: give the file's --encoding")
    rating = 0.0 if columns.rating is None else _rating(fields[columns.rating].strip())
    time = 0 if columns.timestamp is None else _time(fields[columns.timestamp].strip(), layout)
    return fields[columns.user], fields[columns.item], rating, time


def _rating(text: str) -> float:
    number = _number(text)
    if not text or (number is not None and math.isnan(number)):
        raise _BadLineError(MISSING_RATING, repr(text) if text else "nothing there")
    if number is None:
        with_point = text.count(",") == 1 and _number(text.replace(",", ".")) is not None
        advice = ": write a point in place of the decimal comma" if with_point else ""
        raise _BadLineError(BAD_RATING, f"{text[:40]!r}{advice}")
    if abs(number) > LARGEST_RATING:
        raise _BadLineError(INFINITE_RATING, repr(text[:40]))
    return number


def _time(text: str, layout: Layout) -> int | float:
    """Epoch as it stands, or milliseconds of a date; raises _BadLineError."""
    if layout.time in ("integer", "decimal"):
        number = _number(text)
        if number is None or not math.isfinite(number):
            raise _BadLineError(BAD_TIME, repr(text[:40]))
        return number
    try:
        date = datetime.fromisoformat(re.sub("Z$", "+00:00", text))
    except ValueError:
        raise _BadLineError(BAD_TIME, repr(text[:40])) from None
    date = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
    return (date - EPOCH) // timedelta(milliseconds=1)


def _number(text: str) -> float | None:
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def _refuse_binary(sample: bytes, path: Path) -> None:
    """Raise DataError for what is no text of ratings at all."""
    if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"Expected UTF-8 text, found {path.name} in UTF-16: say --encoding utf-16.")
    kind = next((name for sign, name in SIGNS.items() if sample.startswith(sign)), None)
    if kind is None and (len(sample) - len(sample.translate(None, CONTROL))) * 20 > len(sample):
        kind = "binary data, or text in UTF-16 or UTF-32 (then say so with --encoding)"
    if kind is not None:
        raise DataError(
            f"Expected ratings as text (CSV, TSV, also gzipped) or Parquet, found {path.name} to be {kind}. "
            "Convert or unpack it first."
        )
    if sample.lstrip()[:1] in (b"{", b"["):
        raise DataError(f"Expected columns of text, found JSON in {path.name}. Convert it to CSV or Parquet.")
    if b"\n" not in sample and sample.count(b"\r") > 1:
        raise DataError(f"Expected lines that end in LF or CRLF, found only CR in {path.name}. Convert its line ends.")
    if len(sample) == SAMPLE and b"\n" not in sample:
        raise DataError(f"Expected lines of text, found none that ends within {SAMPLE:,} bytes in {path.name}.")
