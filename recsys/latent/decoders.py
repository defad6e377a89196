"""From what is drawn of a generated user (a code; for ratings also a bias) to the items they take, and their ratings.

A VAE of lists says which items somebody takes, and gives every one of them the value 1. A VAE of ratings says how
somebody rates an item, and nothing of which items they rate: those are drawn by their popularity.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.errors import UnsupportedError
from recsys.inference.pairs import predict_pairs
from recsys.models.autoencoders.mult_vae import VAE
from recsys.models.autoencoders.recvae import RecVAE
from recsys.models.base import Recommender
from recsys.models.embeddings import Embeddings
from recsys.models.ratings.vae import RatingVAE
from recsys.training.batches import SparseRows
from recsys.types import FloatArray, Values

GENERATIVE = ("vae", "recvae", "rating-vae")

_EMBEDDED = 5_000  # users embedded at once
_LEAST = 1e-30  # share of an item that is never drawn before others
_MEASURED = 2_000  # users whose ratings show how far they are from predictions
_LEVELS = 100  # different ratings, at most, for which generated ones are rounded to them


class Decoder(ABC):
    """What is drawn of a user, (rows, features), becomes items and values."""

    @property
    @abstractmethod
    def items(self) -> int:
        """Number of items."""

    @abstractmethod
    def features(self, history: csr_matrix) -> tuple[Values, Values]:
        """Describe real users.

        Parameters
        ----------
        history : csr_matrix, shape (users, items)
            Everybody has an item.

        Returns
        -------
        features : ndarray of float64, shape (users, size)
            What is drawn of a generated user.
        variance : ndarray of float64, shape (size,)
            How uncertain each is of a user, mean over users.
        """

    @abstractmethod
    def log_shares(self, features: Values) -> FloatArray:
        """Return logarithms of the items' probabilities, (rows, items)."""

    @abstractmethod
    def values(self, chosen: csr_matrix, features: Values, rng: np.random.Generator) -> csr_matrix:
        """Return the chosen items, csr (rows, items), with their values."""


@dataclass(frozen=True)
class ListDecoder(Decoder):
    """Of a VAE with a multinomial likelihood; a feature vector is its code."""

    model: VAE | RecVAE

    @property
    def items(self) -> int:
        """Number of items."""
        return self.model.n_items or 0

    def features(self, history: csr_matrix) -> tuple[Values, Values]:
        """Codes, and the variances of their posteriors."""
        return _codes(self.model, history)

    def log_shares(self, features: Values) -> FloatArray:
        """What the codes decode to, without what smoothing spread over all items in training."""
        shares = self.model.decode(features)
        smoothing = self.model.config.smoothing
        if smoothing:
            shares = (shares - smoothing / shares.shape[1]) / (1 - smoothing)
        return np.asarray(shares.clamp_min(_LEAST).log().numpy(force=True), dtype=np.float32)

    def values(self, chosen: csr_matrix, features: Values, rng: np.random.Generator) -> csr_matrix:
        """Ones."""
        return chosen


@dataclass(frozen=True)
class RatingDecoder(Decoder):
    """Of a VAE over ratings; a feature vector is its code and the bias of the user.

    Attributes
    ----------
    model : RatingVAE
        Fitted.
    log_popularity : ndarray of float32, shape (items,)
        Logarithm of the share of the ratings that an item has.
    noise : float
        Standard deviation of ratings around their predictions.
    levels : ndarray of float32
        The ratings there are, sorted; empty where there are more than a hundred.
    """

    model: RatingVAE
    log_popularity: FloatArray
    noise: float
    levels: FloatArray

    @classmethod
    def of(cls, model: RatingVAE, history: csr_matrix) -> Self:
        """Make the decoder of a model; `history` are ratings of real users, (users, items)."""
        counts = np.bincount(history.indices, minlength=history.shape[1])
        popularity = np.log(np.maximum(counts / max(1, history.nnz), _LEAST)).astype(np.float32)
        some = csr_matrix(history[:_MEASURED])
        user = np.repeat(np.arange(some.shape[0]), np.diff(some.indptr))
        predicted = predict_pairs(model.score, some, user, some.indices)
        noise = float(np.sqrt(np.mean(np.square(predicted - some.data, dtype=np.float64)))) if some.nnz else 0.0
        levels = np.unique(history.data).astype(np.float32)
        return cls(model, popularity, noise, levels if len(levels) <= _LEVELS else levels[:0])

    @property
    def items(self) -> int:
        """Number of items."""
        return len(self.log_popularity)

    def features(self, history: csr_matrix) -> tuple[Values, Values]:
        """Codes and biases, and the variances of the codes."""
        codes, variance = _codes(self.model, history)
        rows = SparseRows(history, self.model.baseline.mean.device).everything()
        biases = self.model.baseline.split(rows)[1].numpy(force=True).astype(np.float64)
        return np.column_stack([codes, biases]), np.append(variance, 0.0)

    def log_shares(self, features: Values) -> FloatArray:
        """The popularity of the items, for everybody."""
        return np.broadcast_to(self.log_popularity, (len(features), self.items))

    def values(self, chosen: csr_matrix, features: Values, rng: np.random.Generator) -> csr_matrix:
        """Predicted ratings with noise, rounded to ratings that there are."""
        predicted = self.model.decode(features[:, :-1], features[:, -1]).numpy(force=True)
        user = np.repeat(np.arange(chosen.shape[0]), np.diff(chosen.indptr))
        ratings = predicted[user, chosen.indices] + self.noise * rng.standard_normal(chosen.nnz)
        rated: csr_matrix = chosen.copy()
        rated.data = self._rounded(ratings).astype(np.float32)
        return rated

    def _rounded(self, ratings: Values) -> NDArray[np.floating]:
        """The nearest of the levels; the ends of the scale where there are none."""
        if not len(self.levels):
            baseline = self.model.baseline
            return ratings.clip(float(baseline.lowest), float(baseline.highest))
        return self.levels[np.searchsorted((self.levels[1:] + self.levels[:-1]) / 2, ratings)]


def make_decoder(model: Recommender, history: csr_matrix) -> Decoder:
    """Return the decoder of a model that users can be drawn from.

    Parameters
    ----------
    model : Recommender
        Of `GENERATIVE`, fitted.
    history : csr_matrix, shape (users, items)
        Real users.

    Returns
    -------
    Decoder

    Raises
    ------
    UnsupportedError
        See `check_generative`.
    """
    check_generative(model)
    if isinstance(model, RatingVAE):
        return RatingDecoder.of(model, history)
    assert isinstance(model, (VAE, RecVAE))
    return ListDecoder(model)


def check_generative(model: Recommender) -> None:
    """Raise UnsupportedError unless users can be drawn from the model: a VAE of lists or ratings."""
    if not isinstance(model, (VAE, RecVAE, RatingVAE)):
        known = ", ".join(GENERATIVE)
        raise UnsupportedError(f"Expected a model of {known} to draw users from, found {model.name}: train one.")
    likelihood = getattr(model.config, "likelihood", "multinomial")
    if likelihood != "multinomial":
        raise UnsupportedError(
            f"Expected a {model.name} of multinomial likelihood to draw items from, found {likelihood}: train one."
        )


def _codes(model: Recommender, history: csr_matrix) -> tuple[Values, Values]:
    """Codes (users, size), and the variances of their posteriors (size,), mean over users; 0 where there are none."""
    starts = range(0, history.shape[0], _EMBEDDED)
    parts: list[Embeddings] = [model.embed_users(csr_matrix(history[start : start + _EMBEDDED])) for start in starts]
    codes = np.concatenate([part.mean.numpy(force=True) for part in parts]).astype(np.float64)
    deviations = [part.deviation.numpy(force=True) for part in parts if part.deviation is not None]
    variance = (
        np.square(np.concatenate(deviations), dtype=np.float64).mean(0) if deviations else np.zeros(codes.shape[1])
    )
    return codes, variance
