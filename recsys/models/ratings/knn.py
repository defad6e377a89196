"""Item-based nearest neighbors on ratings: residuals of a user's ratings of similar items.

Similarities are cosines of residuals over the users who rated both items, shrunk where these are few. Memory: about
3 x items^2 x 4 bytes.

Koren, Bell: Advances in Collaborative Filtering, in Recommender Systems Handbook, 2011, equations 5.16 to 5.19.
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
from recsys.models.state import StateSpec, TensorSpec
from recsys.training.batches import SparseBatch, weighted_sum
from recsys.training.context import TrainingContext

_TOLERANCE = 1e-5  # similarities closer than this share are equal: sums in another order differ in their last digits


@dataclass(frozen=True)
class RatingKNNConfig(RatingConfig):
    """Neighbors are the same for all users; those a user has not rated have no influence."""

    neighbors: int = tunable(200, Range(20, 500, log=True))  # of each item
    # a similarity over n users is multiplied by n / (n + shrinkage)
    shrinkage: float = tunable(30.0, Range(1.0, 300.0, log=True))
    damping: float = tunable(0.5, Range(0.01, 5.0, log=True))  # added to the sum of similarities in the denominator

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.neighbors >= 1, f"Expected neighbors of at least 1, found {self.neighbors}.")
        require(self.shrinkage >= 0, f"Expected shrinkage of 0 or more, found {self.shrinkage}.")
        require(self.damping > 0, f"Expected damping above 0, found {self.damping}.")


class RatingKNN(RatingRecommender[RatingKNNConfig]):
    """rating = baseline + weighted mean of the user's residuals of an item's neighbors.

    Attributes
    ----------
    similarities : Tensor, shape (items, items)
        Row j, column i: weight of item j in the prediction of item i.
    """

    name = "rating-knn"
    family = "neighbors"
    Config = RatingKNNConfig
    is_random = False
    similarities: Tensor

    def _learn(self, matrix: csr_matrix, context: TrainingContext) -> None:
        context.on_phase("similarities of items", 0, 1)
        residuals = _scaled(self.baseline.split_matrix(matrix))
        present = csr_matrix((np.ones_like(residuals.data), residuals.indices, residuals.indptr), residuals.shape)
        squares = residuals.multiply(residuals).tocsr()
        both, energy = (torch.as_tensor((left.T @ present).toarray()) for left in (present, squares))
        found = torch.as_tensor((residuals.T @ residuals).toarray())
        found /= (energy * energy.T).sqrt().clamp_min(1e-9)
        found *= both / (both + self.config.shrinkage).clamp_min(1e-9)
        found.clamp_min_(0).fill_diagonal_(0)
        count = min(self.config.neighbors, len(found))
        # Neighbors as similar as the last one are all kept: the order of items must not decide between equals.
        found[found < found.topk(count, dim=0).values[-1] * (1 - _TOLERANCE)] = 0
        self.similarities = found.to(self.baseline.mean.device).contiguous()  # row-major, as scoring reads it
        context.on_phase("similarities of items", 1, 1)

    def _rate(self, ratings: SparseBatch) -> Tensor:
        residuals, users = self.baseline.split(ratings)
        ones = SparseBatch(ratings.items, torch.ones_like(ratings.values), ratings.offsets)
        weights = weighted_sum(ones, self.similarities) + self.config.damping
        return self.baseline.join(weighted_sum(residuals, self.similarities) / weights, users)

    def _item_weights(self) -> Tensor:
        """The columns of the similarities, with 1 of an item with itself."""
        return self.similarities.T + torch.eye(len(self.similarities), device=self.similarities.device)

    def _get_weights(self) -> dict[str, Tensor]:
        return {"similarities": self.similarities}

    def _set_weights(self, weights: Mapping[str, Tensor]) -> None:
        self.similarities = weights["similarities"]

    def _weights_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        return StateSpec({"similarities": TensorSpec((n_items, n_items))})


def _scaled(residuals: csr_matrix) -> csr_matrix:
    """Divide by the power of two next to the largest residual: cosines stay the same, squares stay in range."""
    largest = float(np.abs(residuals.data).max())
    exponent = np.frexp(largest)[1] if largest > 0 else 0
    return csr_matrix((np.ldexp(residuals.data, -exponent), residuals.indices, residuals.indptr), residuals.shape)
