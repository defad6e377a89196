"""A restricted Boltzmann machine over the ratings of a user: softmax units for rated items, binary hidden units.

Salakhutdinov, Mnih, Hinton: Restricted Boltzmann Machines for Collaborative Filtering, ICML 2007. Trained by
contrastive divergence of one step. A prediction is the mean of an item's levels given the hidden units' probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from recsys.models.config import require
from recsys.models.embeddings import Embeddings
from recsys.models.ratings.base import RatingRecommender
from recsys.models.ratings.cell_products import cell_products
from recsys.models.ratings.masked_autoencoder import MaskedModule, TrainingConfig, train_masked
from recsys.models.search_space import Range, tunable
from recsys.models.state import StateSpec, TensorSpec, module_spec
from recsys.training.batches import SparseBatch, SparseRows, weighted_sum
from recsys.training.context import TrainingContext


@dataclass(frozen=True)
class RatingRBMConfig(TrainingConfig):
    """Settings of the RBM."""

    hidden: int = tunable(100, Range(20, 400, log=True))
    levels: int = 10  # ratings with more distinct values than this are rounded to this many, equally spaced
    batch_size: int | None = 32
    learning_rate: float = tunable(0.01, Range(3e-4, 3e-2, log=True))
    l2: float = tunable(2.0, Range(0.1, 100.0, log=True))

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.hidden >= 1, f"Expected hidden of at least 1, found {self.hidden}.")
        require(self.levels >= 2, f"Expected levels of at least 2, found {self.levels}.")
        require(self.l2 >= 0, f"Expected l2 of 0 or more, found {self.l2}.")


class RBMNetwork(MaskedModule):
    """Weights (items x levels, hidden). The values of batches are indices of levels."""

    def __init__(self, items: int, levels: int, config: RatingRBMConfig):
        super().__init__()
        self.levels, self.l2 = levels, config.l2
        self.weight = nn.Parameter(torch.randn(items * levels, config.hidden) * 0.01)
        self.visible = nn.Parameter(torch.zeros(items * levels))
        self.bias = nn.Parameter(torch.zeros(config.hidden))

    def units(self, batch: SparseBatch) -> SparseBatch:
        """Return the visible units that are on: one for each rated item."""
        on = batch.items * self.levels + batch.values.long()
        return SparseBatch(on, torch.ones_like(batch.values), batch.offsets)

    def hidden(self, batch: SparseBatch) -> Tensor:
        """Return the inputs of the hidden units (rows, hidden)."""
        return weighted_sum(self.units(batch), self.weight) + self.bias

    def level_logits(self, hidden: Tensor, batch: SparseBatch) -> Tensor:
        """Return logits (cells, levels) at the rated items of the batch, given hidden units (rows, hidden)."""
        units = (batch.items[:, None] * self.levels + torch.arange(self.levels, device=hidden.device)).ravel()
        every = SparseBatch(units, torch.ones(len(units), device=hidden.device), batch.offsets * self.levels)
        return (cell_products(hidden, self.weight, every) + self.visible[units]).view(-1, self.levels)

    def loss(self, batch: SparseBatch) -> Tensor:
        """Return the free energy of the ratings minus that of their reconstruction (contrastive divergence)."""
        with torch.no_grad():
            states = torch.bernoulli(torch.sigmoid(self.hidden(batch)))
            chances = torch.softmax(self.level_logits(states, batch), dim=1)
            levels = torch.multinomial(chances, 1)[:, 0].float() if len(chances) else batch.values
        return self.free_energy(batch) - self.free_energy(SparseBatch(batch.items, levels, batch.offsets))

    def free_energy(self, batch: SparseBatch) -> Tensor:
        """Return the free energy, summed over rows."""
        return -self.visible[self.units(batch).items].sum() - F.softplus(self.hidden(batch)).sum()

    def penalty(self) -> Tensor:
        """Weighted sum of squared weights."""
        return self.l2 * self.weight.square().sum()

    def expect(self, batch: SparseBatch, values: Tensor) -> Tensor:
        """Mean rating of every item (rows, items) for rows of levels, whose ratings are `values` (levels,)."""
        logits = F.linear(torch.sigmoid(self.hidden(batch)), self.weight, self.visible)
        chances = torch.softmax(logits.view(len(batch), len(self.visible) // self.levels, self.levels), dim=2)
        return chances @ values


class RatingRBM(RatingRecommender[RatingRBMConfig]):
    """Restricted Boltzmann machine over the ratings of a user."""

    name = "rating-rbm"
    family = "rating autoencoder"
    Config = RatingRBMConfig
    network: RBMNetwork
    levels: Tensor  # the ratings they stand for, ascending

    def _learn(self, matrix: csr_matrix, context: TrainingContext) -> None:
        values = np.unique(matrix.data) if context.start is None else context.start.state["levels"].numpy()
        if len(values) > self.config.levels:
            values = np.linspace(values[0], values[-1], self.config.levels, dtype=np.float32)
        self.levels = torch.as_tensor(values, device=self.baseline.mean.device)
        rows = SparseRows(matrix, self.levels.device)
        rows.values = self._nearest(rows.values)
        self.network = RBMNetwork(matrix.shape[1], len(values), self.config).to(self.levels.device)
        if context.start is None:
            self.network.visible.data = self._popular_levels(rows)
        else:
            weights = {name: tensor for name, tensor in context.start.state.items() if name != "levels"}
            self.network.load_state_dict(weights)
        self.epochs = train_masked(self.network, rows, self.config, context, self.score)

    def _nearest(self, ratings: Tensor) -> Tensor:
        """Indices of the nearest levels, as float32."""
        between = (self.levels[1:] + self.levels[:-1]) / 2
        return torch.bucketize(ratings, between).float()

    def _popular_levels(self, rows: SparseRows) -> Tensor:
        """Log-frequencies of each item's levels, (items x levels,), smoothed by one rating of the overall mix."""
        levels = len(self.levels)
        cells = rows.items.long() * levels + rows.values.long()
        counts = torch.bincount(cells, minlength=len(self.baseline.items) * levels).view(-1, levels).float()
        return (counts + counts.sum(0) / counts.sum() + 1e-6).log().ravel()

    def _rate(self, ratings: SparseBatch) -> Tensor:
        found = SparseBatch(ratings.items, self._nearest(ratings.values), ratings.offsets)
        return self.network.expect(found, self.levels)

    def _embed_items(self) -> Tensor:
        """The weights of all levels of an item, (items, levels x hidden)."""
        return self.network.weight.view(len(self.baseline.items), -1)

    def _embed_ratings(self, ratings: SparseBatch) -> Embeddings:
        """The probabilities of the hidden units."""
        found = SparseBatch(ratings.items, self._nearest(ratings.values), ratings.offsets)
        return Embeddings(torch.sigmoid(self.network.hidden(found)))

    def _get_weights(self) -> dict[str, Tensor]:
        return {"levels": self.levels} | dict(self.network.state_dict())

    def _set_weights(self, weights: Mapping[str, Tensor]) -> None:
        own = dict(weights)
        self.levels = own.pop("levels")
        self.network = self._on_meta(len(self.baseline.items), len(self.levels))
        self.network.load_state_dict(own, assign=True)
        self.network.eval()

    def _weights_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        levels = state.get("levels", torch.zeros(1))
        count = min(levels.numel(), self.config.levels)
        return module_spec(self._on_meta(n_items, count)) | StateSpec({"levels": TensorSpec((count,))})

    def _start_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        return self._weights_spec(n_items, state)

    def _on_meta(self, n_items: int, levels: int) -> RBMNetwork:
        with torch.device("meta"):
            return RBMNetwork(n_items, levels, self.config)
