"""Timestamps: dates written as text, and epochs of any unit, as milliseconds since 1970 UTC.

The unit of a column of numbers is that of most of its values; values in another unit are strays.

```
881250949        seconds        881250949000     milliseconds      881250949000000   microseconds   ... nanoseconds
19971204         a date         19971204154909   a date and time
```
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from recsys.errors import DataError
from recsys.system.text import plural

DateOrder = Literal["day first", "month first", "year first"]
TimeKind = Literal["integer", "decimal", "date", "zoned date", "day first", "month first", "year first"]
DATE_ORDERS = get_args(DateOrder)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST, LATEST = (int(np.datetime64(year, "ms").astype(np.int64)) for year in ("1900", "2200"))
SECONDS_LIMIT = 1e11  # numbers from here on count milliseconds: in seconds they would be the year 5138 or later
UNITS = ("seconds", "milliseconds", "microseconds", "nanoseconds")  # each 1000 times the numbers of the one before
FACTORS = (1000.0, 1.0, 1e-3, 1e-6)  # to milliseconds
REAL_EPOCH = 5e8  # seconds, 1985: where half of the values are later, they are epochs, no counters of some other kind
FIRST_EPOCH = 1e8  # seconds, 1973: what is earlier among epochs is a marker of a missing time, such as 0 or -1
SAMPLE = 5_000  # values from which the unit is found

_DATE = re.compile(
    r"(\d{1,4})([/.-])(\d{1,2})\2(\d{1,4})"
    r"(?:(?:T|,? )(\d{1,2}):(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?(?: ?([ap])\.?m\.?)?)?",
    re.IGNORECASE | re.ASCII,
)
_ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d.*", re.ASCII)


class Strays(NamedTuple):
    """Times that are not plausible.

    Attributes
    ----------
    mask : ndarray of bool, shape (rows,)
        Which rows.
    values : ndarray, shape (strays,)
        Their values as they stood.
    """

    mask: NDArray[np.bool_]
    values: NDArray[Any]


def is_date(text: str) -> bool:
    """Return whether a text looks like a date, with or without a time: 2026-12-31, 31/12/2026."""
    return bool(_ISO_DATE.fullmatch(text) or _DATE.fullmatch(text))


def date_order(texts: Sequence[str], column: str, where: str) -> DateOrder | None:
    """Find the order of day, month and year in dates such as 31/12/2026.

    Parameters
    ----------
    texts : sequence of str
        Some values of a column.
    column, where : str
        Names of the column and of the file, for messages.

    Returns
    -------
    str or None
        None where most values are ISO dates, or no dates of this form.

    Raises
    ------
    DataError
        If day and month cannot be distinguished: no first or second number is above 12, or both are.
    """
    found = [match for text in texts if not _ISO_DATE.fullmatch(text) and (match := _DATE.fullmatch(text))]
    if len(found) <= len(texts) / 2:
        return None
    if sum(len(match[1]) == 4 for match in found) > len(found) / 2:
        return "year first"
    way_out = "Write them as 2026-12-31, or set timestamp_column='none' to read without times."
    short = next((match for match in found if len(match[4]) != 4), None)
    if short is not None:
        raise DataError(
            f"Expected dates with a year of four digits in the column {column!r} of {where}, found {short[0]!r}. "
            f"{way_out}"
        )
    day_first = next((match[0] for match in found if int(match[1]) > 12), None)
    month_first = next((match[0] for match in found if int(match[3]) > 12), None)
    if day_first is None and month_first is None:
        raise DataError(
            f"Expected dates whose day and month can be distinguished in the column {column!r} of {where}, found none "
            f"above 12 in dates such as {found[0][0]!r}. {way_out}"
        )
    if day_first is not None and month_first is not None:
        raise DataError(
            f"Expected dates in one order in the column {column!r} of {where}, found {day_first!r} and "
            f"{month_first!r}. {way_out}"
        )
    return "day first" if day_first is not None else "month first"


def parse_time(text: str, kind: TimeKind) -> int | float | None:
    """Parse one time.

    Parameters
    ----------
    text : str
        Without blanks around it.
    kind : str
        How the column's times are written.

    Returns
    -------
    int, float or None
        The epoch as it stands, or milliseconds since 1970 of a date; None if the text is neither.
    """
    if kind in ("integer", "decimal"):
        number = parse_number(text)
        return number if number is not None and math.isfinite(number) else None
    date = _parse_ordered(text, kind) if kind in DATE_ORDERS else None
    try:
        date = date or datetime.fromisoformat(re.sub("Z$", "+00:00", text))
        date = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
        return (date - EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        return None


def _parse_ordered(text: str, kind: TimeKind) -> datetime | None:
    match = _DATE.fullmatch(text)
    if match is None or _ISO_DATE.fullmatch(text):
        return None
    year, day = (match[1], match[4]) if kind == "year first" else (match[4], match[1])
    month = match[3]
    if kind == "month first":
        day, month = month, day
    hour = int(match[5] or 0)
    if match[9]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if match[9] in "pP" else 0)
    fraction = int((match[8] or "").ljust(6, "0"))
    try:
        return datetime(int(year), int(month), int(day), hour, int(match[6] or 0), int(match[7] or 0), fraction)
    except ValueError:
        return None


def parse_number(text: str) -> float | None:
    """Return the number in a text, None if it is none; underscores between digits are no part of a number."""
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def to_milliseconds(times: NDArray[Any]) -> tuple[NDArray[np.int64], Strays | None]:
    """Convert a column of times to milliseconds since 1970 UTC.

    Parameters
    ----------
    times : ndarray of int64, float64 or datetime64, shape (rows,)
        Numbers as they stood in the input; finite. May be changed in place.

    Returns
    -------
    milliseconds : ndarray of int64, shape (rows,)
        0 for strays.
    strays : Strays or None
        Values in another unit than most, or outside the years 1900 to 2200; None where there are none.

    Raises
    ------
    DataError
        If no more than half of the values are in one unit and plausible.
    """
    if times.dtype.kind == "M":
        dates = times.astype("datetime64[ms]").astype(np.int64)
        return _without_strays(dates, times, EARLIEST, LATEST)
    sample = times[:: max(1, len(times) // SAMPLE)]
    for digits in (8, 14):
        if _is_compact(sample, digits).mean() > 0.5:
            return _from_compact(times, digits)
    unit = int(np.bincount(_unit(sample)).argmax())
    least, most = _plausible(sample, unit)
    times, strays = _without_strays(times, times, least, most)
    factor = FACTORS[unit]
    if times.dtype == np.int64 and factor >= 1:
        times *= int(factor)
        return times, strays
    return np.rint(times * factor).astype(np.int64), strays


def _unit(numbers: NDArray[Any]) -> NDArray[np.int64]:
    """Position in UNITS of each number, by its size."""
    limits = SECONDS_LIMIT * np.array([1, 1e3, 1e6])
    return np.searchsorted(limits, np.abs(numbers.astype(np.float64)), side="right")


def _plausible(sample: NDArray[Any], unit: int) -> tuple[float, float]:
    """Least and largest number of a column in this unit."""
    scale = 1000.0**unit  # per second
    if unit == 0:
        seconds = np.sort(sample[_unit(sample) == 0])
        if seconds[len(seconds) // 2] < REAL_EPOCH:  # for example a counter of days
            return -SECONDS_LIMIT, SECONDS_LIMIT
    return FIRST_EPOCH * scale, LATEST / 1000 * scale


def _without_strays(
    numbers: NDArray[Any], given: NDArray[Any], least: float, most: float
) -> tuple[NDArray[Any], Strays | None]:
    """The numbers with 0 for those outside [least, most), and these as they stand in `given`."""
    if numbers.min() >= least and numbers.max() < most:
        return numbers, None
    strays = (numbers < least) | (numbers >= most)
    if strays.sum() * 2 >= len(numbers):
        raise DataError(
            f"Expected times in one unit, from 1900 to 2200, found no unit that fits more than half of "
            f"{plural(len(numbers), 'row')}: for example {given[strays][0]} and {given[0]}. Write them in one unit, or "
            "set timestamp_column='none' to read without times."
        )
    found = Strays(strays, given[strays])
    numbers[strays] = 0
    return numbers, found


def _is_compact(numbers: NDArray[Any], digits: int) -> NDArray[np.bool_]:
    """Which numbers are dates such as 20261231, or, of 14 digits, 20261231235959."""
    scale = 10 ** (digits - 8)
    inside = (numbers >= 19000101 * scale) & (numbers < 22000101 * scale) & (numbers == np.floor(numbers))
    whole = np.where(inside, numbers, 19000101 * scale).astype(np.int64)
    day, clock = np.divmod(whole, scale)
    month, date = day // 100 % 100, _days(day)
    valid = (month >= 1) & (month <= 12) & (day % 100 >= 1)
    valid &= date.astype("datetime64[M]").astype(np.int64) % 12 + 1 == month  # no 31 April
    if digits > 8:
        valid &= (clock // 10000 < 24) & (clock // 100 % 100 < 60) & (clock % 100 < 60)
    return np.asarray(inside & valid)


def _days(dates: NDArray[np.int64]) -> NDArray[np.datetime64]:
    """Days of numbers such as 20261231."""
    months = (dates // 10000 - 1970) * 12 + dates // 100 % 100 - 1
    return np.asarray(months.astype("datetime64[M]").astype("datetime64[D]") + (dates % 100 - 1))


def _from_compact(times: NDArray[Any], digits: int) -> tuple[NDArray[np.int64], Strays | None]:
    valid = _is_compact(times, digits)
    scale = 10 ** (digits - 8)
    day, clock = np.divmod(np.where(valid, times, 19700101 * scale).astype(np.int64), scale)
    seconds = (clock // 10000 * 60 + clock // 100 % 100) * 60 + clock % 100
    milliseconds = _days(day).astype("datetime64[ms]").astype(np.int64) + 1000 * seconds
    return milliseconds, None if valid.all() else Strays(~valid, times[~valid])
