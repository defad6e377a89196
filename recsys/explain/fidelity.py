"""Fidelity: whether the items that an explanation names are those that the recommendation depends on.

The items of a history are taken away in the order of the explanation, in ten steps, and the model scores what is left:

POS        the most supporting items are taken away first: the recommended item should soon lose its rank
NEG        the least supporting items are taken away first: it should keep its rank
deletion   as POS, but the item's score is followed instead of its rank
insertion  the most supporting items are put into an empty history first: its score should soon be high

The rank is that among the items the user has not had, and is valued 1 / log2(1 + rank), as in NDCG: 1 where the item is
still the first. The score is the distance from the mean of those items' scores, in their standard deviations, over what
it is with the whole history. A curve is summed up by its mean over the ten steps: lower is better for POS and deletion,
higher for NEG and insertion. Explainers can be compared on one model only.

The perturbations are those of Barkan et al.: A Counterfactual Framework for Learning and Evaluating Explanations for
Recommender Systems, WWW 2024 (LXR).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.errors import DataError
from recsys.explain.explainers import Explainer
from recsys.inference.topn import top_n
from recsys.models import Recommender
from recsys.types import Values

STEPS = 10

CURVES = {"POS": "lower", "NEG": "higher", "deletion": "lower", "insertion": "higher"}  # name -> which is better

UserCurves = Mapping[str, Values]  # the four curves of one user, float64 (STEPS + 1,) each, by name


@dataclass(frozen=True)
class Fidelity:
    """Curves of one explainer.

    Attributes
    ----------
    curves : mapping of str to ndarray of float64, shape (users, STEPS + 1)
        By name, see `CURVES`; the first column is before the first step.
    seconds : float
        Time of one explanation, mean over users.
    """

    curves: Mapping[str, NDArray[np.float64]]
    seconds: float

    @classmethod
    def joined(cls, users: Sequence[tuple[UserCurves, float]]) -> Self:
        """Put the curves and times of single users together."""
        stacked = {name: np.stack([curves[name] for curves, _ in users]) for name in CURVES}
        return cls(stacked, float(np.mean([seconds for _, seconds in users])))

    def means(self, name: str) -> Values:
        """Return the mean of a curve over the ten steps, one value per user, float64 (users,)."""
        values: Values = self.curves[name][:, 1:].mean(axis=1)
        return values


def choose_users(histories: csr_matrix, count: int, seed: int = 0) -> NDArray[np.int64]:
    """Choose users at random among those whose history can be taken apart: at least two items, and one not in it.

    Parameters
    ----------
    histories : csr_matrix, shape (users, items)
    count : int
        How many; all that there are if fewer.
    seed : int
        Of the choice.

    Returns
    -------
    ndarray of int64
        Rows, ascending.

    Raises
    ------
    DataError
        If there is no such user.
    """
    lengths = np.diff(histories.indptr)
    able = np.flatnonzero((lengths >= 2) & (lengths < histories.shape[1]))
    if not len(able):
        raise DataError("Expected a user with at least two items that the model knows, found none.")
    chosen = np.random.default_rng(seed).choice(able, min(count, len(able)), replace=False)
    return np.sort(chosen).astype(np.int64)


def measure_fidelity(
    model: Recommender,
    histories: csr_matrix,
    explainers: Mapping[str, Explainer],
    seen: csr_matrix | None = None,
) -> Iterator[dict[str, tuple[UserCurves, float]]]:
    """Explain the first recommendation of each user, and take the history apart in the order of each explanation.

    Parameters
    ----------
    model : Recommender
        Fitted.
    histories : csr_matrix, shape (users, items)
        From `choose_users`.
    explainers : mapping of str to Explainer
        By name.
    seen : csr_matrix, shape (users, items), optional
        What is never recommended, where that is more than the histories.

    Yields
    ------
    dict of str to (UserCurves, float)
        For each user in turn: the curves and the seconds of the explanation, by explainer. Users with nothing to
        recommend, or for whom all items have the same score, are passed over.
    """
    for row in range(histories.shape[0]):
        history, taken = histories[row], (histories if seen is None else seen)[row]
        scores = model.score(history)
        item = int(top_n(scores, 1, taken)[0][0, 0])
        candidates = np.ones(history.shape[1], dtype=bool)
        candidates[taken.indices] = False
        if item < 0 or not (scores[0, torch.as_tensor(candidates, device=scores.device)] < scores[0, item]).any():
            continue
        found = {}
        for name, explain in explainers.items():
            started = time.perf_counter()
            importance = explain(history, item)
            seconds = time.perf_counter() - started
            found[name] = _curves(model, history, item, importance, candidates), seconds
        yield found


def join_users(users: Iterable[Mapping[str, tuple[UserCurves, float]]]) -> dict[str, Fidelity]:
    """Put together what `measure_fidelity` yields, by explainer.

    Raises
    ------
    DataError
        If there is no user.
    """
    every = list(users)
    if not every:
        raise DataError("Expected a user with an item to recommend, found none.")
    return {name: Fidelity.joined([user[name] for user in every]) for name in every[0]}


def _curves(
    model: Recommender, history: csr_matrix, item: int, importance: NDArray[Any], candidates: NDArray[np.bool_]
) -> UserCurves:
    """The four curves of one explanation."""
    count = history.nnz
    place = np.empty(count, dtype=np.int64)
    place[np.argsort(-importance, kind="stable")] = np.arange(count)
    sizes = np.ceil(count * np.arange(STEPS + 1) / STEPS).astype(np.int64)[:, None]
    without_first = _perturbed(history, place >= sizes)
    only_first = _perturbed(history, place < count - sizes)
    lost, kept = (_rank_and_score(model, rows, item, candidates) for rows in (without_first, only_first))
    start = lost[1][0]  # above 0: the item is the first, and not all are equal
    return {"POS": lost[0], "NEG": kept[0], "deletion": lost[1] / start, "insertion": kept[1][::-1] / start}


def _perturbed(history: csr_matrix, kept: NDArray[np.bool_]) -> csr_matrix:
    """A history with some of its cells only, (rows, items), for each row of `kept` (rows, cells)."""
    cell = np.nonzero(kept)[1]
    pointers = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int32)
    return csr_matrix((history.data[cell], history.indices[cell], pointers), shape=(len(kept), history.shape[1]))


def _rank_and_score(
    model: Recommender, histories: csr_matrix, item: int, candidates: NDArray[np.bool_]
) -> tuple[Values, Values]:
    """1 / log2(1 + rank) of an item among the candidates, and its standardized score; both (rows,)."""
    scores = model.score(histories)
    allowed = torch.as_tensor(candidates, device=scores.device)
    own, rivals = scores[:, [item]], scores[:, allowed]
    better = (rivals > own).sum(1) + ((rivals == own).sum(1) - 1) / 2  # equal scores share the places they take
    spread, mean = torch.std_mean(rivals.double(), dim=1, correction=0)
    standard = torch.where(spread > 0, (own[:, 0].double() - mean) / spread.clamp_min(1e-300), 0)
    return (1 / torch.log2(2 + better.double())).cpu().numpy(), standard.cpu().numpy()
