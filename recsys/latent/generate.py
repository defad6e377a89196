"""Generated users of a variational autoencoder: codes are drawn and decoded, then items drawn from what they decode to.

The codes of real users are not spread as the prior says. A small weight of the KL term, which makes better lists,
leaves them wider in some directions and narrower in others, and how many items a user has goes with what they like. So
codes are drawn from the normal distribution that fits those of real users best, jointly with the logarithm of their
number of items (Ghosh et al.: From Variational to Deterministic Autoencoders, ICLR 2020, arXiv:1903.12436, section 4,
fit a density after training too); `Source.prior` draws from the prior.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.special import ndtr
from torch import Tensor

from recsys.data.matrix import sparse_rows
from recsys.errors import DataError, UnsupportedError
from recsys.models.autoencoders.mult_vae import VAE
from recsys.models.autoencoders.recvae import RecVAE
from recsys.models.base import Recommender
from recsys.types import Values

GENERATIVE = ("vae", "recvae")

_SCORES = 8_000_000  # drawn at once
_ROWS = 2_048  # users drawn at once, at most
_LEAST = 1e-30  # share of an item that is never drawn before others
_EMBEDDED = 10_000  # users embedded at once


@dataclass(frozen=True)
class Source:
    """What generated users are drawn from.

    Attributes
    ----------
    model : VAE or RecVAE
        Decodes the codes.
    center : ndarray of float64, shape (size + 1,)
        Mean of code and activity; activity is the logarithm of a user's number of items.
    root : ndarray of float64, shape (size + 1, size + 1)
        A square root of their covariance, lower triangular.
    activity : ndarray of int64, shape (real users,)
        Sorted numbers of items of real users: those of generated users are its quantiles.
    """

    model: VAE | RecVAE
    center: Values
    root: Values
    activity: NDArray[np.int64]

    @classmethod
    def prior(cls, model: Recommender, history: csr_matrix) -> Source:
        """Draw codes from the standard normal distribution, whatever the number of items.

        Parameters
        ----------
        model : VAE
            Fitted.
        history : csr_matrix, shape (users, items)
            Real users, for their numbers of items alone.

        Returns
        -------
        Source

        Raises
        ------
        UnsupportedError
            If the model has no prior to draw from; that of RecVAE is made of the posteriors of histories.
        DataError
            If no user has an item.
        """
        generative = check_generative(model)
        if not isinstance(generative, VAE):
            raise UnsupportedError(
                f"Expected a vae to draw codes from its prior, found {model.name}, whose prior is made of the codes of "
                "users: draw from the codes fitted to users instead."
            )
        size = generative.config.latent + 1
        return cls(generative, np.zeros(size), np.eye(size), _activity(history))

    @classmethod
    def fitted(cls, model: Recommender, history: csr_matrix) -> Source:
        """Draw codes from the normal distribution of the codes of real users, jointly with their number of items.

        Parameters
        ----------
        model : VAE or RecVAE
            Fitted.
        history : csr_matrix, shape (users, items)
            Real users, over the items of the model. Its mean and covariance are all that is kept of them.

        Returns
        -------
        Source

        Raises
        ------
        UnsupportedError
            If the model is no variational autoencoder of lists.
        DataError
            If no user has an item.
        """
        generative = check_generative(model)
        activity = _activity(history)
        lengths = np.diff(history.indptr)
        real = csr_matrix(history[lengths > 0])
        starts = range(0, real.shape[0], _EMBEDDED)
        parts = [generative.embed_users(real[start : start + _EMBEDDED]) for start in starts]
        codes = np.concatenate([part.mean.numpy(force=True) for part in parts]).astype(np.float64)
        noise = np.concatenate([_deviation(part.deviation) for part in parts]) ** 2
        joint = np.column_stack([codes, np.log(lengths[lengths > 0])])
        covariance = np.atleast_2d(np.cov(joint.T, bias=True))
        covariance += np.diag([*noise.mean(0), 1e-6])  # a user's code is itself a draw from its posterior
        return cls(generative, joint.mean(0), np.linalg.cholesky(covariance), activity)

    def draw(self, users: int, seed: int = 0) -> Iterator[csr_matrix]:
        """Draw generated users.

        Items are drawn one after the other, without replacement, by the probabilities that the code decodes to: the
        largest of log-probability + Gumbel noise (Kool et al.: Stochastic Beams and Where to Find Them, ICML 2019,
        arXiv:1903.06059, section 2).

        Parameters
        ----------
        users : int
            How many, at least 1.
        seed : int
            The same seed gives the same users.

        Yields
        ------
        csr_matrix of float32, shape (some users, items)
            Cells of 1. Together they are all users, in constant memory.

        Raises
        ------
        DataError
            If `users` is below 1.
        """
        if users < 1:
            raise DataError(f"Expected at least 1 user to generate, found {users}.")
        rows, items = self._rows, self.model.n_items or 0
        for number, start in enumerate(range(0, users, rows)):
            rng = np.random.default_rng((seed, number))
            normal = rng.standard_normal((rows, len(self.center)))  # whole blocks: more users change none of the first
            noise = -np.log(np.maximum(rng.standard_exponential((rows, items), dtype=np.float32), _LEAST))
            count = min(rows, users - start)
            drawn = self.center + normal[:count] @ self.root.T
            spread = max(float(np.linalg.norm(self.root[-1])), 1e-12)
            lengths = self._lengths((drawn[:, -1] - self.center[-1]) / spread)
            yield _take(self._log_shares(drawn[:, :-1]) + noise[:count], np.minimum(lengths, items))

    def count_blocks(self, users: int) -> int:
        """Return how many blocks `draw` yields."""
        return -(-users // self._rows)

    @property
    def _rows(self) -> int:
        """Users of a block; of the catalog alone, so that the seed decides."""
        return max(1, min(_ROWS, _SCORES // max(1, self.model.n_items or 0)))

    def _lengths(self, activity: Values) -> NDArray[np.int64]:
        """Numbers of items whose rank among real users is that of a standard normal activity."""
        place = np.floor(ndtr(activity) * len(self.activity)).astype(np.int64)
        return self.activity[np.clip(place, 0, len(self.activity) - 1)]

    def _log_shares(self, codes: Values) -> NDArray[np.float32]:
        """Logarithms of the items' probabilities (rows, items), without what smoothing spread over all items."""
        shares = self.model.decode(codes)
        smoothing = self.model.config.smoothing
        if smoothing:
            shares = (shares - smoothing / shares.shape[1]) / (1 - smoothing)
        return np.asarray(shares.clamp_min(_LEAST).log().numpy(force=True), dtype=np.float32)


def check_generative(model: Recommender) -> VAE | RecVAE:
    """Return the model, if users can be drawn from it; raise UnsupportedError if not."""
    if not isinstance(model, (VAE, RecVAE)):
        raise UnsupportedError(f"Expected a model of {' or '.join(GENERATIVE)} to draw users from, found {model.name}.")
    likelihood = getattr(model.config, "likelihood", "multinomial")
    if likelihood != "multinomial":
        raise UnsupportedError(
            f"Expected a {model.name} of multinomial likelihood to draw items from, found {likelihood}: train one."
        )
    return model


def _activity(history: csr_matrix) -> NDArray[np.int64]:
    lengths = np.sort(np.diff(history.indptr)).astype(np.int64)
    lengths = lengths[lengths > 0]
    if not len(lengths):
        raise DataError("Expected users with an item that the model knows, found none: give the ratings it is for.")
    return lengths


def _deviation(deviation: Tensor | None) -> NDArray[np.float64]:
    assert deviation is not None  # a variational autoencoder has one
    return np.asarray(deviation.numpy(force=True), dtype=np.float64)


def _take(scores: NDArray[np.float32], lengths: NDArray[np.int64]) -> csr_matrix:
    """The items with the highest scores, so many in each row."""
    best = torch.from_numpy(scores).topk(int(lengths.max()), dim=1).indices.numpy()
    chosen = np.arange(best.shape[1])[None, :] < lengths[:, None]
    row = np.repeat(np.arange(len(scores), dtype=np.int32), lengths)
    return sparse_rows(row, best[chosen].astype(np.int32), np.ones(len(row), dtype=np.float32), scores.shape)
