"""AutoRec: an autoencoder with one hidden layer over the ratings of an item, or over those of a user.

Sedhain, Menon, Sanner, Xie: AutoRec: Autoencoders Meet Collaborative Filtering, WWW 2015, equation 1. Added
here: the inputs are residuals and which ratings exist, with dropout (Strub, Gaudel, Mary: Hybrid Recommender System
based on Autoencoders, DLRS 2016). The published model has dropout, code_dropout and presence of 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.models.ratings.masked_autoencoder import (
    Embedding,
    ItemRatings,
    MaskedAutoencoder,
    MaskedConfig,
    MaskedInput,
    MaskedNetwork,
)
from recsys.training.batches import SparseBatch


class AutoRecNetwork(MaskedNetwork):
    """sigmoid(input) @ table' + bias."""

    def __init__(self, columns: int, config: MaskedConfig):
        super().__init__()
        self.config = config
        self.encoder = MaskedInput(columns, config.hidden, config.dropout, config.presence)
        self.decoder = ItemRatings(Embedding(columns, config.hidden))

    def encode(self, batch: SparseBatch) -> Tensor:
        """Return codes (rows, hidden)."""
        return F.dropout(torch.sigmoid(self.encoder(batch)), self.config.code_dropout, self.training)

    def penalty(self) -> Tensor:
        """Return the weighted sum of squared weights."""
        return self.config.l2 * self.decoder.table.penalty() + self.config.input_l2 * self.encoder.penalty()


class AutoRec(MaskedAutoencoder[MaskedConfig]):
    """Autoencoder over the ratings of an item (I-AutoRec), or of a user (U-AutoRec, side=user)."""

    name = "autorec"
    Config = MaskedConfig

    def _build(self, columns: int) -> AutoRecNetwork:
        return AutoRecNetwork(columns, self.config)
