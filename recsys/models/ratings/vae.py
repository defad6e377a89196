"""Denoising and variational autoencoders over ratings, with a Gaussian likelihood.

Kingma, Welling: Auto-Encoding Variational Bayes, ICLR 2014, equation 10; over the rated cells only. With noise of fixed
variance the negative log-likelihood is the squared error, and beta, the weight of the KL term, is twice that variance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor, nn

from recsys.models.autoencoders.posterior import divergence, draw
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
class RatingDAEConfig(MaskedConfig):
    """columns - hidden - latent - hidden - columns, with tanh."""

    hidden: int = tunable(100, Range(50, 500, log=True))
    code_dropout: float = tunable(0.3, Range(0.0, 0.8))
    presence: float = tunable(0.5, Range(0.0, 4.0))
    l2: float = tunable(150.0, Range(1.0, 300.0, log=True))
    input_l2: float = tunable(4.0, Range(0.1, 100.0, log=True))
    fold_l2: float = tunable(100.0, Range(5.0, 200.0, log=True))
    epochs: int = 30
    latent: int = tunable(50, Range(20, 400, log=True))

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.latent >= 1, f"Expected latent of at least 1, found {self.latent}.")


@dataclass(frozen=True)
class RatingVAEConfig(RatingDAEConfig):
    """The same with a sampled latent code."""

    beta: float = tunable(0.5, Range(0.01, 4.0, log=True))  # weight of the KL term

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.beta >= 0, f"Expected beta of 0 or more, found {self.beta}.")


class _LatentNetwork(MaskedNetwork):
    """The layers of both networks; the code of the ridge regression is the last hidden layer."""

    config: RatingDAEConfig

    def __init__(self, columns: int, config: RatingDAEConfig, latent: int):
        super().__init__()
        self.config = config
        self.encoder = MaskedInput(columns, config.hidden, config.dropout, config.presence)
        self.posterior = nn.Linear(config.hidden, latent)
        self.hidden = nn.Linear(config.latent, config.hidden)
        self.decoder = ItemRatings(Embedding(columns, config.hidden))

    def infer(self, batch: SparseBatch) -> Tensor:
        """Return the output of the encoder, (rows, latent), or twice as wide for mean and log-variance."""
        latent: Tensor = self.posterior(torch.tanh(self.encoder(batch)))
        return latent

    def unfold(self, latent: Tensor) -> Tensor:
        """Return the last hidden layer (rows, hidden) of a latent code."""
        return F.dropout(torch.tanh(self.hidden(latent)), self.config.code_dropout, self.training)

    def penalty(self) -> Tensor:
        """Return the weighted sum of squared weights."""
        inner = self.encoder.penalty() + self.posterior.weight.square().sum() + self.hidden.weight.square().sum()
        return self.config.l2 * self.decoder.table.penalty() + self.config.input_l2 * inner


class RatingDAENetwork(_LatentNetwork):
    """A deterministic code."""

    def encode(self, batch: SparseBatch) -> Tensor:
        """Return the last hidden layer (rows, hidden)."""
        return self.unfold(self.embed(batch).mean)

    def embed(self, batch: SparseBatch) -> Embeddings:
        """Return the latent code, (rows, latent)."""
        return Embeddings(torch.tanh(self.infer(batch)))


class RatingVAENetwork(_LatentNetwork):
    """q(z|x) = N(mean, exp(log_variance)); predictions are made at the mean."""

    config: RatingVAEConfig

    def encode(self, batch: SparseBatch) -> Tensor:
        """Return the last hidden layer (rows, hidden) at the mean."""
        return self.unfold(self.embed(batch).mean)

    def embed(self, batch: SparseBatch) -> Embeddings:
        """Return mean and deviation of the posterior, (rows, latent) each."""
        mean, log_variance = self.infer(batch).chunk(2, dim=1)
        return Embeddings(mean, (0.5 * log_variance).exp())

    def loss(self, batch: SparseBatch) -> Tensor:
        """Return squared errors plus beta times KL, summed over the rows: the negative evidence lower bound."""
        mean, log_variance = self.infer(batch).chunk(2, dim=1)
        errors = self.errors(self.unfold(draw(mean, log_variance)), batch)
        return errors + self.config.beta * divergence(mean, log_variance).sum()


class RatingDAE(MaskedAutoencoder[RatingDAEConfig]):
    """Denoising autoencoder over ratings."""

    name = "rating-dae"
    Config = RatingDAEConfig

    def _build(self, columns: int) -> RatingDAENetwork:
        return RatingDAENetwork(columns, self.config, self.config.latent)


class RatingVAE(MaskedAutoencoder[RatingVAEConfig]):
    """Variational autoencoder over ratings."""

    name = "rating-vae"
    Config = RatingVAEConfig

    def _build(self, columns: int) -> RatingVAENetwork:
        return RatingVAENetwork(columns, self.config, 2 * self.config.latent)

    def decode(self, codes: ArrayLike, biases: ArrayLike) -> Tensor:
        """Predict the ratings of users who are known by their codes alone, such as draws from a distribution of codes.

        Parameters
        ----------
        codes : array, shape (users, size)
            In the space of `embed_users(history).mean`.
        biases : array, shape (users,)
            How much higher than others each rates, in units of the ratings.

        Returns
        -------
        Tensor
            Float32 (users, items), within the scale.
        """
        self._require_fitted()
        device = self.baseline.mean.device
        given, users = (torch.as_tensor(one, dtype=torch.float32, device=device) for one in (codes, biases))
        with torch.no_grad():
            if self.by_items:
                return self.baseline.join(given @ self.codes.T, users)
            members = zip(self.network.each, given.chunk(self.config.members, dim=1), strict=True)
            tastes = [member.decoder(cast(RatingVAENetwork, member).unfold(code)) for member, code in members]
            return self.baseline.join(torch.stack(tastes).mean(0), users)
