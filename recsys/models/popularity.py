"""Popularity: everybody is offered what most people took. The floor every personal model must clear."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.models.base import Recommender
from recsys.training.context import TrainingContext


@dataclass(frozen=True)
class PopularityConfig:
    """No settings."""


class Popularity(Recommender):
    """Scores an item by the number of its users, the same for everybody."""

    name = "popularity"
    family = "baseline"
    Config = PopularityConfig
    is_random = False

    def _fit(self, matrix: csr_matrix, context: TrainingContext) -> None:
        counts = np.bincount(matrix.indices, minlength=matrix.shape[1])
        self.counts = torch.as_tensor(counts, dtype=torch.float32, device=context.resolve_device())

    def _score(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Tensor:
        return self.counts.repeat(history.shape[0], 1)

    def _get_state(self) -> dict[str, Tensor]:
        return {"counts": self.counts}

    def _set_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        self.counts = state["counts"].to(device)
