"""Scaling of users by their activity and of items by their popularity, so that neither dominates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags


def inverse_roots(matrix: csr_matrix, power: float, axis: int) -> NDArray[np.float64]:
    """Compute (sum / mean sum)^(-power / 2) of the rows or columns of a matrix.

    Parameters
    ----------
    matrix : csr_matrix, shape (users, items)
        Values of 0 or more.
    power : float
        0 leaves everything alone, 1 divides by the root of the sum.
    axis : int
        1 for rows, 0 for columns.

    Returns
    -------
    ndarray of float64, shape (users,) or (items,)
        1 where a sum is 0; the mean is taken over the others.
    """
    sums = np.asarray(matrix.sum(axis=axis), dtype=np.float64).ravel()
    positive = sums > 0
    relative = np.where(positive, sums, 1) / (sums[positive].mean() if positive.any() else 1)
    return np.where(positive, relative ** (-power / 2), 1)


def weigh_users(matrix: csr_matrix, power: float) -> csr_matrix:
    """Multiply each row by the root of its weight (sum / mean sum)^-power.

    Parameters
    ----------
    matrix : csr_matrix, shape (users, items)
    power : float
        0 returns the matrix, 1 gives all users the same weight.

    Returns
    -------
    csr_matrix of float32, shape (users, items)
    """
    return csr_matrix(diags(inverse_roots(matrix, power, 1)) @ matrix, dtype=np.float32) if power else matrix
