"""Embeddings: the short vectors by which a model represents users and items, and vectors that give its scores.

An embedding of a user is made from a history, of an item from the fit. Models of items x items weights have long rows
instead of short vectors: `Embedder` factorizes those.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix, diags
from scipy.sparse.linalg import svds
from torch import Tensor

from recsys.data.matrix import without_order
from recsys.errors import ConfigError, NotFittedError, UnsupportedError
from recsys.training.batches import SparseRows, weighted_sum

Vectors = Tensor | csr_matrix  # a vector per row

SIZE = 200  # of the factorization of items x items weights, unless another is asked for


@dataclass(frozen=True)
class Embeddings:
    """Vectors of some users.

    Attributes
    ----------
    mean : Tensor, shape (users, size)
        Float32. The embedding; for a variational autoencoder the mean of its posterior.
    deviation : Tensor, shape (users, size), optional
        Standard deviation of the posterior; None for models without one.
    """

    mean: Tensor
    deviation: Tensor | None = None

    def __len__(self) -> int:
        return len(self.mean)


class EmbeddingModel(ABC):
    """What a model says of its embeddings; `Recommender` inherits it, and a model implements the `_` methods it can."""

    name: ClassVar[str]
    n_items: int | None

    def embed_items(self) -> Tensor:
        """Return a vector per item, float32 (items, size), whose angles say how similar items are.

        The rows of a model of items x items weights are as long as its catalog; `Embedder` has short ones.

        Raises
        ------
        NotFittedError
            Before `fit`.
        UnsupportedError
            If the model has none.
        """
        self._require_fitted()
        with torch.no_grad():
            weights = self._item_weights()
            if weights is None:
                return self._embed_items().float()
            return weights.float() if isinstance(weights, Tensor) else torch.as_tensor(weights.toarray()).float()

    def embed_users(self, history: csr_matrix, users: ArrayLike | None = None) -> Embeddings:
        """Return the embeddings of users, whose angles say how similar users are.

        Where a model has no users of its own, theirs is the sum of the unit vectors of the items in the history.

        Parameters
        ----------
        history : csr_matrix, shape (users, items)
            Items of the training catalog.
        users : array of int, optional
            Rows of the training matrix, for models with `needs_training_users`.

        Returns
        -------
        Embeddings

        Raises
        ------
        NotFittedError
            Before `fit`.
        DataError
            If the columns are not the model's items.
        UnsupportedError
            If the model has no embeddings, or needs training users and none were given.
        """
        matrix, known = self._checked(history, users)
        with torch.no_grad(), self._solving():
            found = self._embed_users(matrix, known)
            return Embeddings(found.mean.float(), None if found.deviation is None else found.deviation.float())

    def item_weights(self) -> Vectors | None:
        """Return the items x items weights of a linear model, dense or sparse; None for all other models.

        Row i is what item i of a history adds to the scores, or its similarities.
        """
        self._require_fitted()
        return self._item_weights()

    def item_scoring_vectors(self) -> Tensor:
        """Return a vector per item, float32 (items, width); see `user_scoring_vectors`."""
        self._require_fitted()
        with torch.no_grad():
            return self._item_scoring_vectors().float()

    def user_scoring_vectors(self, history: csr_matrix, users: ArrayLike | None = None) -> Tensor:
        """Return a vector per user whose inner products with `item_scoring_vectors` are the model's scores.

        Biases of items are folded in as another element. Only the scores of items in the history may differ, in ELSA,
        which takes the history off them.

        Parameters
        ----------
        history, users
            As in `embed_users`.

        Returns
        -------
        Tensor
            Float32 (users, width).

        Raises
        ------
        UnsupportedError
            If the scores of the model are not inner products of short vectors.
        """
        matrix, known = self._checked(history, users)
        with torch.no_grad(), self._solving():
            return self._user_scoring_vectors(matrix, known).float()

    def _require_fitted(self) -> None:
        if self.n_items is None:
            raise NotFittedError(f"{type(self).__name__} has no weights yet: call fit() or load_model() first.")

    @abstractmethod
    def _checked(self, history: csr_matrix, users: ArrayLike | None) -> tuple[csr_matrix, NDArray[np.int64] | None]: ...

    @abstractmethod
    def _solving(self) -> AbstractContextManager[None]: ...

    def _embed_items(self) -> Tensor:
        raise UnsupportedError(f"{self.name} has no embeddings: use a model that learns them, such as svd or vae.")

    def _embed_users(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Embeddings:
        weights = self._item_weights()
        return Embeddings(_sums(history, unit_rows(self._embed_items() if weights is None else weights)))

    def _item_weights(self) -> Vectors | None:
        return None

    def _item_scoring_vectors(self) -> Tensor:
        raise self._no_scoring_vectors()

    def _user_scoring_vectors(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Tensor:
        raise self._no_scoring_vectors()

    def _no_scoring_vectors(self) -> UnsupportedError:
        return UnsupportedError(f"The scores of {self.name} are not inner products of a user's and an item's vector.")


@dataclass(frozen=True)
class Embedder:
    """A model's embeddings, all of one size: also where it has only items x items weights.

    Attributes
    ----------
    model : EmbeddingModel
        The fitted model.
    items : Tensor, shape (items, size)
        The items' embeddings.
    is_factorized : bool
        Whether they are a truncated factorization of the model's items x items weights, made here.
    """

    model: EmbeddingModel
    items: Tensor
    is_factorized: bool = False

    @classmethod
    def of(cls, model: EmbeddingModel, size: int | None = None) -> Embedder:
        """Make the embedder of a model.

        Parameters
        ----------
        model : EmbeddingModel
            Fitted.
        size : int, optional
            Size of the factorization of items x items weights, 200 or the number of items by default. Other models
            have the size they were trained with.

        Returns
        -------
        Embedder

        Raises
        ------
        ConfigError
            If a size is given for a model that has its own, or is below 1.
        UnsupportedError
            If the model has no embeddings.
        """
        if size is not None and size < 1:
            raise ConfigError(f"Expected size of at least 1, found {size}.")
        weights = model.item_weights()
        if weights is not None:
            return cls(model, truncated(unit_rows(weights), size or SIZE), is_factorized=True)
        items = model.embed_items()
        if size not in (None, items.shape[1]):
            raise ConfigError(
                f"Expected no size, because {model.name} has embeddings of the size it was trained with "
                f"({items.shape[1]}); found {size}. Train it with another size, or leave it out."
            )
        return cls(model, items)

    def users(self, history: csr_matrix, users: ArrayLike | None = None) -> Embeddings:
        """Return the embeddings of users; see `EmbeddingModel.embed_users`."""
        if self.is_factorized:
            matrix, _ = self.model._checked(history, users)
            return Embeddings(_sums(matrix, self.items))
        return self.model.embed_users(history, users)


def unit_rows(vectors: Vectors) -> Vectors:
    """Return the same vectors with length 1; those of zeros stay zeros."""
    if isinstance(vectors, Tensor):
        return torch.nn.functional.normalize(vectors.float(), dim=1)
    lengths = np.sqrt(np.asarray(vectors.multiply(vectors).sum(axis=1), dtype=np.float64)).ravel()
    return csr_matrix(diags(1 / np.maximum(lengths, 1e-12)) @ vectors)


def truncated(vectors: Vectors, size: int) -> Tensor:
    """Return shorter vectors whose inner products are nearest to those of the given ones.

    They are U S of the truncated singular value decomposition U S V' (Eckart and Young: The approximation of one matrix
    by another of lower rank, Psychometrika 1, 1936). The largest element of each column of V is positive, so that equal
    vectors give equal results.

    Parameters
    ----------
    vectors : Tensor or csr_matrix, shape (count, width)
    size : int
        At least 1; cut to `count` and `width`.

    Returns
    -------
    Tensor, float32 (count, min(size, count, width))
        Columns in order of decreasing singular values.
    """
    matrix = vectors.numpy(force=True) if isinstance(vectors, Tensor) else vectors
    if size >= min(matrix.shape):
        dense = matrix if isinstance(matrix, np.ndarray) else matrix.toarray()
        basis = np.linalg.svd(dense, full_matrices=False)[2]
    else:
        start = np.random.default_rng(0).standard_normal(min(matrix.shape))  # any start converges
        basis = svds(matrix, size, v0=start, return_singular_vectors="vh")[2][::-1]  # type: ignore[arg-type]
    largest = np.take_along_axis(basis, np.abs(basis).argmax(axis=1)[:, None], axis=1)
    columns = (basis * np.where(largest < 0, -1, 1)).T
    device = vectors.device if isinstance(vectors, Tensor) else torch.device("cpu")
    return torch.as_tensor(np.asarray(matrix @ columns, dtype=np.float32), device=device)


def _sums(history: csr_matrix, vectors: Vectors) -> Tensor:
    """The sum of the vectors of each history's items, float32 (users, size)."""
    history = without_order(history)
    if isinstance(vectors, Tensor):
        return weighted_sum(SparseRows(history, vectors.device).everything(), vectors)
    return torch.as_tensor(np.asarray((history @ vectors).toarray(), dtype=np.float32))
