"""How generated users compare with real ones: what they take, whether they are copies, what a model learns of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.errors import DataError
from recsys.evaluation.evaluate import Evaluation, evaluate
from recsys.models import create_model
from recsys.splitting.holdout import Holdout
from recsys.training.context import TrainingContext
from recsys.types import Values

CLOSEST = 0.01  # share of real users that are said to be unusually near to another one
_SAMPLE = 5_000  # rows whose nearest real user is sought, at most
_CELLS = 20_000_000  # distances held at once
_PAIRS_OF = 300  # most popular items whose pairs are compared
_BINS = 20
_RESAMPLES = 2_000
_QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Membership:
    """Whether generated users are copies: how near they are to the nearest real user, and how near real ones are.

    Distances are Jaccard's: 1 - shared items / items of either. *Unusually near* is a distance that only the closest
    hundredth of real users has to the nearest other one.

    Attributes
    ----------
    threshold : float
        The largest distance that is unusually near.
    real : float
        Share of real users who are unusually near to another one: 0.01, or more where distances are equal.
    generated, low, high : float
        Share of generated users who are unusually near to a real one, with its 95 % interval (Wilson's).
    copies : int
        Generated users who have exactly the items of a real user.
    users : int
        Generated users looked at.
    quantiles : sequence of (float, float, float)
        Share of users, distance below which it is among real users, and among generated users.
    """

    threshold: float
    real: float
    generated: float
    low: float
    high: float
    copies: int
    users: int
    quantiles: Sequence[tuple[float, float, float]]

    @property
    def passed(self) -> bool:
        """Whether generated users are not unusually near to real users more often than those are to each other."""
        return self.low <= self.real


@dataclass(frozen=True)
class Likeness:
    """What generated users take, beside real users.

    Attributes
    ----------
    activity : sequence of (float, float, float)
        Share of users, number of items below which it is for real users, and for generated users.
    mean_items : (float, float)
        Mean number of items of real and of generated users.
    catalog : (float, float)
        Share of the items that at least one of them has.
    popularity : float
        Correlation of the items' shares of users.
    tail : sequence of (int, float, float)
        Rank of an item by popularity, share of the real and of the generated users who have it; each in its own order.
    mean_values : (float, float)
        Mean value of a cell: the mean rating, where cells are ratings; else 1.
    together : float
        Correlation, over pairs of the most popular items, of the shares of users who have both.
    pairs : sequence of (float, float)
        Of twenty equal groups of such pairs, mean share of the real, and of the generated users, who have both.
    """

    activity: Sequence[tuple[float, float, float]]
    mean_items: tuple[float, float]
    catalog: tuple[float, float]
    popularity: float
    tail: Sequence[tuple[int, float, float]]
    mean_values: tuple[float, float]
    together: float
    pairs: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Usefulness:
    """What a model reaches on held-out real users: trained on real ones, and trained on generated ones.

    Attributes
    ----------
    model, metric : str
        The model, and what was measured.
    real, generated : float
        Means over the held-out users.
    ratio, low, high : float
        generated / real, with its 95 % interval (bootstrap over users).
    users : int
        Held-out users.
    """

    model: str
    metric: str
    real: float
    generated: float
    ratio: float
    low: float
    high: float
    users: int


def compare_users(real: csr_matrix, generated: csr_matrix) -> Likeness:
    """Compare what generated users take with what real ones do.

    Parameters
    ----------
    real, generated : csr_matrix, shape (users, items)
        Over the same items.

    Returns
    -------
    Likeness

    Raises
    ------
    DataError
        If the columns differ, or there are no users.
    """
    _check(real, generated)
    both = real, generated
    lengths = [np.diff(one.indptr) for one in both]
    shares = [np.bincount(one.indices, minlength=one.shape[1]) / one.shape[0] for one in both]
    popular = np.argsort(-shares[0], kind="stable")[:_PAIRS_OF]
    pairs = [_pair_shares(one, popular) for one in both]
    groups = np.array_split(np.argsort(pairs[0], kind="stable"), min(_BINS, max(1, len(pairs[0]))))
    ranks = np.unique(np.geomspace(1, real.shape[1], 60).astype(int))
    tails = [np.sort(one)[::-1] for one in shares]
    return Likeness(
        [(q, float(np.quantile(lengths[0], q)), float(np.quantile(lengths[1], q))) for q in _QUANTILES],
        (float(lengths[0].mean()), float(lengths[1].mean())),
        (float((shares[0] > 0).mean()), float((shares[1] > 0).mean())),
        _correlation(*shares),
        [(int(rank), float(tails[0][rank - 1]), float(tails[1][rank - 1])) for rank in ranks],
        (_mean_value(real), _mean_value(generated)),
        _correlation(*pairs),
        [(float(pairs[0][group].mean()), float(pairs[1][group].mean())) for group in groups if len(group)],
    )


def check_membership(real: csr_matrix, generated: csr_matrix, seed: int = 0) -> Membership:
    """Test whether generated users copy real ones.

    Parameters
    ----------
    real : csr_matrix, shape (users, items)
        All of whom the generating model may have seen; at least 2.
    generated : csr_matrix, shape (users, items)
    seed : int
        Chooses 5,000 of each to look at, where there are more; the nearest real user is sought among all.

    Returns
    -------
    Membership

    Raises
    ------
    DataError
        If the columns differ, or there are fewer than 2 real users.
    """
    _check(real, generated)
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(real.shape[0])[:_SAMPLE])
    chosen = np.sort(rng.permutation(generated.shape[0])[:_SAMPLE])
    among = nearest_distances(csr_matrix(real[rows]), real, itself=rows)
    found = nearest_distances(csr_matrix(generated[chosen]), real)
    threshold = float(np.quantile(among, CLOSEST, method="higher"))
    near = int((found <= threshold).sum())
    low, high = wilson(near, len(found))
    quantiles = [(q, float(np.quantile(among, q)), float(np.quantile(found, q))) for q in _QUANTILES]
    share_of_real = float((among <= threshold).mean())
    return Membership(
        threshold, share_of_real, near / len(found), low, high, int((found == 0).sum()), len(found), quantiles
    )


def nearest_distances(users: csr_matrix, real: csr_matrix, itself: NDArray[np.int64] | None = None) -> Values:
    """Find the Jaccard distance of each user to the nearest real user.

    Parameters
    ----------
    users : csr_matrix, shape (users, items)
    real : csr_matrix, shape (users, items)
    itself : ndarray of int64, shape (users,), optional
        The row of each user among the real ones, which does not count.

    Returns
    -------
    ndarray of float64, shape (users,)
        0 for the same items, 1 for none in common.
    """
    ones, others = (csr_matrix((np.ones_like(m.data), m.indices, m.indptr), shape=m.shape) for m in (users, real))
    columns, lengths = csr_matrix(others.T), np.diff(others.indptr)
    found = np.ones(users.shape[0])
    step = max(1, _CELLS // max(1, real.shape[0]))
    for start in range(0, users.shape[0], step):
        block = ones[start : start + step]
        shared = (block @ columns).toarray().astype(np.float64)
        either = np.diff(block.indptr)[:, None] + lengths[None, :] - shared
        distances = 1 - shared / np.maximum(either, 1)
        if itself is not None:
            distances[np.arange(len(distances)), itself[start : start + step]] = np.inf
        found[start : start + step] = distances.min(axis=1)
    return found


def compare_training(
    name: str, real: csr_matrix, generated: csr_matrix, holdout: Holdout, metric: str, context: TrainingContext
) -> Usefulness:
    """Fit one model, with its default settings, on real and on generated users, and measure both on held-out real ones.

    Parameters
    ----------
    name : str
        A model of `MODELS`.
    real, generated : csr_matrix, shape (users, items)
        Training users, over the items of the holdout.
    holdout : Holdout
        Real users who are in neither.
    metric : str
        Such as ndcg@100, or rmse.
    context : TrainingContext
        Of both fits.

    Returns
    -------
    Usefulness
    """
    on_real, on_generated = (
        evaluate(create_model(name).fit(matrix, context), holdout, (metric,)) for matrix in (real, generated)
    )
    return compare_evaluations(name, metric, on_real, on_generated, context.seed)


def compare_evaluations(model: str, metric: str, real: Evaluation, generated: Evaluation, seed: int = 0) -> Usefulness:
    """Compare a model trained on generated users with the same trained on real ones, on the same held-out users.

    Parameters
    ----------
    model, metric : str
        Name of the model, and a metric of both evaluations.
    real, generated : Evaluation
        Of the same holdout.
    seed : int
        Of the bootstrap.

    Returns
    -------
    Usefulness
    """
    averages = [one.averages[metric] for one in (real, generated)]
    users = len(averages[0])
    draws = np.random.default_rng(seed).multinomial(users, np.full(users, 1 / users), size=_RESAMPLES)
    found = [draws @ one.totals / np.maximum(draws @ one.weights, 1e-12) for one in averages]
    found = [np.sqrt(each) if one.root else each for one, each in zip(averages, found, strict=True)]
    low, high = np.quantile(found[1] / np.maximum(found[0], 1e-12), (0.025, 0.975))
    mean, other = (one.mean for one in averages)
    ratio, counted = other / max(mean, 1e-12), averages[0].n_users
    return Usefulness(model, metric, mean, other, ratio, float(low), float(high), counted)


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Compute the 95 % interval of a share (Wilson, Journal of the American Statistical Association 22, 1927)."""
    z = 1.959964
    share, shrink = successes / trials, z**2 / trials
    middle = share + shrink / 2
    half = z * np.sqrt(share * (1 - share) / trials + shrink / (4 * trials))
    return float(max(0.0, (middle - half) / (1 + shrink))), float(min(1.0, (middle + half) / (1 + shrink)))


def _check(real: csr_matrix, generated: csr_matrix) -> None:
    if real.shape[1] != generated.shape[1]:
        raise DataError(f"Expected users over the same items, found {real.shape[1]} and {generated.shape[1]} columns.")
    if real.shape[0] < 2 or not generated.shape[0]:
        raise DataError(
            f"Expected 2 real users and a generated user at least, found {real.shape[0]} and {generated.shape[0]}."
        )


def _pair_shares(users: csr_matrix, items: NDArray[np.int64]) -> Values:
    """Share of users who have both items of each pair."""
    chosen = csr_matrix(users[:, items], dtype=np.float64)
    chosen.data[:] = 1
    together = (chosen.T @ chosen).toarray() / users.shape[0]
    return np.asarray(together[np.triu_indices(len(items), 1)])


def _mean_value(users: csr_matrix) -> float:
    """The mean of the cells; 0 without any."""
    return float(users.data.mean(dtype=np.float64)) if users.nnz else 0.0


def _correlation(first: Values, second: Values) -> float:
    """Pearson's; 0 where one does not vary."""
    if len(first) < 2 or not (np.ptp(first) and np.ptp(second)):
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])
