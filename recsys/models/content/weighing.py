"""Rows of features of length 1, in which a rare feature counts for more than a common one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags

from recsys.data.matrix import as_csr
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


def weighed_new(features: csr_matrix, weights: FloatArray) -> csr_matrix:
    """Weigh the features of items that come after training.

    Parameters
    ----------
    features : csr_matrix, shape (new items, features)
    weights : ndarray of float32, shape (features,)

    Returns
    -------
    csr_matrix of float32, shape (new items, features)

    Raises
    ------
    DataError
        If an item has no feature that training knew, or these are not the features of the weights.
    """
    new = weighed(as_csr(features), weights)
    without = np.flatnonzero(np.diff(new.indptr) == 0)
    if len(without):
        raise DataError(
            f"Expected features of every new item, found {len(without)} of {new.shape[0]} without one that "
            f"training knew, first the new item number {without[0] + 1}. Leave them out, or train again with them."
        )
    return new
