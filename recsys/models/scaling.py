"""What users and items are divided by, so that the active and the popular do not decide alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags


def inverse_roots(matrix: csr_matrix, power: float, axis: int) -> NDArray[np.float64]:
    """(sum / mean sum)^(-power / 2) of the rows (axis 1) or the columns (axis 0), float64; 1 where nothing is."""
    sums = np.asarray(matrix.sum(axis=axis), dtype=np.float64).ravel()
    some = sums > 0
    relative = np.where(some, sums, 1) / (sums[some].mean() if some.any() else 1)
    return np.where(some, relative ** (-power / 2), 1)


def weigh_users(matrix: csr_matrix, power: float) -> csr_matrix:
    """The rows times the root of their weight (sum / mean sum)^-power, float32: 0 leaves them, 1 makes users equal."""
    return csr_matrix(diags(inverse_roots(matrix, power, 1)) @ matrix, dtype=np.float32) if power else matrix
