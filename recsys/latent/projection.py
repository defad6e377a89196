"""Two dimensions out of many: embeddings as points of a plane, and how far the plane is to be trusted.

PCA keeps the two directions in which the vectors differ most; t-SNE keeps near ones near and says nothing of far ones
(van der Maaten, Hinton: Visualizing Data using t-SNE, JMLR 9, 2008). Vectors are compared by their angles: their
lengths mostly say how popular an item is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recsys.errors import DataError
from recsys.system.packages import missing_package
from recsys.types import FloatArray

Method = Literal["pca", "tsne"]

NEIGHBORS = 10
_SAMPLE = 2_000  # points whose neighbors are compared: the shares are then right to about a hundredth
_PERPLEXITY = 30.0
_CHUNK = 20_000_000  # distances held at once


@dataclass(frozen=True)
class Trust:
    """How well a plane shows which points are near each other, over the 10 nearest neighbors of each point.

    Attributes
    ----------
    kept : float
        Share of a point's nearest neighbors that are among its nearest on the plane too, in 0..1.
    by_chance : float
        What `kept` would be if points were anywhere.
    trustworthiness : float
        1 where all neighbors on the plane are neighbors indeed; false ones cost more the further away they are in
        truth. Random planes have about 0.5 (Venna, Kaski: Neighborhood Preservation in Nonlinear Projection Methods,
        ICANN 2001, equation 1).
    neighbors : int
        10, or fewer where there are few points.
    """

    kept: float
    by_chance: float
    trustworthiness: float
    neighbors: int


def unit_vectors(vectors: NDArray[np.floating]) -> FloatArray:
    """Return the vectors (n, size) with length 1, float32; vectors of zeros stay.

    Raises
    ------
    DataError
        If a number is not finite.
    """
    if not np.isfinite(vectors).all():
        raise DataError("Expected finite numbers in the embeddings, found NaN or infinity: train the model again.")
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)


def project(vectors: FloatArray, method: Method = "pca", seed: int = 0) -> FloatArray:
    """Put vectors on a plane.

    Parameters
    ----------
    vectors : ndarray of float32, shape (n, size)
        See `unit_vectors`.
    method : {"pca", "tsne"}
        t-SNE takes minutes for 20,000 points; PCA takes seconds.
    seed : int
        Of t-SNE; PCA has no randomness.

    Returns
    -------
    ndarray of float32, shape (n, 2)
        Centered; the first axis is the one with the larger spread.

    Raises
    ------
    DataError
        If there are fewer than 3 vectors.
    MissingPackageError
        If scikit-learn is not installed.
    """
    if len(vectors) < 3:
        raise DataError(f"Expected at least 3 points for a map, found {len(vectors)}.")
    plane = _principal_axes(vectors)
    if method == "tsne":
        try:
            from sklearn.manifold import TSNE
        except ModuleNotFoundError as error:
            raise missing_package("scikit-learn", "map") from error
        start = plane / max(float(plane[:, 0].std()), 1e-12) * 1e-4  # Kobak, Berens 2019: the global order is kept
        perplexity = min(_PERPLEXITY, (len(vectors) - 1) / 3)
        plane = TSNE(2, perplexity=perplexity, init=start, random_state=seed, n_jobs=1).fit_transform(vectors)
        plane = _principal_axes(plane)
    return plane


def _principal_axes(vectors: FloatArray) -> FloatArray:
    """The first two principal components (n, 2); signs such that the largest weight of an axis is positive."""
    centered = vectors - vectors.mean(0, dtype=np.float64)
    _, axes = np.linalg.eigh(centered.T @ centered)
    axes = axes[:, ::-1][:, :2]
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])])
    plane = np.zeros((len(vectors), 2), dtype=np.float32)
    plane[:, : axes.shape[1]] = centered @ axes  # vectors of one number have one axis
    return plane


def measure_trust(vectors: FloatArray, plane: FloatArray, seed: int = 0) -> Trust:
    """Compare the neighbors of points on a plane with those of their vectors.

    Parameters
    ----------
    vectors : ndarray of float32, shape (n, size)
    plane : ndarray of float32, shape (n, 2)
        Of the same points.
    seed : int
        Chooses 2,000 points to look at where there are more; their neighbors are sought among all.

    Returns
    -------
    Trust
    """
    n = len(vectors)
    k = min(NEIGHBORS, (n - 1) // 2)
    rows = np.sort(np.random.default_rng(seed).permutation(n)[:_SAMPLE])
    kept, penalty = 0, 0
    step = max(1, _CHUNK // n)
    for chunk in (rows[start : start + step] for start in range(0, len(rows), step)):
        order = _others_by_distance(vectors, chunk)
        shown = _others_by_distance(plane, chunk)[:, :k]
        ranks = np.empty_like(order)
        np.put_along_axis(ranks, order, np.arange(1, n + 1)[None, :], axis=1)
        found = np.take_along_axis(ranks, shown, axis=1)  # rank in truth of each neighbor on the plane, from 1
        kept += int((found <= k).sum())
        penalty += int(np.maximum(found - k, 0).sum())
    worst = len(rows) * k * (2 * n - 3 * k - 1) / 2
    return Trust(kept / (len(rows) * k), k / (n - 1), 1 - penalty / worst, k)


def _others_by_distance(points: FloatArray, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions of all points (rows, n) by distance from each of some, the point itself last; equals by position."""
    wide = points.astype(np.float64)
    squares = (wide**2).sum(1)
    distances = squares[None, :] - 2 * wide[rows] @ wide.T  # the square of the row's own point changes no order
    distances[np.arange(len(rows)), rows] = np.inf
    return np.argsort(distances, axis=1, kind="stable")
