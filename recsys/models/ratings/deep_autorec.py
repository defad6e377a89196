"""A deep AutoRec with dense re-feeding.

Kuchaiev, Ginsburg: Training Deep AutoEncoders for Collaborative Filtering, 2017, arXiv:1708.01715. SELU layers,
dropout on the code, and dense re-feeding: the dense output f(x) should be a fixed point, f(f(x)) = f(x). The paper
takes a separate step for the second pass; here both losses are added.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from recsys.models.config import require
from recsys.models.embeddings import Embeddings
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


@dataclass(frozen=True)
class DeepConfig(MaskedConfig):
    """columns - hidden - latent - hidden - columns; by users, as published."""

    side: Literal["item", "user"] = "user"
    hidden: int = tunable(128, Range(50, 500, log=True))
    dropout: float = tunable(0.7, Range(0.0, 0.9))
    presence: float = tunable(0.3, Range(0.0, 4.0))
    l2: float = tunable(200.0, Range(1.0, 300.0, log=True))
    input_l2: float = tunable(20.0, Range(0.1, 100.0, log=True))
    epochs: int = 30
    latent: int = tunable(64, Range(20, 400, log=True))
    refeed: float = tunable(0.1, Range(0.0, 1.0))  # weight of the second pass; 0: none

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.latent >= 1, f"Expected latent of at least 1, found {self.latent}.")
        require(self.refeed >= 0, f"Expected refeed of 0 or more, found {self.refeed}.")


class DeepNetwork(MaskedNetwork):
    """The code of the ridge regression is the last hidden layer; dropout is applied to the narrow layer."""

    def __init__(self, columns: int, config: DeepConfig):
        super().__init__()
        self.config = config
        self.encoder = MaskedInput(columns, config.hidden, config.dropout, config.presence)
        self.narrow = nn.Linear(config.hidden, config.latent)
        self.wide = nn.Linear(config.latent, config.hidden)
        self.decoder = ItemRatings(Embedding(columns, config.hidden))

    def encode(self, batch: SparseBatch) -> Tensor:
        """Return the last hidden layer (rows, hidden)."""
        return self._inner(self.encoder(batch))

    def embed(self, batch: SparseBatch) -> Embeddings:
        """Return the narrow layer, (rows, latent)."""
        return Embeddings(self._narrow(self.encoder(batch)))

    def _narrow(self, first: Tensor) -> Tensor:
        return F.selu(self.narrow(F.selu(first)))

    def _inner(self, first: Tensor) -> Tensor:
        code = F.dropout(self._narrow(first), self.config.code_dropout, self.training)
        return F.selu(self.wide(code))

    def loss(self, batch: SparseBatch) -> Tensor:
        """Return squared errors over the cells plus those of the second pass, scaled to the same number of cells."""
        codes = self.encode(batch)
        errors = self.errors(codes, batch)
        if not self.config.refeed:
            return errors
        full: Tensor = self.decoder(codes).detach()
        again: Tensor = self.decoder(self._inner(self.encoder.dense(full)))
        return errors + self.config.refeed * len(batch.items) * (again - full).square().mean()

    def penalty(self) -> Tensor:
        """Return the weighted sum of squared weights."""
        inner = self.encoder.penalty() + self.narrow.weight.square().sum() + self.wide.weight.square().sum()
        return self.config.l2 * self.decoder.table.penalty() + self.config.input_l2 * inner


class DeepAutoRec(MaskedAutoencoder[DeepConfig]):
    """Deep AutoRec with dense re-feeding."""

    name = "deep-autorec"
    Config = DeepConfig

    def _build(self, columns: int) -> DeepNetwork:
        return DeepNetwork(columns, self.config)
