"""Mult-DAE and Mult-VAE: autoencoders with a multinomial likelihood over the catalog.

Liang, Krishnan, Hoffman, Jebara: Variational Autoencoders for Collaborative Filtering, WWW 2018, arXiv:1802.05814.
Input rows are scaled to length 1, with dropout on their items; items compete for probability at the output. With
another likelihood the cells of a row are switches or amounts instead (see recsys.models.autoencoders.likelihood).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from recsys.models.autoencoders.layers import ItemOutput, SparseInput
from recsys.models.autoencoders.likelihood import Likelihood, check_likelihood
from recsys.models.autoencoders.network import Network, NetworkRecommender
from recsys.models.autoencoders.posterior import annealed, divergence, draw
from recsys.models.autoencoders.sampled_softmax import CandidateSampler, ItemTable
from recsys.models.config import check_training, require
from recsys.models.embeddings import Embeddings
from recsys.models.recency import RecencyWeighted, check_half_life
from recsys.models.search_space import Categorical, Range, tunable
from recsys.models.state import StateSpec, module_spec
from recsys.training.batches import SparseBatch, SparseRows
from recsys.training.context import TrainingContext

Output = Literal["linear", "cosine"]

HIDDEN = 600  # width of the hidden layers for many users, as in the paper
_MANY_USERS = 10_000  # fewer training users are too few for hidden layers (benchmarks/vae_defaults.py)


def _check_target(smoothing: float, emphasis: float) -> None:
    require(0 <= smoothing < 1, f"Expected smoothing in [0, 1), found {smoothing}.")
    require(emphasis > 0, f"Expected emphasis above 0, found {emphasis}.")


def _check_output(output: str, temperature: float, likelihood: Likelihood) -> None:
    require(output in ("linear", "cosine"), f"Expected output linear or cosine, found {output!r}.")
    require(temperature > 0, f"Expected temperature above 0, found {temperature}.")
    require(
        output == "linear" or likelihood == "multinomial",
        f"Expected likelihood=multinomial with output=cosine, found {likelihood}: cosines divided by a temperature are "
        "the logits of a softmax.",
    )


def emphasize(target: SparseBatch, corrupted: SparseBatch, emphasis: float) -> SparseBatch:
    """Weight the items hidden from the encoder more; each row keeps its sum.

    Parameters
    ----------
    target, corrupted : SparseBatch, shape (rows, items)
        The same cells; those of value 0 in `corrupted` were hidden.
    emphasis : float
        Weight of a hidden item relative to one that was not hidden.

    Returns
    -------
    SparseBatch, shape (rows, items)

    References
    ----------
    Vincent et al.: Stacked Denoising Autoencoders, JMLR 11, 2010, section 3.3.
    """
    if emphasis == 1:
        return target
    values = torch.where(corrupted.values == 0, emphasis * target.values, target.values)
    scale = target.row_sums(target.values) / target.row_sums(values).clamp_min(1e-12)
    values = values * scale.repeat_interleave(target.lengths, output_size=len(values))
    return SparseBatch(target.items, values, target.offsets)


@dataclass(frozen=True)
class DAEConfig:
    """Mult-DAE: items - latent - items."""

    latent: int = tunable(200, Range(50, 400, log=True))  # width of the code
    dropout: float = tunable(0.5, Range(0.1, 0.8))  # share of a user's items hidden from the encoder
    emphasis: float = 1.0  # weight in the target of a hidden item relative to others
    smoothing: float = 0.0  # share of the target spread over all items
    likelihood: Likelihood = "multinomial"  # of a row's cells
    output: Output = "linear"  # cosine: scores are cosines of code and item, divided by the temperature, plus a bias
    temperature: float = 0.1  # of a cosine output; 0.05 to 0.2 is usual. Unused with a linear one
    normalize: bool = True  # scale the input rows to length 1; False: the values themselves, such as gray levels
    average: float = 0.0  # decay of the running average of weights per epoch; 0: no averaging
    l2: float = tunable(4e-5, Range(1e-6, 1e-3, log=True))  # weight decay; 2 x .01 / 500 of the paper
    epochs: int = 100
    batch_size: int | None = None  # None: a twentieth of the users, within 32..500
    learning_rate: float = tunable(1e-3, Range(3e-4, 1e-2, log=True))

    def __post_init__(self) -> None:
        require(self.latent >= 1, f"Expected latent of at least 1, found {self.latent}.")
        _check_target(self.smoothing, self.emphasis)
        check_likelihood(self.likelihood, smoothing=self.smoothing, emphasis=self.emphasis)
        _check_output(self.output, self.temperature, self.likelihood)
        check_training(self.dropout, self.epochs, self.batch_size, self.learning_rate, self.l2, self.average)


@dataclass(frozen=True)
class VAEConfig:
    """Mult-VAE: items - hidden - latent - hidden - items, or items - latent - items where hidden is 0.

    What is None depends on the number of training users: see `widths`.
    """

    hidden: int | None = tunable(None, Categorical((0, 200, 600)))  # None: 600, or 0 for few users
    latent: int = tunable(200, Range(50, 400, log=True))  # width of the code; a mean and a variance for each
    dropout: float = tunable(0.5, Range(0.1, 0.8))  # share of a user's items hidden from the encoder
    # weight of the KL term after annealing. None: 0.2, or 0.05 with hidden 0
    beta: float | None = tunable(None, Range(0.02, 1.0, log=True))
    gamma: float | None = None  # weight of the KL term per item of the user, instead of beta
    anneal: float = 0.5  # share of all planned updates over which beta or gamma rises from 0
    deviation: float | None = None  # of the code before training, in each direction. None: 1, or 0.1 with hidden 0
    emphasis: float = 1.0  # weight in the target of a hidden item relative to others
    smoothing: float = 0.0  # share of the target spread over all items
    likelihood: Likelihood = "multinomial"  # of a row's cells
    output: Output = "linear"  # cosine: scores are cosines of code and item, divided by the temperature, plus a bias
    temperature: float = 0.1  # of a cosine output; 0.05 to 0.2 is usual. Unused with a linear one
    normalize: bool = True  # scale the input rows to length 1; False: the values themselves, such as gray levels
    average: float = 0.0  # decay of the running average of weights per epoch; 0: no averaging
    l2: float | None = None  # weight decay. None: 0, or 4e-5 with hidden 0 and a full softmax
    epochs: int = 100
    batch_size: int | None = None  # None: a twentieth of the users, within 32..500
    learning_rate: float = tunable(1e-3, Range(3e-4, 1e-2, log=True))
    beta2: float = 0.999  # decay of Adam's squared gradients; large batches need less
    softmax: Literal["full", "sampled"] = "full"  # sampled: the cost of a step depends on the batch, not the catalog
    negatives: int = 4000  # items drawn for each step of a sampled softmax
    half_life: float | None = None  # of an item of a history that is scored, in later items; None: all weigh alike

    def __post_init__(self) -> None:
        require(self.softmax in ("full", "sampled"), f"Expected softmax full or sampled, found {self.softmax!r}.")
        require(
            self.softmax == "full" or not self.l2,
            "Expected l2 of 0 with a sampled softmax, which updates only some rows.",
        )
        require(self.softmax == "full" or not self.smoothing, "Expected smoothing of 0 with a sampled softmax.")
        require(0 <= self.beta2 < 1, f"Expected beta2 in [0, 1), found {self.beta2}.")
        require(self.negatives >= 1, f"Expected negatives of at least 1, found {self.negatives}.")
        require(
            self.latent >= 1 and (self.hidden is None or self.hidden >= 0),
            f"Expected hidden of 0 or more and latent of at least 1, found {self.hidden} and {self.latent}.",
        )
        require(self.deviation is None or self.deviation > 0, f"Expected deviation above 0, found {self.deviation}.")
        require(self.beta is None or self.beta >= 0, f"Expected beta of 0 or more, found {self.beta}.")
        require(self.gamma is None or self.gamma >= 0, f"Expected gamma of 0 or more, found {self.gamma}.")
        _check_target(self.smoothing, self.emphasis)
        check_likelihood(self.likelihood, smoothing=self.smoothing, emphasis=self.emphasis, softmax=self.softmax)
        _check_output(self.output, self.temperature, self.likelihood)
        check_half_life(self.half_life)
        require(0 <= self.anneal <= 1, f"Expected anneal in [0, 1], found {self.anneal}.")
        check_training(self.dropout, self.epochs, self.batch_size, self.learning_rate, self.l2 or 0, self.average)

    def resolved(self, hidden: int) -> VAEConfig:
        """Return the config with what is None decided, given the width of the hidden layers where that is None."""
        hidden = hidden if self.hidden is None else self.hidden
        shallow = not hidden
        deviation = (0.1 if shallow else 1.0) if self.deviation is None else self.deviation
        l2 = (4e-5 if shallow and self.softmax == "full" else 0.0) if self.l2 is None else self.l2
        beta = (0.05 if shallow else 0.2) if self.beta is None else self.beta
        return replace(self, hidden=hidden, deviation=deviation, l2=l2, beta=beta)


class DAENetwork(Network):
    """code = tanh(normalized, dropped input @ W + b); logits = code @ V.T + c.

    With a cosine output the code is scaled to length 1 instead of tanh: a matrix factorization with softmax whose user
    vectors are sums of the input vectors of their items.
    """

    def __init__(self, items: int, config: DAEConfig):
        super().__init__()
        self.emphasis, self.smoothing = config.emphasis, config.smoothing
        self.likelihood = config.likelihood
        self.encoder = SparseInput(items, config.latent, config.dropout, config.normalize)
        temperature = config.temperature if config.output == "cosine" else None
        self.decoder = ItemOutput(items, config.latent, config.likelihood, temperature)

    def last(self, batch: SparseBatch) -> Tensor:
        """Return the code, (rows, latent)."""
        return self._code(self.encoder(batch))

    def _code(self, projected: Tensor) -> Tensor:
        cosine = self.decoder.temperature is not None
        return self.decoder.directions(projected) if cosine else torch.tanh(projected)

    def loss(self, batch: SparseBatch, progress: float) -> Tensor:
        """Return the negative log-likelihood of the whole row, with emphasis and smoothing."""
        corrupted = self.encoder.corrupt(batch)
        target = emphasize(batch, corrupted, self.emphasis)
        return self.decoder.loss(self._code(self.encoder.project(corrupted)), target, self.smoothing)


class VAENetwork(Network):
    """q(z|x) = N(mean, exp(log_variance)) from a tanh layer; logits from z through another. Mean of z at scoring.

    Without hidden layers mean and log-variance are linear in the input, and logits are linear in tanh(z).
    """

    def __init__(self, items: int, config: VAEConfig):
        super().__init__()
        config = config.resolved(HIDDEN)
        assert config.hidden is not None and config.deviation is not None and config.beta is not None
        self.beta, self.gamma, self.anneal = config.beta, config.gamma, config.anneal
        self.emphasis, self.smoothing = config.emphasis, config.smoothing
        self.likelihood = config.likelihood
        self.negatives = config.negatives if config.softmax == "sampled" else 0
        self.encoder = SparseInput(items, config.hidden or 2 * config.latent, config.dropout, config.normalize)
        self.posterior = nn.Linear(config.hidden, 2 * config.latent) if config.hidden else None
        self.hidden = nn.Linear(config.latent, config.hidden) if config.hidden else None
        temperature = config.temperature if config.output == "cosine" else None
        self.decoder = ItemOutput(items, config.hidden or config.latent, config.likelihood, temperature)
        for layer in (self.posterior, self.hidden):
            if layer is not None:
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        bias = self.encoder.bias if self.posterior is None else self.posterior.bias
        with torch.no_grad():
            bias[config.latent :] = 2 * math.log(config.deviation)

    def encode(self, corrupted: SparseBatch) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of the code, (rows, latent) each, of corrupted rows."""
        first = self.encoder.project(corrupted)
        mean, log_variance = (first if self.posterior is None else self.posterior(torch.tanh(first))).chunk(2, dim=1)
        return mean, log_variance

    def embed(self, batch: SparseBatch) -> Embeddings:
        """Return mean and deviation of the posterior, (rows, latent) each."""
        mean, log_variance = self.encode(self.encoder.corrupt(batch))
        return Embeddings(mean, (0.5 * log_variance).exp())

    def last(self, batch: SparseBatch) -> Tensor:
        """Return the last hidden layer (rows, hidden or latent) at the mean of the posterior."""
        return self.from_code(self.embed(batch).mean)

    def from_code(self, code: Tensor) -> Tensor:
        """Return the last hidden layer (rows, hidden or latent) of codes (rows, latent)."""
        return self.decoder.directions(torch.tanh(code if self.hidden is None else self.hidden(code)))

    def loss(self, batch: SparseBatch, progress: float) -> Tensor:
        """Return the negative evidence lower bound, its KL term weighted by the annealed beta (section 2.2.2).

        With `gamma` a user's KL term weighs gamma times the sum of its row, as in RecVAE (arXiv:1912.11160).
        """
        corrupted = self.encoder.corrupt(batch)
        mean, log_variance = (part.float() for part in self.encode(corrupted))
        code, kl = draw(mean, log_variance), divergence(mean, log_variance).sum(dim=1)  # kl: (rows,)
        weighted = self.beta * kl if self.gamma is None else self.gamma * batch.row_sums(batch.values) * kl
        penalty = annealed(progress, self.anneal) * weighted.mean()
        target = emphasize(batch, corrupted, self.emphasis)
        return self.decoder.loss(self.from_code(code), target, self.smoothing) + penalty

    def item_tables(self) -> list[nn.Parameter]:
        """Return input and output table if the softmax is sampled."""
        return [self.encoder.weight, self.decoder.weight] if self.negatives else []

    def sample_output(self, rows: SparseRows, items: int, batch_size: int) -> list[ItemTable]:
        """Prepare a sampled softmax if the settings ask for one; return both item tables."""
        if not self.negatives:
            return []
        self.encoder.sparse = True
        sampler = self.decoder.sampler = CandidateSampler(rows, items, batch_size, self.negatives)
        return [ItemTable(self.encoder.weight), ItemTable(self.decoder.weight, sampler.lr_scale)]


class DAE(NetworkRecommender[DAEConfig]):
    """Denoising autoencoder. preset=liang2018: the settings of the paper."""

    name = "dae"
    family = "deep autoencoder"
    size_setting = "latent"
    learns_in_bf16 = True
    Config = DAEConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "liang2018": {
            "latent": 200,
            "dropout": 0.5,
            "emphasis": 1.0,
            "smoothing": 0.0,
            "average": 0.0,
            "l2": 4e-5,
            "epochs": 200,
            "batch_size": 500,
            "learning_rate": 1e-3,
        }
    }
    network: DAENetwork

    def _build(self, items: int) -> DAENetwork:
        return DAENetwork(items, self.config)


class VAE(RecencyWeighted[VAEConfig], NetworkRecommender[VAEConfig]):
    """Variational autoencoder. preset=liang2018: settings of the paper for MovieLens-20M; large-batch: for a GPU."""

    name = "vae"
    family = "deep autoencoder"
    size_setting = "latent"
    learns_in_bf16 = True
    Config = VAEConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "liang2018": {
            "hidden": 600,
            "latent": 200,
            "dropout": 0.5,
            "beta": 0.2,
            "gamma": None,
            "anneal": 0.85,
            "deviation": 1.0,
            "emphasis": 1.0,
            "smoothing": 0.0,
            "average": 0.0,
            "l2": 0.0,
            "epochs": 200,
            "batch_size": 500,
            "learning_rate": 1e-3,
        },
        # NVIDIA's VAE-CF (Deep Learning Examples): few, large steps.
        "large-batch": {
            "hidden": 600,
            "deviation": 1.0,
            "l2": 0.0,
            "beta": 0.1,
            "anneal": 0.75,
            "epochs": 400,
            "batch_size": 24_576,
            "learning_rate": 4e-3,
            "beta2": 0.9,
        },
    }
    network: VAENetwork
    _hidden: int = HIDDEN  # the width in use where the config leaves it open

    def scaled_config(self, user_items: csr_matrix) -> VAEConfig:
        """Return the config with hidden, deviation, beta and l2 decided by the number of users."""
        return self.config.resolved(HIDDEN if user_items.shape[0] >= _MANY_USERS else 0)

    def summary(self) -> str:
        """Return what the number of users decided."""
        if self.n_items is None or self.config.hidden is not None:
            return ""
        return f"hidden {self._hidden} (by the number of users)"

    def _fit(self, matrix: csr_matrix, context: TrainingContext) -> None:
        if context.start is None:
            self._hidden = self.scaled_config(matrix).hidden or 0
        else:
            self._hidden = _hidden_in(context.start.state)
        super()._fit(matrix, context)

    def _build(self, items: int) -> VAENetwork:
        return VAENetwork(items, self.config.resolved(self._hidden))

    def _weight_decay(self) -> float:
        return self.config.resolved(self._hidden).l2 or 0.0

    def _set_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        self._hidden = _hidden_in(state)
        super()._set_state(state, device)

    def _state_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        with torch.device("meta"):
            return module_spec(VAENetwork(n_items, self.config.resolved(_hidden_in(state) if state else self._hidden)))


def _hidden_in(state: Mapping[str, Tensor]) -> int:
    """The width of the hidden layers of a network whose config leaves it open."""
    return HIDDEN if "hidden.weight" in state else 0
