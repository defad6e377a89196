"""Variety within a list: each next item is chosen by its score and by what is in the list already.

Two criteria, both greedy over a user's fifty best items, or as many as the list is long (`pool_size`), with scores
stretched to [0, 1] over them:

```
diversity     (1 - weight) score(i) - weight mean cosine(i, j)      j: the items listed before
calibration   (1 - weight) score(i) - weight KL(p, q)               p: shares of the values (genres) in the history,
                                                                    q: in the list with i
```

Sources: Smyth, McClave, "Similarity vs. Diversity" (ICCBR 2001), the bounded greedy selection, as a weighted sum like
that of Carbonell, Goldstein (SIGIR 1998), whose highest cosine in place of the mean one gained less distance for the
same accuracy (benchmarks/README.md, "Variety"); Steck, "Calibrated Recommendations" (RecSys 2018), equations 4 to 7,
with its q = .99 q + .01 p.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.errors import ConfigError

POOL = 50  # items to choose among, where lists are shorter
WIDEST = 1024  # values of a column, or numbers of an embedding: a pool of them is held for every user of a tile
_SMOOTHING = 0.01  # of the list's shares by the history's: no logarithm of 0


@dataclass(frozen=True)
class Variety:
    """How much variety, and by what.

    Attributes
    ----------
    vectors : ndarray of float32, shape (items, size)
        What makes items alike: 1 for each of an item's categories, or embeddings.
    weight : float
        From 0 (scores alone) to below 1.
    calibrated : bool
        Keep the shares of the values in the history, instead of making items unlike each other.

    Raises
    ------
    ConfigError
        If the weight is out of range, or the vectors are too long.
    """

    vectors: NDArray[np.float32]
    weight: float
    calibrated: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.weight < 1:
            raise ConfigError(f"Expected a weight of variety from 0 to below 1, found {self.weight}.")
        if self.vectors.shape[1] > WIDEST:
            raise ConfigError(
                f"Expected at most {WIDEST:,} values to tell items apart by, found {self.vectors.shape[1]:,}: choose a "
                "column with fewer values, genres for example."
            )

    @cached_property
    def units(self) -> NDArray[np.float32]:
        """The vectors, each of length 1 or 0, float32 (items, size)."""
        return _units(self.vectors)

    @cached_property
    def shares(self) -> NDArray[np.float32]:
        """The vectors as shares of their values, whose sum is 1 or 0, float32 (items, size)."""
        sizes = np.abs(self.vectors)
        totals = sizes.sum(axis=1, keepdims=True)
        return np.asarray(sizes / np.where(totals > 0, totals, 1), dtype=np.float32)

    def begin(
        self, candidates: NDArray[np.int32], scores: NDArray[np.float32], pooled: NDArray[np.bool_], history: csr_matrix
    ) -> Similar | Calibrated:
        """Return what values the candidates of users, place after place.

        Parameters
        ----------
        candidates, scores : ndarray, shape (users, candidates)
            Positions of items and their scores.
        pooled : ndarray of bool, shape (users, candidates)
            The candidates in the pool.
        history : csr_matrix, shape (users, items)
            What the users have had.
        """
        low = np.where(pooled, scores, np.inf).min(axis=1, keepdims=True)
        high = np.where(pooled, scores, -np.inf).max(axis=1, keepdims=True)
        width = np.where(high > low, high - low, 1)
        with np.errstate(invalid="ignore"):
            relevance = np.where(pooled, (scores - low) / width, 0).astype(np.float32)
        if self.calibrated:
            return Calibrated(self, relevance, candidates, history)
        return Similar(self, relevance, candidates)


class Similar:
    """Score of candidates less their mean cosine with what is listed."""

    def __init__(self, variety: Variety, relevance: NDArray[np.float32], candidates: NDArray[np.int32]):
        self._vectors = variety.units[candidates]
        self._relevance = (1 - variety.weight) * relevance
        self._listed = np.zeros((len(candidates), 1, self._vectors.shape[2]), dtype=np.float32)  # their sum
        self._count = np.zeros((len(candidates), 1), dtype=np.float32)
        self._weight = variety.weight

    def values(self) -> NDArray[np.float32]:
        """Return the value of each candidate for the next place, float32 (users, candidates)."""
        cosines = (self._listed @ self._vectors.transpose(0, 2, 1))[:, 0]
        return np.asarray(self._relevance - self._weight / np.maximum(self._count, 1) * cosines)

    def take(self, users: NDArray[np.int64], picks: NDArray[np.int64]) -> None:
        """Note that a candidate was listed for each of some users."""
        self._listed[users, 0] += self._vectors[users, picks]
        self._count[users] += 1


class Calibrated:
    """Score of candidates less the divergence that the list would have from the history."""

    def __init__(
        self, variety: Variety, relevance: NDArray[np.float32], candidates: NDArray[np.int32], history: csr_matrix
    ):
        shares = variety.shares
        wanted = np.asarray(csr_matrix((np.ones(history.nnz, np.float32), history.indices, history.indptr),
                                       shape=history.shape) @ shares)  # fmt: skip
        sums = wanted.sum(axis=1, keepdims=True)
        self._wanted = (wanted / np.where(sums > 0, sums, 1)).astype(np.float32)
        self._shares = shares[candidates]
        self._listed = np.zeros_like(self._wanted)
        self._count = np.zeros(len(candidates), dtype=np.float32)
        self._relevance = (1 - variety.weight) * relevance
        self._weight = variety.weight

    def values(self) -> NDArray[np.float32]:
        """Return the value of each candidate for the next place, float32 (users, candidates)."""
        shares = (self._listed[:, None] + self._shares) / (self._count[:, None, None] + 1)
        wanted = self._wanted[:, None]
        mixed = (1 - _SMOOTHING) * shares + _SMOOTHING * wanted
        # sum p log(p / q), of which sum p log p is the same for all candidates of a user
        divergence = -np.einsum("us,ucs->uc", self._wanted, np.log(np.where(wanted > 0, mixed, 1)))
        return np.asarray(self._relevance - self._weight * divergence)

    def take(self, users: NDArray[np.int64], picks: NDArray[np.int64]) -> None:
        """Note that a candidate was listed for each of some users."""
        self._listed[users] += self._shares[users, picks]
        self._count[users] += 1


def pool_size(n: int) -> int:
    """Return the number of a user's best items among which those of a list of n are chosen.

    Where the rules use them up, the next best follow by score. So lists of fifty items and more keep their items, in
    another order.
    """
    return max(POOL, n)


def _units(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors of length 1, those of length 0 as they are."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)
