"""What a comparison does: its settings, and each single fit with its measurement."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from recsys.errors import ConfigError
from recsys.evaluation.code_sizes import reconstruction
from recsys.evaluation.evaluate import Validator
from recsys.evaluation.metrics import RECONSTRUCTION
from recsys.evaluation.results import FittedResult, TuningFacts
from recsys.evaluation.tasks import Task
from recsys.models import Recommender
from recsys.splitting.holdout import Holdout, Split
from recsys.system.memory import peak_memory
from recsys.training.context import TrainingContext

# Opens around a fit with its label and context, and gives the context with callbacks for progress.
Watch = Callable[[str, TrainingContext], AbstractContextManager[TrainingContext]]


def _unwatched(label: str, context: TrainingContext) -> AbstractContextManager[TrainingContext]:
    return nullcontext(context)


@dataclass(frozen=True)
class ComparisonPlan:
    """How models are compared.

    Attributes
    ----------
    metric : str
        What they are ranked by, and tuned and stopped on; that of the task where empty.
    metrics : tuple of str
        What is shown besides; those of the task where empty.
    seeds : int
        Fits of each random model, whose results are averaged over users.
    seed : int
        Of the split, the first fit, the bootstrap and the tests.
    refit : bool
        Fit again on training and validation rows together before the test.
    baselines : bool
        Add a non-personalized model and a matrix factorization where `models` has none.
    probe_trials : int
        Random settings tried for each untuned model to learn what tuning would change; 0 for none.
    latent_sizes : tuple of int
        Sizes of the code: every model that has one is compared at each of them, and measured on how much of a history
        comes back out of its code. Empty: each model as it is.
    context : TrainingContext
        Device, precision and patience of the fits.
    """

    metric: str = ""
    metrics: tuple[str, ...] = ()
    seeds: int = 1
    seed: int = 0
    refit: bool = False
    baselines: bool = True
    probe_trials: int = 3
    latent_sizes: tuple[int, ...] = ()
    context: TrainingContext = field(default_factory=TrainingContext)

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ConfigError(f"Expected at least 1 seed, found {self.seeds}.")
        if self.probe_trials < 0:
            raise ConfigError(f"Expected probe_trials of at least 0, found {self.probe_trials}.")

    def with_task_defaults(self, task: Task) -> ComparisonPlan:
        """Return the plan with the metrics of a task where none were given; ConfigError for those of another."""
        metric = self.metric or (self.metrics[0] if self.metrics else task.metric)
        metrics = tuple(dict.fromkeys((metric, *(self.metrics or task.metrics))))
        for label in metrics:
            task.check(label)
        if self.latent_sizes and task.ratings:
            raise ConfigError("Expected models of lists for latent_sizes, found models of ratings.")
        return replace(self, metric=metric, metrics=metrics)

    @property
    def shown(self) -> tuple[str, ...]:
        """The metrics of a leaderboard, the main one first."""
        more = (RECONSTRUCTION,) if self.latent_sizes else ()
        return (*self.metrics[:1], *more, *self.metrics[1:])


@dataclass(frozen=True)
class TunedSettings:
    """Settings that a search found.

    Attributes
    ----------
    by_fold : mapping of str to mapping
        By the name of the fold (empty for a single split).
    facts : TuningFacts
        How they were found.
    """

    by_fold: Mapping[str, Mapping[str, Any]]
    facts: TuningFacts


@dataclass(frozen=True)
class PlannedFit:
    """One fit that a study will make.

    Attributes
    ----------
    name : str
        What the model is called in the comparison.
    model : Recommender
        Not yet fitted.
    split : Split
        The training and validation parts.
    final : Split
        Whose test part is measured on; with `refit`, its training rows hold the validation rows too.
    seed : int
        Of the fit.
    fold : str
        Name of the fold; empty for a single split.
    plan : ComparisonPlan
    task : Task
    """

    name: str
    model: Recommender
    split: Split
    final: Split
    seed: int
    fold: str
    plan: ComparisonPlan
    task: Task

    @property
    def title(self) -> str:
        """Its name, with the fold and seed where there are several."""
        return " ".join(filter(None, (self.name, self.fold, f"seed {self.seed}" * (self.plan.seeds > 1))))

    def fit(self, watch: Watch = _unwatched) -> Recommender:
        """Fit the model on the training part, stopping on the validation part where there is one."""
        context = replace(self.plan.context, seed=self.seed, item_features=self.split.train.features)
        if self.split.validation is not None:
            validate = Validator(self.split.validation, self.plan.metric, self.model.needs_training_users)
            context = replace(context, validate=validate)
        with watch(self.name, context) as watched:
            return self.model.fit(self.split.train.matrix, watched)

    def run(self, watch: Watch = _unwatched) -> FittedResult:
        """Fit the model and measure it on the test part.

        Parameters
        ----------
        watch : callable
            `watch(label, context)` is opened around every fit and gives the context to fit with.

        Returns
        -------
        FittedResult
        """
        started = time.perf_counter()
        with peak_memory() as peak:
            validated = model = self.fit(watch)
            if self.final is not self.split:
                context = replace(self.plan.context, seed=self.seed, item_features=self.final.train.features)
                with watch(f"{self.name}, refitted on all rows", context) as watched:
                    model = validated.refit(self.final.train.matrix, watched)
        seconds = time.perf_counter() - started
        test, train = required_test(self.final), self.final.train
        evaluation = self.task.evaluate(model, test, self.task.labels(self.plan.metrics))
        described = self.task.describe(model, evaluation, test, train.item_counts, train.matrix)
        result = replace(
            described,
            epochs=validated.epochs,
            fit_seconds=seconds,
            peak_megabytes=peak.megabytes,
            seed=self.seed,
            name=self.name,
        )
        return self._with_reconstruction(result, validated) if self.plan.latent_sizes else result

    def validate(self, model: Recommender) -> float:
        """Measure a fitted model on the validation part, which must be there; higher is better."""
        assert self.split.validation is not None
        return Validator(self.split.validation, self.plan.metric, model.needs_training_users)(model.score)

    def _with_reconstruction(self, result: FittedResult, validated: Recommender) -> FittedResult:
        """Add what a choice of the size of the code needs."""
        test, model = required_test(self.final), result.model
        found = reconstruction(model.score, test, with_users=model.needs_training_users)
        averages = {**result.evaluation.averages, RECONSTRUCTION: found}
        evaluation = replace(result.evaluation, averages=averages)
        validation = None if self.split.validation is None else self.validate(validated)
        return replace(result, evaluation=evaluation, validation=validation)


def required_test(split: Split) -> Holdout:
    """Return the test part, which every comparison has; ConfigError for a split without one."""
    if split.test is None:
        raise ConfigError("Expected a split with a test part, found none: make it with test=True.")
    return split.test
