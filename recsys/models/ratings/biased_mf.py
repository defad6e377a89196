"""Matrix factorization of ratings by alternating ridge regressions, biases learned jointly with the factors.

Zhou, Wilkinson, Schreiber, Pan: Large-scale Parallel Collaborative Filtering for the Netflix Prize, AAIM 2008. Rendle,
Zhang, Koren: On the Difficulty of Evaluating Baselines, 2019, arXiv:1905.01395, show how strong it is if regularized
well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.models.config import require
from recsys.models.embeddings import Embeddings
from recsys.models.ratings.base import RatingConfig, RatingRecommender, fold_in, rate_by_codes
from recsys.models.search_space import Range, tunable
from recsys.models.state import StateSpec, TensorSpec
from recsys.training.batches import SparseBatch, SparseRows
from recsys.training.context import TrainingContext
from recsys.training.loop import iterate


@dataclass(frozen=True)
class BiasedMFConfig(RatingConfig):
    """Settings of biased matrix factorization. A user or item with n ratings has the regularization l2 * n^power."""

    factors: int = tunable(32, Range(8, 256, log=True))
    l2: float = tunable(1.5, Range(0.02, 30.0, log=True))
    power: float = tunable(0.5, Range(0.0, 1.0))  # 1: weighted-lambda regularization; 0: the same for all
    iterations: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("factors", "iterations"):
            require(getattr(self, name) >= 1, f"Expected {name} of at least 1, found {getattr(self, name)}.")
        require(self.l2 > 0, f"Expected l2 above 0, found {self.l2}.")
        require(0 <= self.power <= 1, f"Expected power in [0, 1], found {self.power}.")


class BiasedMF(RatingRecommender[BiasedMFConfig]):
    """Matrix factorization with biases learned jointly: mean + bias of the item + bias of the user + user . item.

    Attributes
    ----------
    codes : Tensor, shape (items, factors + 1)
        Item factors and a last column of ones: its weight in a user's ridge regression is the user's bias.
    """

    name = "biased-mf"
    family = "matrix factorization"
    Config = BiasedMFConfig
    codes: Tensor

    def _learn(self, matrix: csr_matrix, context: TrainingContext) -> None:
        config, device = self.config, self.baseline.mean.device
        by_user = self._less_mean(SparseRows(matrix, device).everything())
        by_item = self._less_mean(SparseRows(csr_matrix(matrix.T), device).everything())

        def iteration(items: Tensor, biases: Tensor) -> tuple[Tensor, Tensor]:
            users = fold_in(_less(by_user, biases), _with_one(items), self._l2(by_user))
            found = fold_in(_less(by_item, users[:, -1]), _with_one(users[:, :-1]), self._l2(by_item))
            return found[:, :-1], found[:, -1]

        if context.start is None:
            start = torch.randn(len(by_item), config.factors), self.baseline.items
        else:
            start = context.start.state["codes"][:, :-1], context.start.state["baseline.items"]
        first = start[0].to(device), start[1].to(device)
        items, biases = iterate(iteration, first, context.planned(config.iterations), context)
        # Users' biases are the weight of the last column, so the baseline has none of its own.
        self.baseline = replace(self.baseline, items=biases.clone(), user_shrinkage=biases.new_tensor(torch.inf))
        self.codes = _with_one(items)

    def _less_mean(self, rows: SparseBatch) -> SparseBatch:
        return SparseBatch(rows.items, rows.values - self.baseline.mean, rows.offsets)

    def _l2(self, rows: SparseBatch) -> Tensor:
        l2: Tensor = self.config.l2 * rows.lengths.float().clamp_min(1) ** self.config.power
        return l2

    def _rate(self, ratings: SparseBatch) -> Tensor:
        return rate_by_codes(self.baseline, self.codes, self._l2(ratings), ratings)

    def check_new_items(self) -> None:
        """New items are supported: their factors follow from those of their raters."""

    def _add_codes(self, known: SparseBatch, new: SparseBatch) -> None:
        users = fold_in(known, self.codes, self._l2(known))
        found = fold_in(_less(new, users[:, -1]), _with_one(users[:, :-1]), self._l2(new))
        biases = self.baseline.items.clone()
        biases[len(self.codes) :] += found[:, -1]
        self.baseline = replace(self.baseline, items=biases)
        self.codes = torch.cat([self.codes, _with_one(found[:, :-1])])

    def _embed_items(self) -> Tensor:
        return self.codes[:, :-1]

    def _embed_ratings(self, ratings: SparseBatch) -> Embeddings:
        """The user factors, without the bias."""
        return Embeddings(fold_in(self.baseline.split(ratings)[0], self.codes, self._l2(ratings))[:, :-1])

    def _get_weights(self) -> dict[str, Tensor]:
        return {"codes": self.codes}

    def _set_weights(self, weights: Mapping[str, Tensor]) -> None:
        self.codes = weights["codes"]

    def _weights_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        return StateSpec({"codes": TensorSpec((n_items, self.config.factors + 1))})

    def _start_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        return self._weights_spec(n_items, state) | StateSpec({"baseline.items": TensorSpec((n_items,))})


def _with_one(factors: Tensor) -> Tensor:
    return torch.cat([factors, factors.new_ones(len(factors), 1)], dim=1)


def _less(rows: SparseBatch, biases: Tensor) -> SparseBatch:
    """Rows without the biases of their columns."""
    return SparseBatch(rows.items, rows.values - biases[rows.items], rows.offsets)
