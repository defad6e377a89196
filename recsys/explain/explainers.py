"""Explainers order the items of a history by what they mean for a recommendation: the model's own, and simple rivals.

An explainer takes one history, CSR (1, items), and the position of the recommended item; it returns a number for each
item of the history, in order of position: the higher, the more it supports the recommendation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.models import Recommender
from recsys.models.contributions import leave_one_out

Explainer = Callable[[csr_matrix, int], NDArray[Any]]


def by_contributions(model: Recommender) -> Explainer:
    """Explain by the contributions that the model itself finds."""
    return lambda history, item: model.contributions(history, item).values[:, 0]


def by_leave_one_out(model: Recommender) -> Explainer:
    """Explain by what the score loses without each item, whatever the model's own method."""
    return lambda history, item: leave_one_out(lambda rows: model.score(rows, [item]), history)[:, 0].cpu().numpy()


def by_cosine(user_items: csr_matrix) -> Explainer:
    """Explain by the cosine of the item's column with those of the history's items.

    Parameters
    ----------
    user_items : csr_matrix, shape (users, items)
        Whose columns are compared.
    """
    columns = user_items.T.tocsr()
    lengths = np.sqrt(np.asarray(columns.multiply(columns).sum(axis=1), dtype=np.float64)).ravel()

    def explain(history: csr_matrix, item: int) -> NDArray[Any]:
        products = np.asarray((columns[history.indices] @ columns[item].T).toarray()).ravel()
        cosines: NDArray[Any] = products / np.maximum(lengths[history.indices] * lengths[item], 1e-12)
        return cosines

    return explain


def by_popularity(item_counts: NDArray[Any]) -> Explainer:
    """Explain by the number of users of the history's items, (items,): the most popular first."""
    return lambda history, item: item_counts[history.indices]


def at_random(seed: int = 0) -> Explainer:
    """Explain by random numbers, which depend on the seed, the item and the history alone."""
    return lambda history, item: np.random.default_rng([seed, item, *history.indices]).random(history.nnz)


def rivals(user_items: csr_matrix, seed: int = 0) -> dict[str, Explainer]:
    """Return the simple explainers that a model's own must beat, by name.

    Parameters
    ----------
    user_items : csr_matrix, shape (users, items)
        For cosines and popularity.
    seed : int
        Of the random one.
    """
    counts = np.bincount(user_items.indices, minlength=user_items.shape[1])
    return {"cosine": by_cosine(user_items), "popularity": by_popularity(counts), "random": at_random(seed)}
