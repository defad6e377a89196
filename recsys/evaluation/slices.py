"""For whom, and on what, a model is good: metrics over slices of users and of items.

Users are cut by the length of their histories, held-out items by their popularity in training: the popular, the rare,
and those that are as good as new to a model.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags

from recsys.evaluation.averages import Average
from recsys.evaluation.beyond_accuracy import Positions, head
from recsys.evaluation.evaluate import RatingEvaluation, error_average
from recsys.evaluation.metrics import METRICS, find_hits, parse_metric
from recsys.splitting.holdout import Holdout

FEW = 5  # training users: an item with no more is as good as new to a model


def user_slices(length: NDArray[Any]) -> dict[str, NDArray[np.bool_]]:
    """Thirds of the users by the length of their history, bool (users,); a third nobody falls into is left out."""
    low, high = np.quantile(length, [1 / 3, 2 / 3], method="lower")
    slices = {
        f"up to {low:,} items": length <= low,
        f"{low + 1:,} to {high:,} items": (length > low) & (length <= high),
        f"more than {high:,} items": length > high,
    }
    return {name: inside for name, inside in slices.items() if inside.any()}


def item_slices(counts: NDArray[Any]) -> dict[str, NDArray[np.bool_]]:
    """Items by popularity, bool (items,): each of three holds a third of the training rows, the first in few items.

    New items are those with 1 <= counts_i <= FEW, whatever the data say of time: most of them are among the rare ones
    too. An item nobody has in training is in no slice: no model knows it.
    """
    first, second = head(counts, 1 / 3), head(counts, 2 / 3)
    slices = {
        "popular items": first,
        "items between": second & ~first,
        "rare items": ~second,
        f"new items (at most {FEW} training users)": (counts >= 1) & (counts <= FEW),
    }
    return {name: inside for name, inside in slices.items() if inside.any()}


def on_items(positions: Positions, holdout: Holdout, items: NDArray[np.bool_], label: str) -> Average:
    """A metric of lists as if only the held-out items of a slice were to be found; users without any have no say."""
    held_out = csr_matrix(holdout.held_out @ diags(items.astype(np.float32)))
    held_out.eliminate_zeros()
    name, k = parse_metric(label)
    return Average.of(METRICS[name](find_hits(positions, held_out), np.diff(held_out.indptr), k))


def on_cells_of(items: NDArray[np.bool_], found: RatingEvaluation, holdout: Holdout, label: str) -> Average:
    """An error over the held-out cells of a slice's items; users without any have no say."""
    errors = found.predicted.astype(np.float64) - found.observed
    return error_average(errors, holdout, label, items[holdout.held_out.indices])
