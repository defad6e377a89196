"""The order of histories: the place of each row among those of its user, by time or as the source has them.

```
user 1   time 5 3 3   row 0 1 2   ->   by time: places 3 1 2      by rows: 1 2 3
```
Rows of equal times are in the order of the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from recsys.data.interactions import Interactions
from recsys.errors import DataError
from recsys.types import FloatArray


def in_order(interactions: Interactions, by: Literal["time", "rows"] | None = None) -> Interactions:
    """Return the same rows as sequences: their matrices hold places in time.

    Parameters
    ----------
    interactions : Interactions
    by : {"time", "rows"}, optional
        "time": by timestamp, rows of equal times in the order of the source. "rows": in the order of the source.
        Without it as they are already, else by time.

    Returns
    -------
    Interactions

    Raises
    ------
    DataError
        If the order is that of time and there are no timestamps.
    """
    by = by or interactions.order or "time"
    if by == "time" and interactions.timestamp is None:
        raise DataError(
            "Expected times, which decide the order of a history, found none: name their column (timestamp_column), "
            "or take the order of the rows (order=rows)."
        )
    return replace(interactions, order=by)


def for_models(interactions: Interactions, models: Sequence[Any]) -> Interactions:
    """Return the interactions in order if one of the models uses the order of histories; see `in_order`."""
    return in_order(interactions) if any(model.uses_order for model in models) else interactions


def places(interactions: Interactions) -> FloatArray:
    """Return the place of each row among those of its user, 1 for the oldest, float32 (rows,)."""
    user, row = interactions.user, interactions.row
    row = np.arange(len(user), dtype=np.int32) if row is None else row
    time = None if interactions.order == "rows" else interactions.timestamp
    order = np.lexsort((row, user) if time is None else (row, time, user))
    starts = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=len(interactions.users)))])
    place = np.empty(len(user), dtype=np.float32)
    place[order] = np.arange(len(user)) - starts[user[order]] + 1
    return place


def tied_rows(interactions: Interactions) -> int:
    """Return the number of rows that share user and time with another: the order of the source decides theirs."""
    if interactions.timestamp is None or not len(interactions):
        return 0
    order = np.lexsort((interactions.timestamp, interactions.user))
    user, time = interactions.user[order], interactions.timestamp[order]
    tied = (user[1:] == user[:-1]) & (time[1:] == time[:-1])
    return int((np.append(tied, False) | np.append(False, tied)).sum())


def order_line(interactions: Interactions) -> str:
    """Say what decides the order of the histories, and of how many rows the times do not."""
    if interactions.order == "rows":
        return "Histories are in the order of the rows."
    tied = tied_rows(interactions)
    return f"Histories are in order of time; {tied:,} of {len(interactions):,} rows at equal times in that of the rows."
