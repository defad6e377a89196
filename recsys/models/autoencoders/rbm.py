"""RBM: a restricted Boltzmann machine of binary items and binary hidden units.

Salakhutdinov, Mnih, Hinton: Restricted Boltzmann Machines for Collaborative Filtering, ICML 2007, here for binary
interactions. Hinton: Training Products of Experts by Minimizing Contrastive Divergence, Neural Computation 14, 2002.
Persistent chains: Tieleman: Training Restricted Boltzmann Machines using Approximations to the Likelihood Gradient,
ICML 2008. Optimized with Adam. Its likelihood is Bernoulli's by nature.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.models.autoencoders.network import Network, NetworkRecommender
from recsys.models.config import check_training, require
from recsys.models.search_space import Range, tunable
from recsys.training.batches import SparseBatch, SparseRows, weighted_sum
from recsys.training.parts import State, copy_into


@dataclass(frozen=True)
class RBMConfig:
    """items x hidden units, all binary."""

    hidden: int = tunable(200, Range(50, 1000, log=True))
    steps: int = 1  # Gibbs sampling steps, the k of CD-k
    persistent: bool = False  # continue the chains of the previous batch instead of starting from the data
    l2: float = tunable(1e-4, Range(1e-6, 1e-2, log=True))  # weight decay
    epochs: int = 50
    batch_size: int | None = None  # None: a twentieth of the users, within 32..500
    learning_rate: float = tunable(1e-2, Range(1e-3, 3e-2, log=True))

    def __post_init__(self) -> None:
        require(self.hidden >= 1, f"Expected hidden of at least 1, found {self.hidden}.")
        require(self.steps >= 1, f"Expected steps of at least 1, found {self.steps}.")
        check_training(0, self.epochs, self.batch_size, self.learning_rate, self.l2)


class RBMNetwork(Network):
    """Energy of items v and units h: -v W h - b v - c h; free energy F(v) = -b v - sum_j log(1 + exp(c + v W)_j)."""

    def __init__(self, items: int, config: RBMConfig):
        super().__init__()
        self.steps, self.persistent = config.steps, config.persistent
        self.weight = nn.Parameter(0.01 * torch.randn(items, config.hidden))
        self.item_bias = nn.Parameter(torch.zeros(items))
        self.unit_bias = nn.Parameter(torch.zeros(config.hidden))
        self.likelihood = "bernoulli"
        self.chains = _Chains(items)
        self.parts = {"chains": self.chains}

    def units(self, batch: SparseBatch) -> Tensor:
        """Return the inputs of the hidden units, c + v W, (rows, hidden)."""
        return weighted_sum(_switches(batch), self.weight) + self.unit_bias

    def last(self, batch: SparseBatch) -> Tensor:
        """Return the expected hidden units, (rows, hidden)."""
        return torch.sigmoid(self.units(batch))

    def output(self) -> tuple[Tensor, Tensor]:
        """Return weights and biases of the items."""
        return self.weight, self.item_bias

    def forward(self, batch: SparseBatch) -> Tensor:
        """Return the log-odds of items given the expected hidden units: one reconstruction, (rows, items)."""
        return F.linear(self.last(batch), self.weight, self.item_bias)

    def blocks(self, batch: SparseBatch, width: int) -> Iterator[Tensor]:
        """Yield log-odds of up to `width` items at a time."""
        expected = self.last(batch)
        for weight, bias in zip(torch.split(self.weight, width), torch.split(self.item_bias, width), strict=True):
            yield F.linear(expected, weight, bias)

    def loss(self, batch: SparseBatch, progress: float) -> Tensor:
        """Return the mean free energy of the rows minus that of fixed samples (contrastive divergence)."""
        data = _switches(batch)
        from_items = self.units(data)
        samples = self.sample(from_items.detach())
        from_samples = samples @ self.weight + self.unit_bias
        biases = data.values @ self.item_bias[data.items] / len(data) - samples.mean(dim=0) @ self.item_bias
        energy = F.softplus(from_samples).sum(dim=1).mean() - F.softplus(from_items).sum(dim=1).mean()
        return energy - biases

    @torch.no_grad()
    def sample(self, from_items: Tensor) -> Tensor:
        """Sample items by `steps` of Gibbs sampling, 0 or 1, (rows, items), from the rows or from the chains."""
        items = self.chains.items if self.persistent else None
        for _ in range(self.steps):
            units_in = from_items if items is None else items @ self.weight + self.unit_bias
            units = torch.bernoulli(torch.sigmoid(units_in.float()))
            items = torch.bernoulli(torch.sigmoid(F.linear(units, self.weight, self.item_bias).float()))
        self.chains.items = items if self.persistent else None
        assert items is not None
        return items


class _Chains:
    """The items of the persistent chains, (rows, items), once there are some; a model folder does not hold them."""

    def __init__(self, items: int):
        self.width = items
        self.items: Tensor | None = None

    def get_state(self) -> State:
        return {} if self.items is None else {"items": self.items}

    def set_state(self, state: State) -> None:
        if state:
            own = {name: torch.empty(len(items), self.width) for name, items in state.items()}
            copy_into(own, state)
            self.items = own["items"]


def _switches(batch: SparseBatch) -> SparseBatch:
    """Values of 1 and more are 1; those between 0 and 1, such as gray levels, are probabilities (Hinton 2010, 13.1)."""
    return SparseBatch(batch.items, batch.values.clamp(0, 1), batch.offsets)


class RBM(NetworkRecommender[RBMConfig]):
    """Binary restricted Boltzmann machine, scored by reconstruction."""

    name = "rbm"
    family = "deep autoencoder"
    size_setting = "hidden"
    Config = RBMConfig
    explained_by = "leave-one-out"  # its items are on or off: there is no line between them
    network: RBMNetwork

    def _build(self, items: int) -> RBMNetwork:
        return RBMNetwork(items, self.config)

    def _initialize(self, rows: SparseRows) -> None:
        bias = self.network.item_bias
        counts = torch.bincount(rows.items.long(), rows.values.clamp(0, 1).double(), minlength=len(bias)).float()
        share = (counts + 0.5) / (len(rows) + 1)
        bias.data.copy_(torch.logit(share))  # Hinton: A Practical Guide to Training RBMs, 2010, section 8.1
