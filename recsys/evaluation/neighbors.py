"""How good nearest neighbors are: do the items nearest to an item predict what other users took together with it?

A test user u has a history F and held-out items H. Each item q of the history (at most 20 of them, drawn) is asked
alone: the items outside of F are ordered by their similarity to q, and the list is measured by H:

    value(u) = mean over q of  metric@k(items outside of F, most similar to q first; H)

so that a user counts once, however long the history. Confidence intervals resample users. Two metrics:

    ndcg@100         of all held-out items alike. Popular items alone, the same for every q, already do well
    rare_recall@100  sum of 1 / c_i over the held-out items i found / sum over all of them, c_i: training users of i.
                     A popular item counts little, so that it measures what is particular to q

Weights after Yang et al.: Unbiased Offline Recommender Evaluation for Missing-Not-At-Random Implicit Feedback, RecSys
2018, equation 6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.data.matrix import sparse_rows
from recsys.evaluation.averages import Average, Interval
from recsys.evaluation.evaluate import evaluate_lists
from recsys.evaluation.metrics import find_hits
from recsys.models.base import Recommender
from recsys.models.embeddings import SIZE, Vectors, truncated, unit_rows
from recsys.splitting.holdout import Holdout
from recsys.types import ScoreFunction

NDCG, RARE_RECALL = "ndcg@100", "rare_recall@100"
QUERIES = 20  # items asked of each user, at most


@dataclass(frozen=True)
class Neighbors:
    """How well neighbors predict, for one way to find them.

    Attributes
    ----------
    averages : mapping of str to Average
        ndcg@100 and rare_recall@100, over the users of the holdout in their order.
    """

    averages: Mapping[str, Average]

    def intervals(self, seed: int = 0) -> dict[str, Interval]:
        """Compute both metrics with 95 % confidence intervals (bootstrap over users)."""
        return {label: average.interval(seed) for label, average in self.averages.items()}


def evaluate_neighbors(
    similarity: ScoreFunction, holdout: Holdout, item_counts: NDArray[Any], queries: int = QUERIES, seed: int = 0
) -> Neighbors:
    """Measure the nearest neighbors of items on held-out users.

    Parameters
    ----------
    similarity : ScoreFunction
        From histories of one item, CSR (rows, items), to the similarity of all items to it; see `cosines_of`.
    holdout : Holdout
        Histories, whose items are asked, and held-out items, which their neighbors should be.
    item_counts : ndarray of int, shape (items,)
        Training users of each item.
    queries : int
        Items asked of each user, at most.
    seed : int
        Of the draw of queries.

    Returns
    -------
    Neighbors
        Equal similarities are ordered by hashes of the ids, as in all lists.
    """
    user, item = _drawn(holdout.history, queries, seed)
    ones = np.ones(len(user), dtype=np.float32)
    asked = sparse_rows(np.arange(len(user)), item, ones, (len(user), holdout.history.shape[1]))
    seen = holdout.history if holdout.seen is None else holdout.seen
    pairs = replace(holdout.take(user), history=asked, seen=seen[user])
    found = evaluate_lists(similarity, pairs, (NDCG,))
    hits = find_hits(found.positions, pairs.held_out)
    worth = 1 / np.maximum(item_counts, 1)
    every = _row_sums(pairs.held_out, worth)
    rare = (np.where(hits, worth[found.positions], 0)).sum(axis=1) / np.where(every > 0, every, np.nan)
    by_pair = {NDCG: found.averages[NDCG], RARE_RECALL: Average.of(rare)}
    return Neighbors({label: Average.of(each.grouped(user, len(holdout)).each) for label, each in by_pair.items()})


def compare_neighbors(
    model: Recommender, train: csr_matrix, holdout: Holdout, queries: int = QUERIES, seed: int = 0
) -> dict[str, Neighbors]:
    """Measure the neighbors of a model beside those that need no model.

    Parameters
    ----------
    model : Recommender
        Fitted; its items are those of the holdout.
    train : csr_matrix, shape (users, items)
        Interactions without the held-out ones, for the baselines.
    holdout, queries, seed
        As in `evaluate_neighbors`.

    Returns
    -------
    dict of str to Neighbors
        The model by its name; `co-occurrence`, the cosine of the columns of `train`: users of both items / the root of
        the product of their numbers of users; `svd of size N`, those columns at length 1, reduced to the size of the
        model's embeddings by a truncated singular value decomposition; `popularity`, the same list for every item.

    Raises
    ------
    UnsupportedError
        If the model has no embeddings.
    """
    vectors = model.item_weights()
    vectors = model.embed_items() if vectors is None else vectors
    size = vectors.shape[1] if model.item_weights() is None else SIZE
    columns = csr_matrix((np.ones_like(train.data), train.indices, train.indptr), shape=train.shape).T.tocsr()
    counts = np.bincount(train.indices, minlength=train.shape[1])
    ways: dict[str, ScoreFunction] = {
        model.name: cosines_of(vectors),
        "co-occurrence": cosines_of(columns),
        f"svd of size {min(size, *columns.shape)}": cosines_of(truncated(unit_rows(columns), size)),
        "popularity": _same_for_all(counts),
    }
    return {name: evaluate_neighbors(way, holdout, counts, queries, seed) for name, way in ways.items()}


def cosines_of(vectors: Vectors) -> ScoreFunction:
    """Return the similarity of `evaluate_neighbors` by the cosine of vectors, (items, size)."""
    units = unit_rows(vectors)

    def score(history: csr_matrix, /, *, users: Any = None) -> Tensor:
        if isinstance(units, Tensor):
            return units[torch.as_tensor(history.indices, device=units.device).long()] @ units.T
        return torch.as_tensor((units[history.indices] @ units.T).toarray().astype(np.float32))

    return score


def _same_for_all(counts: NDArray[Any]) -> ScoreFunction:
    """The similarity that knows no more than how popular items are."""

    def score(history: csr_matrix, /, *, users: Any = None) -> Tensor:
        return torch.as_tensor(counts, dtype=torch.float32).repeat(history.shape[0], 1)

    return score


def _row_sums(matrix: csr_matrix, worth: NDArray[Any]) -> NDArray[Any]:
    """Sum of the worth of the stored cells of each row."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return np.bincount(rows, worth[matrix.indices], minlength=matrix.shape[0])


def _drawn(history: csr_matrix, queries: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """User and item of each query: of a user with more items than `queries`, a random choice."""
    rng = np.random.default_rng(seed)
    users, items = [], []
    for user, (start, stop) in enumerate(zip(history.indptr[:-1], history.indptr[1:], strict=True)):
        own = np.sort(history.indices[start:stop])
        chosen = own if len(own) <= queries else np.sort(rng.choice(own, queries, replace=False))
        users.append(np.full(len(chosen), user))
        items.append(chosen)
    none = np.zeros(0, dtype=np.int64)
    return np.concatenate([none, *users]).astype(np.int64), np.concatenate([none, *items]).astype(np.int64)
