"""Checks of what a model is given: values of the training matrix, positions of items."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix

from recsys.errors import DataError


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
