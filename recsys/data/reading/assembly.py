"""From parsed rows to interactions: one vocabulary for each side, times in milliseconds, rows by user and item.

Ids are numbered in their canonical order, and rows sorted by these numbers, so that the order of the rows in the source
decides nothing later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.data.id_order import canonical_order
from recsys.data.interactions import Interactions, Vocabulary
from recsys.data.matrix import cell_order
from recsys.data.reading.options import ReadingOptions
from recsys.data.reading.policies import apply_policies, numbered_cells, require_ratings
from recsys.data.reading.rows import (
    BAD_RATING,
    BAD_TIME,
    IMPLAUSIBLE_TIME,
    UNDECODABLE,
    Account,
    Rows,
)
from recsys.data.reading.selection import COLUMNS, take_rows, without_unused_ids
from recsys.data.reading.times import Strays, to_milliseconds
from recsys.errors import DataError
from recsys.system.threads import delay_interrupts, map_in_order
from recsys.types import IntArray

MAX_ROWS = 2**31 - 1
MAX_TEXT = 2**30  # bytes of ids, with a margin below what 32-bit offsets reach
SEGMENT = 1 << 16  # rows processed at once: few enough for the cache
ADVICE = {  # what to do where all rows have this fault
    BAD_TIME: "Write times as epochs or as dates such as 2026-12-31 23:59:59, or set timestamp_column='none'.",
    BAD_RATING: "Write ratings as numbers such as 3.5, or set rating_column='none'.",
    UNDECODABLE: "Set the file's `encoding`.",
}


def assemble(pieces: Iterable[Rows], account: Account, options: ReadingOptions, expected: int = 0) -> Interactions:
    """Build interactions from the pieces of all files, and apply the policies.

    Each piece is copied to its place at once, so that its memory serves the next one.

    Parameters
    ----------
    pieces : iterable of Rows
        In the order of the source.
    account : Account
        Receives every rejected row.
    options : ReadingOptions
    expected : int
        Number of rows to make room for, about.

    Returns
    -------
    Interactions

    Raises
    ------
    DataError
        If no row is left, or if ratings are needed and missing.
    """
    users, items = _Ids(expected), _Ids(expected)
    ratings, times, rows = _Column(expected), _Column(expected), _Column(expected)
    for piece in pieces:
        if account.next_row + piece.length > MAX_ROWS:
            raise DataError(f"Expected at most {MAX_ROWS:,} lines, found more: rows are counted in 32 bits.")
        require_ratings(piece.rating, options.min_rating)  # before the rest is read in vain
        users.append(piece.user)
        items.append(piece.item)
        ratings.append(piece.rating)
        times.append(piece.timestamp)
        place = np.arange(piece.length, dtype=np.int32) if piece.row is None else piece.row
        rows.append(place + np.int32(account.next_row))
        account.add(piece)
    row = rows.values
    if row is None or not len(row):
        raise _no_rows(account)
    with delay_interrupts(), ThreadPoolExecutor() as pool:  # numpy and Arrow release the interpreter lock
        ids = pool.map(_Ids.finish, (users, items))
        milliseconds, strays = (None, None) if times.values is None else to_milliseconds(times.values)
        (user_ids, user), (item_ids, item) = ids
    table = Interactions(user_ids, item_ids, user, item, ratings.values, milliseconds, row=row)
    if strays is not None:
        table = _reject_strays(table, strays, account)
    return apply_policies(_sorted(table), account, options)


def _no_rows(account: Account) -> DataError:
    """The error where every row was rejected, with advice for the most frequent reason."""
    rejected = account.ledger.rejected
    reason = max(rejected, key=lambda reason: rejected[reason]) if rejected else ""
    first = f" First: {account.first}." if account.first else ""
    advice = ADVICE.get(
        reason, "Give the right `separator`, user_column, item_column and so on, or write the rows to a file (rejects)."
    )
    return DataError(f"Expected usable rows, found none: {account.ledger.line()}.{first} {advice}")


def _reject_strays(table: Interactions, strays: Strays, account: Account) -> Interactions:
    """The table, in the order of the source, without the rows whose time is implausible."""
    rejected = numbered_cells(take_rows(table, strays.mask))
    cells = ((number, [*row, value]) for (number, row), value in zip(rejected, strays.values, strict=True))
    account.reject(IMPLAUSIBLE_TIME, [f"found {value}" for value in strays.values], cells)
    return without_unused_ids(take_rows(table, ~strays.mask))


class _Column:
    """A column of numbers that arrives in pieces. Room that is never used costs no memory."""

    def __init__(self, expected: int):
        self._expected = expected
        self._size = 0
        self._room: NDArray[Any] | None = None

    def append(self, piece: NDArray[Any] | None) -> None:
        """Add a piece; None, of a column that the source does not have, adds nothing."""
        if piece is None:
            return
        end = self._size + len(piece)
        if self._room is None:
            self._room = np.empty(max(end, self._expected), piece.dtype)
        elif end > len(self._room) or piece.dtype != self._room.dtype:
            room = len(self._room) if end <= len(self._room) else end + end // 2
            grown = np.empty(room, np.result_type(self._room, piece))
            grown[: self._size] = self._room[: self._size]
            self._room = grown
        self._room[self._size : end] = piece
        self._size = end

    @property
    def values(self) -> NDArray[Any] | None:
        """All numbers, (rows,); None if no piece was added."""
        return None if self._room is None else self._room[: self._size]


class _Ids:
    """A column of ids that arrives in pieces, each with a dictionary of its own."""

    def __init__(self, expected: int):
        self._dictionaries: list[pa.Array] = []
        self._start = 0  # of the next dictionary among all
        self._codes = _Column(expected)

    def append(self, piece: pa.DictionaryArray) -> None:
        """Add a piece."""
        self._codes.append(piece.indices.to_numpy() + np.int32(self._start))
        self._dictionaries.append(piece.dictionary)
        self._start += len(piece.dictionary)

    def finish(self) -> tuple[Vocabulary, IntArray]:
        """Return the distinct ids in canonical order, and the position of each row's id among them."""
        kinds = {dictionary.type for dictionary in self._dictionaries}
        kind = kinds.pop() if len(kinds) == 1 else _common_kind(kinds)
        if kind == pa.string() and sum(dictionary.nbytes for dictionary in self._dictionaries) > MAX_TEXT:
            kind = pa.large_string()
        joined = pa.concat_arrays([ids.cast(kind) for ids in self._dictionaries]).dictionary_encode()
        order, codes = canonical_order(joined.dictionary), self._codes.values
        assert codes is not None  # there is a piece
        rank = np.empty(len(order), dtype=np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        renumbered = rank[joined.indices.to_numpy()]
        for start in range(0, len(codes), SEGMENT):
            some = codes[start : start + SEGMENT]
            some[:] = renumbered[some]
        return Vocabulary(joined.dictionary.take(pa.array(order))), codes


def _common_kind(kinds: set[pa.DataType]) -> pa.DataType:
    if all(map(pa.types.is_integer, kinds)):
        return pa.int64()
    if not any(map(pa.types.is_integer, kinds)):
        return pa.large_string()
    raise DataError(
        "Expected ids of one type in all files, found text in some and integers in others: is 7 the same as '7'? "
        "Write them in one type."
    )


def _sorted(table: Interactions) -> Interactions:
    """The rows by user, then item. Where users are in order already, as in MovieLens, rows are sorted in place."""
    if (table.user[1:] >= table.user[:-1]).all():
        _sort_within_users(table)
        return table
    order = cell_order(table.user, table.item, (len(table.users), len(table.items)))
    return table if order is None else take_rows(table, order)


def _sort_within_users(table: Interactions) -> None:
    """Sort the rows of some users at a time: few enough for the cache, and no second copy of the table."""
    shape = len(table.users), len(table.items)
    columns = [column for name in COLUMNS if (column := getattr(table, name)) is not None]
    ends = np.searchsorted(table.user, table.user[SEGMENT::SEGMENT])  # where the user at each such row begins
    starts = np.unique(np.concatenate([[0], ends]))

    def sort(some: slice) -> None:
        order = cell_order(table.user[some], table.item[some], shape)
        for column in columns if order is not None else ():
            column[some] = column[some][order]

    deque(map_in_order(sort, map(slice, starts, [*starts[1:], len(table)])), maxlen=0)
