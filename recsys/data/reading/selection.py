"""Rows of a table of interactions: taking some, and keeping account of those that were seen without being liked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.data.interactions import Interactions, Vocabulary
from recsys.system.threads import map_in_order
from recsys.types import IntArray

COLUMNS = ("user", "item", "rating", "timestamp", "row")


def take_rows(table: Interactions, rows: NDArray[Any]) -> Interactions:
    """Return the given rows (positions, or a mask), vocabularies as they are."""

    def cells(name: str) -> Any:
        column = getattr(table, name)
        return None if column is None else column[rows]

    return replace(table, **dict(zip(COLUMNS, map_in_order(cells, COLUMNS), strict=True)))


def row_numbers(table: Interactions) -> IntArray:
    """Return the number of each row in the source."""
    assert table.row is not None  # reading always sets it
    return table.row


def with_row_numbers(table: Interactions) -> Interactions:
    """Return the same table, its rows numbered as they stand where they have none, as in tables made by hand."""
    seen = None if table.seen_only is None else with_row_numbers(table.seen_only)
    row = np.arange(len(table), dtype=np.int32) if table.row is None else table.row
    return replace(table, row=row, seen_only=seen)


def left_out(whole: Interactions, kept: Interactions) -> Interactions:
    """Return the rows of `whole` that are not in `kept`, a selection of them."""
    if np.bincount(row_numbers(whole)).max() > 1:  # several rows of one line
        width = len(whole.items)
        keys = [table.user.astype(np.int64) * width + table.item for table in (whole, kept)]
        return take_rows(whole, ~np.isin(keys[0], keys[1], assume_unique=True))
    left = np.ones(int(row_numbers(whole).max()) + 1, dtype=bool)
    left[row_numbers(kept)] = False
    return take_rows(whole, left[row_numbers(whole)])


def join_seen(tables: Iterable[Interactions | None], users: Vocabulary) -> Interactions | None:
    """Return the rows of all tables, without ratings; None if there are none. Its users begin with the given ones."""
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
        row=np.concatenate([row_numbers(part) for part in parts]),
    )


def _of_users(table: Interactions, users: Vocabulary) -> Interactions:
    """The rows of these users, as positions in `users`, with the items they mention."""
    user = users.positions(table.users.ids)[table.user]
    table = take_rows(replace(table, rating=None, seen_only=None), user >= 0)
    items, item = _used(table.items, table.item)
    return replace(table, users=users, user=user[user >= 0], items=items, item=item)


def without_unused_ids(table: Interactions) -> Interactions:
    """Return the same rows; the vocabularies keep the ids that have one."""
    users, user = _used(table.users, table.user)
    items, item = _used(table.items, table.item)
    return replace(table, users=users, items=items, user=user, item=item)


def _used(vocabulary: Vocabulary, positions: IntArray) -> tuple[Vocabulary, IntArray]:
    used = np.bincount(positions, minlength=len(vocabulary)) > 0
    if used.all():
        return vocabulary, positions
    renumbered = (np.cumsum(used) - 1).astype(np.int32)
    return Vocabulary(vocabulary.take(np.flatnonzero(used))), renumbered[positions]
