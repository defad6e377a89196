"""What lists are like besides right: how much of the catalog they show, how far from the obvious, how varied.

`positions`, int32 (users, n), are lists as recsys.topn makes them, best first, -1 where one ran short; `counts`, int
(items,), training users of each item; k, the cut-off. Formulas as in Castells, Hurley, Vargas: Novelty and Diversity
in Recommender Systems, 2022.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags

from recsys.data.matrix import sparse_rows
from recsys.types import Values

Positions = NDArray[np.int32]


def coverage(positions: Positions, items: int, k: int) -> float:
    """Items in at least one list / items of the catalog."""
    return float((_exposure(positions, items, k) > 0).mean())


def gini(positions: Positions, items: int, k: int) -> float:
    """How unequally places in lists are shared out: sum_i (2 i - I - 1) x_i / (I sum x).

    x_i: the i-th smallest number of lists an item stands in, I items. 0: all items alike; near 1: a few have it all.
    """
    exposure = np.sort(_exposure(positions, items, k))
    rank = 2 * np.arange(1, items + 1) - items - 1
    return float((rank * exposure).sum() / (items * max(1, exposure.sum())))


def novelty(positions: Positions, counts: NDArray[Any], users: int, k: int) -> Values:
    """Mean of -log2(counts_i / users) over a list, in bits, (users,): 0 for what everybody took."""
    return _mean_over_list(positions, -np.log2(np.maximum(counts, 1) / users), k)


def popularity_share(positions: Positions, counts: NDArray[Any], k: int) -> Values:
    """Share of a list that is from the head: the fewest items that hold half of all training rows, (users,)."""
    return _mean_over_list(positions, head(counts).astype(float), k)


def diversity(positions: Positions, train: csr_matrix, k: int, batch_size: int = 1000) -> Values:
    """1 - mean cosine over the pairs of a list, (users,): 1 if nobody took two of its items; NaN with less than two.

    The vector of an item is its column of `train`, CSR (users, items). With unit vectors v, the sum of the cosines of
    all m (m - 1) pairs is |sum v|^2 - m.
    """
    norms = np.sqrt(np.bincount(train.indices, weights=train.data**2, minlength=train.shape[1]))
    units = csr_matrix((train @ diags(1 / np.maximum(norms, 1e-12))).T)
    chunks = [_pair_diversity(positions[s : s + batch_size, :k], units) for s in range(0, len(positions), batch_size)]
    return np.concatenate(chunks) if chunks else np.zeros(0)


def head(counts: NDArray[Any], share: float = 0.5) -> NDArray[np.bool_]:
    """The fewest items that hold `share` of all training rows, bool (items,)."""
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    inside = np.zeros(len(counts), dtype=bool)
    inside[order[before < share * counts.sum()]] = True
    return inside


def _exposure(positions: Positions, items: int, k: int) -> NDArray[np.int64]:
    listed = positions[:, :k]
    return np.bincount(listed[listed >= 0], minlength=items)


def _mean_over_list(positions: Positions, value: NDArray[Any], k: int) -> Values:
    """Mean of a value an item over each list; NaN for an empty one."""
    listed = positions[:, :k]
    there = listed >= 0
    length = there.sum(axis=1)
    total = (value[np.where(there, listed, 0)] * there).sum(axis=1)
    return np.where(length > 0, total / np.maximum(length, 1), np.nan)


def _pair_diversity(listed: Positions, units: csr_matrix) -> Values:
    rows, columns = np.nonzero(listed >= 0)
    ones = np.ones(len(rows), dtype=np.float32)
    sums = sparse_rows(rows, listed[rows, columns], ones, (len(listed), units.shape[0])) @ units
    length = np.bincount(rows, minlength=len(listed))
    pairs = length * (length - 1)
    squares = np.asarray(sums.multiply(sums).sum(axis=1)).ravel()
    return np.where(pairs > 0, 1 - (squares - length) / np.maximum(pairs, 1), np.nan)
