"""RecVAE: a VAE with a composite prior; encoder and decoder are trained alternately.

Shenbin, Alekseev, Tutubalina, Malykh, Nikolenko: RecVAE, a New Variational Autoencoder for Top-N Recommendations with
Implicit Feedback, WSDM 2020, arXiv:1912.11160.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.models.autoencoders.layers import ItemOutput, SparseInput
from recsys.models.autoencoders.network import Network, NetworkRecommender, with_autocast
from recsys.models.autoencoders.posterior import draw
from recsys.models.autoencoders.training_memory import TrainingMemory
from recsys.models.config import check_training, require
from recsys.models.embeddings import Embeddings
from recsys.models.search_space import Range, tunable
from recsys.training.batches import SparseBatch, SparseRows
from recsys.training.context import TrainingContext
from recsys.training.loop import one_pass, steps_per_epoch
from recsys.training.optimizer_state import OptimizerState

LAYERS = 5
# Mixture weights of the prior: standard normal, posterior of the previous epoch's encoder, wide normal (equation 6).
PRIOR = (3 / 20, 3 / 4, 1 / 10)
WIDE = 10.0  # log-variance of the wide normal


@dataclass(frozen=True)
class RecVAEConfig:
    """items - five dense layers of `hidden` - latent - items. Defaults are tuned on MovieLens-1M."""

    hidden: int = tunable(600, Range(200, 1000, log=True))  # width of each of the encoder's layers
    latent: int = tunable(400, Range(100, 800, log=True))  # width of the code; a mean and a variance for each
    dropout: float = tunable(0.5, Range(0.1, 0.8))  # share of a user's items hidden from the encoder
    gamma: float = tunable(0.005, Range(0.001, 0.05, log=True))  # weight of the KL term per item of the user
    smoothing: float = tunable(0.2, Range(0.0, 0.4))  # share of the target spread over all items
    encoder_passes: int = 3  # passes per epoch that train the encoder; one trains the decoder
    average: float = 0.9  # decay of the running average of weights per epoch; 0: no averaging
    l2: float = 0.0
    epochs: int = 50
    batch_size: int | None = None  # None: a twentieth of the users, within 32..500
    learning_rate: float = tunable(1e-3, Range(2e-4, 5e-3, log=True))

    def __post_init__(self) -> None:
        require(
            min(self.hidden, self.latent) >= 1,
            f"Expected hidden and latent of at least 1, found {self.hidden} and {self.latent}.",
        )
        require(self.gamma >= 0, f"Expected gamma of 0 or more, found {self.gamma}.")
        require(0 <= self.smoothing < 1, f"Expected smoothing in [0, 1), found {self.smoothing}.")
        require(self.encoder_passes >= 1, f"Expected encoder_passes of at least 1, found {self.encoder_passes}.")
        check_training(self.dropout, self.epochs, self.batch_size, self.learning_rate, self.l2, self.average)


class Encoder(nn.Module):
    """h_1 = norm(swish(x W_1)); h_k = norm(swish(h_(k-1) W_k + h_1 + ... + h_(k-1))); the posterior from h_5.

    x: rows scaled to length 1, with dropout on their items in training.
    """

    def __init__(self, items: int, config: RecVAEConfig):
        super().__init__()
        self.input = SparseInput(items, config.hidden, config.dropout)
        self.layers = nn.ModuleList(nn.Linear(config.hidden, config.hidden) for _ in range(LAYERS - 1))
        self.norms = nn.ModuleList(nn.LayerNorm(config.hidden, eps=0.1) for _ in range(LAYERS))
        self.posterior = nn.Linear(config.hidden, 2 * config.latent)

    def forward(self, batch: SparseBatch) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of the code, float32 (rows, latent) each."""
        hidden = self.norms[0](F.silu(self.input(batch)))
        earlier = torch.zeros_like(hidden)
        for layer, norm in zip(self.layers, self.norms[1:], strict=True):
            earlier = earlier + hidden
            hidden = norm(F.silu(layer(hidden) + earlier))
        mean, log_variance = self.posterior(hidden).float().chunk(2, dim=1)
        return mean, log_variance


def log_normal(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Compute the log-density of each element of z under N(mean, exp(log_variance)); the shape of z."""
    return -0.5 * (log_variance + math.log(2 * math.pi) + (z - mean).square() / log_variance.exp())


def log_prior(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Compute the log-density of each element of z under the composite prior (equation 6 of the paper).

    Parameters
    ----------
    z : Tensor, shape (rows, latent)
    mean, log_variance : Tensor, shape (rows, latent)
        Of the posterior that the previous epoch's encoder gives the same rows.

    Returns
    -------
    Tensor, shape (rows, latent)
    """
    zero = torch.zeros((), device=z.device)
    parts = (log_normal(z, zero, zero), log_normal(z, mean, log_variance), log_normal(z, zero, zero + WIDE))
    return torch.stack([part + math.log(share) for part, share in zip(parts, PRIOR, strict=True)]).logsumexp(dim=0)


class RecVAENetwork(Network):
    """Logits = z V.T + c with z from the encoder's posterior N(mean, exp(log_variance)); its mean at scoring."""

    def __init__(self, items: int, config: RecVAEConfig):
        super().__init__()
        self.gamma, self.smoothing = config.gamma, config.smoothing
        self.encoder = Encoder(items, config)
        self.decoder = ItemOutput(items, config.latent)
        self.likelihood = self.decoder.likelihood

    def last(self, batch: SparseBatch) -> Tensor:
        """Return the mean of the posterior, (rows, latent)."""
        mean: Tensor = self.encoder(batch)[0]
        return mean

    def embed(self, batch: SparseBatch) -> Embeddings:
        """Return mean and deviation of the posterior, (rows, latent) each."""
        mean, log_variance = self.encoder(batch)
        return Embeddings(mean, (0.5 * log_variance).exp())

    def encoder_loss(self, batch: SparseBatch, earlier: Encoder) -> Tensor:
        """Return the negative log-likelihood plus gamma n_u KL(posterior || prior), mean over rows.

        The KL term is estimated at the sampled code; n_u is the sum of row u. `earlier` is the encoder of the previous
        epoch, frozen and without dropout.
        """
        mean, log_variance = self.encoder(batch)
        code = draw(mean, log_variance)
        with torch.no_grad():
            earlier_posterior = earlier(batch)
        kl = (log_normal(code, mean, log_variance) - log_prior(code, *earlier_posterior)).sum(dim=1)  # (rows,)
        weights = self.gamma * batch.row_sums(batch.values)
        return self.decoder.loss(code, batch, self.smoothing) + (weights * kl).mean()

    def decoder_loss(self, batch: SparseBatch) -> Tensor:
        """Return the negative log-likelihood at sampled codes; no gradient reaches the encoder."""
        with torch.no_grad():
            code = draw(*self.encoder(batch))
        return self.decoder.loss(code, batch, self.smoothing)


class RecVAE(NetworkRecommender[RecVAEConfig]):
    """VAE with a composite prior; encoder and decoder are trained alternately.

    An epoch trains the encoder with dropout, updates the prior, and trains the decoder (algorithm 1 of the paper).
    Encoder and decoder have an Adam optimizer each. preset=shenbin2020: the settings of the paper for MovieLens-20M.
    """

    name = "recvae"
    family = "deep autoencoder"
    size_setting = "latent"
    Config = RecVAEConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "shenbin2020": {
            "hidden": 600,
            "latent": 200,
            "dropout": 0.5,
            "gamma": 0.005,
            "smoothing": 0.0,
            "average": 0.0,
            "encoder_passes": 3,
            "l2": 0.0,
            "epochs": 50,
            "batch_size": 500,
            "learning_rate": 5e-4,
        }
    }
    network: RecVAENetwork

    def _build(self, items: int) -> RecVAENetwork:
        return RecVAENetwork(items, self.config)

    def _one_epoch(self, rows: SparseRows, batch_size: int, context: TrainingContext) -> Callable[[], float]:
        network, passes = self.network, self.config.encoder_passes
        encoder, decoder = network.encoder, network.decoder
        steps = context.planned(self.config.epochs) * steps_per_epoch(len(rows), batch_size)
        encoder_steps = self._optimizer(encoder, [], context, passes * steps, "encoder_rate")
        decoder_steps = self._optimizer(decoder, [], context, steps, "decoder_rate")
        earlier = copy.deepcopy(encoder).eval().requires_grad_(False)
        updating = {"encoder_steps": (encoder_steps, encoder), "decoder_steps": (decoder_steps, decoder)}
        kept = {name: OptimizerState(optimizer, part) for name, (optimizer, part) in updating.items()}
        context.checkpoints.keep(earlier=earlier, **kept)

        def encoder_loss(batch: SparseBatch) -> Tensor:
            return network.encoder_loss(batch, earlier)

        def one_epoch() -> float:
            encoder.train()
            decoder.requires_grad_(False)
            for _ in range(passes):
                one_pass(rows, batch_size, with_autocast(context, encoder_loss), encoder_steps, context)
            earlier.load_state_dict(encoder.state_dict())
            encoder.eval()  # no dropout
            decoder.requires_grad_(True)
            return one_pass(rows, batch_size, with_autocast(context, network.decoder_loss), decoder_steps, context)

        return one_epoch

    def training_memory(self, items: int) -> TrainingMemory:
        """Return the memory that training will hold; the previous epoch's encoder counts too."""
        held, config = super().training_memory(items), self.config
        with torch.device("meta"):
            earlier = 4 * sum(weight.numel() for weight in Encoder(items, config).parameters())
        return replace(held, parameters=held.parameters + earlier)
