"""For whom, and on what, a model is good: metrics over slices of users and of items.

Users are divided by the length of their histories, held-out items by their popularity in training.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags

from recsys.evaluation.averages import Average
from recsys.evaluation.beyond_accuracy import Positions, short_head
from recsys.evaluation.evaluate import RatingEvaluation, error_average
from recsys.evaluation.metrics import METRICS, find_hits, parse_metric
from recsys.splitting.holdout import Holdout

NEW_ITEM_USERS = 5  # training users: an item with no more of them counts as new


def user_slices(history_lengths: NDArray[Any]) -> dict[str, NDArray[np.bool_]]:
    """Divide users into thirds by the length of their history.

    Parameters
    ----------
    history_lengths : ndarray of int, shape (users,)

    Returns
    -------
    dict of str to ndarray of bool, shape (users,)
        By the name of the slice, shortest histories first; an empty third is left out.
    """
    low, high = np.quantile(history_lengths, [1 / 3, 2 / 3], method="lower")
    slices = {
        f"up to {low:,} items": history_lengths <= low,
        f"{low + 1:,} to {high:,} items": (history_lengths > low) & (history_lengths <= high),
        f"more than {high:,} items": history_lengths > high,
    }
    return {name: inside for name, inside in slices.items() if inside.any()}


def item_slices(item_counts: NDArray[Any]) -> dict[str, NDArray[np.bool_]]:
    """Divide items by popularity so that each of three slices holds a third of the training rows.

    New items, a fourth slice, are those with 1 to NEW_ITEM_USERS training users; most of them are among the rare items
    too. An item without training users is in no slice: no model knows it.

    Parameters
    ----------
    item_counts : ndarray of int, shape (items,)
        Training users of each item.

    Returns
    -------
    dict of str to ndarray of bool, shape (items,)
        By the name of the slice, most popular first; an empty slice is left out.
    """
    first, second = short_head(item_counts, 1 / 3), short_head(item_counts, 2 / 3)
    slices = {
        "popular items": first,
        "items between": second & ~first,
        "rare items": ~second,
        f"new items (at most {NEW_ITEM_USERS} training users)": (item_counts >= 1) & (item_counts <= NEW_ITEM_USERS),
    }
    return {name: inside for name, inside in slices.items() if inside.any()}


def average_on_items(positions: Positions, holdout: Holdout, items: NDArray[np.bool_], label: str) -> Average:
    """Compute a metric of lists as if only the held-out items of a slice were to be found.

    Parameters
    ----------
    positions : ndarray of int32, shape (users, n)
        The lists.
    holdout : Holdout
        What was held out.
    items : ndarray of bool, shape (items,)
        The slice.
    label : str
        Such as recall@50.

    Returns
    -------
    Average
        Users without a held-out item of the slice have weight 0.
    """
    held_out = csr_matrix(holdout.held_out @ diags(items.astype(np.float32)))
    held_out.eliminate_zeros()
    name, k = parse_metric(label)
    return Average.of(METRICS[name](find_hits(positions, held_out), np.diff(held_out.indptr), k))


def error_on_items(items: NDArray[np.bool_], found: RatingEvaluation, holdout: Holdout, label: str) -> Average:
    """Compute an error over the held-out cells of a slice's items; users without any have weight 0."""
    errors = found.predicted.astype(np.float64) - found.observed
    return error_average(errors, holdout, label, items[holdout.held_out.indices])
