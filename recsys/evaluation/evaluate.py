"""How good lists or predicted ratings are: metrics of a model, or of any score function, on a holdout.

Every model is measured by the same functions: same histories, same mask, same cut, same metrics. Equal scores are
ordered by hashes of the ids, differently for each user: neither the order of the input rows nor popularity decides.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ConfigError, DataError
from recsys.evaluation.averages import Average, Interval
from recsys.evaluation.beyond_accuracy import coverage
from recsys.evaluation.metrics import ERRORS, METRICS, find_hits, goodness, parse_error, parse_metric, scope_of
from recsys.inference.pairs import predict_pairs
from recsys.inference.ties import TieBreak
from recsys.inference.topn import recommend_among
from recsys.models.base import Recommender
from recsys.splitting.holdout import Holdout
from recsys.types import ScoreFunction, Values

DEFAULT_METRICS = ("ndcg@10", "ndcg@100", "recall@20", "recall@50", "capped_recall@20", "capped_recall@50")
COLD_METRICS = tuple(f"{part}{metric}" for metric in ("ndcg@100", "recall@100") for part in ("", "cold_", "warm_"))
DEFAULT_ERRORS = ("rmse", "mae")


@runtime_checkable
class HasModel(Protocol):
    """An object that holds a fitted model, such as `TrainedModel`."""

    @property
    def model(self) -> Recommender:
        """The fitted model."""


@dataclass(frozen=True)
class Evaluation(ABC):
    """Metrics of the users of a holdout, in their order.

    Attributes
    ----------
    averages : mapping of str to Average
        By metric.
    seconds : float
        How long scoring and ranking took.
    """

    averages: Mapping[str, Average]
    seconds: float

    @property
    @abstractmethod
    def coverage(self) -> float:
        """Share of the catalog, or of the held-out cells, that the model covers."""

    @property
    def n_users(self) -> int:
        """Number of users measured."""
        return len(next(iter(self.averages.values())))

    @property
    def values(self) -> Mapping[str, Values]:
        """Every metric of every user, float64 (users,); NaN for users with nothing held out."""
        return {label: average.each for label, average in self.averages.items()}

    def means(self) -> dict[str, float]:
        """Average every metric over the users with something held out."""
        return {label: average.mean for label, average in self.averages.items()}

    def intervals(self, seed: int = 0) -> dict[str, Interval]:
        """Compute every metric with its 95 % confidence interval (bootstrap over users)."""
        return {label: average.interval(seed) for label, average in self.averages.items()}

    def only(self, metrics: Sequence[str]) -> Self:
        """Return what measuring these metrics alone would have given."""
        return replace(self, averages={label: self.averages[label] for label in metrics})


@dataclass(frozen=True)
class ListEvaluation(Evaluation):
    """Metrics of lists.

    Attributes
    ----------
    positions : ndarray of int32, shape (users, longest cut-off)
        The lists, best first; -1 where one ran short.
    n_items : int
        Size of the catalog.
    """

    positions: NDArray[np.int32]
    n_items: int

    @property
    def coverage(self) -> float:
        """Share of the catalog that is in at least one of the lists."""
        return coverage(self.positions, self.n_items, self.positions.shape[1])

    def only(self, metrics: Sequence[str]) -> Self:
        """Return what measuring these metrics alone would have given."""
        of_all = [label for label in metrics if not scope_of(label)] or metrics
        longest = max(parse_metric(label)[1] for label in of_all)
        return replace(super().only(metrics), positions=self.positions[:, :longest])


@dataclass(frozen=True)
class RatingEvaluation(Evaluation):
    """Errors of predicted ratings.

    Attributes
    ----------
    predicted, observed : ndarray of float32, shape (cells,)
        In the order of the holdout's cells.
    unpredicted : ndarray of float32
        Ratings of held-out cells without a prediction, whose item or user is unknown; they are in no metric.
    """

    predicted: NDArray[np.float32]
    observed: NDArray[np.float32]
    unpredicted: NDArray[np.float32]

    @property
    def cells(self) -> int:
        """Number of held-out cells with a prediction: the metrics are made of these."""
        return len(self.predicted)

    @property
    def coverage(self) -> float:
        """Share of the held-out cells that have a prediction."""
        return self.cells / (self.cells + len(self.unpredicted))

    def rmse_of_all(self, otherwise: float) -> float:
        """Compute RMSE over all held-out cells, with `otherwise` predicted where there is no prediction."""
        errors = np.concatenate([self.predicted - self.observed, np.float32(otherwise) - self.unpredicted])
        return float(np.sqrt(np.mean(np.square(errors, dtype=np.float64))))


def evaluate(
    model: Recommender | HasModel | ScoreFunction,
    holdout: Holdout,
    metrics: Sequence[str] | None = None,
    batch_size: int = 512,
    with_users: bool | None = None,
) -> Evaluation:
    """Measure a model on held-out data.

    Parameters
    ----------
    model : Recommender, object with such a `model`, or function
        A function takes histories, CSR (users, items), and returns scores (users, items), higher being better.
    holdout : Holdout
        What the model sees of each user, and what it must find or predict.
    metrics : sequence of str, optional
        Metrics of lists such as ndcg@100 or errors of predicted ratings such as rmse, not both. Those of the model's
        task without it; of a function, those of lists.
    batch_size : int
        Users scored at once.
    with_users : bool, optional
        Pass the users' rows of the training matrix to the function. Of a model, as it needs.

    Returns
    -------
    Evaluation
        A ListEvaluation for metrics of lists, a RatingEvaluation for errors.

    Raises
    ------
    ConfigError
        If a metric is unknown, or both kinds are mixed; before any work.
    DataError
        If a score is NaN, or nothing was held out.
    """
    inner = model if isinstance(model, Recommender) else getattr(model, "model", None)
    if isinstance(inner, Recommender):
        score: ScoreFunction = inner.score
        needed, default = inner.needs_training_users, DEFAULT_ERRORS if inner.task == "rating" else DEFAULT_METRICS
    elif callable(model):
        score, needed, default = model, False, DEFAULT_METRICS
    else:
        raise ConfigError(f"Expected a model or a function of histories, found {type(model).__name__}.")
    labels = tuple(default if metrics is None else metrics)
    pass_users = needed if with_users is None else with_users
    if any(label in ERRORS for label in labels):
        return evaluate_ratings(score, holdout, labels, batch_size, pass_users)
    return evaluate_lists(score, holdout, labels, batch_size, pass_users)


def evaluate_lists(
    score: ScoreFunction,
    holdout: Holdout,
    metrics: Sequence[str] = DEFAULT_METRICS,
    batch_size: int = 512,
    with_users: bool = False,
) -> ListEvaluation:
    """Make lists for all users of a holdout, seen items masked, and measure them.

    Parameters
    ----------
    score : ScoreFunction
        From histories to scores.
    holdout : Holdout
        Histories and held-out items.
    metrics : sequence of str
        Such as ndcg@100; cold_ndcg@100 and warm_ndcg@100 are of lists of cold and of warm items alone.
    batch_size : int
        Users scored at once.
    with_users : bool
        Pass the users' rows of the training matrix to `score`.

    Returns
    -------
    ListEvaluation
        Equal scores are ordered by hashes of the ids of user and item. Its lists are those of all items, unless all
        metrics are of a part of them.

    Raises
    ------
    ConfigError
        If a metric is unknown, or of a part of the items that the holdout does not have; before any work.
    DataError
        If a score is NaN.
    """
    wanted = {label: parse_metric(label) for label in metrics}
    scopes = sorted({scope_of(label) for label in metrics})  # all items first
    parts = {scope: holdout.within(scope) for scope in scopes}
    users = holdout.train_rows if with_users else None
    tie_break = TieBreak.from_ids(item_ids(holdout), holdout.users)
    longest = [max(k for label, (_, k) in wanted.items() if scope_of(label) == scope) for scope in scopes]
    asked = [(n, holdout.scopes.get(scope)) for n, scope in zip(longest, scopes, strict=True)]
    started = time.perf_counter()
    batches = recommend_among(
        score, holdout.history, asked, batch_size, users=users, seen=holdout.seen, tie_break=tie_break
    )
    positions = [np.concatenate([one.positions for one in each]) for each in zip(*batches, strict=True)]
    seconds = time.perf_counter() - started
    hits = {scope: find_hits(own, parts[scope].held_out) for scope, own in zip(scopes, positions, strict=True)}
    averages = {
        label: Average.of(METRICS[name](hits[scope_of(label)], parts[scope_of(label)].relevant, k))
        for label, (name, k) in wanted.items()
    }
    return ListEvaluation(averages, seconds, positions[0], holdout.history.shape[1])


def item_ids(holdout: Holdout) -> Any:
    """Return the ids of the columns; their positions where the holdout does not know them."""
    return np.arange(holdout.history.shape[1]) if holdout.items is None else holdout.items.ids


def evaluate_ratings(
    score: ScoreFunction,
    holdout: Holdout,
    metrics: Sequence[str] = DEFAULT_ERRORS,
    batch_size: int = 512,
    with_users: bool = False,
) -> RatingEvaluation:
    """Predict all held-out cells of a holdout of ratings, and measure the errors over cells.

    Parameters
    ----------
    score : ScoreFunction
        From histories to predicted ratings.
    holdout : Holdout
        Histories and held-out ratings; stored zeros are ratings.
    metrics : sequence of str
        Of rmse and mae.
    batch_size : int
        Users scored at once.
    with_users : bool
        Pass the users' rows of the training matrix to `score`.

    Returns
    -------
    RatingEvaluation

    Raises
    ------
    ConfigError
        If a metric is unknown; before any work.
    DataError
        If a prediction is not finite, or there is no held-out cell.
    """
    for label in metrics:
        parse_error(label)
    if not holdout.held_out.nnz:
        raise DataError(
            "Expected held-out ratings of items and users in the training data, found none: hold out a larger share, "
            "or nothing."
        )
    started = time.perf_counter()
    user = np.repeat(np.arange(len(holdout)), np.diff(holdout.held_out.indptr))
    trained = holdout.train_rows if with_users else None
    predicted = predict_pairs(score, holdout.history, user, holdout.held_out.indices, batch_size, trained)
    seconds = time.perf_counter() - started
    if not np.isfinite(predicted).all():
        raise DataError(
            "Expected finite predictions, found NaN or infinity: train the model with a smaller learning rate."
        )
    observed = holdout.held_out.data
    errors = predicted.astype(np.float64) - observed
    averages = {label: error_average(errors, holdout, label) for label in metrics}
    return RatingEvaluation(averages, seconds, predicted, observed, holdout.unpredicted)


def error_average(errors: Values, holdout: Holdout, label: str, chosen: NDArray[np.bool_] | None = None) -> Average:
    """Average an error metric over users.

    Parameters
    ----------
    errors : ndarray of float64, shape (cells,)
        Predicted - observed, in the order of the holdout's cells.
    holdout : Holdout
        Says whose cell each is.
    label : str
        rmse or mae.
    chosen : ndarray of bool, shape (cells,), optional
        The only cells to count.

    Returns
    -------
    Average
        A user's weight is the number of cells.
    """
    error = ERRORS[label]
    weights = np.ones(len(errors)) if chosen is None else chosen.astype(np.float64)
    user = np.repeat(np.arange(len(holdout)), np.diff(holdout.held_out.indptr))
    totals, cells = (np.bincount(user, part, len(holdout)) for part in (weights * error.of_cell(errors), weights))
    return Average(totals.astype(np.float64), cells.astype(np.float64), error.root)


@dataclass(frozen=True)
class Validator:
    """A function for `TrainingContext.validate`: one metric over a holdout, higher being better.

    Attributes
    ----------
    holdout : Holdout
        The validation part.
    metric : str
        A metric of lists or an error; errors are returned with a minus sign.
    with_users : bool
        Pass the users' rows of the training matrix to the score function (`Recommender.needs_training_users`).
    """

    holdout: Holdout
    metric: str
    with_users: bool = False

    def __call__(self, score: ScoreFunction) -> float:
        """Measure a score function."""
        found = evaluate(score, self.holdout, (self.metric,), with_users=self.with_users)
        return goodness(self.metric, found.means()[self.metric])

    def sample(self, users: int) -> Validator:
        """Return a validator over at most `users` users, taken evenly from the whole holdout."""
        if users >= len(self.holdout):
            return self
        return replace(self, holdout=self.holdout.take(np.linspace(0, len(self.holdout) - 1, users).astype(np.int64)))
