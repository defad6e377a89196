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

from recsys.data.matrix import sparse_rows
from recsys.errors import DataError, UnsupportedError
from recsys.latent.decoders import Decoder, make_decoder
from recsys.models.autoencoders.mult_vae import VAE
from recsys.models.base import Recommender
from recsys.types import Values

_SCORES = 8_000_000  # drawn at once
_ROWS = 2_048  # users drawn at once, at most
_TINY = 1e-30
_FLOOR = 1e-6  # variance that is added, so that features that do not vary have a square root too


@dataclass(frozen=True)
class Source:
    """What generated users are drawn from.

    Attributes
    ----------
    decoder : Decoder
        Turns what is drawn into items and values.
    center : ndarray of float64, shape (size + 1,)
        Mean of the features (the code; for ratings also the bias) and of the activity, which is the logarithm of a
        user's number of items.
    root : ndarray of float64, shape (size + 1, size + 1)
        A square root of their covariance, lower triangular.
    activity : ndarray of int64, shape (real users,)
        Sorted numbers of items of real users: those of generated users are its quantiles.
    """

    decoder: Decoder
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
            If the model has no prior of users to draw from: that of `recvae` is made of the posteriors of histories,
            and `rating-vae` has one of items, or users with biases beside it.
        DataError
            If no user has an item.
        """
        decoder = make_decoder(model, history)
        if not isinstance(model, VAE):
            raise UnsupportedError(
                f"Expected a vae to draw codes from its prior, found {model.name}, whose prior is not one of users "
                "alone: draw from the codes fitted to users instead."
            )
        size = model.config.latent + 1
        return cls(decoder, np.zeros(size), np.eye(size), _activity(history))

    @classmethod
    def fitted(cls, model: Recommender, history: csr_matrix) -> Source:
        """Draw from the normal distribution of what describes real users, jointly with their number of items.

        Parameters
        ----------
        model : Recommender
            A fitted `vae`, `recvae` or `rating-vae`.
        history : csr_matrix, shape (users, items)
            Real users, over the items of the model; ratings for `rating-vae`. Their mean and covariance, and how many
            items they have, are all that is kept of them.

        Returns
        -------
        Source

        Raises
        ------
        UnsupportedError
            If users cannot be drawn from the model.
        DataError
            If no user has an item.
        """
        decoder, activity = make_decoder(model, history), _activity(history)
        lengths = np.diff(history.indptr)
        features, variance = decoder.features(csr_matrix(history[lengths > 0]))
        joint = np.column_stack([features, np.log(lengths[lengths > 0])])
        covariance = np.atleast_2d(np.cov(joint.T, bias=True))
        covariance += np.diag([*variance, 0.0]) + _FLOOR * np.eye(len(covariance))
        return cls(decoder, joint.mean(0), np.linalg.cholesky(covariance), activity)

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
            Ones, or ratings. Together they are all users, in constant memory.

        Raises
        ------
        DataError
            If `users` is below 1.
        """
        if users < 1:
            raise DataError(f"Expected at least 1 user to generate, found {users}.")
        rows, items = self._rows, self.decoder.items
        for number, start in enumerate(range(0, users, rows)):
            rng = np.random.default_rng((seed, number))
            normal = rng.standard_normal((rows, len(self.center)))  # whole blocks: more users change none of the first
            noise = -np.log(np.maximum(rng.standard_exponential((rows, items), dtype=np.float32), _TINY))
            count = min(rows, users - start)
            drawn = self.center + normal[:count] @ self.root.T
            lengths = self._lengths((drawn[:, -1] - self.center[-1]) / np.linalg.norm(self.root[-1]))
            features = drawn[:, :-1]
            chosen = _take(self.decoder.log_shares(features) + noise[:count], np.minimum(lengths, items))
            yield self.decoder.values(chosen, features, rng)

    def count_blocks(self, users: int) -> int:
        """Return how many blocks `draw` yields."""
        return -(-users // self._rows)

    @property
    def _rows(self) -> int:
        """Users of a block; of the catalog alone, so that the seed decides."""
        return max(1, min(_ROWS, _SCORES // max(1, self.decoder.items)))

    def _lengths(self, activity: Values) -> NDArray[np.int64]:
        """Numbers of items whose rank among real users is that of a standard normal activity."""
        place = np.floor(ndtr(activity) * len(self.activity)).astype(np.int64)
        return self.activity[np.clip(place, 0, len(self.activity) - 1)]


def _activity(history: csr_matrix) -> NDArray[np.int64]:
    lengths = np.sort(np.diff(history.indptr)).astype(np.int64)
    lengths = lengths[lengths > 0]
    if not len(lengths):
        raise DataError("Expected users with an item that the model knows, found none: give the ratings it is for.")
    return lengths


def _take(scores: NDArray[np.float32], lengths: NDArray[np.int64]) -> csr_matrix:
    """The items with the highest scores, so many in each row."""
    best = torch.from_numpy(scores).topk(int(lengths.max()), dim=1).indices.numpy()
    chosen = np.arange(best.shape[1])[None, :] < lengths[:, None]
    row = np.repeat(np.arange(len(scores), dtype=np.int32), lengths)
    return sparse_rows(row, best[chosen].astype(np.int32), np.ones(len(row), dtype=np.float32), scores.shape)
