"""What follows the last item: a first-order Markov chain, the baseline of models of sequences.

```
histories a b c, a b, d b c        after b: c twice             P(c | b) = (2 + s p_c) / (2 + s)
```
p_c is the share of c among all interactions and s the smoothing, so that an item nothing has followed yet falls back on
popularity.

Rendle, Freudenthaler, Schmidt-Thieme: Factorizing Personalized Markov Chains, WWW 2010 (the chain before factorizing).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.data.matrix import sparse_rows
from recsys.models.base import Recommender
from recsys.models.config import require
from recsys.models.search_space import Range, tunable
from recsys.models.sequential.rows import in_order
from recsys.models.state import CsrSpec, StateSpec, TensorSpec, csr_from_state, csr_state
from recsys.training.context import TrainingContext


@dataclass(frozen=True)
class LastItemConfig:
    """Settings of the chain."""

    smoothing: float = tunable(1.0, Range(0.1, 100.0, log=True))  # weight of popularity, in transitions

    def __post_init__(self) -> None:
        require(self.smoothing > 0, f"Expected smoothing above 0, found {self.smoothing}.")


class LastItem(Recommender[LastItemConfig]):
    """Scores an item by how often it directly followed the last item of the history."""

    name = "last-item"
    family = "sequential"
    Config = LastItemConfig
    is_random = False
    explained_by = "leave-one-out"
    transitions: csr_matrix  # how often the column followed the row, float32 (items, items)
    popularity: Tensor  # share of each item, (items,)

    @property
    def uses_order(self) -> bool:
        """True: the last item is the one with the highest place in time."""
        return True

    def _fit(self, matrix: csr_matrix, context: TrainingContext) -> None:
        context.resolve_device()  # an unknown one is refused; counts need none
        sequences, items = in_order(matrix), matrix.shape[1]
        ends = np.zeros(len(sequences.indices), dtype=bool)
        ends[sequences.indptr[1:][np.diff(sequences.indptr) > 0] - 1] = True
        before, after = sequences.indices[:-1][~ends[:-1]], sequences.indices[1:][~ends[:-1]]
        pairs, counts = np.unique(before.astype(np.int64) * items + after, return_counts=True)
        row, column = (part.astype(np.int32) for part in np.divmod(pairs, items))
        self.transitions = sparse_rows(row, column, counts, (items, items))
        found = np.bincount(matrix.indices, minlength=items) / matrix.nnz
        self.popularity = torch.as_tensor(found, dtype=torch.float32)

    def _score(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Tensor:
        last = in_order(history, 1)
        known = np.diff(last.indptr) > 0
        counts = torch.zeros(history.shape)
        counts[torch.as_tensor(known)] = torch.as_tensor(self.transitions[last.indices].toarray())
        smoothing = self.config.smoothing
        return (counts + smoothing * self.popularity) / (counts.sum(dim=1, keepdim=True) + smoothing)

    def _item_weights(self) -> csr_matrix:
        """What follows an item, and what it follows: the vectors of items."""
        return csr_matrix(self.transitions + self.transitions.T)

    def _get_state(self) -> dict[str, Tensor]:
        return {"popularity": self.popularity, **csr_state(self.transitions, "transitions.")}

    def _set_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        self.popularity = state["popularity"].cpu()
        self.transitions = csr_from_state(state, len(self.popularity), "transitions.")

    def _state_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        tensors = {"popularity": TensorSpec((n_items,), low=0)}
        return StateSpec(tensors, {"transitions.": CsrSpec(n_items, n_items)})
