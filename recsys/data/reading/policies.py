"""Which rows are kept: one of each pair, what was liked, users and items that are not rare. The others are counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import Interactions
from recsys.data.order import in_order
from recsys.data.reading.options import ReadingOptions
from recsys.data.reading.rows import (
    BELOW_MIN_RATING,
    RARE_ITEM,
    RARE_USER,
    Account,
)
from recsys.data.reading.selection import join_seen, left_out, row_numbers, take_rows, without_unused_ids
from recsys.errors import ConfigError, DataError, NoRatingsError, NoRowsLeftError
from recsys.system.text import plural

COMBINERS = {"mean": np.add, "sum": np.add, "max": np.maximum}


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
        raise NoRowsLeftError(f"Expected rows to be left, found none: {account.ledger.line()}. Lower the thresholds.")
    if len(table) == len(whole):
        return _ordered(replace(table, ledger=account.ledger, columns=account.columns, policies=policies), options)
    others = left_out(whole, table)
    table = without_unused_ids(table)
    seen_only = join_seen([others, whole.seen_only], table.users)
    table = replace(table, ledger=account.ledger, seen_only=seen_only, columns=account.columns, policies=policies)
    return _ordered(table, options)


def _ordered(table: Interactions, options: ReadingOptions) -> Interactions:
    """The table, as sequences where the options say what decides the order."""
    return table if options.order is None else in_order(table, options.order)


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


def _resolve_duplicates(table: Interactions, account: Account, policy: str) -> Interactions:
    """One row for each (user, item): the last or the first by time, then by row; mean, max and sum combine ratings.

    A combined row has the time of the last one.
    """
    repeats = (table.user[1:] == table.user[:-1]) & (table.item[1:] == table.item[:-1])
    if not repeats.any():
        return table
    count = int(repeats.sum())
    if policy == "error":
        place = int(np.flatnonzero(repeats)[0])
        pair = table.users.take(table.user[[place]])[0], table.items.take(table.item[[place]])[0]
        lines = [account.place(int(row)) for row in row_numbers(table)[[place, place + 1]]]
        raise DataError(
            f"Expected each (user, item) pair once, found {plural(count, 'row that repeats', 'rows that repeat')} "
            f"one: {pair[0]}, {pair[1]} in "
            f"{' and '.join(f'line {line:,} of {name}' for name, line in lines)}. "
            "Set duplicates='last', 'first', 'mean', 'max' or 'sum'."
        )
    starts = np.flatnonzero(np.concatenate([[True], ~repeats]))
    group = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(table))))
    times = row_numbers(table) if table.timestamp is None else table.timestamp
    in_time = np.lexsort((row_numbers(table), times, group))
    ends = np.append(starts[1:], len(table)) - 1
    chosen = in_time[starts if policy == "first" else ends]
    if policy in COMBINERS and table.rating is not None:
        in_size = np.lexsort((table.rating, group))  # a sum must not depend on the order of the rows
        combined = COMBINERS[policy].reduceat(table.rating[in_size].astype(np.float64), starts)
        combined = combined / np.diff(np.append(starts, len(table))) if policy == "mean" else combined
        rating = table.rating.copy()
        rating[chosen] = combined
        table = replace(table, rating=rating)
    kept = np.zeros(len(table), dtype=bool)
    kept[chosen] = True
    return keep_rows(
        table,
        kept,
        f"duplicate ({policy} kept)" if policy in ("last", "first") else f"duplicate ({policy} taken)",
        account,
    )


def _keep_rated(table: Interactions, account: Account, least: float | None) -> Interactions:
    require_ratings(table.rating, least)
    if least is None or table.rating is None:
        return table
    return keep_rows(table, table.rating >= least, BELOW_MIN_RATING, account)


def require_ratings(ratings: NDArray[np.float32] | None, least: float | None) -> None:
    """Raise NoRatingsError where there is a minimum and nothing to compare with it."""
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
        table = keep_rows(table, np.bincount(table.user)[table.user] >= least[0], RARE_USER, account)
        table = keep_rows(table, np.bincount(table.item, minlength=1)[table.item] >= least[1], RARE_ITEM, account)
    return table


def keep_rows(table: Interactions, kept: NDArray[np.bool_], reason: str, account: Account) -> Interactions:
    """Return the rows to keep, bool (rows,), and count the others under the reason."""
    if kept.all():
        return table
    left_out = take_rows(table, ~kept) if account.writes else None
    account.leave_out(reason, int((~kept).sum()), () if left_out is None else numbered_cells(left_out))
    return take_rows(table, kept)


def numbered_cells(table: Interactions) -> Iterable[tuple[int, list[Any]]]:
    """Row number and cells of every row, in the order of the source."""
    columns = [table.users.take(table.user).to_pylist(), table.items.take(table.item).to_pylist()]
    if table.rating is not None:
        columns.append([float(rating) for rating in table.rating])
    order = np.argsort(row_numbers(table), kind="stable")
    return ((int(row_numbers(table)[place]), [column[place] for column in columns]) for place in order)
