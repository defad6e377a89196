"""Protocol leave-last-out: the last item of every user is tested, as in publications on sequences."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from recsys.data.interactions import Interactions
from recsys.data.matrix import sparse_rows
from recsys.data.order import in_order, places
from recsys.errors import ConfigError
from recsys.splitting._building import TEST, TRAIN, VALIDATION, for_task, protocol, split_rows
from recsys.splitting.holdout import Holdout, Split


@protocol("leave-last-out")
def leave_last_out(
    interactions: Interactions,
    *,
    order: Literal["time", "rows"] | None = None,
    repeats: bool = False,
    at_most: int | None = None,
    seed: int = 0,
    test: bool = True,
    ratings: bool = False,
) -> Split:
    """Hold out the last item of each user as test and the one before it as validation, all items ranked.

    ```
            time ->
    user 1   x x x v o      x training, v validation (in the history at test), o test
    user 2   x x v o
    user 3   x x            fewer than three items: training
    ```
    Unlike with `leave-one-out`, rows of equal times are in the order of the source, not in a random one, matrices hold
    places in time, and lists may be allowed to repeat the history: publications differ in that.

    Parameters
    ----------
    interactions : Interactions
    order : {"time", "rows"}, optional
        What decides which item is the last: see `recsys.data.order`.
    repeats : bool
        Whether lists may hold items of the history.
    at_most : int, optional
        Most users in each held-out part, drawn at random; the items of the others are training. All without it.
    seed : int
        Decides which users, where there are more.
    test : bool
        Without a test part the last item is validation.
    ratings : bool
        Whether cells hold ratings instead of places in time.

    Returns
    -------
    Split

    Raises
    ------
    ConfigError
        If `at_most` is below 1.
    DataError
        If there are no times to order the rows by, or no user has three items (two without a test part).
    """
    if at_most is not None and at_most < 1:
        raise ConfigError(f"Expected at_most of at least 1, found {at_most}.")
    ordered = in_order(interactions, order)
    size = np.bincount(ordered.user, minlength=len(ordered.users))
    held = np.flatnonzero(size >= 2 + test)
    if at_most is not None:
        held = np.sort(np.random.default_rng(seed).permutation(held)[:at_most])
    chosen = np.isin(np.arange(len(size)), held)[ordered.user]
    from_end = size[ordered.user] - places(ordered).astype(np.int64)
    part = np.full(len(ordered), TRAIN)
    part[chosen & (from_end == 0)] = TEST if test else VALIDATION
    if test:
        part[chosen & (from_end == 1)] = VALIDATION
    stages = (VALIDATION, TEST) if test else (VALIDATION,)
    split = split_rows("leave-last-out", for_task(ordered, ratings), part, required=stages)
    if not repeats:
        return split
    return replace(split, validation=_unmasked(split.validation), test=_unmasked(split.test))


def _unmasked(part: Holdout | None) -> Holdout | None:
    """The same part, whose lists may hold every item."""
    if part is None:
        return None
    none = np.empty(0, dtype=np.int32)
    return replace(part, seen=sparse_rows(none, none, none, part.history.shape))
