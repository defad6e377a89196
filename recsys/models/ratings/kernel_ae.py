"""An autoencoder with weights made sparse by kernels: units that are far from each other are not connected.

Muller, Martel, Indiveri: Kernelized Synaptic Weight Matrices, ICML 2018 (KernelNet). Every unit has a position in a
small space; a weight is multiplied by max(0, 1 - squared distance) of the positions of its two units. The inputs are
residuals and which ratings exist, as in recsys.models.ratings.autorec.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.models.config import require
from recsys.models.ratings.masked_autoencoder import (
    Embedding,
    ItemRatings,
    MaskedAutoencoder,
    MaskedConfig,
    MaskedInput,
    MaskedNetwork,
)
from recsys.models.search_space import Range, tunable
from recsys.training.batches import SparseBatch

_NEAR = 1e-3  # initial spread of positions: all units are connected


@dataclass(frozen=True)
class KernelConfig(MaskedConfig):
    """Two hidden layers of the same width."""

    hidden: int = tunable(200, Range(50, 500, log=True))
    dropout: float = tunable(0.7, Range(0.0, 0.9))
    code_dropout: float = tunable(0.3, Range(0.0, 0.8))
    input_l2: float = tunable(1.0, Range(0.1, 100.0, log=True))
    learning_rate: float = tunable(5e-3, Range(3e-4, 1e-2, log=True))
    kernel_size: int = 5  # dimensions of the space of positions
    sparsity: float = tunable(0.01, Range(1e-3, 1.0, log=True))  # penalty of a squared kernel

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.kernel_size >= 1, f"Expected kernel_size of at least 1, found {self.kernel_size}.")
        require(self.sparsity >= 0, f"Expected sparsity of 0 or more, found {self.sparsity}.")


class KernelTable(Embedding):
    """Weights (rows, width) times the hat kernel of the positions of the units they connect."""

    def __init__(self, rows: int, width: int, config: KernelConfig):
        super().__init__(rows, width)
        self.sparsity = config.sparsity
        self.left = nn.Parameter(torch.randn(rows, config.kernel_size) * _NEAR)
        self.right = nn.Parameter(torch.randn(width, config.kernel_size) * _NEAR)

    def kernel(self) -> Tensor:
        """Return max(0, 1 - squared distance), (rows, width)."""
        squares = self.left.square().sum(1)[:, None] + self.right.square().sum(1)
        return (1 - squares + 2 * self.left @ self.right.T).clamp_min(0)

    def read(self) -> Tensor:
        """Return the effective weights."""
        return self.weight * self.kernel()

    def penalty(self) -> Tensor:
        """Return the sum of squared weights plus `sparsity` times that of squared kernels."""
        return self.weight.square().sum() + self.sparsity * self.kernel().square().sum()


class KernelNetwork(MaskedNetwork):
    """Two hidden layers; all three tables are sparse."""

    def __init__(self, columns: int, config: KernelConfig):
        super().__init__()
        self.config = config

        def table(rows: int, width: int) -> KernelTable:
            return KernelTable(rows, width, config)

        self.encoder = MaskedInput(columns, config.hidden, config.dropout, config.presence, table)
        self.middle, self.shift = table(config.hidden, config.hidden), nn.Parameter(torch.zeros(config.hidden))
        self.decoder = ItemRatings(table(columns, config.hidden))

    def encode(self, batch: SparseBatch) -> Tensor:
        """Return codes (rows, hidden)."""
        first = torch.tanh(self.encoder(batch))
        second = torch.sigmoid(first @ self.middle.read() + self.shift)
        return F.dropout(second, self.config.code_dropout, self.training)

    def penalty(self) -> Tensor:
        """Return the weighted sum of the tables' penalties."""
        inner = self.encoder.penalty() + self.middle.penalty()
        return self.config.l2 * self.decoder.table.penalty() + self.config.input_l2 * inner


class KernelAE(MaskedAutoencoder[KernelConfig]):
    """KernelNet, an autoencoder whose two hidden layers have sparse kernels."""

    name = "kernel-ae"
    Config = KernelConfig

    def _build(self, columns: int) -> KernelNetwork:
        return KernelNetwork(columns, self.config)
