"""How good are the lists, or the predicted ratings: metrics of a score function on what was held out.

Every model passes through the same functions: same histories, same mask, same cut, same metrics.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from recsys.errors import DataError
from recsys.evaluation.averages import Average, Interval
from recsys.evaluation.beyond_accuracy import coverage
from recsys.evaluation.metrics import ERRORS, METRICS, find_hits, goodness, parse_error, parse_metric
from recsys.inference.pairs import predict_pairs
from recsys.inference.topn import recommend
from recsys.splitting.holdout import Holdout
from recsys.types import ScoreFunction, Values

DEFAULT_METRICS = ("ndcg@10", "ndcg@100", "recall@20", "recall@50", "capped_recall@20", "capped_recall@50")
DEFAULT_ERRORS = ("rmse", "mae")


@dataclass(frozen=True)
class Evaluation(ABC):
    """What was measured of each user of a holdout, in their order, by metric; and how long scoring took."""

    averages: Mapping[str, Average]
    seconds: float

    @property
    @abstractmethod
    def coverage(self) -> float:
        """How much of what could be there is there."""

    @property
    def n_users(self) -> int:
        """Users measured."""
        return len(next(iter(self.averages.values())))

    @property
    def values(self) -> Mapping[str, Values]:
        """Of each metric, float64 (users,); NaN for users with nothing held out."""
        return {label: average.each for label, average in self.averages.items()}

    def means(self) -> dict[str, float]:
        """Each metric, over users with something held out."""
        return {label: average.mean for label, average in self.averages.items()}

    def intervals(self, seed: int = 0) -> dict[str, Interval]:
        """Each metric with its interval."""
        return {label: average.interval(seed) for label, average in self.averages.items()}

    def only(self, metrics: Sequence[str]) -> Self:
        """What measuring these of its metrics alone would have given."""
        return replace(self, averages={label: self.averages[label] for label in metrics})


@dataclass(frozen=True)
class ListEvaluation(Evaluation):
    """Of lists. positions: int32 (users, longest cut-off), -1 where one ran short. n_items: in the catalog."""

    positions: NDArray[np.int32]
    n_items: int

    @property
    def coverage(self) -> float:
        """Share of the catalog that stands in at least one of the lists."""
        return coverage(self.positions, self.n_items, self.positions.shape[1])

    def only(self, metrics: Sequence[str]) -> Self:
        """What measuring these of its metrics alone would have given."""
        longest = max(parse_metric(label)[1] for label in metrics)
        return replace(super().only(metrics), positions=self.positions[:, :longest])


@dataclass(frozen=True)
class RatingEvaluation(Evaluation):
    """Of predicted ratings. predicted, observed: float32 (cells,), in the order of the holdout's cells.

    unpredicted: held-out cells without a prediction, their item or their user being unknown; they are in no metric.
    """

    predicted: NDArray[np.float32]
    observed: NDArray[np.float32]
    unpredicted: NDArray[np.float32]

    @property
    def cells(self) -> int:
        """Held-out cells with a prediction: those the metrics are made of."""
        return len(self.predicted)

    @property
    def coverage(self) -> float:
        """Share of the held-out cells that have a prediction."""
        return self.cells / (self.cells + len(self.unpredicted))

    def rmse_of_all(self, otherwise: float) -> float:
        """RMSE over all held-out cells, where those without a prediction are given the value `otherwise`."""
        errors = np.concatenate([self.predicted - self.observed, np.float32(otherwise) - self.unpredicted])
        return float(np.sqrt(np.mean(np.square(errors, dtype=np.float64))))


def evaluate(
    score: ScoreFunction,
    holdout: Holdout,
    metrics: Sequence[str] = DEFAULT_METRICS,
    batch_size: int = 512,
    with_users: bool = False,
) -> ListEvaluation:
    """Lists for all users of the holdout, seen items masked, measured. `with_users`: pass their training rows too.

    Raises ConfigError for an unknown metric, before any work.
    """
    wanted = {label: parse_metric(label) for label in metrics}
    n = min(max(k for _, k in wanted.values()), holdout.history.shape[1])
    users = holdout.train_rows if with_users else None
    started = time.perf_counter()
    positions = np.concatenate(
        [batch.positions for batch in recommend(score, holdout.history, n, batch_size, users=users, seen=holdout.seen)]
    )
    seconds = time.perf_counter() - started
    hits, relevant = find_hits(positions, holdout.held_out), holdout.relevant
    averages = {label: Average.of(METRICS[name](hits, relevant, k)) for label, (name, k) in wanted.items()}
    return ListEvaluation(averages, seconds, positions, holdout.history.shape[1])


def evaluate_ratings(
    score: ScoreFunction,
    holdout: Holdout,
    metrics: Sequence[str] = DEFAULT_ERRORS,
    batch_size: int = 512,
    with_users: bool = False,
) -> RatingEvaluation:
    """Predictions for all held-out cells of a holdout of ratings, measured over cells; real zeros are ratings.

    Raises ConfigError for an unknown metric, before any work; DataError for a prediction that is not a number, and
    where there is no cell.
    """
    for label in metrics:
        parse_error(label)
    if not holdout.held_out.nnz:
        raise DataError(
            "Expected held-out ratings of items and users that training has seen, found none: hold out a larger share, "
            "or nothing (train: --held-out 0)."
        )
    started = time.perf_counter()
    user = np.repeat(np.arange(len(holdout)), np.diff(holdout.held_out.indptr))
    trained = holdout.train_rows if with_users else None
    predicted = predict_pairs(score, holdout.history, user, holdout.held_out.indices, batch_size, trained)
    seconds = time.perf_counter() - started
    if not np.isfinite(predicted).all():
        raise DataError("Expected finite predictions, found NaN or infinity: train the model with a smaller rate.")
    observed = holdout.held_out.data
    errors = predicted.astype(np.float64) - observed
    averages = {label: error_average(errors, holdout, label) for label in metrics}
    return RatingEvaluation(averages, seconds, predicted, observed, holdout.unpredicted)


def error_average(errors: Values, holdout: Holdout, label: str, chosen: NDArray[np.bool_] | None = None) -> Average:
    """A metric of the errors (cells,) of the holdout's cells; of the `chosen` ones, bool (cells,), if given."""
    error = ERRORS[label]
    weights = np.ones(len(errors)) if chosen is None else chosen.astype(np.float64)
    user = np.repeat(np.arange(len(holdout)), np.diff(holdout.held_out.indptr))
    totals, cells = (np.bincount(user, part, len(holdout)) for part in (weights * error.of_cell(errors), weights))
    return Average(totals.astype(np.float64), cells.astype(np.float64), error.root)


@dataclass(frozen=True)
class Validator:
    """A function for TrainingContext.validate: one metric over the holdout, an error with a minus before it."""

    holdout: Holdout
    metric: str
    with_users: bool = False

    def __call__(self, score: ScoreFunction) -> float:
        """The metric of a score function, higher being better."""
        measure = evaluate_ratings if self.metric in ERRORS else evaluate
        found = measure(score, self.holdout, (self.metric,), with_users=self.with_users)
        return goodness(self.metric, found.means()[self.metric])

    def sample(self, users: int) -> Validator:
        """The same over so many users of the holdout, from all over it; over all where it has no more."""
        if users >= len(self.holdout):
            return self
        return replace(self, holdout=self.holdout.take(np.linspace(0, len(self.holdout) - 1, users).astype(np.int64)))


def validator(holdout: Holdout, metric: str, with_users: bool = False) -> Validator:
    """A function for TrainingContext.validate: one metric over the holdout, an error with a minus before it."""
    return Validator(holdout, metric, with_users)
