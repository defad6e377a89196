"""Fit several models on the same splits, measure them alike, and rank them: the study behind a comparison.

```
compare(interactions, ["ease", "vae"])           everything in one call, or step by step:

study = prepare(splits, models, plan)            what will be fitted on what
study.measure(name)   for every model            fit on each fold, under each seed; measure on the test part
study.conclude(results, study.probe(results))    the ranking, and what tuning would change
```
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from recsys.data.interactions import Interactions
from recsys.data.order import for_models
from recsys.data.reading import ReadingOptions
from recsys.data.reading.for_task import read_for_task
from recsys.errors import ConfigError, UnsupportedError
from recsys.evaluation.code_sizes import at_sizes
from recsys.evaluation.comparison import Comparison, rank
from recsys.evaluation.plan import ComparisonPlan, PlannedFit, TunedSettings, required_test
from recsys.evaluation.probe import Probe, probe_model
from recsys.evaluation.results import FittedResult, ModelResult
from recsys.evaluation.tasks import Task, find_task
from recsys.models import MODELS, Recommender, create_model
from recsys.splitting import PROTOCOLS, train_on_validation
from recsys.splitting.holdout import Split


@dataclass(frozen=True)
class Study:
    """Models and the splits they are fitted and measured on; `prepare` makes one.

    Attributes
    ----------
    models : mapping of str to Recommender
        Not fitted, with their settings, by their names in the comparison; those that can score the test users.
    splits : mapping of str to Split
        By the name of the fold; empty for a single split.
    finals : mapping of str to Split
        The same, with validation rows among the training rows if `plan.refit`.
    plan : ComparisonPlan
    task : Task
    refused : mapping of str to str
        Why other models were left out.
    """

    models: Mapping[str, Recommender]
    splits: Mapping[str, Split]
    finals: Mapping[str, Split]
    plan: ComparisonPlan
    task: Task
    refused: Mapping[str, str]

    def fits(self, name: str, tuned: TunedSettings | None = None) -> list[list[PlannedFit]]:
        """List the fits of a model: one inner list per fold, with one fit per seed if the model is random."""
        model = self.models[name]
        seeds = range(self.plan.seed, self.plan.seed + (self.plan.seeds if model.is_random else 1))
        return [
            [
                PlannedFit(
                    name,
                    type(model)(replace(model.config, **({} if tuned is None else tuned.by_fold[fold]))),
                    split,
                    self.finals[fold],
                    seed,
                    fold,
                    self.plan,
                    self.task,
                )
                for seed in seeds
            ]
            for fold, split in self.splits.items()
        ]

    def measure(
        self,
        name: str,
        tuned: TunedSettings | None = None,
        run: Callable[[PlannedFit], FittedResult] = PlannedFit.run,
    ) -> ModelResult:
        """Fit a model on every fold, under every seed, and measure it.

        Parameters
        ----------
        name : str
            Of one of `models`.
        tuned : TunedSettings, optional
            Settings to use on each fold.
        run : callable
            What makes one fit: a function around `PlannedFit.run` may show progress or keep a record.

        Returns
        -------
        ModelResult
        """
        folds = [[run(planned) for planned in fold] for fold in self.fits(name, tuned)]
        return ModelResult(folds, None if tuned is None else tuned.facts)

    def probe(self, results: Sequence[ModelResult]) -> list[Probe]:
        """Try a few random settings of every untuned model on the validation part of the first fold.

        Parameters
        ----------
        results : sequence of ModelResult
            Of untuned models with the settings given; others are passed over.

        Returns
        -------
        list of Probe
            Empty without a validation part, or with `probe_trials` of 0.
        """
        trials = self.plan.probe_trials
        if not trials or next(iter(self.splits.values())).validation is None:
            return []
        untuned = [result for result in results if result.tuning is None]
        return [probe_model(self.fits(result.name)[0][0], result.first, trials) for result in untuned]

    def conclude(self, results: Sequence[ModelResult], probes: Sequence[Probe] = ()) -> Comparison:
        """Rank the results and say which differences hold."""
        ranked = rank(results, self.plan.metric, self.plan.shown, self.plan.seed)
        first = next(iter(self.finals.values()))
        left_out = sum(required_test(split).left_out for split in self.finals.values())
        return Comparison(ranked, first.protocol, first.facts, left_out, self.refused, probes)


Data = Interactions | Split | Mapping[str, Split] | pd.DataFrame | str | Path

Models = Sequence[str | Recommender] | Mapping[str, Recommender]

Tuner = Callable[[Study, str], TunedSettings]


def compare(
    data: Data,
    models: Models | None = None,
    plan: ComparisonPlan | None = None,
    *,
    tuner: Tuner | None = None,
) -> Comparison:
    """Compare models on the same split, with the same histories, masks and metrics.

    Parameters
    ----------
    data : Interactions, DataFrame, path, Split, or mapping of str to Split
        Interactions, or a table of them, are split by the protocol of the task; several splits are folds, by name.
    models : sequence of str or Recommender, or mapping of str to Recommender, optional
        Names, or models with settings (a fit they may have had is not used); a few of the task without it. A mapping
        gives them names of its own, so that one model can be compared with itself under other settings.
    plan : ComparisonPlan, optional
        Metrics, seeds, baselines and so on.
    tuner : callable, optional
        Finds the settings of a model, such as `recsys.tuning.Tuner(trials=15)`; without it, settings stay as they are.

    Returns
    -------
    Comparison
        With `leaderboard`, `conclusions`, `note` and `save`.

    Raises
    ------
    ConfigError
        For unknown models or metrics, models of two tasks, or a repeated model.
    DataError
        If the data cannot be split.
    UnsupportedError
        If no model can score the test users, or a tuner or `refit` finds no validation part.
    """
    study = prepare(data, models, plan)
    results = [study.measure(name, None if tuner is None else tuner(study, name)) for name in study.models]
    return study.conclude(results, study.probe(results))


def prepare(data: Data, models: Models | None = None, plan: ComparisonPlan | None = None) -> Study:
    """Decide what will be fitted on what: tasks, metrics, splits, baselines, and models that cannot take part.

    Parameters and errors are those of `compare`.

    Returns
    -------
    Study
    """
    given = _by_name(models or ())
    task = find_task(None, [model.name for model in given.values()])
    plan = (plan or ComparisonPlan()).with_task_defaults(task)
    chosen = given or _by_name(task.models)
    if plan.latent_sizes:
        chosen = at_sizes(chosen, plan.latent_sizes)
    if plan.baselines:
        chosen |= _by_name(missing_baselines(task, list(chosen.values())))
    splits = _splits(data, task, plan.seed, list(chosen.values()))
    finals = {name: _final(split, plan.refit) for name, split in splits.items()}
    able, refused = _split_by_ability(chosen, next(iter(finals.values())))
    return Study(able, splits, finals, plan, task, refused)


def _by_name(models: Models) -> dict[str, Recommender]:
    """Models by their names in the comparison; ConfigError for a name that occurs twice."""
    if isinstance(models, Mapping):
        return dict(models)
    made = [create_model(each) if isinstance(each, str) else each for each in models]
    if len({model.name for model in made}) < len(made):
        raise ConfigError(
            f"Expected each model once, found {', '.join(model.name for model in made)}: give a mapping of names of "
            "your own to models."
        )
    return {model.name: model for model in made}


def missing_baselines(task: Task, models: Sequence[Recommender]) -> list[Recommender]:
    """Return what a comparison should not be without: a non-personalized model and a matrix factorization."""
    families = {model.family for model in models}
    popular, factorization = task.baselines
    if factorization == "als" and find_spec("implicit") is None:
        factorization = "ials"  # needs no further package
    wanted = [name for name in (popular, factorization) if MODELS[name].family not in families]
    return [create_model(name) for name in wanted]


def _splits(data: Data, task: Task, seed: int, models: Sequence[Recommender]) -> dict[str, Split]:
    if isinstance(data, Split):
        return {"": data}
    if isinstance(data, Mapping):
        if not data:
            raise ConfigError("Expected at least one split, found none.")
        return dict(data)
    interactions = data if isinstance(data, Interactions) else read_for_task(task.name, data, ReadingOptions())
    interactions = for_models(interactions, models)
    return {"": PROTOCOLS[task.protocol](interactions, seed=seed, ratings=task.ratings)}


def _final(split: Split, refit: bool) -> Split:
    """The split whose training rows the tested models learn: with the validation rows among them, if wanted."""
    return train_on_validation(split) if refit else split


def _split_by_ability(models: Mapping[str, Recommender], split: Split) -> tuple[dict[str, Recommender], dict[str, str]]:
    """Models that can score the test users, and the reason for each that cannot."""
    test = required_test(split)
    if (test.train_rows >= 0).all():
        return dict(models), {}
    reason = f"knows only users it was trained on; the {split.protocol} protocol tests on others"
    refused = {name: reason for name, model in models.items() if model.needs_training_users}
    if len(refused) == len(models):
        raise UnsupportedError(f"No model left: {', '.join(refused)}: {reason}. Use the weak protocol.")
    return {name: model for name, model in models.items() if name not in refused}, refused
