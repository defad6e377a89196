"""From rows to interactions: one vocabulary, duplicates by policy, thresholds, times in milliseconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.data.interactions import Interactions, Vocabulary
from recsys.data.matrix import cell_order
from recsys.data.reading.options import ReadingOptions
from recsys.data.reading.rows import BELOW_MIN_RATING, RARE_ITEM, RARE_USER, Account, Rows
from recsys.errors import DataError, NoRatingsError
from recsys.system.threads import held_back, in_order
from recsys.types import IntArray

MOST_ROWS = 2**31 - 1
MOST_TEXT = 2**30  # bytes of ids, with a margin below what 32-bit offsets reach
SEGMENT = 1 << 16  # rows worked on at once: few enough for the cache
COLUMNS = ("user", "item", "rating", "timestamp", "row")
FOLDS = {"mean": np.add, "sum": np.add, "max": np.maximum}
# An epoch this large counts milliseconds, microseconds, nanoseconds: in seconds it would be the year 5138 or later.
UNITS = ((1e17, 1e-6), (1e14, 1e-3), (1e11, 1.0))


def assemble(pieces: Iterable[Rows], account: Account, options: ReadingOptions, expected: int = 0) -> Interactions:
    """Interactions of all pieces, in the order they come, policies applied. Raises DataError where no row is left.

    Each piece is copied to its place at once, so that its memory serves the next one; `expected` is about the number
    of rows to make room for.
    """
    users, items = _Ids(expected), _Ids(expected)
    ratings, times, rows = _Column(expected), _Column(expected), _Column(expected)
    for piece in pieces:
        if account.next_row + piece.length > MOST_ROWS:
            raise DataError(f"Expected at most {MOST_ROWS:,} lines, found more: recsys counts rows in 32 bits.")
        _require_ratings(piece.rating, options.min_rating)  # before the rest is read for nothing
        users.append(piece.user)
        items.append(piece.item)
        ratings.append(piece.rating)
        times.append(piece.timestamp)
        place = np.arange(piece.length, dtype=np.int32) if piece.row is None else piece.row
        rows.append(place + np.int32(account.next_row))
        account.add(piece)
    row = rows.values
    if row is None or not len(row):
        first = f" First: {account.first}." if account.first else ""
        raise DataError(
            f"Expected usable rows, found none: {account.ledger.line()}.{first} Tell the right --separator and columns "
            "(--user-column and its like), or see the rows with --rejects FILE."
        )
    with held_back(), ThreadPoolExecutor() as pool:  # numpy and Arrow leave the lock to each other
        ids = pool.map(_Ids.finish, (users, items))
        milliseconds = _milliseconds(times.values)
        (user_ids, user), (item_ids, item) = ids
    table = Interactions(user_ids, item_ids, user, item, ratings.values, milliseconds, row=row)
    return apply_policies(_sorted(table), account, options)


def apply_policies(table: Interactions, account: Account, options: ReadingOptions) -> Interactions:
    """Interactions, sorted by user and item, after duplicates, `min_rating` and the minima, in this order."""
    table = whole = _resolve_duplicates(table, account, options.duplicates or "last")
    table = _keep_rated(table, account, options.min_rating)
    table = _keep_core(table, account, options)
    if not len(table):
        raise DataError(f"Expected rows to be left, found none: {account.ledger.line()}. Lower the thresholds.")
    if len(table) == len(whole):
        return replace(table, ledger=account.ledger)
    left_out = _difference(whole, table)
    table = _without_unused_ids(table)
    return replace(table, ledger=account.ledger, seen_only=_seen_only([left_out, whole.seen_only], table.users))


class _Column:
    """Numbers that arrive in pieces and stand one after the other. Room that is never used costs no memory."""

    def __init__(self, expected: int):
        self._expected = expected
        self._size = 0
        self._room: NDArray[Any] | None = None

    def append(self, piece: NDArray[Any] | None) -> None:
        """Add a piece; None, of a column that is not there, adds nothing."""
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
        """All that came, (rows,); None if nothing did."""
        return None if self._room is None else self._room[: self._size]


class _Ids:
    """Ids that arrive in pieces, each with a dictionary of its own, and become positions in one vocabulary."""

    def __init__(self, expected: int):
        self._dictionaries: list[pa.Array] = []
        self._start = 0  # of the next dictionary among all
        self._codes = _Column(expected)

    def append(self, piece: pa.DictionaryArray) -> None:
        self._codes.append(piece.indices.to_numpy() + np.int32(self._start))
        self._dictionaries.append(piece.dictionary)
        self._start += len(piece.dictionary)

    def finish(self) -> tuple[Vocabulary, IntArray]:
        """The distinct ids in order of first appearance, and the positions of all rows."""
        kinds = {dictionary.type for dictionary in self._dictionaries}
        kind = kinds.pop() if len(kinds) == 1 else _common_kind(kinds)
        if kind == pa.string() and sum(dictionary.nbytes for dictionary in self._dictionaries) > MOST_TEXT:
            kind = pa.large_string()
        together = pa.concat_arrays([ids.cast(kind) for ids in self._dictionaries]).dictionary_encode()
        renumbered, codes = together.indices.to_numpy(), self._codes.values
        assert codes is not None  # somebody appended
        for start in range(0, len(codes), SEGMENT):
            some = codes[start : start + SEGMENT]
            some[:] = renumbered[some]
        return Vocabulary(together.dictionary), codes


def _common_kind(kinds: set[pa.DataType]) -> pa.DataType:
    if all(map(pa.types.is_integer, kinds)):
        return pa.int64()
    if not any(map(pa.types.is_integer, kinds)):
        return pa.large_string()
    raise DataError(
        "Expected ids of one kind in all files, found text in some and integers in others: is 7 the same as '7'? "
        "Write them in one type."
    )


def _milliseconds(times: NDArray[Any] | None) -> NDArray[np.int64] | None:
    """Times as they stood in the input (dates already as milliseconds) as int64 milliseconds since 1970.

    May work in place.
    """
    if times is None or times.dtype.kind == "M":
        return None if times is None else times.astype("datetime64[ms]").astype(np.int64)
    largest = max(abs(float(times.max())), abs(float(times.min())))
    factor = next((factor for least, factor in UNITS if largest >= least), 1000.0)
    if factor == 1000.0:
        if times.dtype != np.int64:
            return np.rint(times * factor).astype(np.int64)
        times *= 1000
        return times
    milliseconds = np.rint(times * factor).astype(np.int64) if factor < 1 or times.dtype != np.int64 else times
    if ((milliseconds >= 1e8) & (milliseconds < 1e10)).any():  # as seconds 1973 to 2286, else early in 1970
        raise DataError(
            "Expected times in one unit, found seconds among milliseconds (or finer). Write them in one unit, or say "
            "--timestamp-column none."
        )
    return milliseconds


def _sorted(table: Interactions) -> Interactions:
    """The rows by user, then item. Where users stand in order already, as in MovieLens, their rows move in place."""
    if (table.user[1:] >= table.user[:-1]).all():
        _sort_within_users(table)
        return table
    order = cell_order(table.user, table.item, (len(table.users), len(table.items)))
    return table if order is None else _take(table, order)


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

    deque(in_order(sort, map(slice, starts, [*starts[1:], len(table)])), maxlen=0)


def _take(table: Interactions, rows: NDArray[Any]) -> Interactions:
    """The given rows (positions, or a mask), vocabularies as they are."""

    def cells(name: str) -> Any:
        column = getattr(table, name)
        return None if column is None else column[rows]

    return replace(table, **dict(zip(COLUMNS, in_order(cells, COLUMNS), strict=True)))


def _resolve_duplicates(table: Interactions, account: Account, policy: str) -> Interactions:
    """One row for each (user, item): the last or first by time, else by place; its rating may fold all of theirs.

    A folded row (mean, max, sum) carries the last one's time.
    """
    repeats = (table.user[1:] == table.user[:-1]) & (table.item[1:] == table.item[:-1])
    if not repeats.any():
        return table
    count = int(repeats.sum())
    if policy == "error":
        place = int(np.flatnonzero(repeats)[0])
        pair = table.users.take(table.user[[place]])[0], table.items.take(table.item[[place]])[0]
        lines = [account.place(int(row)) for row in _rows(table)[[place, place + 1]]]
        raise DataError(
            f"Expected each (user, item) pair once, found {count:,} rows that repeat one: {pair[0]}, {pair[1]} in "
            f"{' and '.join(f'line {line:,} of {name}' for name, line in lines)}. "
            "Say --duplicates last, first, mean, max or sum."
        )
    starts = np.flatnonzero(np.concatenate([[True], ~repeats]))
    group = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(table))))
    times = _rows(table) if table.timestamp is None else table.timestamp
    in_time = np.lexsort((_rows(table), times, group))
    ends = np.append(starts[1:], len(table)) - 1
    chosen = in_time[starts if policy == "first" else ends]
    if policy in FOLDS and table.rating is not None:
        folded = FOLDS[policy].reduceat(table.rating.astype(np.float64), starts)
        folded = folded / np.diff(np.append(starts, len(table))) if policy == "mean" else folded
        rating = table.rating.copy()
        rating[chosen] = folded
        table = replace(table, rating=rating)
    kept = np.zeros(len(table), dtype=bool)
    kept[chosen] = True
    return _keep(
        table,
        kept,
        f"duplicate ({policy} kept)" if policy in ("last", "first") else f"duplicate ({policy} taken)",
        account,
    )


def _keep_rated(table: Interactions, account: Account, least: float | None) -> Interactions:
    _require_ratings(table.rating, least)
    if least is None or table.rating is None:
        return table
    return _keep(table, table.rating >= least, BELOW_MIN_RATING, account)


def _require_ratings(ratings: NDArray[np.float32] | None, least: float | None) -> None:
    if least is not None and ratings is None:
        raise NoRatingsError("Expected ratings for --min-rating, found no such column: name it with --rating-column.")


def _keep_core(table: Interactions, account: Account, options: ReadingOptions) -> Interactions:
    """Leave out rare users, then rare items, over and over until none is left."""
    least = options.min_user_items, options.min_item_users
    size = 0
    while max(least) > 1 and len(table) != size and len(table):
        size = len(table)
        table = _keep(table, np.bincount(table.user)[table.user] >= least[0], RARE_USER, account)
        table = _keep(table, np.bincount(table.item, minlength=1)[table.item] >= least[1], RARE_ITEM, account)
    return table


def _keep(table: Interactions, kept: NDArray[np.bool_], reason: str, account: Account) -> Interactions:
    if kept.all():
        return table
    left_out = _take(table, ~kept) if account.writes else None
    account.leave_out(reason, int((~kept).sum()), () if left_out is None else _cells(left_out))
    return _take(table, kept)


def _cells(table: Interactions) -> Iterable[tuple[int, list[Any]]]:
    """Row number and cells of every row, in the order of the input."""
    columns = [table.users.take(table.user).to_pylist(), table.items.take(table.item).to_pylist()]
    if table.rating is not None:
        columns.append([float(rating) for rating in table.rating])
    order = np.argsort(_rows(table), kind="stable")
    return ((int(_rows(table)[place]), [column[place] for column in columns]) for place in order)


def _rows(table: Interactions) -> IntArray:
    assert table.row is not None  # set for all that is read
    return table.row


def _difference(whole: Interactions, kept: Interactions) -> Interactions:
    """The rows of `whole` that are not in `kept`, a selection of them."""
    left = np.ones(int(_rows(whole).max()) + 1, dtype=bool)
    left[_rows(kept)] = False
    return _take(whole, left[_rows(whole)])


def _seen_only(tables: Iterable[Interactions | None], users: Vocabulary) -> Interactions | None:
    """The rows of these users in all tables, as positions in `users`, without ratings; None where there are none."""
    found = [_of_users(table, users) for table in tables if table is not None]
    parts = [part for part in found if len(part)]
    if not parts:
        return None
    items = Vocabulary(pa.chunked_array([part.items.ids for part in parts]).unique())
    item = np.concatenate([items.positions(part.items.ids)[part.item] for part in parts])
    times = [part.timestamp for part in parts if part.timestamp is not None]
    return Interactions(
        users,
        items,
        np.concatenate([part.user for part in parts]),
        item,
        timestamp=np.concatenate(times) if len(times) == len(parts) else None,
        row=np.concatenate([_rows(part) for part in parts]),
    )


def _of_users(table: Interactions, users: Vocabulary) -> Interactions:
    """The rows of these users, as positions in `users`, with the items they mention."""
    user = users.positions(table.users.ids)[table.user]
    table = _take(replace(table, rating=None, seen_only=None), user >= 0)
    items, item = _used(table.items, table.item)
    return replace(table, users=users, user=user[user >= 0], items=items, item=item)


def _without_unused_ids(table: Interactions) -> Interactions:
    users, user = _used(table.users, table.user)
    items, item = _used(table.items, table.item)
    return replace(table, users=users, items=items, user=user, item=item)


def _used(vocabulary: Vocabulary, positions: IntArray) -> tuple[Vocabulary, IntArray]:
    used = np.bincount(positions, minlength=len(vocabulary)) > 0
    if used.all():
        return vocabulary, positions
    renumbered = (np.cumsum(used) - 1).astype(np.int32)
    return Vocabulary(vocabulary.take(np.flatnonzero(used))), renumbered[positions]
