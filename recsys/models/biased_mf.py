"""Matrix factorisation of ratings, as strong as it comes: many factors, well regularised, biases taken out.

By alternating ridge regressions (Zhou, Wilkinson, Schreiber, Pan: Large-scale Parallel Collaborative Filtering for the
Netflix Prize, 2008). Rendle, Zhang, Koren (On the Difficulty of Evaluating Baselines, 2019) show how far this goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.models.base import require
from recsys.models.rating import RatingConfig, RatingRecommender, fold_in, rate_by_codes
from recsys.search_space import Range, tunable
from recsys.training import SparseBatch, TrainingContext


@dataclass(frozen=True)
class BiasedMFConfig(RatingConfig):
    """The weights of a user or an item with n ratings are held by l2 * n^power."""

    factors: int = tunable(64, Range(8, 256, log=True))
    l2: float = tunable(12.0, Range(0.05, 100.0, log=True))
    power: float = tunable(0.0, Range(0.0, 1.0))  # 1: weighted-lambda regularisation; 0: the same for all
    iterations: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("factors", "iterations"):
            require(getattr(self, name) >= 1, f"Expected {name} of at least 1, found {getattr(self, name)}.")
        require(self.l2 > 0, f"Expected l2 above 0, found {self.l2}.")
        require(0 <= self.power <= 1, f"Expected power in [0, 1], found {self.power}.")


class BiasedMF(RatingRecommender):
    """rating = biases + user . item."""

    name = "biased-mf"
    family = "matrix factorisation"
    Config = BiasedMFConfig
    codes: Tensor

    def _learn(self, matrix: csr_matrix, context: TrainingContext) -> None:
        config = self.config
        by_user = self.baseline.residual_rows(matrix, transposed=False).everything()
        by_item = self.baseline.residual_rows(matrix, transposed=True).everything()
        self.codes = torch.randn(len(by_item), config.factors).to(by_user.values.device)
        for iteration in range(config.iterations):
            users = fold_in(by_user, self.codes, self._l2(by_user))
            self.codes = fold_in(by_item, users, self._l2(by_item))
            context.on_step(iteration + 1, config.iterations)

    def _l2(self, rows: SparseBatch) -> Tensor:
        l2: Tensor = self.config.l2 * rows.lengths.float().clamp_min(1) ** self.config.power
        return l2

    def _rate(self, ratings: SparseBatch) -> Tensor:
        return rate_by_codes(self.baseline, self.codes, self._l2(ratings), ratings)

    def check_new_items(self) -> None:
        """Factors of an item follow from those of its raters."""

    def _add_codes(self, known: SparseBatch, new: SparseBatch) -> None:
        people = fold_in(known, self.codes, self._l2(known))
        self.codes = torch.cat([self.codes, fold_in(new, people, self._l2(new))])

    def item_codes(self) -> Tensor:
        """Factors of items, (items, factors)."""
        return self.codes

    def _get_weights(self) -> dict[str, Tensor]:
        return {"codes": self.codes}

    def _set_weights(self, weights: Mapping[str, Tensor]) -> None:
        self.codes = weights["codes"]
