"""Clusters of embeddings, and names for them: the titles that are most typical."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.errors import ConfigError
from recsys.system.packages import missing_package
from recsys.types import FloatArray, IntArray

MOST = 16  # clusters that colors can tell apart
TYPICAL = 3  # titles in the name of a cluster
_KNOWN = 0.75  # a name is made of the items above this quantile of their cluster's popularity: few know the others


def find_clusters(vectors: FloatArray, count: int | None = None, seed: int = 0) -> IntArray:
    """Cluster vectors by k-means, in all their dimensions: a cluster that a map tears apart stays one.

    Parameters
    ----------
    vectors : ndarray of float32, shape (n, size)
        Of length 1, so that near means a small angle.
    count : int, optional
        Number of clusters, in 1..16; a quarter of the root of n if None, at least 2. Never more than distinct vectors.
    seed : int

    Returns
    -------
    ndarray of int32, shape (n,)
        Cluster of each vector, from 0: the largest cluster first.

    Raises
    ------
    ConfigError
        If `count` is out of range.
    MissingPackageError
        If scikit-learn is not installed.
    """
    if count is not None and not 1 <= count <= MOST:
        raise ConfigError(f"Expected clusters in 1..{MOST}, found {count}.")
    try:
        from sklearn.cluster import KMeans
    except ModuleNotFoundError as error:
        raise missing_package("scikit-learn", "map") from error
    wanted = count or min(MOST, max(2, round(len(vectors) ** 0.5 / 4)))
    wanted = min(wanted, len(np.unique(vectors, axis=0)))
    labels = KMeans(wanted, n_init=4, random_state=seed).fit_predict(vectors)
    by_size = np.argsort(-np.bincount(labels, minlength=wanted), kind="stable")
    renamed: IntArray = np.argsort(by_size, kind="stable").astype(np.int32)[labels]
    return renamed


def typical_points(vectors: FloatArray, labels: IntArray, popularity: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Find the points nearest to the center of each cluster, among its popular ones.

    Parameters
    ----------
    vectors : ndarray of float32, shape (n, size)
    labels : ndarray of int32, shape (n,)
        See `find_clusters`.
    popularity : ndarray of int64, shape (n,)
        Users of each item. A name is made of the most popular quarter of a cluster.

    Returns
    -------
    list of ndarray of int64
        Up to three positions for each cluster, the most typical first.
    """
    found = []
    for cluster in range(int(labels.max()) + 1):
        members = np.flatnonzero(labels == cluster)
        center = vectors[members].mean(0)
        known = members[popularity[members] >= np.quantile(popularity[members], _KNOWN)]
        found.append(known[np.argsort(-(vectors[known] @ center), kind="stable")][:TYPICAL])
    return found


def typical_items(history: csr_matrix, labels: IntArray) -> list[NDArray[np.int64]]:
    """Find the items that the users of each cluster have far more often than the others.

    Parameters
    ----------
    history : csr_matrix, shape (users, items)
    labels : ndarray of int32, shape (users,)
        Clusters of users, see `find_clusters`.

    Returns
    -------
    list of ndarray of int64
        Up to three items for each cluster: those whose share of users inside is furthest above that outside.
    """
    counts = np.bincount(history.indices, minlength=history.shape[1])
    found = []
    for cluster in range(int(labels.max()) + 1):
        inside = labels == cluster
        own = np.bincount(history[inside].indices, minlength=history.shape[1])
        lead = own / inside.sum() - (counts - own) / max(1, (~inside).sum())
        best = np.argsort(-lead, kind="stable")[:TYPICAL]
        found.append(best[own[best] > 0])
    return found
