"""Protocols that hold out the later interactions: the last of each user, or all after a cut in time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import Interactions
from recsys.errors import DataError
from recsys.splitting._building import (
    TEST,
    TRAIN,
    VALIDATION,
    check_share,
    for_task,
    protocol,
    rank_within_users,
    round_down,
    split_rows,
)
from recsys.splitting.holdout import Split

Cut = tuple[int, float]  # time and key of the first row of a part; key -1: all rows of the time


@protocol("leave-one-out")
def leave_one_out(interactions: Interactions, *, seed: int = 0, ratings: bool = False) -> Split:
    """Hold out the last item of each user as test and the one before it as validation.

    ```
            time ->
    user 1   x x x v o      x training, v validation (in the history at test), o test
    user 2   x v o          with two items: x o; with one: x
    ```
    Later rows of other users are in training: `temporal` avoids that.

    Parameters
    ----------
    interactions : Interactions
        Ordered by time; without times by their place in the file, which counts here alone. A file sorted by item then
        has its last items held out: `weak` is fairer.
    seed : int
        Decides the order of equal times; nothing where there are no times.
    ratings : bool
        Whether cells hold ratings instead of 1.

    Returns
    -------
    Split

    Raises
    ------
    DataError
        If no user has two items, or none has three.
    """
    row = np.arange(len(interactions)) if interactions.row is None else interactions.row
    key = row if interactions.timestamp is None else np.random.default_rng(seed).random(len(interactions))
    rank, size = rank_within_users(interactions.user, key, interactions.timestamp)
    from_end = size - 1 - rank
    part = np.full(len(interactions), TRAIN)
    part[(from_end == 0) & (size > 1)] = TEST
    part[(from_end == 1) & (size > 2)] = VALIDATION
    return split_rows("leave-one-out", for_task(interactions, ratings), part, _part_of_seen(interactions, part))


@protocol("temporal")
def temporal(interactions: Interactions, *, share: float = 0.1, seed: int = 0, ratings: bool = False) -> Split:
    """Cut in time: training is the past of all users, and holds nothing of the future.

    ```
                 training  | validation |  test
    user 1       x   x     |     v      |  o o      at test the history is x and v
    user 2           x     |            |  o
    user 3                 |            |  o        no history: left out, and counted
    ```
    Rows of one time stay together, on the later side of a cut. Where that would make a part more than half as large
    again as its share (times of a day's precision, for example), the rows of that time are divided at random;
    `facts["rows_at_divided_times"]` counts them.

    Parameters
    ----------
    interactions : Interactions
        With timestamps.
    share : float
        The last `share` of all rows is test, as much before it validation; above 0 and below 0.5.
    seed : int
        Decides how the rows of one time are divided, where they are.
    ratings : bool
        Whether cells hold ratings instead of 1.

    Returns
    -------
    Split

    Raises
    ------
    ConfigError
        If `share` is out of range.
    DataError
        If there are no timestamps, fewer than three different ones, or no user with a history in a part.
    """
    check_share("share", share, 0.5)
    if interactions.timestamp is None:
        raise DataError("The temporal protocol needs timestamps, found none: name their column or use another.")
    rng = np.random.default_rng(seed)
    key = rng.random(len(interactions))
    cuts, divided = _cuts(interactions.timestamp, key, share)
    part = _part_at(interactions.timestamp, key, cuts)
    others, seen = interactions.seen_only, None
    if others is not None and others.timestamp is not None:
        seen = _part_at(others.timestamp, rng.random(len(others)), cuts)
    split = split_rows("temporal", for_task(interactions, ratings), part, seen)
    return replace(split, facts=split.facts | ({"rows_at_divided_times": divided} if divided else {}))


def _cuts(times: NDArray[np.int64], key: NDArray[np.float64], share: float) -> tuple[list[Cut], int]:
    """The cuts before validation and before test, and how many rows have a time that a cut divides, by their keys."""
    order = np.lexsort((key, times))
    total, count = len(times), max(1, int(round_down(len(times) * share)))
    if len(np.unique(times)) < 3 or total <= 2 * count:
        raise DataError(
            f"Expected rows of at least three different times for two cuts, found {total:,} rows of "
            f"{len(np.unique(times)):,}: use a protocol that needs no times, such as weak."
        )
    cuts: list[Cut] = []
    divided = np.zeros(total, dtype=bool)
    for place in (total - 2 * count, total - count):
        time = times[order[place]]
        start = int(np.searchsorted(times, time, sorter=order))
        is_whole = start > 0 and place - start <= count // 2
        cuts.append((int(time), -1 if is_whole else float(key[order[place]])))
        if not is_whole and start < place:
            divided |= times == time
    return cuts, int(divided.sum())


def _part_at(times: NDArray[np.int64], key: NDArray[np.float64], cuts: list[Cut]) -> NDArray[Any]:
    """The part of each row: how many of the cuts come before it."""
    later = [(times > time) | ((times == time) & (key >= first)) for time, first in cuts]
    return np.asarray(np.sum(later, axis=0))


def _part_of_seen(interactions: Interactions, part: NDArray[Any]) -> NDArray[Any] | None:
    """The part of each row of `seen_only`, by its time, or by its place in a file without times."""
    others = interactions.seen_only
    if others is None:
        return None
    timed = interactions.timestamp is not None and others.timestamp is not None
    time, when = (interactions.timestamp, others.timestamp) if timed else (interactions.row, others.row)
    if time is None or when is None:
        return None
    found = np.full(len(others), TRAIN)
    for stage in (VALIDATION, TEST):  # one row of a user at most is held out in each
        held = part == stage
        cut = np.full(len(others.users), np.iinfo(np.int64).max)
        cut[interactions.user[held]] = time[held]
        found[when >= cut[others.user]] = stage
    return found
