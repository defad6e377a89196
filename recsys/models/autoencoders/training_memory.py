"""The memory that training holds for a network, independent of the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recsys.models.autoencoders.network import Network


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes that training holds for a network, independent of the batch.

    Attributes
    ----------
    parameters, gradients, optimizer : int
        Weights, their dense gradients, and the optimizer's state.
    kept : int
        The copy of the best weights, if validated.
    """

    parameters: int
    gradients: int
    optimizer: int
    kept: int

    @classmethod
    def of(cls, network: Network, averaged: bool = False) -> TrainingMemory:
        """Count the bytes of a network; tables with sparse gradients hold none, and the state of RowAdam."""
        tables, sizes = network.item_tables(), [weight.numel() for weight in network.parameters()]
        sparse, rows, every = sum(t.numel() for t in tables), sum(map(len, tables)), sum(sizes)
        return cls(
            4 * every * (1 + averaged), 4 * (every - sparse), 8 * (every - sparse) + 2 * sparse + 12 * rows, 4 * every
        )

    @property
    def total(self) -> int:
        """Sum of the parts."""
        return self.parameters + self.gradients + self.optimizer + self.kept

    def __str__(self) -> str:
        parts = ("parameters", "gradients", "optimizer state", "best weights kept")
        sizes = (self.parameters, self.gradients, self.optimizer, self.kept)
        named = ", ".join(f"{part} {size / 1e6:,.1f} MB" for part, size in zip(parts, sizes, strict=True))
        return f"{named}; {self.total / 1e6:,.1f} MB in total"
