"""What each item of a history contributes to the scores of other items, and how that is found out.

exact           The score is a sum over the history's items, and a contribution is a term of it.
closed form     Alternating least squares: the user's factors are W (sum of c_j y_j), so that the score of item i is the
                sum over the history of c_j y_i' W y_j. W depends on the whole history and is held fixed.
integrated gradients   Networks: the mean derivative along the line from an empty history to this one, times the item's
                cell (see recsys.models.autoencoders.attribution).
leave-one-out   Any other model: the score with the whole history minus the score without the item.

Hu, Koren, Volinsky: Collaborative Filtering for Implicit Feedback Datasets, ICDM 2008, section 5 (closed form).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.data.matrix import as_csr
from recsys.errors import DataError, UnsupportedError
from recsys.models.checks import check_positions
from recsys.models.embeddings import EmbeddingModel

Method = Literal["exact", "closed form", "integrated gradients", "leave-one-out", "weighted sum", "none"]

MEANING: dict[Method, str] = {
    "exact": "the score is the sum of the contributions",
    "closed form": "the score is the sum of the contributions, weighted as the whole history decides",
    "integrated gradients": "the score is about that of an empty history plus the sum of the contributions",
    "leave-one-out": "a contribution is what the score loses without the item",
    "weighted sum": "contributions are weighted sums of those to the members of the blend",
    "none": "no item of the history contributes",
}

_NUMBERS = 4_000_000  # scores held at once: a part of the batch for long histories over large catalogs
WORKING_BYTES = 16 * _NUMBERS  # memory that finding the contributions of one history takes, at most, about


@dataclass(frozen=True)
class Contributions:
    """Contributions of the items of one history to the scores of some items.

    Attributes
    ----------
    history : ndarray of int32, shape (n,)
        Positions of the history's items, ascending.
    items : ndarray of int64, shape (m,)
        Positions of the items whose scores are explained.
    values : ndarray of float32, shape (n, m)
        What each item of the history contributes to each score; below 0 it speaks against the item.
    method : {"exact", "closed form", "integrated gradients", "leave-one-out", "weighted sum"}
        How they were found; see `MEANING`.
    """

    history: NDArray[np.int32]
    items: NDArray[np.int64]
    values: NDArray[np.float32]
    method: Method

    @property
    def shares(self) -> NDArray[np.float32]:
        """Each contribution above 0 as a share of all those to the same score, float32 (n, m); 0 for the others."""
        positive = self.values.clip(0)
        total = positive.sum(axis=0, dtype=np.float64)
        shares: NDArray[np.float32] = (positive / np.where(total > 0, total, 1)).astype(np.float32)
        return shares

    def strongest(self, count: int) -> NDArray[np.int64]:
        """Find the items of the history that contribute most to each score.

        Parameters
        ----------
        count : int
            How many, at least 1.

        Returns
        -------
        ndarray of int64, shape (count, m)
            Places in `history`, largest contribution first, equal ones in order of position; -1 where no further item
            contributes more than 0.
        """
        places = np.full((count, self.values.shape[1]), -1, dtype=np.int64)
        order = np.argsort(-self.values, axis=0, kind="stable")[:count]
        supporting = np.take_along_axis(self.values, order, axis=0) > 0
        places[: len(order)] = np.where(supporting, order, -1)
        return places


class ExplainableModel(EmbeddingModel):
    """What a model says of the reasons of its scores; `Recommender` inherits it.

    Attributes
    ----------
    explained_by : {"exact", "closed form", "integrated gradients", "leave-one-out", "weighted sum", "none"}
        How contributions are found; see `recsys.models.contributions.MEANING`.
    """

    needs_training_users: ClassVar[bool] = False
    explained_by: Method = "leave-one-out"

    @abstractmethod
    def score(self, history: csr_matrix, items: ArrayLike | None = None, users: ArrayLike | None = None) -> Tensor:
        """Score items for histories."""

    @abstractmethod
    def _score(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Tensor:
        """Scores (users, items) of histories as the model takes them (`_to_score`)."""

    def contributions(self, history: csr_matrix, items: ArrayLike) -> Contributions:
        """Find what each item of a history contributes to the scores of some items.

        Parameters
        ----------
        history : csr_matrix, shape (1, items)
            Of any user, known or new.
        items : int or array of int, shape (m,)
            Positions of the items whose scores are to be explained.

        Returns
        -------
        Contributions
            In the unit of the scores. With the methods "exact" and "closed form" they add up to the score.

        Raises
        ------
        NotFittedError
            Before `fit`.
        DataError
            If there is not one history over the model's items, or a position is out of range.
        UnsupportedError
            If the scores do not depend on the history.
        """
        self.check_explainable()
        matrix, _ = self._checked(history, None)
        if matrix.shape[0] != 1:
            raise DataError(f"Expected one history to explain, found {matrix.shape[0]}.")
        wanted = check_positions(items, matrix.shape[1])
        with torch.no_grad(), self._solving():
            values = self._contributions(matrix, wanted).float().cpu().numpy()
        return Contributions(matrix.indices, wanted, values, self.explained_by)

    def check_explainable(self) -> None:
        """Raise UnsupportedError if no item of a history contributes to a score of this model."""
        if self.explained_by != "none":
            return
        why = (
            "scores a user by what training learned of him or her" if self.needs_training_users else "scores all alike"
        )
        raise UnsupportedError(
            f"{self.name} {why}, so that no item of a history is the reason for a recommendation: use another model, "
            "such as ease, als or vae."
        )

    def explain(
        self,
        userid: int,
        user_items: csr_matrix,
        itemid: int,
        user_weights: None = None,
        N: int = 10,
    ) -> tuple[float, list[tuple[int, float]], None]:
        """Explain the score of an item by the items of a history, as `implicit.als.explain` does.

        Parameters
        ----------
        userid : int
            Row of `user_items`.
        user_items : csr_matrix, shape (users, items)
            The histories; or the one history of that user.
        itemid : int
            Position of the item.
        user_weights : None
            Of `implicit`: what an earlier call returned. Here that is None, since nothing is kept.
        N : int
            Number of contributions, at least 1.

        Returns
        -------
        total_score : float
            The score of the item.
        top_contributions : list of (int, float)
            Positions of items of the history and what they contribute, the largest first.
        user_weights : None

        Raises
        ------
        DataError
            If the user or the item does not exist.
        UnsupportedError
            If `user_weights` are given, or the scores do not depend on the history.
        """
        if user_weights is not None:
            raise UnsupportedError("user_weights: nothing is kept between two calls; leave it out.")
        histories = as_csr(user_items)
        row = 0 if histories.shape[0] == 1 else int(check_positions(userid, histories.shape[0])[0])
        found = self.contributions(histories[row], itemid)
        order = np.argsort(-found.values[:, 0], kind="stable")[: max(1, N)]
        top = [(int(found.history[place]), float(found.values[place, 0])) for place in order]
        return float(self.score(histories[row], [itemid])[0, 0]), top, None

    def _contributions(self, history: csr_matrix, items: NDArray[np.int64]) -> Tensor:
        """Contributions (items of the history, items), by the model's method."""
        if self.explained_by != "exact":
            return leave_one_out(lambda rows: self._score_some(rows, items), history)
        weights = self._item_weights()
        if weights is None:
            return sum_of_terms(lambda rows: self._score_some(rows, items), history)
        if isinstance(weights, Tensor):
            known, wanted = (
                torch.as_tensor(places, device=weights.device).long() for places in (history.indices, items)
            )
            cells = weights[known[:, None], wanted]
        else:
            cells = torch.as_tensor(weights[history.indices][:, items].toarray())
        return cells * torch.as_tensor(history.data, device=cells.device)[:, None]

    def _score_some(self, history: csr_matrix, items: NDArray[np.int64]) -> Tensor:
        """Scores (users, items) of some items only, of histories as the model takes them."""
        scores = self._score(history, None)
        return scores[:, torch.as_tensor(items, device=scores.device)]


def leave_one_out(score: Callable[[csr_matrix], Tensor], history: csr_matrix) -> Tensor:
    """Find contributions by scoring the history without each of its items, all in one batch.

    Parameters
    ----------
    score : callable
        From histories (rows, items) to scores (rows, m).
    history : csr_matrix, shape (1, items)
        Of n items.

    Returns
    -------
    Tensor, shape (n, m)
        Scores with the whole history minus scores without each item. Long histories over large catalogs are cut into
        several batches, so that memory stays bounded.
    """
    whole = score(history)
    parts = [whole - score(_without_each(history, places)) for places in _parts(history)]
    return torch.cat(parts) if parts else whole[:0]


def sum_of_terms(score: Callable[[csr_matrix], Tensor], history: csr_matrix) -> Tensor:
    """Find contributions to scores that are sums over the history, by scoring each of its items alone.

    Parameters
    ----------
    score : callable
        From histories (rows, items) to scores (rows, m), linear in the histories.
    history : csr_matrix, shape (1, items)
        Of n items.

    Returns
    -------
    Tensor, shape (n, m)
    """
    parts = [score(_each_alone(history, places)) for places in _parts(history)]
    return torch.cat(parts) if parts else score(history)[:0]


def folded_in(table: Tensor, history: csr_matrix, confidence: Tensor, added: Tensor, ridge: Tensor) -> Tensor:
    """Return user factors as a sum over the history: confidence_j W y_j with W = (ridge + sum added_j y_j y_j')^-1.

    Parameters
    ----------
    table : Tensor, shape (items, factors)
        The item factors y.
    history : csr_matrix, shape (1, items)
        Of n items.
    confidence, added : Tensor of float64, shape (n,)
        What each item weighs as a target, and what its square adds to the ridge.
    ridge : Tensor of float64, shape (factors, factors)
        What the system of equations of an empty history is.

    Returns
    -------
    Tensor of float64, shape (n, factors)
    """
    known = table[torch.as_tensor(history.indices, device=table.device).long()].double()
    system = ridge + known.T @ (known * added[:, None])
    solved: Tensor = torch.linalg.solve(system, known.T).T * confidence[:, None]
    return solved


def _without_each(history: csr_matrix, places: range) -> csr_matrix:
    """A history without one of its items each time, CSR (len(places), items)."""
    kept = np.arange(history.nnz) != np.array(places)[:, None]
    columns, values = (np.broadcast_to(part, kept.shape)[kept] for part in (history.indices, history.data))
    pointers = (history.nnz - 1) * np.arange(len(places) + 1, dtype=np.int32)
    return csr_matrix((values, columns, pointers), shape=(len(places), history.shape[1]))


def _each_alone(history: csr_matrix, places: range) -> csr_matrix:
    """One item of a history each time, CSR (len(places), items)."""
    cells, pointers = slice(places.start, places.stop), np.arange(len(places) + 1, dtype=np.int32)
    return csr_matrix((history.data[cells], history.indices[cells], pointers), shape=(len(places), history.shape[1]))


def _parts(history: csr_matrix) -> list[range]:
    """The places of a history's items, in parts for which the scores of all items can be held."""
    size = max(1, _NUMBERS // history.shape[1])
    return [range(start, min(start + size, history.nnz)) for start in range(0, history.nnz, size)]
