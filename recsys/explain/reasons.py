"""Reasons of recommendations: the items of a history that support one most, in ids, for one user or for whole lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.data.matrix import UserItemMatrix
from recsys.errors import DataError
from recsys.inference.topn import top_n
from recsys.models import Recommender
from recsys.models.contributions import Method
from recsys.models.trained import TrainedModel


@dataclass(frozen=True)
class Reason:
    """An item of the history, what it contributes to the score, and its share of all that supports the item.

    `contribution` is in the unit of the score; `share` is from 0 to 1, and 0 for an item that speaks against.
    """

    item_id: Any
    contribution: float
    share: float


@dataclass(frozen=True)
class Explanation:
    """Why an item has the score it has for a user.

    Attributes
    ----------
    item_id : id
        The item.
    score : float
        Its score.
    rank : int or None
        Its rank among the items the user has not had, from 1; None if the user has had it.
    candidates : int
        Number of those items.
    reasons : list of Reason
        The items of the history that support it most, best first.
    against : list of Reason
        Those that speak most against it, worst first.
    history : int
        Number of items of the history that the model knows.
    supporting : int
        How many of them support the item.
    method : str
        How contributions were found; see `recsys.models.contributions.MEANING`.
    """

    item_id: Any
    score: float
    rank: int | None
    candidates: int
    reasons: list[Reason]
    against: list[Reason]
    history: int
    supporting: int
    method: Method


def explain_item(
    trained: TrainedModel, histories: UserItemMatrix, row: int, item: int | None = None, count: int = 5
) -> Explanation:
    """Explain the score of an item for a user.

    Parameters
    ----------
    trained : TrainedModel
        The model.
    histories : UserItemMatrix
        Over the model's items.
    row : int
        The user's row.
    item : int, optional
        Position of the item; the first recommendation if not given.
    count : int
        Largest number of reasons, and of items that speak against, at least 1.

    Returns
    -------
    Explanation

    Raises
    ------
    DataError
        If the model knows no item of the history, or there is nothing to recommend.
    UnsupportedError
        If the scores do not depend on the history.
    """
    model, history = trained.model, histories.matrix[row]
    model.check_explainable()
    if not history.nnz:
        raise DataError("Expected a history with an item that the model knows, found none.")
    taken = (histories.matrix if histories.seen is None else histories.seen)[row]
    scores = model.score(history)
    if item is None:
        item = int(top_n(scores, 1, taken)[0][0, 0])
        if item < 0:
            raise DataError("Expected an item to recommend, found none: the history holds all items of the model.")
    own = scores[0].cpu().numpy()
    candidates = np.ones(len(own), dtype=bool)
    candidates[taken.indices] = False
    found = model.contributions(history, item)
    values, shares = found.values[:, 0], found.shares[:, 0]
    order = np.argsort(-values, kind="stable")
    ids = trained.items.take(found.history).to_pylist()
    ranked = [Reason(ids[place], float(values[place]), float(shares[place])) for place in order]
    return Explanation(
        trained.items.take(np.array([item]))[0].as_py(),
        float(own[item]),
        int((own[candidates] > own[item]).sum()) + 1 if candidates[item] else None,
        int(candidates.sum()),
        [reason for reason in ranked[:count] if reason.contribution > 0],
        [reason for reason in ranked[::-1][:count] if reason.contribution < 0],
        len(ranked),
        int((values > 0).sum()),
        found.method,
    )


def sentence(names: Sequence[str], task: str = "ranking", liked: bool = True) -> str:
    """Say the reasons in a sentence that a shop can print.

    Parameters
    ----------
    names : sequence of str
        Titles or ids of the supporting items, best first; those after the second are left out.
    task : {"ranking", "rating"}
        Of the model.
    liked : bool
        Whether the items of a history are known to be liked, not only taken.

    Returns
    -------
    str
        "Because you liked X and Y.", and "No item of the history supports it." where there is no name.
    """
    if not names:
        return "No item of the history supports it."
    named = " and ".join(names[:2])
    if task == "rating":
        return f"Because of your rating{'s' * (len(names) > 1)} of {named}."
    return f"Because you liked {named}." if liked else f"Because of {named} in your history."


def reasons_of_lists(
    model: Recommender, history: csr_matrix, positions: NDArray[np.int32], count: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Find the reasons of all items of lists.

    Parameters
    ----------
    model : Recommender
        Whose scores the lists are made of.
    history : csr_matrix, shape (users, items)
    positions : ndarray of int32, shape (users, n)
        Best item first; -1 is no item.
    count : int
        Reasons of an item, at most.

    Returns
    -------
    items : ndarray of int32, shape (users, n, count)
        Positions of the items of the history that support the item most, best first; -1 where no further one does.
    shares : ndarray of float32, shape (users, n, count)
        Share of each in all that supports the item; NaN where there is no reason.
    """
    items = np.full((*positions.shape, count), -1, dtype=np.int32)
    shares = np.full(items.shape, np.nan, dtype=np.float32)
    for row in range(len(positions)):
        listed = np.flatnonzero(positions[row] >= 0)
        if not len(listed) or history.indptr[row] == history.indptr[row + 1]:
            continue
        found = model.contributions(history[row], positions[row, listed])
        places = found.strongest(count)
        known = places >= 0
        items[row, listed] = np.where(known, found.history[places], -1).T
        shares[row, listed] = np.where(known, np.take_along_axis(found.shares, places.clip(0), axis=0), np.nan).T
    return items, shares
