"""ELSA: a low-rank linear autoencoder, for catalogs whose items x items matrix does not fit.

Vančura, Alves, Kasalický, Kordík: Scalable Linear Shallow Autoencoder for Collaborative Filtering, RecSys 2022.
scores = x A A' - x with rows of A of length 1, so that no item contributes to its own score. The loss is the squared
distance of scores and history, both scaled to length 1 (equation 8), without a rectifier on the scores. With z = x A,

    |scores/|scores| - x/|x||^2 = 2 - 2 (|z|^2 - |x|^2) / (|x| |scores|),   |scores|^2 = z A'A z' - 2 |z|^2 + |x|^2

so that training never computes the scores: a step costs items x latent^2 for any number of users.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from recsys.models.autoencoders.network import Network, NetworkRecommender
from recsys.models.config import check_training, require
from recsys.models.search_space import Range, tunable
from recsys.training.batches import SparseBatch, weighted_sum


@dataclass(frozen=True)
class ELSAConfig:
    """Settings of a linear autoencoder with tied weights."""

    latent: int = tunable(256, Range(64, 1024, log=True))
    dropout: float = tunable(0.0, Range(0.0, 0.8))  # share of a history hidden from the input
    epochs: int = 30
    batch_size: int | None = None  # None: a twentieth of the users, within 32..500
    learning_rate: float = tunable(0.01, Range(1e-3, 0.3, log=True))
    l2: float = 0.0  # of little effect: rows are scaled to length 1

    def __post_init__(self) -> None:
        require(self.latent >= 1, f"Expected latent of at least 1, found {self.latent}.")
        check_training(self.dropout, self.epochs, self.batch_size, self.learning_rate, self.l2)


class ELSANetwork(Network):
    """One table of item codes (items, latent), used as input and as output."""

    def __init__(self, items: int, latent: int, dropout: float):
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(items, latent)))
        self.dropout = dropout

    @property
    def codes(self) -> Tensor:
        """The item codes A, of length 1, (items, latent)."""
        return F.normalize(self.weight, dim=1)

    def last(self, batch: SparseBatch) -> Tensor:
        """Return the sums of the codes of histories, (rows, latent)."""
        return weighted_sum(batch, self.codes)

    def output(self) -> tuple[Tensor, Tensor]:
        """Return the item codes and no biases; the scores then lack the history that `forward` subtracts."""
        return self.codes, self.weight.new_zeros(len(self.weight))

    def forward(self, batch: SparseBatch) -> Tensor:
        """Return scores (rows, items)."""
        return torch.cat(list(self.blocks(batch, len(self.weight))), dim=1)

    def blocks(self, batch: SparseBatch, width: int) -> Iterator[Tensor]:
        """Yield scores of up to `width` items at a time."""
        codes = self.codes
        sums = weighted_sum(batch, codes)
        for start in range(0, len(codes), width):
            scores = sums @ codes[start : start + width].T
            inside = (batch.items >= start) & (batch.items < start + width)
            scores[batch.rows[inside], batch.items[inside] - start] -= batch.values[inside]
            yield scores

    def loss(self, batch: SparseBatch, progress: float) -> Tensor:
        """Return 2 - 2 cos(scores, history), mean over rows."""
        with torch.autocast(self.weight.device.type, enabled=False):  # it subtracts large numbers
            codes = self.codes
            seen = F.dropout(batch.values, self.dropout, self.training)
            sums = weighted_sum(SparseBatch(batch.items, seen, batch.offsets), codes)  # z
            own = batch.row_sums(seen * seen)
            found = (sums * weighted_sum(batch, codes)).sum(1) - batch.row_sums(seen * batch.values)
            squares = ((sums @ (codes.T @ codes)) * sums).sum(1) - 2 * sums.square().sum(1) + own
            lengths = batch.row_sums(batch.values.square()) * squares
            return (2 - 2 * found / lengths.clamp_min(1e-12).sqrt()).mean()


class ELSA(NetworkRecommender[ELSAConfig]):
    """ELSA, a linear autoencoder of low rank, for large catalogs.

    Memory: 16 x items x latent bytes while it is fitted, 4 x items x latent after.
    """

    name = "elsa"
    family = "linear autoencoder"
    size_setting = "latent"
    Config = ELSAConfig
    explained_by = "exact"
    network: ELSANetwork

    def _build(self, items: int) -> ELSANetwork:
        return ELSANetwork(items, self.config.latent, self.config.dropout)

    def _embed_items(self) -> Tensor:
        return self.network.codes

    def _score_some(self, history: csr_matrix, items: NDArray[np.int64]) -> Tensor:
        scores = super()._score_some(history, items)
        return scores - torch.as_tensor(history[:, items].toarray(), device=scores.device)
