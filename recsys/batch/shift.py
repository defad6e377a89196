"""How far a batch has moved away from an earlier one: the population stability index of its scores and of its items.

The index of two distributions over the same groups is the sum of (p - q) ln(p / q): 0 for equal ones. By the usual rule
(Siddiqi, Credit Risk Scorecards, 2006) nothing has changed below 0.1, and it is another population above 0.25. Under no
change at all it is about (groups - 1) (1 / n + 1 / m) for n and m independent values, 0.002 for 10,000 each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

GROUPS = 10
SLIGHT, LARGE = 0.1, 0.25  # from where a change is worth a look, and from where it is another population


def stability_index(earlier: ArrayLike, later: ArrayLike) -> float:
    """Compare two distributions over the same groups.

    Parameters
    ----------
    earlier, later : array-like, shape (groups,)
        How many values are in each group.

    Returns
    -------
    float
        The population stability index, 0 or more; half a value is added to every group, so that it is finite. NaN where
        one side has no values.
    """
    counts = [np.asarray(side, dtype=np.float64) for side in (earlier, later)]
    if not all(side.sum() for side in counts):
        return float("nan")
    q, p = ((side + 0.5) / (side + 0.5).sum() for side in counts)
    return float(((p - q) * np.log(p / q)).sum())


def score_shift(earlier: NDArray[np.floating], later: NDArray[np.floating]) -> float:
    """Compare scores, in groups between the tenths of the earlier ones.

    Parameters
    ----------
    earlier, later : ndarray of float
        Scores of the lists.

    Returns
    -------
    float
        The index.
    """
    if not len(earlier) or not len(later):
        return float("nan")
    edges = np.unique(np.quantile(earlier, np.arange(1, GROUPS) / GROUPS))
    sides = (
        np.bincount(np.searchsorted(edges, one, side="right"), minlength=len(edges) + 1) for one in (earlier, later)
    )
    return stability_index(*sides)


def item_shift(earlier: NDArray[np.int64], later: NDArray[np.int64], vanished: int = 0) -> float:
    """Compare which items are listed, in groups that had a tenth of the earlier rows each.

    Parameters
    ----------
    earlier, later : ndarray of int64, shape (items,)
        Number of lists each item is in.
    vanished : int
        Earlier rows with items that are not among these.

    Returns
    -------
    float
        The index. Items that were in no list before are a group of their own, as are those that vanished.
    """
    order = np.argsort(-earlier, kind="stable")
    before = np.cumsum(earlier[order]) - earlier[order]  # rows of the items listed more often
    total = max(1, int(earlier.sum()))
    group = np.empty(len(order), dtype=np.int64)
    group[order] = np.minimum(before * GROUPS // total, GROUPS - 1)
    group[earlier == 0] = GROUPS
    sides = [np.bincount(group, weights=one, minlength=GROUPS + 1) for one in (earlier, later)]
    used = (sides[0] + sides[1]) > 0  # a very popular item takes the place of several groups
    return stability_index(np.append(sides[0][used], vanished), np.append(sides[1][used], 0))


FEWEST = 7  # earlier values, before one can be called unusual
_DEVIATIONS, _SHARE = 4.0, 0.02


def is_unusual(earlier: Sequence[float], value: float) -> bool:
    """Say whether a value is not like those before it.

    Parameters
    ----------
    earlier : sequence of float
        The same measure of earlier batches; NaN are passed over.
    value : float

    Returns
    -------
    bool
        Whether it is farther from their median than 4 robust standard deviations (1.4826 times the median absolute
        deviation), and than 2 % of the median. False for NaN, and where there are fewer than `FEWEST` earlier ones.
    """
    known = np.array([one for one in earlier if np.isfinite(one)])
    if len(known) < FEWEST or not np.isfinite(value):
        return False
    median = float(np.median(known))
    spread = 1.4826 * float(np.median(np.abs(known - median)))
    return abs(value - median) > max(_DEVIATIONS * spread, _SHARE * abs(median))
