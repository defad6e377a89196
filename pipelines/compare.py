"""`recsys compare`: fit several models on the same split, rank them by the same metrics, and write a report."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import click
import pandas as pd

from recsys.artifacts import save_model
from recsys.data.interactions import Interactions
from recsys.data.item_features.encoder import FeatureEncoder
from recsys.data.item_features.features import encoder_of
from recsys.data.reading import ReadingOptions, read_titles
from recsys.errors import ConfigError
from recsys.evaluation.code_sizes import size_of
from recsys.evaluation.comparison import MARK, Comparison, ComparisonFacts
from recsys.evaluation.examples import examples
from recsys.evaluation.plan import ComparisonPlan, PlannedFit, required_test
from recsys.evaluation.results import FittedResult, ModelResult
from recsys.evaluation.study import Study, prepare
from recsys.evaluation.tasks import Task, find_task
from recsys.models import Recommender, create_model
from recsys.models.trained import TrainedModel
from recsys.reporting import plotting
from recsys.reporting.report import render
from recsys.splitting import FOLDS
from recsys.splitting.holdout import Split
from recsys.system.atomic import new_directory, refuse_existing
from recsys.system.storage import Location
from recsys.system.text import plural
from recsys.tracking.tracker import Run, Tracker
from recsys.tuning import Budget, Search, Tuned, tuned_settings

from .cli.features import FeatureFlags
from .cli.interrupts import resumable
from .cli.options import SEED, LocationType, options_from, parse_settings, setting
from .cli.output import as_json, cells_text, decimal, print_json, say, table, wrapped
from .cli.progress import activity
from .cli.reading import in_order_for, read_for, remembered_reading
from .cli.settings import FittingOptions, SplitOptions, TrackingOptions, comma_list
from .cli.steps import (
    TRIALS,
    fit_context,
    log_calibration,
    log_data,
    log_epochs,
    log_settings,
    resume_hint,
    search_settings,
    shown,
    trials_file,
    write_best,
)
from .cli.unknown import UnknownIds, find_unknown, note_unknown

SHARED = (MARK, "comparison.json", "report.html")  # what is tracked: no ids of users are in these

Searches = Mapping[str, Mapping[str, Tuned]]  # by model, then by fold


@dataclass(frozen=True)
class CompareJob:
    """Which models to compare on which ratings, how they are split and tuned, and where the results go."""

    ratings: tuple[Location, ...]
    output: Path = setting(Path("comparison"), "Folder for the leaderboard and the report.", "--output", "-o")
    models: str = setting("", "Models, separated by commas; a few of the task by default.", "--models", "-m")
    settings: tuple[str, ...] = setting((), "Setting of one model, model.key=value.", "--set", "-s", multiple=True)
    latent_sizes: str = setting(
        "", "Sizes of the code, separated by commas: each model that has a code is compared at each of them."
    )
    tune: int = setting(0, "Trials of settings for each model, on the validation part, before the models are compared.")
    tune_minutes: float | None = setting(None, "Minutes of trials for each model, instead of their number.")
    probes: int = setting(
        3, "Without --tune: random settings tried for each model, to tell how much it would gain; 0 for none."
    )
    baselines: bool = setting(True, "Add a non-personalized model and a matrix factorization where there are none.")
    resume: bool = setting(False, "Continue after the trials of an interrupted comparison in OUTPUT.")
    seeds: int = setting(1, "Seeds for each model that is random; its metrics are averaged over them.")
    folds: int | None = setting(
        None, "Test every user (strong) or cell (cells) once, in this many folds, instead of one test part."
    )
    refit: bool = setting(False, "Before the test, fit again on training and validation rows together.")
    metrics: str = setting("", "Metrics, separated by commas; the usual ones of the task by default.")
    titles: Path | None = setting(None, "File of item titles, for the lists in the report.")
    examples: int = setting(3, "Users whose lists the report shows, without their ids; 0 for none.")
    save_models: bool = setting(False, "Keep the fitted models in OUTPUT/models.")
    seed: int = setting(0, "Seed of the split, the weights and the batches.", kind=SEED)
    overwrite: bool = setting(False, "Replace an existing comparison.")
    task: Literal["ranking", "rating"] | None = setting(
        None, "Lists, or predicted ratings; the task of the models by default."
    )
    who: SplitOptions = field(default_factory=SplitOptions)
    features: FeatureFlags = field(default_factory=FeatureFlags)
    fitting: FittingOptions = field(default_factory=FittingOptions)
    tracking: TrackingOptions = field(default_factory=TrackingOptions)
    reading: ReadingOptions = field(default_factory=ReadingOptions)

    def __post_init__(self) -> None:
        foldable = self.who.protocol in (None, *FOLDS) and self.who.test is None
        if self.folds is not None and (self.save_models or not foldable):
            raise ConfigError("Expected --folds without --save-models, --test, or a protocol that has no folds.")
        if not all(size.isdecimal() for size in comma_list(self.latent_sizes)):
            raise ConfigError(
                f"Expected whole numbers separated by commas for --latent-sizes, found {self.latent_sizes!r}."
            )

    @property
    def sizes(self) -> list[int]:
        """The sizes of the code; empty where every model has its own."""
        return [int(size) for size in comma_list(self.latent_sizes)]

    @property
    def budget(self) -> Budget | None:
        """The budget of each model's search; None where settings stay as they are."""
        wanted = self.tune or self.tune_minutes is not None
        return Budget(self.tune or 1, self.tune_minutes) if wanted else None

    def with_task_defaults(self, task: Task[Any]) -> CompareJob:
        """Fill in what was not given with the defaults of the task."""
        models, fitting = self.models or ",".join(task.models), self.fitting.with_task_defaults(task)
        return replace(self, task=task.name, models=models, fitting=fitting)

    def plan(self, task: Task[Any]) -> ComparisonPlan:
        """The plan of the comparison in the library's terms."""
        plan = ComparisonPlan(
            self.fitting.metric,
            tuple(comma_list(self.metrics)) or task.metrics_of(self.who.protocol),
            seeds=self.seeds,
            seed=self.seed,
            refit=self.refit,
            baselines=self.baselines,
            probe_trials=0 if self.budget or self.sizes else self.probes,
            latent_sizes=tuple(self.sizes),
            context=fit_context(self.fitting, self.seed),
        )
        return plan.with_task_defaults(task)


@dataclass(frozen=True)
class Compared:
    """What the comparison found, its folder, the account of the rows, and ids in files that the models do not know."""

    comparison: Comparison
    directory: Path
    ledger: str
    unknown: Mapping[str, UnknownIds]

    @property
    def leaderboard(self) -> pd.DataFrame:
        """One row for each model, best first."""
        return self.comparison.leaderboard


def run(job: CompareJob) -> Compared:
    """Compare the models. What can be refused is refused before the data are read."""
    task = find_task(job.task, comma_list(job.models))
    job = job.with_task_defaults(task)
    models = chosen_models(job)
    job.features.require_for(list(models.values()))
    plan, trials = job.plan(task), place_of_trials(job)
    titles = {} if job.titles is None else read_titles(job.titles)
    interactions = in_order_for(read_for(task, job.ratings, job.reading), list(models.values()))
    interactions = job.features.add_to(interactions, list(models.values()))
    with activity("splitting"):
        study = prepare(make_splits(job, interactions, task), models, plan)
    first = next(iter(study.finals.values()))
    unknown = {"titles": find_unknown(titles, first.train.items)} if titles else {}
    note_unknown(unknown, "the training data")
    tracker = job.tracking.open()
    with tracker.run("compare", "compare") as tracked:
        data = log_data(tracked, interactions, first)
        searches = {} if trials is None else search_all(study, job, trials, tracker, interactions)
        mark = MARK if trials is None else TRIALS
        with new_directory(job.output, mark, job.overwrite or trials is not None) as folder:
            how_read = remembered_reading(interactions), encoder_of(interactions)
            found = measure_all(study, job, searches, tracker, folder, *how_read)
            with activity("writing the report"):
                write(folder, found, job, data, first, titles)
            if trials is not None:
                write_settings(folder, searches, study.models, trials)
        tracked.log_figure(partial(plotting.leaderboard, found.leaderboard, plan.metric), "leaderboard")
        for name in SHARED:
            tracked.log_artifact(job.output / name)
    return Compared(found, job.output, interactions.ledger.line(), unknown)


def chosen_settings(job: CompareJob) -> dict[str, dict[str, str]]:
    """Settings of each model by its name. Raises an error for a setting of a model that is not compared."""
    names = comma_list(job.models)
    if not names:
        raise ConfigError(f"Expected models separated by commas for -m, found {job.models!r}.")
    chosen: dict[str, dict[str, str]] = {name: {} for name in names}
    for key, value in parse_settings(job.settings).items():
        name, dot, rest = key.partition(".")
        if not dot or name not in chosen:
            raise click.UsageError(f"Expected -s MODEL.setting=value of {', '.join(names)}; found {key!r}.")
        chosen[name][rest] = value
    return chosen


def chosen_models(job: CompareJob) -> dict[str, Recommender]:
    """The models by name. Raises an error if the size of a code is given twice."""
    settings = chosen_settings(job)
    models = {name: create_model(name, given) for name, given in settings.items()}
    sized = [f"{name}.{model.size_setting}" for name, model in models.items() if model.size_setting in settings[name]]
    if job.sizes and sized:
        raise click.UsageError(f"Expected --latent-sizes without -s {sized[0]}: both give the size of the code.")
    return models


def place_of_trials(job: CompareJob) -> Path | None:
    """The file of the trials of all models; None where nothing is tuned. Refuses to replace what is not ours."""
    if job.budget is None:
        if job.resume:
            raise ConfigError("Expected --resume together with --tune: without trials there is nothing to resume.")
        refuse_existing(job.output, MARK, job.overwrite)
        return None
    return trials_file(job.output, job.resume, job.overwrite, MARK)


def make_splits(job: CompareJob, interactions: Interactions, task: Task[Any]) -> dict[str, Split]:
    """The splits to compare on, by name: one without a name, or the folds."""
    if job.folds is not None:
        return dict(job.who.folds(interactions, job.folds, job.seed, task))
    return {"": job.who.split(interactions, job.reading, job.seed, task)}


def search_all(
    study: Study, job: CompareJob, trials: Path, tracker: Tracker, interactions: Interactions
) -> dict[str, dict[str, Tuned]]:
    """Tune every model with the same budget and the same validation part, on every fold."""
    assert job.budget is not None
    given, found = chosen_settings(job), dict[str, dict[str, Tuned]]()
    for name, model in study.models.items():
        fixed, found[name] = {**given.get(model.name, {}), **(size_of(model) if job.sizes else {})}, {}
        for fold, split in study.splits.items():
            search = Search(model.name, fixed, split, study.plan.metric, job.seed, fold, name)
            found[name][fold] = search_settings(search, job.budget, trials, job.fitting, tracker, interactions)
    return found


def measure_all(
    study: Study,
    job: CompareJob,
    searches: Searches,
    tracker: Tracker,
    folder: Path,
    reading: Mapping[str, Any],
    encoder: FeatureEncoder | None,
) -> Comparison:
    """Fit and measure every model, with the settings found for it, and rank the results.

    reading, encoder: for saved models.
    """
    results: list[ModelResult] = []
    for name in study.models:
        tuned = tuned_settings(searches[name]) if searches else None
        result = study.measure(name, tuned, partial(measure, tracker=tracker))
        if job.save_models:
            keep(result.first, study.finals[""], reading, folder / "models" / name, encoder)
        results.append(result)
    with activity("trying other settings of each model"):
        probes = study.probe(results)
    return study.conclude(results, probes)


def measure(planned: PlannedFit, tracker: Tracker) -> FittedResult:
    """Fit one model and measure it on the test part, in a run of its own."""
    metric = planned.plan.metric
    with tracker.run(planned.title, "fit") as tracked, activity(f"{planned.title}: fitting and evaluating"):
        log_settings(tracked, planned.model, planned.seed)
        fitted = planned.run(partial(shown, metric=metric))
        log_epochs(tracked, fitted.epochs, metric)
        log_result(tracked, fitted, planned.plan.shown)
    return fitted


def log_result(run: Run, fitted: FittedResult, metrics: tuple[str, ...]) -> None:
    """Track metrics and costs of one fit."""
    found = fitted.evaluation
    run.log_metrics({label: found.averages[label].mean for label in metrics} | dict(fitted.beyond_accuracy))
    log_calibration(run, fitted)
    costs = ModelResult([[fitted]]).costs()
    run.log_metrics({"megabytes": costs["megabytes"], "users_per_second": costs["users_per_second"]})
    if costs["fit_seconds"] is not None:
        run.log_metrics({"fit_seconds": costs["fit_seconds"]})


def keep(
    fitted: FittedResult, split: Split, reading: Mapping[str, Any], directory: Path, encoder: FeatureEncoder | None
) -> None:
    """Save the fitted model."""
    train, encoder = split.train, encoder if fitted.model.uses_features else None
    about = {"metrics": fitted.evaluation.means(), "seed": fitted.seed, "reading": dict(reading)}
    trained = TrainedModel(fitted.model, train.items, train.item_counts, train.users, about, features=encoder)
    save_model(directory, trained)


def write(
    folder: Path, found: Comparison, job: CompareJob, data: dict[str, Any], split: Split, titles: Mapping[str, str]
) -> None:
    """Write the leaderboard, everything in JSON, the values of every user, and the report."""
    found.write(folder, {"data": data})
    train = split.train
    lists = examples(found.ranked.results, required_test(split), train.items, train.item_counts, titles, job.examples)
    facts = cast(ComparisonFacts, {**found.facts(), "data": data})
    (folder / "report.html").write_text(render(facts, lists), encoding="utf-8")


def write_settings(folder: Path, searches: Searches, models: Mapping[str, Recommender], trials: Path) -> None:
    """Write the best settings of every model, for `train --config`, and the trials they came from."""
    shutil.copy2(trials, folder / TRIALS)
    for name, by_fold in searches.items():
        for fold, tuned in by_fold.items():
            write_best(folder / "settings" / fold / f"{name}.toml", tuned, asdict(models[name].config))


@click.command("compare")
@click.argument("ratings", type=LocationType(), nargs=-1, required=True)
@options_from(CompareJob)
def command(job: CompareJob) -> None:
    """Fit several models on the same split of RATINGS and rank them on its test part."""
    with nullcontext() if job.budget is None else resumable(lambda: resume_hint(job.output), job.output):
        found = run(job)
    report(found)


def report(found: Compared) -> None:
    """Print where the settings come from, the leaderboard and the conclusions."""
    comparison = found.comparison
    if as_json():
        names = ("note", "conclusions", "protocol", "split", "left_out", "best_sizes")
        facts = {name: getattr(comparison, name) for name in names}
        facts |= {"metric": comparison.ranked.metric, "refused": comparison.refused, "ledger": found.ledger}
        facts |= {"unknown": {name: asdict(ids) for name, ids in found.unknown.items()}, "directory": found.directory}
        print_json({**facts, "leaderboard": found.leaderboard.to_dict("records")})
        return
    say(wrapped(comparison.note))
    say(found.ledger)
    say(leaderboard_text(found.leaderboard, comparison.ranked.metric, comparison.left_out))
    if comparison.best_sizes:
        say(wrapped(f"Best size of the code on the validation part: {', '.join(comparison.best_sizes.values())}."))
        say()
    for line in comparison.conclusions:
        say(wrapped(line, "    "))
    for name, reason in comparison.refused.items():
        say(wrapped(f"{name} left out: {reason}", "    "))
    say(f"\nReport: {found.directory}/report.html")
    say("Beside it: leaderboard.csv, comparison.json, per_user.parquet")


def leaderboard_text(board: pd.DataFrame, metric: str, left_out: int = 0) -> str:
    """Main metric with its interval, the next two, and the costs, in 80 columns; how many users could not be tested."""
    others = [label for label in map(str, board) if f"{label}_low" in board and label not in (metric, "difference")][:2]
    first, *_ = lines = board.to_dict("records")
    rows = [
        (
            row["model"],
            f"{decimal(row[metric])} [{decimal(row[f'{metric}_low'], 3)}, {decimal(row[f'{metric}_high'], 3)}]",
            *(decimal(row[label]) for label in others),
            f"{row['fit_seconds']:.1f}",
            f"{row['users_per_second']:,.0f}",
        )
        for row in lines
    ]
    board_text = table(rows, ("model", f"{metric} [95 %]", *others, "fit s", "users/s"))
    more = f"; {plural(left_out, 'more user')} without a history or a held-out item in the training data"
    tested = wrapped(f"{plural(first['users'], 'test user')}{cells_text(first)}{more if left_out else ''}.")
    return f"\n{board_text}\n\n{tested}\n"
