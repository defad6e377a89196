"""A map of items or users: embeddings on a plane, with clusters, nearest neighbors and how far to trust it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.latent.clusters import find_clusters
from recsys.latent.projection import Method, Trust, measure_trust, project, unit_vectors
from recsys.models.embeddings import Embedder
from recsys.models.queries import nearest
from recsys.types import FloatArray, IntArray

MOST_POINTS = 20_000
SHOWN_NEIGHBORS = 6


@dataclass(frozen=True)
class MapSettings:
    """How a map is drawn.

    Attributes
    ----------
    method : {"pca", "tsne"}
        See `project`.
    clusters : int, optional
        Their number; see `find_clusters`.
    most_points : int
        Largest number of points: the items with the most users, or the users with the most items.
    seed : int
        Of clusters, of t-SNE, and of the points whose neighbors are compared.
    """

    method: Method = "tsne"
    clusters: int | None = None
    most_points: int = MOST_POINTS
    seed: int = 0


@dataclass(frozen=True)
class LatentMap:
    """Points on a plane and what is known of them.

    Attributes
    ----------
    rows : ndarray of int64, shape (n,)
        Which items, or users, the points are, most popular first.
    vectors : ndarray of float32, shape (n, size)
        Their embeddings, with length 1.
    plane : ndarray of float32, shape (n, 2)
        Where they are.
    popularity : ndarray of int64, shape (n,)
        Users of each item, or items of each user.
    clusters : ndarray of int32, shape (n,)
        See `find_clusters`.
    neighbors : ndarray of int32, shape (n, k)
        The nearest points by the embeddings, nearest first.
    method : {"pca", "tsne"}
        How the plane was made.
    trust : Trust
        How well the plane shows who is near whom.
    left_out : int
        How many were not drawn: less popular ones, and those whose embedding is zero and says nothing.
    """

    rows: NDArray[np.int64]
    vectors: FloatArray
    plane: FloatArray
    popularity: NDArray[np.int64]
    clusters: IntArray
    neighbors: IntArray
    method: Method
    trust: Trust
    left_out: int

    @property
    def cluster_sizes(self) -> NDArray[np.int64]:
        """Number of points of each cluster."""
        return np.bincount(self.clusters).astype(np.int64)


def map_items(
    embedder: Embedder,
    counts: NDArray[np.int64],
    settings: MapSettings | None = None,
    on_phase: Callable[[str], None] = lambda phase: None,
) -> LatentMap:
    """Draw the items of a model.

    Parameters
    ----------
    embedder : Embedder
        Gives the embeddings; only their angles count.
    counts : ndarray of int64, shape (items,)
        Training users of each item.
    settings : MapSettings, optional
    on_phase : callable
        Called with what is done next, in a word or two.

    Returns
    -------
    LatentMap

    Raises
    ------
    DataError
        If there are fewer than 3 items, or an embedding is not finite.
    """
    settings = settings or MapSettings()
    rows = np.argsort(-counts, kind="stable")[: settings.most_points]
    return _draw(embedder.items.numpy(force=True)[rows], rows, counts, settings, on_phase)


def map_users(
    embedder: Embedder,
    history: csr_matrix,
    settings: MapSettings | None = None,
    on_phase: Callable[[str], None] = lambda phase: None,
    users: NDArray[np.int64] | None = None,
) -> LatentMap:
    """Draw users by their histories; those without an item of the model are left out.

    Parameters
    ----------
    embedder, settings, on_phase
        As in `map_items`.
    history : csr_matrix, shape (users, items)
        Over the items of the model.
    users : ndarray of int64, shape (users,), optional
        Rows of the training matrix, for models with `needs_training_users`; users of row -1 are left out.

    Returns
    -------
    LatentMap

    Raises
    ------
    DataError
        If there are fewer than 3 users, or an embedding is not finite.
    """
    settings = settings or MapSettings()
    counts = np.diff(history.indptr).astype(np.int64)
    able = counts > 0 if users is None else (counts > 0) & (users >= 0)
    rows = np.argsort(-counts, kind="stable")
    rows = rows[able[rows]][: settings.most_points]
    on_phase("embedding")
    vectors = embedder.users(history[rows], None if users is None else users[rows]).mean
    return _draw(vectors.numpy(force=True), rows, counts, settings, on_phase)


def _draw(
    vectors: NDArray[np.floating],
    rows: NDArray[np.int64],
    counts: NDArray[np.int64],
    settings: MapSettings,
    on_phase: Callable[[str], None],
) -> LatentMap:
    """The map of some rows, most popular first; `counts` are those of all."""
    units = unit_vectors(vectors)
    useful = units.any(axis=1)
    units, rows = np.ascontiguousarray(units[useful]), rows[useful]
    on_phase("projecting")
    plane = project(units, settings.method, settings.seed)
    on_phase("finding clusters")
    clusters = find_clusters(units, settings.clusters, settings.seed)
    on_phase("comparing neighbors")
    trust = measure_trust(units, plane, settings.seed)
    positions, _ = nearest(torch.from_numpy(units), np.arange(len(rows)), SHOWN_NEIGHBORS + 1)
    neighbors = positions[:, 1:].astype(np.int32)
    left_out = len(counts) - len(rows)
    return LatentMap(rows, units, plane, counts[rows], clusters, neighbors, settings.method, trust, left_out)
