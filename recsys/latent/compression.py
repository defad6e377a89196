"""Vectors in one byte an element: each is scaled so that its largest element is 127, and rounded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.types import FloatArray

_MOST = 127  # of int8, on both sides of 0


def to_int8(vectors: FloatArray) -> tuple[NDArray[np.int8], FloatArray]:
    """Compress vectors to a quarter of their bytes.

    Parameters
    ----------
    vectors : ndarray of float32, shape (n, size)

    Returns
    -------
    codes : ndarray of int8, shape (n, size)
        vectors / scales, rounded: off by half a scale at most.
    scales : ndarray of float32, shape (n,)
        Largest absolute element of each vector / 127; 1 for a vector of zeros.
    """
    largest = np.abs(vectors).max(axis=1, initial=0)
    scales = np.where(largest > 0, largest / _MOST, 1).astype(np.float32)
    return np.rint(vectors / scales[:, None]).clip(-_MOST, _MOST).astype(np.int8), scales


def from_int8(codes: NDArray[np.int8], scales: FloatArray) -> FloatArray:
    """Return the vectors, float32 (n, size), that `to_int8` compressed."""
    return codes.astype(np.float32) * scales[:, None]
