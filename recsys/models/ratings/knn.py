"""Item neighbors on ratings: what a person thought of items alike, beyond biases.

Similarities are cosines of residuals over the people who rated both items, shrunk where these are few (Koren, Bell:
Advances in Collaborative Filtering, 2011). Memory: about 3 x items^2 x 4 bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.models.config import require
from recsys.models.ratings.base import RatingConfig, RatingRecommender
from recsys.models.search_space import Range, tunable
from recsys.training.batches import SparseBatch, weighted_sum
from recsys.training.context import TrainingContext


@dataclass(frozen=True)
class RatingKNNConfig(RatingConfig):
    """Neighbors are the same for everybody; those a person has not rated count for nothing."""

    neighbors: int = tunable(200, Range(20, 500, log=True))  # of each item
    shrinkage: float = tunable(
        30.0, Range(1.0, 300.0, log=True)
    )  # a similarity is as if so many more agreed in nothing
    damping: float = tunable(0.5, Range(0.01, 5.0, log=True))  # added to the sum of similarities a mean is divided by

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.neighbors >= 1, f"Expected neighbors of at least 1, found {self.neighbors}.")
        require(self.shrinkage >= 0, f"Expected shrinkage of 0 or more, found {self.shrinkage}.")
        require(self.damping > 0, f"Expected damping above 0, found {self.damping}.")


class RatingKNN(RatingRecommender):
    """rating = biases + mean of the residuals of an item's neighbors, by similarity."""

    name = "rating-knn"
    family = "neighborhood"
    Config = RatingKNNConfig
    is_random = False
    similarities: Tensor  # (items, items): row j, column i: how much j says about i

    def _learn(self, matrix: csr_matrix, context: TrainingContext) -> None:
        residuals = self.baseline.split_matrix(matrix)
        present = csr_matrix((np.ones_like(residuals.data), residuals.indices, residuals.indptr), residuals.shape)
        squares = residuals.multiply(residuals).tocsr()
        both, energy = (torch.as_tensor((left.T @ present).toarray()) for left in (present, squares))
        found = torch.as_tensor((residuals.T @ residuals).toarray())
        found /= (energy * energy.T).sqrt().clamp_min(1e-9)
        found *= both / (both + self.config.shrinkage).clamp_min(1e-9)
        found.clamp_min_(0).fill_diagonal_(0)
        count = min(self.config.neighbors, len(found))
        found[found < found.topk(count, dim=0).values[-1]] = 0
        self.similarities = found.to(self.baseline.mean.device).contiguous()  # row by row, as scoring reads it

    def _rate(self, ratings: SparseBatch) -> Tensor:
        residuals, users = self.baseline.split(ratings)
        ones = SparseBatch(ratings.items, torch.ones_like(ratings.values), ratings.offsets)
        weights = weighted_sum(ones, self.similarities) + self.config.damping
        return self.baseline.join(weighted_sum(residuals, self.similarities) / weights, users)

    def item_codes(self) -> Tensor:
        """Columns of similarities, an item's with itself being 1, (items, items)."""
        return self.similarities.T + torch.eye(len(self.similarities), device=self.similarities.device)

    def _get_weights(self) -> dict[str, Tensor]:
        return {"similarities": self.similarities}

    def _set_weights(self, weights: Mapping[str, Tensor]) -> None:
        self.similarities = weights["similarities"]
