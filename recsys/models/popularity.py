"""Popularity: the most popular items for every user; the non-personalized baseline of rankings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.models.base import ConfigT, Recommender
from recsys.models.state import StateSpec, TensorSpec
from recsys.training.context import TrainingContext


@dataclass(frozen=True)
class PopularityConfig:
    """No settings."""


class CountedItems(Recommender[ConfigT]):
    """Scores an item by a count, the same for all users; `_fit` counts.

    Attributes
    ----------
    counts : Tensor, shape (items,)
    """

    family = "baseline"
    is_random = False
    explained_by = "none"
    counts: Tensor

    def _score(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Tensor:
        return self.counts.repeat(history.shape[0], 1)

    def _get_state(self) -> dict[str, Tensor]:
        return {"counts": self.counts}

    def _set_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        self.counts = state["counts"].to(device)

    def _state_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        return StateSpec({"counts": TensorSpec((n_items,), low=0)})


class Popularity(CountedItems[PopularityConfig]):
    """Scores an item by its number of users, the same for all users."""

    name = "popularity"
    Config = PopularityConfig

    def _fit(self, matrix: csr_matrix, context: TrainingContext) -> None:
        counts = np.bincount(matrix.indices, minlength=matrix.shape[1])
        self.counts = torch.as_tensor(counts, dtype=torch.float32, device=context.resolve_device())
