"""From parsed rows to interactions: one vocabulary, times in milliseconds, duplicates by policy, thresholds."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.data.interactions import Interactions, Vocabulary
from recsys.data.matrix import cell_order
from recsys.data.reading.options import ReadingOptions
from recsys.data.reading.rows import (
    BAD_RATING,
    BAD_TIME,
    BELOW_MIN_RATING,
    IMPLAUSIBLE_TIME,
    RARE_ITEM,
    RARE_USER,
    UNDECODABLE,
    Account,
    Rows,
)
from recsys.data.reading.times import Strays, to_milliseconds
from recsys.errors import ConfigError, DataError, NoRatingsError
from recsys.system.text import plural
from recsys.system.threads import delay_interrupts, map_in_order
from recsys.types import IntArray

MAX_ROWS = 2**31 - 1
MAX_TEXT = 2**30  # bytes of ids, with a margin below what 32-bit offsets reach
SEGMENT = 1 << 16  # rows processed at once: few enough for the cache
COLUMNS = ("user", "item", "rating", "timestamp", "row")
COMBINERS = {"mean": np.add, "sum": np.add, "max": np.maximum}
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
        _require_ratings(piece.rating, options.min_rating)  # before the rest is read in vain
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
    rejected = _numbered_cells(_take(table, strays.mask))
    cells = ((number, [*row, value]) for (number, row), value in zip(rejected, strays.values, strict=True))
    account.reject(IMPLAUSIBLE_TIME, [f"found {value}" for value in strays.values], cells)
    return _without_unused_ids(_take(table, ~strays.mask))


def apply_policies(table: Interactions, account: Account, options: ReadingOptions) -> Interactions:
    """Apply the policies of the options: duplicates, `min_rating` and the minima, in this order.

    Parameters
    ----------
    table : Interactions
        Sorted by user, then item.
    account : Account
        Receives the rows left out.
    options : ReadingOptions

    Returns
    -------
    Interactions
        What was left out by `min_rating`, or as a rare user or item, is its `seen_only`.

    Raises
    ------
    DataError
        If no row is left, or if ratings are needed and missing.
    """
    policies = _applied(table.policies, options)
    table = whole = _resolve_duplicates(table, account, options.duplicates or "last")
    table = _keep_rated(table, account, options.min_rating)
    table = _keep_core(table, account, options)
    if not len(table):
        raise DataError(f"Expected rows to be left, found none: {account.ledger.line()}. Lower the thresholds.")
    if len(table) == len(whole):
        return replace(table, ledger=account.ledger, columns=account.columns, policies=policies)
    left_out = _difference(whole, table)
    table = _without_unused_ids(table)
    seen_only = _seen_only([left_out, whole.seen_only], table.users)
    return replace(table, ledger=account.ledger, seen_only=seen_only, columns=account.columns, policies=policies)


def _applied(before: Mapping[str, Any], options: ReadingOptions) -> dict[str, Any]:
    """The policies of a table after those of the options; `before`: what a prepared store was made with.

    Raises ConfigError where a store has lost what the options ask for.
    """
    made, asked = before.get("min_rating"), options.min_rating
    if made is not None and asked is not None and asked < made:
        raise ConfigError(
            f"Expected min_rating of {made:g} or more with a store that was prepared with it, found {asked:g}: lower "
            "ratings are no preferences there. Prepare it again with a lower one."
        )
    least = [least for least in (made, asked) if least is not None]
    return {
        "min_rating": max(least) if least else None,
        "duplicates": before.get("duplicates") or options.duplicates,
    }


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
        """Return the distinct ids in order of first appearance, and the position of each row's id among them."""
        kinds = {dictionary.type for dictionary in self._dictionaries}
        kind = kinds.pop() if len(kinds) == 1 else _common_kind(kinds)
        if kind == pa.string() and sum(dictionary.nbytes for dictionary in self._dictionaries) > MAX_TEXT:
            kind = pa.large_string()
        joined = pa.concat_arrays([ids.cast(kind) for ids in self._dictionaries]).dictionary_encode()
        renumbered, codes = joined.indices.to_numpy(), self._codes.values
        assert codes is not None  # there is a piece
        for start in range(0, len(codes), SEGMENT):
            some = codes[start : start + SEGMENT]
            some[:] = renumbered[some]
        return Vocabulary(joined.dictionary), codes


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

    deque(map_in_order(sort, map(slice, starts, [*starts[1:], len(table)])), maxlen=0)


def _take(table: Interactions, rows: NDArray[Any]) -> Interactions:
    """The given rows (positions, or a mask), vocabularies as they are."""

    def cells(name: str) -> Any:
        column = getattr(table, name)
        return None if column is None else column[rows]

    return replace(table, **dict(zip(COLUMNS, map_in_order(cells, COLUMNS), strict=True)))


def _resolve_duplicates(table: Interactions, account: Account, policy: str) -> Interactions:
    """One row for each (user, item): the last or the first by time, else by row; mean, max and sum combine ratings.

    A combined row has the time of the last one.
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
            f"Expected each (user, item) pair once, found {plural(count, 'row that repeats', 'rows that repeat')} "
            f"one: {pair[0]}, {pair[1]} in "
            f"{' and '.join(f'line {line:,} of {name}' for name, line in lines)}. "
            "Set duplicates='last', 'first', 'mean', 'max' or 'sum'."
        )
    starts = np.flatnonzero(np.concatenate([[True], ~repeats]))
    group = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(table))))
    times = _rows(table) if table.timestamp is None else table.timestamp
    in_time = np.lexsort((_rows(table), times, group))
    ends = np.append(starts[1:], len(table)) - 1
    chosen = in_time[starts if policy == "first" else ends]
    if policy in COMBINERS and table.rating is not None:
        combined = COMBINERS[policy].reduceat(table.rating.astype(np.float64), starts)
        combined = combined / np.diff(np.append(starts, len(table))) if policy == "mean" else combined
        rating = table.rating.copy()
        rating[chosen] = combined
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
        raise NoRatingsError(
            "Expected ratings to compare with min_rating, found none: name their column with rating_column."
        )


def _keep_core(table: Interactions, account: Account, options: ReadingOptions) -> Interactions:
    """Leave out rare users, then rare items, repeatedly until there are none."""
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
    account.leave_out(reason, int((~kept).sum()), () if left_out is None else _numbered_cells(left_out))
    return _take(table, kept)


def _numbered_cells(table: Interactions) -> Iterable[tuple[int, list[Any]]]:
    """Row number and cells of every row, in the order of the source."""
    columns = [table.users.take(table.user).to_pylist(), table.items.take(table.item).to_pylist()]
    if table.rating is not None:
        columns.append([float(rating) for rating in table.rating])
    order = np.argsort(_rows(table), kind="stable")
    return ((int(_rows(table)[place]), [column[place] for column in columns]) for place in order)


def _rows(table: Interactions) -> IntArray:
    assert table.row is not None  # reading always sets it
    return table.row


def _difference(whole: Interactions, kept: Interactions) -> Interactions:
    """The rows of `whole` that are not in `kept`, a selection of them."""
    if np.bincount(_rows(whole)).max() > 1:  # several rows of one line
        width = len(whole.items)
        keys = [table.user.astype(np.int64) * width + table.item for table in (whole, kept)]
        return _take(whole, ~np.isin(keys[0], keys[1], assume_unique=True))
    left = np.ones(int(_rows(whole).max()) + 1, dtype=bool)
    left[_rows(kept)] = False
    return _take(whole, left[_rows(whole)])


def _seen_only(tables: Iterable[Interactions | None], users: Vocabulary) -> Interactions | None:
    """The rows of all tables, without ratings; None if there are none. Its users begin with the given ones."""
    parts = [table for table in tables if table is not None and len(table)]
    if not parts:
        return None
    for part in parts:
        mentioned = part.users.take(np.unique(part.user))
        users = users.extended(mentioned.filter(pa.array(users.positions(mentioned) < 0)))
    parts = [_of_users(part, users) for part in parts]
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
