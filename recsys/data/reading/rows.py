"""Rows on their way from a file to interactions, and the account of those that do not arrive."""

from __future__ import annotations

import bisect
import csv
from collections import Counter
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.data.interactions import Ledger
from recsys.data.reading.options import ReadingOptions
from recsys.errors import DataError

UNPARSABLE = "unparsable line"
UNDECODABLE = "not UTF-8"
MISSING_USER = "missing user id"
MISSING_ITEM = "missing item id"
MISSING_RATING = "missing rating"
BAD_RATING = "non-numeric rating"
INFINITE_RATING = "infinite rating"
BAD_TIME = "missing or unreadable timestamp"
BELOW_MIN_RATING = "below --min-rating"
RARE_USER = "user under --min-user-items"
RARE_ITEM = "item under --min-item-users"

LONGEST_TEXT = 1000  # characters of a rejected line that go to the rejects file


@dataclass(frozen=True)
class Reject:
    """A row left out: its number in the file (from 1), why, what was wrong in detail, and the row itself."""

    row: int
    reason: str
    detail: str
    text: str


@dataclass(frozen=True)
class Rows:
    """Some rows of one file. Ids are dictionary arrays (rows,); rating float32, timestamp int64 or float64, or None.

    `row` is the number of each kept row within this piece, from 0, or None if it kept all its lines; `length` the
    numbers this piece takes up (lines of a text, blank ones too), `read` the rows in it, kept or not.
    """

    user: pa.DictionaryArray
    item: pa.DictionaryArray
    rating: NDArray[np.float32] | None
    timestamp: NDArray[Any] | None
    row: NDArray[np.int32] | None
    length: int
    read: int
    rejects: tuple[Reject, ...] = ()


class Account(AbstractContextManager["Account"]):
    """Keeps the ledger while reading; writes rejected rows to the rejects file; stops at the first if so told.

    Rows are numbered over all files together; `place` tells file and line again.
    """

    def __init__(self, options: ReadingOptions):
        self._fail = options.on_bad_row == "fail"
        self._path = options.rejects
        self._file: TextIO | None = None
        self._starts: list[int] = []
        self._names: list[str] = []
        self._rejected: Counter[str] = Counter()
        self.next_row = 0  # number of the row to come
        self.read = 0
        self.first: str | None = None  # the first rejected row, for messages

    def __enter__(self) -> Account:
        if self._path is not None:
            self._file = self._path.open("w", encoding="utf-8", newline="")
            self._writer = csv.writer(self._file)
            self._writer.writerow(["file", "line", "reason", "row"])
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def writes(self) -> bool:
        """Whether somebody wants to see the rejected rows themselves."""
        return self._file is not None

    @property
    def ledger(self) -> Ledger:
        """The account so far."""
        return Ledger(self.read, dict(self._rejected))

    def resume(self, ledger: Ledger) -> None:
        """Go on from the ledger of data read before."""
        self.read = ledger.read
        self._rejected.update(ledger.rejected)

    def open_file(self, name: str) -> None:
        """The rows to come are those of the file `name`."""
        self._starts.append(self.next_row)
        self._names.append(name)

    def place(self, row: int) -> tuple[str, int]:
        """File and line (from 1) of a row number."""
        file = bisect.bisect_right(self._starts, row) - 1
        return self._names[file], row - self._starts[file] + 1

    def add(self, rows: Rows) -> None:
        """Enter a piece just read, unreadable rows included. Raises DataError for these with on_bad_row='fail'."""
        for reject in rows.rejects:
            name, line = self.place(self.next_row + reject.row)
            if self.first is None:
                self.first = f"{reject.reason}, {reject.detail} in line {line:,} of {name}"
            if self._fail:
                raise DataError(
                    f"Expected readable rows only, found {self.first}. Mend it, or say --on-bad-row reject to count "
                    "such rows and go on."
                )
            self._rejected[reject.reason] += 1
            if self._file is not None:
                self._writer.writerow([name, line, reject.reason, reject.text[:LONGEST_TEXT]])
        self.read += rows.read
        self.next_row += rows.length

    def leave_out(self, reason: str, count: int, rows: Iterable[tuple[int, Iterable[Any]]] = ()) -> None:
        """Enter `count` readable rows that a policy leaves out; `rows` are their numbers and cells."""
        if count:
            self._rejected[reason] += count
        if self._file is not None:
            for row, cells in rows:
                name, line = self.place(row)
                self._writer.writerow([name, line, reason, ",".join(str(cell) for cell in cells)])
