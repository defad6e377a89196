"""Checks of what a model is given: values of the training matrix, features and positions of items."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix

from recsys.data.matrix import as_csr
from recsys.errors import ConfigError, DataError
from recsys.training.context import TrainingContext


def check_values(matrix: csr_matrix, task: str) -> None:
    """Raise DataError unless a model of the task can be fitted on the matrix (users, items)."""
    if not matrix.nnz:
        raise DataError(f"Expected interactions to learn from, found an empty matrix {matrix.shape}.")
    if not np.isfinite(matrix.data).all():
        raise DataError("Expected finite values in the user-item matrix, found NaN or infinity: remove those rows.")
    if task == "ranking" and matrix.data.min() < 0:
        raise DataError(
            f"Expected preferences of 0 or more, found {matrix.data.min():g}: keep the liked items with value 1."
        )


def check_positions(items: ArrayLike, count: int) -> NDArray[np.int64]:
    """Return item positions as int64 (n,); raise DataError for anything that is not a position in 0..count-1."""
    array = np.atleast_1d(np.asarray(items))
    wrong = array.size and (array.dtype.kind not in "iu" or array.min() < 0 or array.max() >= count)
    if wrong or array.ndim > 1:
        raise DataError(f"Expected item positions in 0..{count - 1}, found {items!r}.")
    return array.astype(np.int64)


def check_features(name: str, uses_features: bool, context: TrainingContext, items: int) -> TrainingContext:
    """Return the context with features of the items as models take them, None for a model that does not use them.

    ConfigError where they are missing, DataError where they are not those of the items or not finite.
    """
    if not uses_features:
        return context if context.item_features is None else replace(context, item_features=None)
    if context.item_features is None:
        raise ConfigError(
            f"Expected features of the items (item_features) to fit {name} with, found none: give the table that "
            "describes the items, or use settings without features."
        )
    features = as_csr(context.item_features)
    if features.shape[0] != items or not features.shape[1]:
        raise DataError(f"Expected features of {items} items, found a matrix {features.shape}.")
    if not np.isfinite(features.data).all():
        raise DataError("Expected finite features of items, found NaN or infinity.")
    return replace(context, item_features=features)


def out_of_range(name: str, matrix: csr_matrix, reason: Exception) -> DataError:
    """Return the error to raise where a fit on these values is not finite."""
    low, high = matrix.data.min(), matrix.data.max()
    return DataError(
        f"{name} could not be fitted on values from {low:g} to {high:g}: {reason} "
        "Scale the values to an ordinary range, such as 1 to 5, or use stronger regularization."
    )
