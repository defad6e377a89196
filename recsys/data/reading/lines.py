"""Rows of text one line at a time: slow, but it says what is wrong with a line.

It defines what the fast paths of recsys.data.reading.delimited have to return.
"""

from __future__ import annotations

import math
import re

import numpy as np
import pyarrow as pa

from recsys.data.reading.layout import Layout, split_line
from recsys.data.reading.records import MAX_LINE
from recsys.data.reading.rows import (
    BAD_RATING,
    BAD_TIME,
    INFINITE_RATING,
    LINE_BREAK,
    MISSING_ITEM,
    MISSING_RATING,
    MISSING_USER,
    REPEATED_HEADER,
    UNDECODABLE,
    UNPARSABLE,
    Reject,
    Rows,
)
from recsys.data.reading.times import parse_number, parse_time
from recsys.system.text import plural

# Characters that str.strip() removes; given to Arrow too, so that both agree which ids are blank.
BLANKS = "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000"
BLANKS += "".join(map(chr, range(0x2000, 0x200B)))
LARGEST_RATING = float(np.finfo(np.float32).max)
TRUTH = {"true": 1.0, "false": 0.0}
_GROUPED = re.compile(r"[+-]?\d{1,3}(?:(?P<mark>[,'\u2019 \u00a0\u202f])\d{3})(?:(?P=mark)\d{3})*(?:\.\d*)?")
_GROUPED_BY_POINT = re.compile(r"[+-]?\d{1,3}(?:\.\d{3})+,\d+")


class BadLineError(Exception):
    """A line that holds no usable row: the reason for the ledger, and what was found."""

    def __init__(self, reason: str, found: str):
        self.reason, self.detail = reason, f"found {found}"


def parse_lines(block: bytes, layout: Layout) -> Rows:
    """Parse whole lines one by one.

    Parameters
    ----------
    block : bytes
        Lines in UTF-8, each with its line feed.
    layout : Layout

    Returns
    -------
    Rows
        Lines that hold no usable row are among its rejects.
    """
    cells: list[tuple[int, str, str, float, int | float]] = []
    rejects: list[Reject] = []
    lines = block.split(b"\n")[:-1]
    for number, line in enumerate(lines):
        if line.strip(b" \r"):
            try:
                cells.append((number, *_parse_line(line, layout)))
            except BadLineError as bad:
                text = line.decode("utf-8", "replace").rstrip("\r")
                rejects.append(Reject(number, bad.reason, bad.detail, text))
    user, item, rating, timestamp = ([cell[place] for cell in cells] for place in (1, 2, 3, 4))
    is_number = layout.time in ("integer", "decimal")  # as floats: 1.1e9 is an integer too
    return Rows(
        pa.array(user, pa.string()).dictionary_encode(),
        pa.array(item, pa.string()).dictionary_encode(),
        None if layout.columns.rating is None else np.array(rating, dtype=np.float32),
        None if layout.columns.timestamp is None else np.array(timestamp, "float64" if is_number else "datetime64[ms]"),
        np.array([cell[0] for cell in cells], dtype=np.int32),
        len(lines),
        len(cells) + len(rejects),
        tuple(rejects),
    )


def _parse_line(line: bytes, layout: Layout) -> tuple[str, str, float, int | float]:
    """User id, item id, rating and time of one line, 0 for a column that the file does not have."""
    if len(line) > MAX_LINE:
        raise BadLineError(UNPARSABLE, f"a line longer than {MAX_LINE:,} bytes")
    # Bytes that are not UTF-8 matter only in an id.
    text, columns = line.decode("utf-8", "surrogateescape"), layout.columns
    fields = split_line(text, layout.separator)
    if fields is None:
        raise _why_unparsable(text, layout)
    if len(fields) != len(layout.names):
        raise BadLineError(UNPARSABLE, f"{plural(len(fields), 'column')} for {len(layout.names)}")
    if layout.header and _is_header(fields, layout):
        raise BadLineError(REPEATED_HEADER, "the header again")
    for place, reason in ((columns.user, MISSING_USER), (columns.item, MISSING_ITEM)):
        if not fields[place].strip(BLANKS):
            raise BadLineError(reason, "an empty field")
        if any("\udc80" <= sign <= "\udcff" for sign in fields[place]):
            raise BadLineError(UNDECODABLE, "other bytes: set the file's `encoding`")
    rating = 0.0 if columns.rating is None else parse_rating(fields[columns.rating].strip(), layout.truth)
    time = 0 if columns.timestamp is None else _time(fields[columns.timestamp].strip(), layout)
    return fields[columns.user], fields[columns.item], rating, time


def _time(text: str, layout: Layout) -> int | float:
    time = parse_time(text, layout.time)
    if time is None:
        raise BadLineError(BAD_TIME, repr(text[:40]))
    return time


def _why_unparsable(text: str, layout: Layout) -> BadLineError:
    text = text.removesuffix("\r")
    if '"' in text and "\r" in text:  # recsys.data.reading.records joins the lines of such a record by \r
        fields = split_line(text.replace("\r", " "), layout.separator)
        if fields is not None and len(fields) == len(layout.names):
            return BadLineError(LINE_BREAK, "a line break inside quotes")
    if "\r" in text or "\0" in text:
        return BadLineError(UNPARSABLE, "a control character (NUL or carriage return)")
    return BadLineError(UNPARSABLE, "a quote that does not close")


def _is_header(fields: list[str], layout: Layout) -> bool:
    """Whether a line repeats the header, as in files written one after the other."""
    ids = (layout.columns.user, layout.columns.item)
    return all(fields[place] == layout.names[place] for place in ids) and all(
        field.strip() == name for field, name in zip(fields, layout.names, strict=True)
    )


def parse_rating(text: str, truth: bool = False) -> float:
    """Parse one rating.

    Parameters
    ----------
    text : str
        Without blanks around it.
    truth : bool
        Whether the column holds True and False: 1 and 0.

    Returns
    -------
    float

    Raises
    ------
    BadLineError
        If it is missing, no number, or beyond float32.
    """
    if truth and text.lower() in TRUTH:
        return TRUTH[text.lower()]
    number = parse_number(text)
    if not text or (number is not None and math.isnan(number)):
        raise BadLineError(MISSING_RATING, repr(text) if text else "an empty field")
    if number is None:
        raise BadLineError(BAD_RATING, f"{text[:40]!r}{_advice(text)}")
    if abs(number) > LARGEST_RATING:
        raise BadLineError(INFINITE_RATING, repr(text[:40]))
    return number


def _advice(text: str) -> str:
    """What to do about a number in the spelling of another country."""
    if found := _GROUPED.fullmatch(text):
        return f": write {text.replace(found['mark'], '')}, without a separator between thousands"
    if _GROUPED_BY_POINT.fullmatch(text):
        return f": write {text.replace('.', '').replace(',', '.')}"
    if text.count(",") == 1 and parse_number(text.replace(",", ".")) is not None:
        return ": write a point in place of the decimal comma"
    return ""
