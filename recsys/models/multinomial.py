"""Mult-DAE and Mult-VAE: autoencoders with a multinomial likelihood over the catalogue.

Liang, Krishnan, Hoffman, Jebara: Variational Autoencoders for Collaborative Filtering, WWW 2018, arXiv:1802.05814.
Input rows are scaled to length 1 and half of their items hidden; items compete for probability at the output.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from recsys.models.base import require
from recsys.models.layers import ItemOutput, SparseInput
from recsys.models.network import Network, NetworkRecommender
from recsys.models.sampled import CandidateSampler
from recsys.search_space import Range, tunable
from recsys.training import SparseBatch, SparseRows


def check_training(dropout: float, epochs: int, batch_size: int | None, learning_rate: float, l2: float) -> None:
    """Refuse nonsense in what all gradient-trained autoencoders share."""
    require(0 <= dropout < 1, f"Expected dropout in [0, 1), found {dropout}.")
    require(epochs >= 1, f"Expected epochs of at least 1, found {epochs}.")
    require(batch_size is None or batch_size >= 1, f"Expected batch_size of at least 1, found {batch_size}.")
    require(learning_rate > 0, f"Expected learning_rate above 0, found {learning_rate}.")
    require(l2 >= 0, f"Expected l2 of 0 or more, found {l2}.")


@dataclass(frozen=True)
class DAEConfig:
    """Mult-DAE: items - latent - items."""

    latent: int = tunable(200, Range(50, 400, log=True))  # width of the code
    dropout: float = tunable(0.5, Range(0.1, 0.8))  # share of a user's items hidden from the encoder
    l2: float = tunable(4e-5, Range(1e-6, 1e-3, log=True))  # weight decay; .01 / 500 of the paper, twice
    epochs: int = 100
    batch_size: int | None = None  # None: a twentieth of the users, within 32..500
    learning_rate: float = tunable(1e-3, Range(3e-4, 1e-2, log=True))

    def __post_init__(self) -> None:
        require(self.latent >= 1, f"Expected latent of at least 1, found {self.latent}.")
        check_training(self.dropout, self.epochs, self.batch_size, self.learning_rate, self.l2)


@dataclass(frozen=True)
class VAEConfig:
    """Mult-VAE: items - hidden - latent - hidden - items."""

    hidden: int = tunable(600, Range(100, 600, log=True))
    latent: int = tunable(200, Range(50, 400, log=True))  # width of the code; a mean and a variance for each
    dropout: float = tunable(0.5, Range(0.1, 0.8))  # share of a user's items hidden from the encoder
    beta: float = tunable(0.2, Range(0.05, 1.0, log=True))  # weight of the KL term after annealing
    anneal: float = 0.5  # share of all planned updates over which beta rises from 0
    l2: float = 0.0
    epochs: int = 100
    batch_size: int | None = None  # None: a twentieth of the users, within 32..500
    learning_rate: float = tunable(1e-3, Range(3e-4, 1e-2, log=True))
    softmax: Literal["full", "sampled"] = "full"  # sampled: a step costs its batch's items, not the catalogue's
    negatives: int = 4000  # items drawn for each step of a sampled softmax

    def __post_init__(self) -> None:
        require(self.softmax in ("full", "sampled"), f"Expected softmax full or sampled, found {self.softmax!r}.")
        require(self.softmax == "full" or not self.l2, "Expected l2 of 0 with a sampled softmax: rows rest there.")
        require(self.negatives >= 1, f"Expected negatives of at least 1, found {self.negatives}.")
        require(
            min(self.hidden, self.latent) >= 1,
            f"Expected hidden and latent of at least 1, found {self.hidden} and {self.latent}.",
        )
        require(self.beta >= 0, f"Expected beta of 0 or more, found {self.beta}.")
        require(0 <= self.anneal <= 1, f"Expected anneal in [0, 1], found {self.anneal}.")
        check_training(self.dropout, self.epochs, self.batch_size, self.learning_rate, self.l2)


class DAENetwork(Network):
    """code = tanh(normalised, dropped input @ W + b); logits = code @ V.T + c."""

    def __init__(self, items: int, config: DAEConfig):
        super().__init__()
        self.encoder = SparseInput(items, config.latent, config.dropout)
        self.decoder = ItemOutput(items, config.latent)

    def forward(self, batch: SparseBatch) -> Tensor:
        """Logits (rows, items)."""
        logits: Tensor = self.decoder(torch.tanh(self.encoder(batch)))
        return logits

    def blocks(self, batch: SparseBatch, width: int) -> Iterator[Tensor]:
        """Logits (rows, up to `width`) of some items at a time."""
        return self.decoder.blocks(torch.tanh(self.encoder(batch)), width)

    def loss(self, batch: SparseBatch, progress: float) -> Tensor:
        """Negative multinomial log-likelihood of the whole row."""
        return self.decoder.loss(torch.tanh(self.encoder(batch)), batch)


class VAENetwork(Network):
    """q(z|x) = N(mean, exp(log_variance)) from a tanh layer; logits from z through another. Mean of z at scoring."""

    def __init__(self, items: int, config: VAEConfig):
        super().__init__()
        self.beta, self.anneal = config.beta, config.anneal
        self.negatives = config.negatives if config.softmax == "sampled" else 0
        self.encoder = SparseInput(items, config.hidden, config.dropout)
        self.posterior = nn.Linear(config.hidden, 2 * config.latent)
        self.hidden = nn.Linear(config.latent, config.hidden)
        self.decoder = ItemOutput(items, config.hidden)
        for layer in (self.posterior, self.hidden):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def encode(self, batch: SparseBatch) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the code, (rows, latent) each."""
        mean, log_variance = self.posterior(torch.tanh(self.encoder(batch))).chunk(2, dim=1)
        return mean, log_variance

    def forward(self, batch: SparseBatch) -> Tensor:
        """Logits (rows, items) at the mean of the posterior."""
        logits: Tensor = self.decoder(torch.tanh(self.hidden(self.encode(batch)[0])))
        return logits

    def blocks(self, batch: SparseBatch, width: int) -> Iterator[Tensor]:
        """Logits (rows, up to `width`) of some items at a time."""
        return self.decoder.blocks(torch.tanh(self.hidden(self.encode(batch)[0])), width)

    def loss(self, batch: SparseBatch, progress: float) -> Tensor:
        """Negative evidence lower bound, its KL term weighted by the annealed beta (section 2.2.2 of the paper)."""
        mean, log_variance = (part.float() for part in self.encode(batch))
        beta = self.beta * (min(1.0, progress / self.anneal) if self.anneal else 1.0)
        code = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        kl = 0.5 * (log_variance.exp() + mean.square() - 1 - log_variance).sum(dim=1)  # (rows,)
        return self.decoder.loss(torch.tanh(self.hidden(code)), batch) + beta * kl.mean()

    def item_tables(self) -> list[nn.Parameter]:
        """Both, where the softmax is sampled."""
        return [self.encoder.weight, self.decoder.weight] if self.negatives else []

    def sample_output(self, rows: SparseRows, items: int, batch_size: int) -> list[nn.Parameter]:
        """A sampler for the output, and both item tables, where the softmax is sampled."""
        if not self.negatives:
            return []
        self.encoder.sparse = True
        self.decoder.sampler = CandidateSampler(rows, items, batch_size, self.negatives)
        return self.item_tables()


class DAE(NetworkRecommender):
    """Denoising autoencoder."""

    name = "dae"
    family = "deep autoencoder"
    Config = DAEConfig
    network: DAENetwork

    def _build(self, items: int) -> DAENetwork:
        return DAENetwork(items, self.config)

    def item_codes(self) -> Tensor:
        """Output weights, (items, latent)."""
        return self.network.decoder.weight.detach()


class VAE(NetworkRecommender):
    """Variational autoencoder."""

    name = "vae"
    family = "deep autoencoder"
    Config = VAEConfig
    network: VAENetwork

    def _build(self, items: int) -> VAENetwork:
        return VAENetwork(items, self.config)

    def item_codes(self) -> Tensor:
        """Output weights, (items, hidden)."""
        return self.network.decoder.weight.detach()
