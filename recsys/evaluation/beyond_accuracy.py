"""Properties of lists besides accuracy: how much of the catalog they show, how far from the obvious, how varied.

In all functions `positions`, int32 (users, n), are lists as `recsys.inference.topn` makes them, best first, -1 where
one ran short; `item_counts`, int (items,), training users of each item; and k the cut-off.

References
----------
Castells, Hurley, Vargas: Novelty and Diversity in Recommender Systems, Recommender Systems Handbook, 2022.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags

from recsys.data.matrix import sparse_rows, without_order
from recsys.types import Values

Positions = NDArray[np.int32]


def coverage(positions: Positions, n_items: int, k: int) -> float:
    """Return the number of items in at least one list / number of items in the catalog."""
    return float((_exposure(positions, n_items, k) > 0).mean())


def gini(positions: Positions, n_items: int, k: int) -> float:
    """Compute how unequally places in lists are distributed over items.

    sum_i (2 i - I - 1) x_i / (I sum x), with x_i the i-th smallest number of lists an item is in, and I items. 0: all
    items alike; near 1: a few items have all places.
    """
    exposure = np.sort(_exposure(positions, n_items, k))
    rank = 2 * np.arange(1, n_items + 1) - n_items - 1
    return float((rank * exposure).sum() / (n_items * max(1, exposure.sum())))


def novelty(positions: Positions, item_counts: NDArray[Any], n_users: int, k: int) -> Values:
    """Compute the mean of -log2(item_counts / n_users) over each list.

    Returns
    -------
    ndarray of float64, shape (users,)
        In bits: 0 for items that all `n_users` training users have; NaN for an empty list.
    """
    return _mean_over_list(positions, -np.log2(np.maximum(item_counts, 1) / n_users), k)


def popularity_share(positions: Positions, item_counts: NDArray[Any], k: int) -> Values:
    """Return the share of each list that is in the short head, (users,); NaN for an empty list."""
    return _mean_over_list(positions, short_head(item_counts).astype(float), k)


def diversity(positions: Positions, train: csr_matrix, k: int, batch_size: int = 1000) -> Values:
    """Compute 1 - mean cosine over the pairs of each list.

    With unit vectors v, the sum of the cosines of all m (m - 1) pairs is |sum v|^2 - sum |v|^2. An item that no
    training user has is unlike all others.

    Parameters
    ----------
    positions : ndarray of int32, shape (users, n)
    train : csr_matrix, shape (training users, items)
        The vector of an item is its column.
    k : int
    batch_size : int
        Lists at once.

    Returns
    -------
    ndarray of float64, shape (users,)
        1 if no training user has two items of the list; NaN for lists of fewer than two items.
    """
    train = without_order(train)
    norms = np.sqrt(np.bincount(train.indices, weights=train.data**2, minlength=train.shape[1]))
    units = csr_matrix((train @ diags(1 / np.maximum(norms, 1e-12))).T)
    chunks = [_pair_diversity(positions[s : s + batch_size, :k], units) for s in range(0, len(positions), batch_size)]
    return np.concatenate(chunks) if chunks else np.zeros(0)


def short_head(item_counts: NDArray[Any], share: float = 0.5) -> NDArray[np.bool_]:
    """Find the fewest items that hold a share of all training rows.

    Parameters
    ----------
    item_counts : ndarray of int, shape (items,)
        Training users of each item.
    share : float
        In (0, 1].

    Returns
    -------
    ndarray of bool, shape (items,)
        Of equally popular items at the border, those with lower positions.
    """
    order = np.argsort(-item_counts, kind="stable")
    before = np.cumsum(item_counts[order]) - item_counts[order]
    inside = np.zeros(len(item_counts), dtype=bool)
    inside[order[before < share * item_counts.sum()]] = True
    return inside


def _exposure(positions: Positions, n_items: int, k: int) -> NDArray[np.int64]:
    """How many lists each item is in."""
    listed = positions[:, :k]
    return np.bincount(listed[listed >= 0], minlength=n_items)


def _mean_over_list(positions: Positions, value: NDArray[Any], k: int) -> Values:
    """Mean over each list of a value per item; NaN for an empty list."""
    listed = positions[:, :k]
    present = listed >= 0
    length = present.sum(axis=1)
    total = (value[np.where(present, listed, 0)] * present).sum(axis=1)
    return np.where(length > 0, total / np.maximum(length, 1), np.nan)


def _pair_diversity(listed: Positions, units: csr_matrix) -> Values:
    rows, columns = np.nonzero(listed >= 0)
    ones = np.ones(len(rows), dtype=np.float32)
    sums = sparse_rows(rows, listed[rows, columns], ones, (len(listed), units.shape[0])) @ units
    length = np.bincount(rows, minlength=len(listed))
    pairs = length * (length - 1)
    squares = np.asarray(sums.multiply(sums).sum(axis=1)).ravel()
    with_vector = np.bincount(rows[np.diff(units.indptr)[listed[rows, columns]] > 0], minlength=len(listed))
    return np.where(pairs > 0, 1 - (squares - with_vector) / np.maximum(pairs, 1), np.nan)
