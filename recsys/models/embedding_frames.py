"""Embeddings and nearest neighbors of a model in ids and data frames: a part of `TrainedModel`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.data.interactions import Interactions, Vocabulary
from recsys.data.matrix import UserItemMatrix
from recsys.errors import DataError
from recsys.inference.topn import check_length
from recsys.models.base import Recommender
from recsys.models.embeddings import Embedder, Embeddings

if TYPE_CHECKING:
    from recsys.models.trained import Source

_BATCH = 4096  # users embedded at once


class EmbeddingFrames(ABC):
    """What `TrainedModel` answers by embeddings.

    Attributes
    ----------
    model : Recommender
    items, users
        As in `TrainedModel`.
    """

    model: Recommender
    items: Vocabulary
    users: Vocabulary | None

    @abstractmethod
    def read_histories(self, source: Source) -> Interactions:
        """Read histories as the ratings of the training were read."""

    @abstractmethod
    def to_matrix(self, interactions: Interactions) -> UserItemMatrix:
        """Return histories over the model's items."""

    @cached_property
    def _embedder(self) -> Embedder:
        """Short vectors of the model, made once: a factorization takes a while."""
        return Embedder.of(self.model)

    def embed_users(self, histories: Source) -> pd.DataFrame:
        """Return the embedding of every user of `histories`.

        Parameters
        ----------
        histories : DataFrame, Interactions, path or list of paths
            As in `recommend`; users need not have been in training.

        Returns
        -------
        DataFrame of float32
            Index user_id, columns embedding_0, embedding_1, ...: ready for scikit-learn. For a variational autoencoder
            the mean of the posterior, then deviation_0, ... A user without an item that the model knows has no row.

        Raises
        ------
        UnsupportedError
            If the model has no embeddings.
        """
        users, rows, found = self._embedded(histories)
        frame = _frame(found.mean, "embedding")
        if found.deviation is not None:
            frame = pd.concat([frame, _frame(found.deviation, "deviation")], axis=1)
        return frame.set_axis(pd.Index(users.take(rows).to_pandas(), name="user_id"))

    def embed_items(self) -> pd.DataFrame:
        """Return the embedding of every item.

        Returns
        -------
        DataFrame of float32
            Index item_id, columns embedding_0, embedding_1, ... Those of a model of items x items weights, such as
            `ease`, are a truncated factorization of its weights, of size 200 or the number of items.

        Raises
        ------
        UnsupportedError
            If the model has no embeddings.
        """
        ids = pd.Index(self.items.ids.to_pandas(), name="item_id")
        return _frame(self._embedder.items, "embedding").set_axis(ids)

    def similar_items(self, item: Any, n: int = 10) -> pd.DataFrame:
        """Find the n items nearest to an item by the cosine of their embeddings.

        Parameters
        ----------
        item : id
            An item of the model.
        n : int
            How many, without the item itself.

        Returns
        -------
        DataFrame
            item_id, rank (from 1), score (cosine).

        Raises
        ------
        DataError
            If the model does not know the item.
        UnsupportedError
            If the model has no embeddings of items.
        """
        check_length(n)
        position = int(known_positions(self.items, [item], "items", "the model's items")[0])
        best, cosines = self.model.similar_items(position, N=min(n, len(self.items) - 1) + 1)
        return _ranked("item_id", self.items, best, cosines, position)

    def similar_users(self, user: Any, histories: Source, n: int = 10) -> pd.DataFrame:
        """Find the n users nearest to a user by the cosine of their embeddings.

        Parameters
        ----------
        user : id
            A user of `histories`.
        histories : DataFrame, Interactions, path or list of paths
            The users to choose from, with what each has had; they need not have been in training.
        n : int
            How many, without the user.

        Returns
        -------
        DataFrame
            user_id, rank (from 1), score (cosine). Users without an item that the model knows are not among them.

        Raises
        ------
        DataError
            If `histories` has no such user, or the model knows no item of his or hers.
        UnsupportedError
            If the model has no embeddings.
        """
        check_length(n)
        interactions = self.read_histories(histories)
        wanted = int(known_positions(interactions.users, [user], "users", "those of the histories")[0])
        users, rows, found = self._embedded(interactions)
        place = np.flatnonzero(rows == wanted)
        if not len(place):
            raise DataError(f"Expected an item that the model knows in the history of user {user!r}, found none.")
        units = torch.nn.functional.normalize(found.mean, dim=1)
        cosines = (units @ units[int(place[0])]).clamp(max=1)
        cosines[int(place[0])] = torch.inf  # first, also among equals, and then left out
        values, best = cosines.topk(min(n + 1, len(cosines)))
        return _ranked("user_id", users, rows[best.numpy(force=True)], values.numpy(force=True), wanted)

    def _embedded(self, histories: Source) -> tuple[Vocabulary, NDArray[np.int64], Embeddings]:
        """Users of the histories, the rows of those who can be embedded, and their embeddings."""
        data = self.to_matrix(self.read_histories(histories))
        able, trained = np.diff(data.matrix.indptr) > 0, None
        if self.users is not None:
            trained = self.users.positions(data.users.ids).astype(np.int64)
            able &= trained >= 0
        rows = np.flatnonzero(able)
        parts = [self._part(data.matrix, some, trained) for some in _batches(rows)]
        deviations = [part.deviation for part in parts if part.deviation is not None]
        means = torch.cat([part.mean for part in parts])
        return data.users, rows, Embeddings(means, torch.cat(deviations) if deviations else None)

    def _part(self, matrix: csr_matrix, rows: NDArray[np.int64], trained: NDArray[np.int64] | None) -> Embeddings:
        return self._embedder.users(matrix[rows], None if trained is None else trained[rows])


def _batches(rows: NDArray[np.int64]) -> Iterable[NDArray[np.int64]]:
    """Rows in batches; one empty batch where there are none, which has the size of the vectors."""
    return np.array_split(rows, max(1, -(-len(rows) // _BATCH)))


def _frame(vectors: Tensor, name: str) -> pd.DataFrame:
    columns = [f"{name}_{place}" for place in range(vectors.shape[1])]
    return pd.DataFrame(vectors.numpy(force=True), columns=columns)


def _ranked(name: str, ids: Vocabulary, best: NDArray[Any], cosines: NDArray[np.float32], asked: int) -> pd.DataFrame:
    """A list in order of similarity, without the one that was asked for."""
    kept = (best >= 0) & (best != asked)
    frame = pd.DataFrame({name: ids.take(best[kept]).to_pandas()})
    return frame.assign(rank=np.arange(1, len(frame) + 1), score=cosines[kept])


def known_positions(vocabulary: Vocabulary, ids: Iterable[Any], name: str, where: str) -> NDArray[np.int32]:
    """Return the positions of ids.

    Parameters
    ----------
    vocabulary : Vocabulary
    ids : iterable of ids
    name, where : str
        For the message: what they are, and where they must be.

    Raises
    ------
    DataError
        Names the first that is not there.
    """
    if isinstance(ids, (str, bytes)):
        raise DataError(f"Expected a list of ids as {name}, found the single {ids!r}: write [{ids!r}].")
    given = list(ids)
    positions = vocabulary.positions(given)
    if (positions < 0).any():
        first = given[int(np.argmax(positions < 0))]
        count = int((positions < 0).sum())
        raise DataError(f"Expected {name} that are among {where}, found {count} unknown, first {first!r}.")
    return positions
