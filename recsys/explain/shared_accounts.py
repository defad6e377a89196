"""Histories that fall in two blocks, as those of two people behind one account do.

Items are related as the model relates them: the score of each item for somebody who has had only one other, made
comparable over the catalog. A history is divided into two halves that are related within and as little as possible
across (the leading eigenvector of its relations: Newman, Modularity and community structure in networks, PNAS 2006).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.sparse import csr_matrix, identity

from recsys.errors import UnsupportedError
from recsys.models.base import Recommender
from recsys.system.memory import require_memory
from recsys.types import FloatArray, Values

FEWEST = 8  # items of a history that is divided
_LONGEST = 200  # items of a history that are looked at, taken evenly
_AT_ONCE = 512


@dataclass(frozen=True)
class Relations:
    """How strongly items are related, as a model sees it.

    Attributes
    ----------
    strength : ndarray of float32, shape (items, items)
        Symmetric, 0 on the diagonal; in standard deviations of an item's scores over the histories of a single item.
    """

    strength: FloatArray

    @classmethod
    def of(cls, model: Recommender) -> Relations:
        """Ask a fitted model.

        Parameters
        ----------
        model : Recommender
            A model of lists.

        Returns
        -------
        Relations

        Raises
        ------
        UnsupportedError
            If the model cannot score new histories, predicts ratings, or the relations do not fit in memory.
        """
        if model.needs_training_users or model.task == "rating":
            raise UnsupportedError(f"Expected a model that makes lists for new histories, found {model.name}.")
        items = int(model.n_items or 0)
        require_memory("shared accounts", 12 * items * items, torch.device("cpu"), "accounts=False")
        single = identity(items, dtype=np.float32, format="csr")
        parts = [model.score(csr_matrix(single[at : at + _AT_ONCE])).cpu() for at in range(0, items, _AT_ONCE)]
        scores = torch.cat(parts).numpy()
        scores -= scores.mean(axis=0)
        scores /= np.maximum(scores.std(axis=0), 1e-6 * max(1e-30, float(np.abs(scores).max())))
        strength = (scores + scores.T) / 2
        np.fill_diagonal(strength, 0)
        return cls(strength)

    def contrast(self, items: NDArray[np.int32]) -> float:
        """Say how clearly a history falls in two blocks: (strength within - strength across) / |strength within|.

        0 for a history that is all of one piece; about 1 where the blocks have nothing to do with each other, above
        where they exclude each other.

        Parameters
        ----------
        items : ndarray of int, shape (n,)
            The history.

        Returns
        -------
        float
            NaN for a history of fewer than 8 items.
        """
        chosen = _some(items)
        if len(chosen) < FEWEST:
            return float("nan")
        strength = self.strength[np.ix_(chosen, chosen)]
        first = _divide(strength)
        one, two = int(first.sum()), int((~first).sum())
        pairs = one * (one - 1) + two * (two - 1)
        within = (strength[np.ix_(first, first)].sum() + strength[np.ix_(~first, ~first)].sum()) / pairs
        across = strength[np.ix_(first, ~first)].mean()
        return float((within - across) / max(abs(within), 1e-9))

    def blocks(self, items: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the two halves of a history, in each the items that belong to it most first; of 8 items or more."""
        chosen = _some(items)
        strength = self.strength[np.ix_(chosen, chosen)]
        first = _divide(strength)
        side = strength @ np.where(first, 1.0, -1.0)
        order = np.argsort(-side, kind="stable")
        return chosen[order[first[order]]], chosen[order[::-1][~first[order[::-1]]]]


def two_blocks(relations: Relations, matrix: csr_matrix) -> Values:
    """Compute the contrast of every history of a matrix, float64 (users,); NaN for those of fewer than 8 items."""
    starts = matrix.indptr
    histories = (matrix.indices[starts[user] : starts[user + 1]] for user in range(matrix.shape[0]))
    return np.array([relations.contrast(history) for history in histories])


def _some(items: NDArray[np.int32]) -> NDArray[np.int32]:
    """At most `_LONGEST` items, taken evenly."""
    return items[np.linspace(0, len(items) - 1, min(len(items), _LONGEST)).astype(np.int64)]


def _divide(strength: FloatArray) -> NDArray[np.bool_]:
    """Two halves by the leading eigenvector of the relations, what all pairs have in common taken off."""
    size = len(strength)
    common = strength.sum() / (size * (size - 1))
    centered = strength - common * (1 - np.eye(size, dtype=np.float32))
    leading = eigh(centered, subset_by_index=(size - 1, size - 1))[1][:, 0]
    leading *= np.sign(leading[np.argmax(np.abs(leading))])  # LAPACK leaves the sign open
    half = np.zeros(size, dtype=bool)
    half[np.argsort(-leading, kind="stable")[: size // 2]] = True
    return half
