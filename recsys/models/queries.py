"""Questions to a fitted model in positions, with the signatures of `implicit`: lists, similar items, similar users.

Whatever `implicit` takes and this library cannot honor is refused by name.
"""

from __future__ import annotations

from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.data.matrix import OrderedMatrix, as_csr, without_order
from recsys.errors import DataError, UnsupportedError
from recsys.inference.topn import MAX_SCORES, Lists, refuse_infinite, top_n
from recsys.models.checks import check_positions
from recsys.models.contributions import ExplainableModel
from recsys.models.embeddings import Vectors, unit_rows


class Queries(ExplainableModel):
    """What a model that scores histories can be asked; `Recommender` inherits it."""

    @property
    def uses_order(self) -> bool:
        """Whether cells of histories hold places in time, as in an OrderedMatrix; equal ones are in order of column."""
        return False

    @property
    def uses_features(self) -> bool:
        """Whether a fit needs features of the items (`TrainingContext.item_features`)."""
        return False

    def with_new_items(self, features: csr_matrix) -> Self:
        """Return a copy of the fitted model that knows more items, by their features, without training again.

        Parameters
        ----------
        features : csr_matrix, shape (new items, features)
            The same features as in training. The new items follow the others.

        Returns
        -------
        Self
            It scores and is saved like any model.

        Raises
        ------
        UnsupportedError
            If the model does not use features, or cannot take new items without training.
        DataError
            If the features are others than in training.
        """
        raise UnsupportedError(
            f"{self.name} cannot take new items by their features without training again: train a model that uses "
            "item features, or train again."
        )

    def _own_cells(self, given: csr_matrix) -> csr_matrix:
        """The matrix as this model takes it: with places in time only where it uses them."""
        matrix = as_csr(given)
        if not self.uses_order:
            return without_order(matrix)
        return matrix if isinstance(matrix, OrderedMatrix) else OrderedMatrix(matrix)

    def _to_score(self, given: csr_matrix) -> csr_matrix:
        """The histories to score as this model takes them."""
        return self._own_cells(given)

    def recommend(
        self,
        userid: ArrayLike,
        user_items: csr_matrix,
        N: int = 10,
        filter_already_liked_items: bool = True,
        filter_items: ArrayLike | None = None,
        recalculate_user: bool = False,
        items: ArrayLike | None = None,
    ) -> Lists:
        """Recommend items to one user or to several, as `implicit` does.

        Parameters
        ----------
        userid : int or array of int, shape (users,)
            Rows of the training matrix; only models with `needs_training_users` look at them.
        user_items : csr_matrix, shape (users, items)
            The histories, one row per user of `userid`.
        N : int
            Length of a list; cut to the catalog.
        filter_already_liked_items : bool
            Leave out the items of the history.
        filter_items : array of int, optional
            Items never to recommend.
        recalculate_user : bool
            Histories are always scored anew, so that this changes nothing, but is refused where the model cannot.
        items : array of int, optional
            The only candidates.

        Returns
        -------
        positions, scores : ndarray, shape (N,) for one user, (users, N) for several
            Best first. Unlike in `implicit`, a list that runs short ends in -1 with a score of -inf.

        Raises
        ------
        DataError
            If the rows of `user_items` are not those of `userid`, or an item does not exist.
        UnsupportedError
            If `recalculate_user` is True and the model knows only its training users.
        """
        rows = np.atleast_1d(np.asarray(userid))
        history = as_csr(user_items)
        if history.shape[0] != len(rows):
            raise DataError(f"Expected one row of user_items per user, found {history.shape[0]} for {len(rows)}.")
        if recalculate_user and self.needs_training_users:
            raise UnsupportedError(f"recalculate_user: {self.name} cannot fold in a history; it knows training users.")
        scores = self.score(history, users=rows if self.needs_training_users else None)
        allowed = _allowed(history.shape[1], items, filter_items)
        lists = top_n(scores, N, history if filter_already_liked_items else None, allowed)
        refuse_infinite(lists[1])
        return _as_asked(lists, userid)

    def similar_items(
        self,
        itemid: ArrayLike,
        N: int = 10,
        recalculate_item: bool = False,
        item_users: csr_matrix | None = None,
        filter_items: ArrayLike | None = None,
        items: ArrayLike | None = None,
    ) -> Lists:
        """Find the items nearest to one item, or to each of several, by the cosine of their embeddings.

        Parameters
        ----------
        itemid : int or array of int, shape (n,)
        N : int
            How many, the item itself included; cut to the catalog.
        recalculate_item, item_users
            Not supported: embeddings of items are made by the fit.
        filter_items : array of int, optional
            Items never to return.
        items : array of int, optional
            The only candidates.

        Returns
        -------
        positions, cosines : ndarray, shape (N,) for one item, (n, N) for several
            The item itself first, unless it is excluded; -1 and -inf where fewer are left.

        Raises
        ------
        DataError
            If an item does not exist.
        UnsupportedError
            If the model has no embeddings, or for the parameters that are not supported.
        """
        if recalculate_item or item_users is not None:
            name = "recalculate_item" if recalculate_item else "item_users"
            raise UnsupportedError(f"{name}: the embeddings of items are made by the fit; fit again for other rows.")
        vectors = self.item_weights()  # long rows are compared as they are
        vectors = self.embed_items() if vectors is None else vectors
        count = vectors.shape[0]
        wanted = check_positions(itemid, count)
        return _as_asked(nearest(vectors, wanted, N, _allowed(count, items, filter_items)), itemid)

    def similar_users(
        self,
        userid: ArrayLike,
        user_items: csr_matrix,
        N: int = 10,
        filter_users: ArrayLike | None = None,
        users: ArrayLike | None = None,
    ) -> Lists:
        """Find the users nearest to one user, or to each of several, by the cosine of their embeddings.

        Unlike in `implicit`, the histories are given: a model keeps no users, and new ones are as good as others. For a
        model without embeddings the histories themselves are compared.

        Parameters
        ----------
        userid : int or array of int, shape (n,)
            Rows of `user_items`.
        user_items : csr_matrix, shape (users, items)
            Histories of all users to choose from; for models with `needs_training_users`, the training matrix.
        N : int
            How many, the user included; cut to the number of users.
        filter_users : array of int, optional
            Rows never to return.
        users : array of int, optional
            The only rows to choose from.

        Returns
        -------
        rows, cosines : ndarray, shape (N,) for one user, (n, N) for several
            The user first, unless excluded; -1 and -inf where fewer are left.

        Raises
        ------
        DataError
            If a row does not exist, or the columns are not the model's items.
        """
        history, rows = self._checked(user_items, np.arange(user_items.shape[0]) if self.needs_training_users else None)
        wanted = check_positions(userid, history.shape[0])
        try:
            vectors: Vectors = self.embed_users(history, rows).mean
        except UnsupportedError:
            vectors = history
        return _as_asked(nearest(vectors, wanted, N, _allowed(history.shape[0], users, filter_users)), userid)


def nearest(vectors: Vectors, rows: NDArray[np.int64], n: int, allowed: NDArray[np.bool_] | None = None) -> Lists:
    """Find the rows nearest to some rows by cosine.

    Parameters
    ----------
    vectors : Tensor or csr_matrix, shape (count, size)
        The cosine with a vector of zeros is 0.
    rows : ndarray of int64, shape (m,)
        The rows asked for.
    n : int
        How many, each row itself included; cut to `count`.
    allowed : ndarray of bool, shape (count,), optional
        The only rows to return.

    Returns
    -------
    positions, cosines : ndarray, shape (m, min(n, count))
        The row itself first, equal cosines in order of position.
    """
    units = unit_rows(vectors)
    step = max(1, MAX_SCORES // max(1, units.shape[0]))
    parts = []
    with torch.inference_mode():
        for start in range(0, max(1, len(rows)), step):
            batch = rows[start : start + step]
            if isinstance(units, Tensor):
                cosines = units[torch.as_tensor(batch, device=units.device)] @ units.T
            else:
                cosines = torch.from_numpy(np.asarray((units[batch] @ units.T).toarray(), dtype=np.float32))
            cosines[torch.arange(len(batch)), torch.as_tensor(batch)] = torch.inf  # first, also among its equals
            positions, values = top_n(cosines, n, allowed=allowed, overwrite=True)
            parts.append((positions, np.minimum(values, 1)))
    positions, values = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return positions, values


def _allowed(count: int, only: ArrayLike | None, never: ArrayLike | None) -> NDArray[np.bool_] | None:
    """Which positions may be returned, bool (count,); None where all may."""
    if only is None and never is None:
        return None
    allowed = np.full(count, only is None)
    if only is not None:
        allowed[check_positions(only, count)] = True
    if never is not None:
        allowed[check_positions(never, count)] = False
    return allowed


def _as_asked(lists: Lists, asked: ArrayLike) -> Lists:
    """One list for a number, one row per element for an array."""
    return (lists[0][0], lists[1][0]) if np.ndim(asked) == 0 else lists
