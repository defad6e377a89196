"""Histories whose items weigh less the older they are, for models of sets: a setting `half_life`.

```
history, oldest first    a     b     c     d          half_life 1:    weights 1/8  1/4  1/2  1
```
Training is as without it, on whole histories: only what is scored leans to the newest items.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from recsys.data.matrix import OrderedMatrix, as_csr, without_order
from recsys.models.base import ConfigT, Recommender
from recsys.models.config import require


def check_half_life(half_life: float | None) -> None:
    """Raise ConfigError for a half-life that is not above 0."""
    require(half_life is None or half_life > 0, f"Expected half_life above 0, found {half_life}.")


def by_recency(history: csr_matrix, half_life: float) -> csr_matrix:
    """Weigh the items of histories.

    Parameters
    ----------
    history : csr_matrix, shape (users, items)
        Cells hold places in time.
    half_life : float
        In items: an item that is so many places before the newest one weighs half as much.

    Returns
    -------
    csr_matrix of float32, shape (users, items)
        1 for the newest item of a user.
    """
    lengths, known = np.diff(history.indptr), np.diff(history.indptr) > 0
    newest = np.zeros(history.shape[0], dtype=np.float32)
    if history.nnz:
        newest[known] = np.maximum.reduceat(history.data, history.indptr[:-1][known])
    weights = np.exp2((history.data - np.repeat(newest, lengths)) / half_life).astype(np.float32)
    weighted: csr_matrix = csr_matrix((weights, history.indices, history.indptr), shape=history.shape)
    weighted.has_sorted_indices = True
    return weighted


class RecencyWeighted(Recommender[ConfigT]):
    """A model whose config has `half_life`: histories to score are weighed by recency where it is given."""

    @property
    def half_life(self) -> float | None:
        """That of the config."""
        config: Any = self.config
        found: float | None = config.half_life
        return found

    @property
    def uses_order(self) -> bool:
        """Whether there is a half-life."""
        return self.half_life is not None

    def _scored_alike(self, matrix: csr_matrix) -> csr_matrix:
        """The rows of the training matrix that are scored as training saw them: none where they are weighed."""
        return matrix if self.half_life is None else matrix[:0]

    def _own_cells(self, given: csr_matrix) -> csr_matrix:
        """The matrix as training takes it: with ones instead of places in time."""
        matrix = as_csr(given)
        return without_order(matrix if self.half_life is None else OrderedMatrix(matrix))

    def _to_score(self, given: csr_matrix) -> csr_matrix:
        """The histories with weights."""
        return self._own_cells(given) if self.half_life is None else by_recency(as_csr(given), self.half_life)
