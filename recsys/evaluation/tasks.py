"""The two tasks, and all that is different between them: what cells hold, how it is divided, measured and told.

- ranking: what will this user take next? A 1 for every interaction; metrics of lists.
- rating: what would this user give this item? Cells hold ratings; errors of predictions over held-out cells.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys import splitting
from recsys.data.interactions import Interactions
from recsys.errors import ConfigError
from recsys.evaluation import beyond_accuracy
from recsys.evaluation.calibration import calibration
from recsys.evaluation.comparison import CURVES, CUTOFFS, FittedResult
from recsys.evaluation.evaluate import (
    DEFAULT_ERRORS,
    DEFAULT_METRICS,
    Evaluation,
    ListEvaluation,
    RatingEvaluation,
    evaluate,
    evaluate_ratings,
)
from recsys.evaluation.metrics import parse_error, parse_metric
from recsys.evaluation.slices import item_slices, on_cells_of, on_items
from recsys.models import MODELS, Recommender
from recsys.splitting.holdout import Holdout, Split

LIST = 10  # items in the lists whose variety is measured


class Task(ABC):
    """What a job asks of its task.

    ratings: whether cells of the matrices hold ratings. metric leads, metrics are shown; protocol divides; model is
    trained (none: by the size of the data, see recsys.choosing) and models are compared where nothing else is said.
    covered: what an evaluation's coverage is a share of.
    """

    name: ClassVar[Literal["ranking", "rating"]]
    ratings: ClassVar[bool]
    metric: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]
    protocol: ClassVar[str]
    model: ClassVar[str]
    models: ClassVar[tuple[str, ...]]
    covered: ClassVar[str]

    @abstractmethod
    def check(self, label: str) -> None:
        """Raise ConfigError for a metric that is none of this task."""

    @abstractmethod
    def labels(self, metrics: Sequence[str]) -> tuple[str, ...]:
        """The metrics asked for and those a comparison draws."""

    @abstractmethod
    def evaluate(self, model: Recommender, holdout: Holdout, metrics: Sequence[str]) -> Evaluation:
        """The metrics of a fitted model on a holdout."""

    @abstractmethod
    def describe(
        self,
        model: Recommender,
        found: Evaluation,
        holdout: Holdout,
        counts: NDArray[np.int64],
        train: csr_matrix | None = None,
    ) -> FittedResult:
        """What can be said beside its metrics. counts: training users of each item; train: the training matrix."""

    @abstractmethod
    def validation_split(self, interactions: Interactions, model: Recommender, share: float, seed: int) -> Split:
        """Training and validation parts to fit one model on, without a test part."""


class RankingTask(Task):
    """Lists of what a user will take."""

    name = "ranking"
    ratings = False
    metric = "ndcg@100"
    metrics = DEFAULT_METRICS
    protocol = "strong"
    model = ""
    models = ("popularity", "item-knn", "als", "ease", "dae", "vae")
    covered = "of the catalog stands in some list"
    sliced = "recall@50"  # what share of a slice's items is found at all

    def check(self, label: str) -> None:
        """Metrics such as ndcg@100."""
        parse_metric(label)

    def labels(self, metrics: Sequence[str]) -> tuple[str, ...]:
        """With those of the slices and of the curves by cut-off."""
        return tuple(dict.fromkeys((*metrics, self.sliced, *(f"{name}@{k}" for name in CURVES for k in CUTOFFS))))

    def evaluate(self, model: Recommender, holdout: Holdout, metrics: Sequence[str]) -> ListEvaluation:
        """Metrics of lists without what was seen."""
        return evaluate(model.score, holdout, metrics, with_users=model.needs_training_users)

    def describe(
        self,
        model: Recommender,
        found: Evaluation,
        holdout: Holdout,
        counts: NDArray[np.int64],
        train: csr_matrix | None = None,
    ) -> FittedResult:
        """Recall on slices of items, and the variety of lists of ten."""
        assert isinstance(found, ListEvaluation)
        lists, k = found.positions, min(LIST, found.positions.shape[1])
        slices = item_slices(counts)
        by_items = {name: on_items(lists, holdout, items, self.sliced) for name, items in slices.items()}
        variety = {
            f"coverage@{k}": beyond_accuracy.coverage(lists, found.n_items, k),
            f"gini@{k}": beyond_accuracy.gini(lists, found.n_items, k),
            f"popularity_share@{k}": float(np.nanmean(beyond_accuracy.popularity_share(lists, counts, k))),
        }
        if train is not None:
            variety |= {
                f"novelty@{k}": float(np.nanmean(beyond_accuracy.novelty(lists, counts, train.shape[0], k))),
                f"diversity@{k}": float(np.nanmean(beyond_accuracy.diversity(lists, train, k))),
            }
        return FittedResult(model, found, holdout.users, history_lengths(holdout), self.sliced, by_items, variety)

    def validation_split(self, interactions: Interactions, model: Recommender, share: float, seed: int) -> Split:
        """Some users held out; where the model cannot take new users, some rows of every user instead."""
        protocol = splitting.weak if model.needs_training_users else splitting.strong
        return protocol(interactions, share=share, seed=seed, test=False)


class RatingTask(Task):
    """Predicted ratings."""

    name = "rating"
    ratings = True
    metric = "rmse"
    metrics = DEFAULT_ERRORS
    protocol = "cells"
    model = "autorec"
    models = ("global-mean", "biases", "rating-knn", "biased-mf", "autorec")
    covered = "of the held-out cells have a prediction"

    def check(self, label: str) -> None:
        """rmse or mae."""
        parse_error(label)

    def labels(self, metrics: Sequence[str]) -> tuple[str, ...]:
        """With rmse, for the slices."""
        return tuple(dict.fromkeys((*metrics, self.metric)))

    def evaluate(self, model: Recommender, holdout: Holdout, metrics: Sequence[str]) -> RatingEvaluation:
        """Errors over the held-out cells."""
        return evaluate_ratings(model.score, holdout, metrics, with_users=model.needs_training_users)

    def describe(
        self,
        model: Recommender,
        found: Evaluation,
        holdout: Holdout,
        counts: NDArray[np.int64],
        train: csr_matrix | None = None,
    ) -> FittedResult:
        """RMSE on slices of items, calibration, and what is said of cells without a prediction."""
        assert isinstance(found, RatingEvaluation)
        slices = item_slices(counts)
        by_items = {name: on_cells_of(items, found, holdout, self.metric) for name, items in slices.items()}
        said = {
            "predicted_share": found.coverage,
            "mean_error": float(np.mean(found.predicted - found.observed, dtype=np.float64)),
        }
        if train is not None:
            said["rmse_of_all_cells"] = found.rmse_of_all(float(train.data.mean(dtype=np.float64)))
        return FittedResult(
            model,
            found,
            holdout.users,
            history_lengths(holdout),
            self.metric,
            by_items,
            said,
            counts={"cells": found.cells, "cells_without_prediction": len(found.unpredicted)},
            calibration=calibration(found.predicted, found.observed),
        )

    def validation_split(self, interactions: Interactions, model: Recommender, share: float, seed: int) -> Split:
        """Some cells of the whole table held out."""
        return splitting.cells(interactions, share=share, seed=seed, test=False, ratings=True)


def history_lengths(holdout: Holdout) -> NDArray[np.int64]:
    """How many items the model sees of each user, (users,)."""
    return np.diff(holdout.history.indptr).astype(np.int64)


TASKS: dict[str, Task] = {task.name: task for task in (RankingTask(), RatingTask())}


def find_task(name: str | None, models: Sequence[str]) -> Task:
    """The task asked for, or that of the models; ranking where neither is said.

    Raises ConfigError for models of another task, or of both: their figures cannot be compared.
    """
    tasks = {model: MODELS[model].task for model in models if model in MODELS}
    found = name or next(iter(tasks.values()), "ranking")
    if found not in TASKS:
        raise ConfigError(f"Expected a task of {', '.join(TASKS)}; found {found!r}.")
    others = [model for model, task in tasks.items() if task != found]
    if others:
        raise ConfigError(
            f"Expected models of the {found} task, found {', '.join(others)} of the other one: lists are measured by "
            "what they find, predicted ratings by their errors, and no figure is common to both."
        )
    return TASKS[found]
