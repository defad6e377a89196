"""Plain and sparse autoencoders: a history is encoded and reconstructed, without noise.

Plain: Rumelhart, Hinton, Williams: Learning Internal Representations by Error Propagation, 1986; as a recommender
Ferreira, Silva, Abelha, Machado: Recommendation System Using Autoencoders, Applied Sciences 10, 5510, 2020. Sparse:
Ng: Sparse Autoencoder, CS294A lecture notes, Stanford 2011, which has the KL penalty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from recsys.models.autoencoders.layers import ItemOutput, SparseInput
from recsys.models.autoencoders.likelihood import Likelihood, check_likelihood
from recsys.models.autoencoders.network import Network, NetworkRecommender
from recsys.models.config import check_training, require
from recsys.models.embeddings import Embeddings
from recsys.models.search_space import Categorical, Range, tunable
from recsys.training.batches import SparseBatch


@dataclass(frozen=True)
class AEConfig:
    """items - hidden - latent - hidden - items, or items - latent - items where hidden is 0.

    Undercomplete if latent is less than the items. An overcomplete one could copy its input; l2 prevents that.
    """

    latent: int = tunable(200, Range(20, 800, log=True))  # width of the code
    hidden: int = 0  # width of a layer on each side of the code; 0: none
    likelihood: Likelihood = tunable("multinomial", Categorical(("multinomial", "gaussian")))  # of a row's cells
    normalize: bool = True  # scale the input rows to length 1; False: the values themselves, such as gray levels
    average: float = 0.0  # decay of the running average of weights per epoch; 0: no averaging
    l2: float = tunable(1e-3, Range(1e-5, 1.0, log=True))  # weight decay
    epochs: int = 100
    batch_size: int | None = None  # None: a twentieth of the users, within 32..500
    learning_rate: float = tunable(1e-3, Range(3e-4, 1e-2, log=True))

    def __post_init__(self) -> None:
        require(self.latent >= 1, f"Expected latent of at least 1, found {self.latent}.")
        require(self.hidden >= 0, f"Expected hidden of 0 or more, found {self.hidden}.")
        check_likelihood(self.likelihood)
        check_training(0, self.epochs, self.batch_size, self.learning_rate, self.l2, self.average)


@dataclass(frozen=True)
class SparseAEConfig:
    """items - latent - items, with few active units for a user."""

    latent: int = tunable(600, Range(100, 2000, log=True))  # width of the code
    # l1: ReLU units, penalty on the sum of activations; kl: sigmoid units, penalty on their mean over users
    penalty: Literal["l1", "kl"] = tunable("l1", Categorical(("l1", "kl")))
    sparsity: float = tunable(0.1, Range(1e-3, 10.0, log=True))  # weight of the penalty
    density: float = 0.05  # target mean activation of a unit with kl; unused with l1
    dropout: float = tunable(0.5, Range(0.0, 0.8))  # share of a user's items hidden from the encoder
    likelihood: Likelihood = "multinomial"  # of a row's cells
    normalize: bool = True  # scale the input rows to length 1; False: the values themselves, such as gray levels
    l2: float = 0.0  # weight decay
    epochs: int = 100
    batch_size: int | None = None  # None: a twentieth of the users, within 32..500
    learning_rate: float = tunable(1e-3, Range(3e-4, 1e-2, log=True))

    def __post_init__(self) -> None:
        require(self.latent >= 1, f"Expected latent of at least 1, found {self.latent}.")
        require(self.penalty in ("l1", "kl"), f"Expected penalty l1 or kl, found {self.penalty!r}.")
        require(self.sparsity >= 0, f"Expected sparsity of 0 or more, found {self.sparsity}.")
        require(0 < self.density < 1, f"Expected density in (0, 1), found {self.density}.")
        check_likelihood(self.likelihood)
        check_training(self.dropout, self.epochs, self.batch_size, self.learning_rate, self.l2)


class AENetwork(Network):
    """tanh layers to the code and back; the output is linear."""

    def __init__(self, items: int, config: AEConfig):
        super().__init__()
        self.likelihood = config.likelihood
        width = config.hidden or config.latent
        inner = [(config.hidden, config.latent), (config.latent, config.hidden)] if config.hidden else []
        self.encoder = SparseInput(items, width, 0, config.normalize)
        self.inner = nn.ModuleList(nn.Linear(*sizes) for sizes in inner)
        self.decoder = ItemOutput(items, width, config.likelihood)

    def last(self, batch: SparseBatch) -> Tensor:
        """Return the last hidden layer, (rows, hidden or latent)."""
        return self.from_code(self.embed(batch).mean)

    def from_code(self, code: Tensor) -> Tensor:
        """Return the last hidden layer (rows, hidden or latent) of codes (rows, latent)."""
        return torch.tanh(self.inner[1](code)) if len(self.inner) else code

    def embed(self, batch: SparseBatch) -> Embeddings:
        """Return the code, (rows, latent)."""
        first = torch.tanh(self.encoder(batch))
        return Embeddings(torch.tanh(self.inner[0](first)) if len(self.inner) else first)

    def loss(self, batch: SparseBatch, progress: float) -> Tensor:
        """Return the negative log-likelihood of the rows."""
        return self.decoder.loss(self.last(batch), batch)


class SparseAENetwork(Network):
    """code = relu or sigmoid of (x W + b); scores = code V.T + c; the loss has a penalty on the code."""

    def __init__(self, items: int, config: SparseAEConfig):
        super().__init__()
        self.likelihood = config.likelihood
        self.penalty, self.sparsity, self.density = config.penalty, config.sparsity, config.density
        self.encoder = SparseInput(items, config.latent, config.dropout, config.normalize)
        self.decoder = ItemOutput(items, config.latent, config.likelihood)

    def last(self, batch: SparseBatch) -> Tensor:
        """Return the code, (rows, latent)."""
        activate = torch.relu if self.penalty == "l1" else torch.sigmoid
        return activate(self.encoder(batch))

    def loss(self, batch: SparseBatch, progress: float) -> Tensor:
        """Return the negative log-likelihood plus `sparsity` times the penalty.

        l1: sum of a row's activations, mean over rows. kl: sum over units of KL(density, mean activation over rows).
        """
        code = self.last(batch)
        penalty = code.sum(dim=1).mean() if self.penalty == "l1" else bernoulli_kl(self.density, code.mean(dim=0)).sum()
        return self.decoder.loss(code, batch) + self.sparsity * penalty


def bernoulli_kl(density: float, means: Tensor) -> Tensor:
    """Compute KL(Bernoulli(density) || Bernoulli(means)) in nats; the shape of `means`."""
    means = means.clamp(1e-6, 1 - 1e-6)
    wanted = torch.full_like(means, density)
    return wanted * (wanted / means).log() + (1 - wanted) * ((1 - wanted) / (1 - means)).log()


class AE(NetworkRecommender[AEConfig]):
    """Plain autoencoder, under- or overcomplete."""

    name = "ae"
    family = "deep autoencoder"
    size_setting = "latent"
    Config = AEConfig
    network: AENetwork

    def _build(self, items: int) -> AENetwork:
        return AENetwork(items, self.config)


class SparseAE(NetworkRecommender[SparseAEConfig]):
    """Autoencoder with a sparse code."""

    name = "sparse-ae"
    family = "deep autoencoder"
    size_setting = "latent"
    Config = SparseAEConfig
    network: SparseAENetwork

    def _build(self, items: int) -> SparseAENetwork:
        return SparseAENetwork(items, self.config)
