"""Parsed rows on their way from a file to interactions, and the account of the rows that are rejected."""

from __future__ import annotations

import bisect
import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.data.interactions import ColumnUse, Ledger
from recsys.data.reading.layout import Columns
from recsys.data.reading.options import ReadingOptions
from recsys.errors import DataError
from recsys.system.files import new_file

UNPARSABLE = "unparsable line"
UNDECODABLE = "not UTF-8"
MISSING_USER = "missing user id"
MISSING_ITEM = "missing item id"
MISSING_RATING = "missing rating"
BAD_RATING = "non-numeric rating"
INFINITE_RATING = "infinite rating"
BAD_TIME = "missing or unreadable timestamp"
IMPLAUSIBLE_TIME = "implausible timestamp"  # in another unit than most, or outside 1900 to 2200
LINE_BREAK = "line break in an id, rating or time"
REPEATED_HEADER = "repeated header"
BELOW_MIN_RATING = "below min_rating"
RARE_USER = "user below min_user_items"
RARE_ITEM = "item below min_item_users"

MAX_REJECT_TEXT = 1000  # characters of a rejected line that go to the rejects file


@dataclass(frozen=True)
class Reject:
    """A rejected row.

    Attributes
    ----------
    row : int
        Number of the row within its piece, from 0.
    reason : str
        Entry of the ledger: one of the reasons at the top of this module.
    detail : str
        What was found, for messages.
    text : str
        The row itself.
    """

    row: int
    reason: str
    detail: str
    text: str


@dataclass(frozen=True)
class Rows:
    """Some consecutive rows of one file.

    Attributes
    ----------
    user, item : DictionaryArray, shape (rows,)
        Ids of the kept rows.
    rating : ndarray of float32, shape (rows,), or None
    timestamp : ndarray of int64, float64 or datetime64[ms], shape (rows,), or None
        Numbers as they stand in the file; their unit is found when all pieces are there.
    row : ndarray of int32, shape (rows,), or None
        Number of each kept row within this piece, from 0; None if every line was kept.
    length : int
        How many row numbers this piece takes (lines of a text, blank ones included).
    read : int
        Rows in this piece, kept or not.
    rejects : tuple of Reject
    """

    user: pa.DictionaryArray
    item: pa.DictionaryArray
    rating: NDArray[np.float32] | None
    timestamp: NDArray[Any] | None
    row: NDArray[np.int32] | None
    length: int
    read: int
    rejects: tuple[Reject, ...] = ()


def column_use(names: Sequence[str], columns: Columns) -> ColumnUse:
    """Return which of a file's columns are read, and which are not."""
    kinds = {kind: place for kind, place in vars(columns).items() if place is not None}
    read = {kind: names[place] for kind, place in kinds.items()}
    return ColumnUse(read, tuple(name for place, name in enumerate(names) if place not in kinds.values()))


class Account(AbstractContextManager["Account"]):
    """Keeps the ledger while files are read, and writes rejected rows to the rejects file.

    Rows are numbered consecutively over all files; `place` translates a number back to file and line.

    Parameters
    ----------
    options : ReadingOptions
        With `on_bad_row="fail"` the first rejected row raises DataError.
    """

    def __init__(self, options: ReadingOptions):
        self._fail = options.on_bad_row == "fail"
        self._path = options.rejects
        self._file: TextIO | None = None
        self._starts: list[int] = []
        self._names: list[str] = []
        self._rejected: Counter[str] = Counter()
        self.next_row = 0  # number of the next row
        self.read = 0
        self.first: str | None = None  # the first rejected row, for messages
        self.columns: ColumnUse | None = None

    def __enter__(self) -> Account:
        if self._path is not None:
            self._draft = new_file(self._path)
            draft = self._draft.__enter__()
            self._file = draft.open("w", encoding="utf-8", errors="backslashreplace", newline="")
            self._writer = csv.writer(self._file)
            self._writer.writerow(["file", "line", "reason", "row"])
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._file is None:
            return
        try:
            self._file.close()
        finally:
            if isinstance(error, DataError):  # the rejected rows are what explains it
                kind = error = tb = None
            self._draft.__exit__(kind, error, tb)

    @property
    def writes(self) -> bool:
        """Whether rejected rows are written to a file."""
        return self._file is not None

    @property
    def ledger(self) -> Ledger:
        """The account so far."""
        return Ledger(self.read, dict(self._rejected))

    def resume(self, ledger: Ledger) -> None:
        """Continue the ledger of data that were read before."""
        self.read = ledger.read
        self._rejected.update(ledger.rejected)

    def open_file(self, name: str) -> None:
        """Note that the next rows are those of the file `name`."""
        self._starts.append(self.next_row)
        self._names.append(name)

    def note_columns(self, names: Sequence[str], columns: Columns) -> None:
        """Note which of a file's columns are read, and which are not."""
        use = column_use(names, columns)
        if self.columns is not None:  # of an earlier file
            unread = tuple(dict.fromkeys([*self.columns.unread, *use.unread]))
            use = ColumnUse({**use.read, **self.columns.read}, unread)
        self.columns = use

    def place(self, row: int) -> tuple[str, int]:
        """Return the file and the line (from 1) of a row number."""
        file = bisect.bisect_right(self._starts, row) - 1
        return self._names[file], row - self._starts[file] + 1

    def add(self, rows: Rows) -> None:
        """Enter a piece just read, with its rejected rows.

        Raises
        ------
        DataError
            For the first rejected row if `on_bad_row` is "fail".
        """
        for reject in rows.rejects:
            number = self.next_row + reject.row
            self._count(number, reject.reason, reject.detail)
            if self._file is not None:
                self._writer.writerow([*self.place(number), reject.reason, reject.text[:MAX_REJECT_TEXT]])
        self.read += rows.read
        self.next_row += rows.length

    def reject(self, reason: str, details: Sequence[str], rows: Iterable[tuple[int, Iterable[Any]]]) -> None:
        """Enter rows that only the whole table shows to be unusable.

        Parameters
        ----------
        reason : str
            Entry of the ledger.
        details : sequence of str
            What was found, for each row.
        rows : iterable of (int, iterable)
            Number and cells of each row.

        Raises
        ------
        DataError
            For the first row if `on_bad_row` is "fail".
        """
        for detail, (number, cells) in zip(details, rows, strict=True):
            self._count(number, reason, detail)
            self._write(number, reason, cells)

    def _count(self, number: int, reason: str, detail: str) -> None:
        name, line = self.place(number)
        if self.first is None:
            self.first = f"{reason}, {detail} in line {line:,} of {name}"
        if self._fail:
            raise DataError(
                f"Expected readable rows only, found {self.first}. Fix or remove the row, or set on_bad_row='reject' "
                "to count such rows and continue."
            )
        self._rejected[reason] += 1

    def leave_out(self, reason: str, count: int, rows: Iterable[tuple[int, Iterable[Any]]] = ()) -> None:
        """Enter `count` readable rows that a policy leaves out; `rows` are their numbers and cells."""
        if count:
            self._rejected[reason] += count
        for row, cells in rows:
            self._write(row, reason, cells)

    def _write(self, row: int, reason: str, cells: Iterable[Any]) -> None:
        if self._file is not None:
            self._writer.writerow([*self.place(row), reason, ",".join(str(cell) for cell in cells)[:MAX_REJECT_TEXT]])
