"""Rows of features of length 1, in which a rare feature counts for more than a common one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags

from recsys.errors import DataError
from recsys.types import FloatArray


def rarity(features: csr_matrix, known: NDArray[np.bool_]) -> FloatArray:
    """Return log((n + 1) / (n_f + 1)) + 1 of each feature f, over the n known items.

    Parameters
    ----------
    features : csr_matrix, shape (items, features)
    known : ndarray of bool, shape (items,)
        The items with interactions: the others decide nothing, so that items may be added later.

    Returns
    -------
    ndarray of float32, shape (features,)
    """
    counts = np.bincount(features[known].indices, minlength=features.shape[1])
    weights: FloatArray = (np.log((known.sum() + 1) / (counts + 1)) + 1).astype(np.float32)
    return weights


def weighed(features: csr_matrix, weights: FloatArray) -> csr_matrix:
    """Multiply features by their weights, and scale each item to length 1.

    Parameters
    ----------
    features : csr_matrix, shape (items, features)
    weights : ndarray of float32, shape (features,)

    Returns
    -------
    csr_matrix of float32, shape (items, features)
        An item without features has an empty row.

    Raises
    ------
    DataError
        If these are not the features of the weights.
    """
    if features.shape[1] != len(weights):
        raise DataError(f"Expected {len(weights)} features of items, as in training, found {features.shape[1]}.")
    scaled = csr_matrix(features.multiply(weights), dtype=np.float32)
    lengths = np.sqrt(np.asarray(scaled.multiply(scaled).sum(axis=1), dtype=np.float64).ravel())
    scaled_rows = diags(np.where(lengths > 0, 1 / np.maximum(lengths, 1e-30), 0)) @ scaled
    unit = csr_matrix(scaled_rows, dtype=np.float32)
    unit.sort_indices()
    return unit
