"""The two tasks and all that differs between them: what cells hold, and how models are split, measured and described.

- ranking: what will this user take next? A 1 for every interaction; metrics of lists.
- rating: what would this user give this item? Cells hold ratings; errors of predictions over held-out cells.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from typing_extensions import TypeVar

from recsys import splitting
from recsys.data.interactions import Interactions
from recsys.errors import ConfigError
from recsys.evaluation import beyond_accuracy
from recsys.evaluation.calibration import calibration
from recsys.evaluation.evaluate import (
    COLD_METRICS,
    DEFAULT_ERRORS,
    DEFAULT_METRICS,
    Evaluation,
    ListEvaluation,
    RatingEvaluation,
    evaluate_lists,
    evaluate_ratings,
)
from recsys.evaluation.metrics import parse_error, parse_metric
from recsys.evaluation.results import FittedResult
from recsys.evaluation.slices import average_on_items, error_on_items, item_slices
from recsys.models import MODELS, Recommender
from recsys.splitting.holdout import Holdout, Split

CUTOFFS = (1, 5, 10, 20, 50, 100)  # of the curves in a report
CURVES = ("ndcg", "recall")  # metrics drawn by cut-off
LIST_LENGTH = 10  # of the lists that are shown and whose variety is measured

EvaluationT = TypeVar("EvaluationT", bound=Evaluation, default=Any)


class Task(ABC, Generic[EvaluationT]):
    """What a job has to know about its task.

    Attributes
    ----------
    name : {"ranking", "rating"}
    ratings : bool
        Whether the cells of the matrices hold ratings.
    metric, metrics : str, tuple of str
        The main metric, and those that are shown by default.
    protocol : str
        How data are split by default; a name in `recsys.splitting.PROTOCOLS`.
    model : str
        The model trained by default; empty where the size of the data decides (`recsys.models.default`).
    models : tuple of str
        The models compared by default.
    baselines : tuple of str
        A non-personalized model and a matrix factorization, which no comparison should be without.
    covered : str
        What an evaluation's coverage is a share of, as the end of a sentence.
    slice_metric : str
        The metric measured on slices of items.
    """

    name: ClassVar[Literal["ranking", "rating"]]
    ratings: ClassVar[bool]
    metric: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]
    protocol: ClassVar[str]
    model: ClassVar[str]
    models: ClassVar[tuple[str, ...]]
    baselines: ClassVar[tuple[str, str]]
    covered: ClassVar[str]
    slice_metric: ClassVar[str]

    @abstractmethod
    def check(self, label: str) -> None:
        """Raise ConfigError for a metric that is not one of this task."""

    def metrics_of(self, protocol: str | None) -> tuple[str, ...]:
        """Return the metrics shown by default under a protocol; those of cold and warm items alone under cold-items."""
        return COLD_METRICS if protocol == "cold-items" and not self.ratings else self.metrics

    @abstractmethod
    def labels(self, metrics: Sequence[str]) -> tuple[str, ...]:
        """Return the metrics asked for and those a report draws."""

    @abstractmethod
    def evaluate(self, model: Recommender, holdout: Holdout, metrics: Sequence[str]) -> EvaluationT:
        """Measure a fitted model on a holdout."""

    @abstractmethod
    def describe(
        self,
        model: Recommender,
        evaluation: EvaluationT,
        holdout: Holdout,
        item_counts: NDArray[np.int64],
        train: csr_matrix | None = None,
    ) -> FittedResult:
        """Add slices and other properties to the metrics of a model.

        Parameters
        ----------
        model : Recommender
            The fitted model.
        evaluation : Evaluation
            From `evaluate`, with at least the `labels` of this task.
        holdout : Holdout
            What it was measured on.
        item_counts : ndarray of int64, shape (items,)
            Training users of each item.
        train : csr_matrix, shape (training users, items), optional
            The training matrix; some properties are left out without it.

        Returns
        -------
        FittedResult
        """

    @abstractmethod
    def validation_split(self, interactions: Interactions, model: Recommender, share: float, seed: int) -> Split:
        """Divide interactions into a training and a validation part to fit one model on, without a test part.

        Parameters
        ----------
        interactions : Interactions
        model : Recommender
            Whether it takes new users decides who is held out.
        share : float
            Of the users, or of the rows.
        seed : int
        """


class RankingTask(Task[ListEvaluation]):
    """Lists of what a user will take."""

    name = "ranking"
    ratings = False
    metric = "ndcg@100"
    metrics = DEFAULT_METRICS
    protocol = "strong"
    model = ""
    models = ("popularity", "item-knn", "als", "ease", "dae", "vae")
    baselines = ("popularity", "als")
    covered = "of the catalog is in at least one list"
    slice_metric = "recall@50"  # what share of a slice's items is found at all

    def check(self, label: str) -> None:
        """Accept metrics such as ndcg@100."""
        parse_metric(label)

    def labels(self, metrics: Sequence[str]) -> tuple[str, ...]:
        """Add those of the slices and of the curves by cut-off."""
        curves = (f"{name}@{k}" for name in CURVES for k in CUTOFFS)
        return tuple(dict.fromkeys((*metrics, self.slice_metric, *curves)))

    def evaluate(self, model: Recommender, holdout: Holdout, metrics: Sequence[str]) -> ListEvaluation:
        """Measure lists without seen items."""
        return evaluate_lists(model.score, holdout, metrics, with_users=model.needs_training_users)

    def describe(
        self,
        model: Recommender,
        evaluation: ListEvaluation,
        holdout: Holdout,
        item_counts: NDArray[np.int64],
        train: csr_matrix | None = None,
    ) -> FittedResult:
        """Add recall on slices of items, and the variety of lists of ten."""
        lists, k = evaluation.positions, min(LIST_LENGTH, evaluation.positions.shape[1])
        slices = {
            name: average_on_items(lists, holdout, items, self.slice_metric)
            for name, items in item_slices(item_counts).items()
        }
        variety = {
            f"coverage@{k}": beyond_accuracy.coverage(lists, evaluation.n_items, k),
            f"gini@{k}": beyond_accuracy.gini(lists, evaluation.n_items, k),
            f"popularity_share@{k}": float(np.nanmean(beyond_accuracy.popularity_share(lists, item_counts, k))),
        }
        if train is not None:
            variety |= {
                f"novelty@{k}": float(np.nanmean(beyond_accuracy.novelty(lists, item_counts, train.shape[0], k))),
                f"diversity@{k}": float(np.nanmean(beyond_accuracy.diversity(lists, train, k))),
            }
        return FittedResult(
            model, evaluation, holdout.users, _history_lengths(holdout), self.slice_metric, slices, variety
        )

    def validation_split(self, interactions: Interactions, model: Recommender, share: float, seed: int) -> Split:
        """Hold out some users; some rows of every user where the model cannot take new users; last items of sequences.

        Those are of as many users as `strong` holds out at most.
        """
        if model.uses_order and not model.needs_training_users:
            at_most = min(10_000, max(1, int(share * len(interactions.users))))
            return splitting.leave_last_out(interactions, at_most=at_most, seed=seed, test=False)
        protocol = splitting.weak if model.needs_training_users else splitting.strong
        return protocol(interactions, share=share, seed=seed, test=False)


class RatingTask(Task[RatingEvaluation]):
    """Predicted ratings."""

    name = "rating"
    ratings = True
    metric = "rmse"
    metrics = DEFAULT_ERRORS
    protocol = "cells"
    model = "autorec"
    models = ("global-mean", "biases", "rating-knn", "biased-mf", "autorec")
    baselines = ("global-mean", "biased-mf")
    covered = "of the held-out cells have a prediction"
    slice_metric = "rmse"

    def check(self, label: str) -> None:
        """Accept rmse and mae."""
        parse_error(label)

    def labels(self, metrics: Sequence[str]) -> tuple[str, ...]:
        """Add rmse, for the slices."""
        return tuple(dict.fromkeys((*metrics, self.slice_metric)))

    def evaluate(self, model: Recommender, holdout: Holdout, metrics: Sequence[str]) -> RatingEvaluation:
        """Measure errors over the held-out cells."""
        return evaluate_ratings(model.score, holdout, metrics, with_users=model.needs_training_users)

    def describe(
        self,
        model: Recommender,
        evaluation: RatingEvaluation,
        holdout: Holdout,
        item_counts: NDArray[np.int64],
        train: csr_matrix | None = None,
    ) -> FittedResult:
        """Add RMSE on slices of items, calibration, and the share of cells without a prediction."""
        slices = {
            name: error_on_items(items, evaluation, holdout, self.slice_metric)
            for name, items in item_slices(item_counts).items()
        }
        properties = {
            "predicted_share": evaluation.coverage,
            "mean_error": float(np.mean(evaluation.predicted - evaluation.observed, dtype=np.float64)),
        }
        if train is not None:
            properties["rmse_of_all_cells"] = evaluation.rmse_of_all(float(train.data.mean(dtype=np.float64)))
        return FittedResult(
            model,
            evaluation,
            holdout.users,
            _history_lengths(holdout),
            self.slice_metric,
            slices,
            properties,
            counts={"cells": evaluation.cells, "cells_without_prediction": len(evaluation.unpredicted)},
            calibration=calibration(evaluation.predicted, evaluation.observed),
        )

    def validation_split(self, interactions: Interactions, model: Recommender, share: float, seed: int) -> Split:
        """Hold out some cells of the whole table."""
        return splitting.cells(interactions, share=share, seed=seed, test=False, ratings=True)


def _history_lengths(holdout: Holdout) -> NDArray[np.int64]:
    """Number of items the model sees of each user, (users,)."""
    return np.diff(holdout.history.indptr).astype(np.int64)


TASKS: dict[str, Task] = {task.name: task for task in (RankingTask(), RatingTask())}


def find_task(name: str | None, models: Sequence[str]) -> Task:
    """Find the task of some models.

    Parameters
    ----------
    name : str, optional
        The task asked for; that of the models without it.
    models : sequence of str
        Names of models; unknown ones are passed over.

    Returns
    -------
    Task
        Ranking where neither decides.

    Raises
    ------
    ConfigError
        For an unknown task, and for models of another task or of both, whose metrics cannot be compared.
    """
    tasks = {model: MODELS[model].task for model in models if model in MODELS}
    found = name or next(iter(tasks.values()), "ranking")
    if found not in TASKS:
        raise ConfigError(f"Expected a task of {', '.join(TASKS)}; found {found!r}.")
    others = [model for model, task in tasks.items() if task != found]
    if others:
        raise ConfigError(
            f"Expected models of the {found} task, found {', '.join(others)} of the other one: lists are measured by "
            "what they find, predicted ratings by their errors, and the two have no metric in common."
        )
    return TASKS[found]
