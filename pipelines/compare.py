"""Compare models: the same split, histories, mask, cut, metrics and budget for all; the losers are shown too."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import click
import pandas as pd

from recsys.artifacts import save_model
from recsys.data.interactions import Interactions
from recsys.data.reading import ReadingOptions, read_titles
from recsys.errors import ConfigError, UnsupportedError
from recsys.evaluation import comparison
from recsys.evaluation.comparison import FittedResult, RankedResults, Result
from recsys.evaluation.tasks import TASKS, Task, find_task
from recsys.models import Recommender, create_model
from recsys.reporting import plotting
from recsys.reporting.report import render
from recsys.splitting import FOLDS
from recsys.splitting.holdout import Holdout, Split
from recsys.system.atomic import new_directory, refuse_existing, write_json
from recsys.system.hardware import versions
from recsys.system.memory import peak_memory
from recsys.system.storage import Location
from recsys.tracking.tracker import Tracker
from recsys.tuning import Budget, Search, Tuned

from .cli.options import SEED, LocationType, options_from, parse_settings, setting
from .cli.output import as_json, cells_text, print_json, table, wrapped
from .cli.settings import FittingOptions, SplitOptions, TrackingOptions, comma_list, meaning, read_for
from .cli.steps import (
    TRIALS,
    fit_model,
    log_calibration,
    log_data,
    refit_model,
    resumable,
    search_settings,
    trials_file,
    write_best,
)

MARK = "leaderboard.csv"
SHARED = (MARK, "comparison.json", "report.html")  # what the tracker gets: no ids of people are in these


@dataclass(frozen=True)
class CompareJob:
    """Which models, on what, divided how, tuned how long, and where the leaderboard goes."""

    ratings: tuple[Location, ...]
    output: Path = setting(Path("comparison"), "Folder for the leaderboard and the report.", "--output", "-o")
    models: str = setting("", "Models, separated by commas; a few of the task without it.", "--models", "-m")
    settings: tuple[str, ...] = setting((), "Setting of one model, model.key=value.", "--set", "-s", multiple=True)
    tune: int = setting(0, "Settings to try for each model on the validation users before it is compared.", "--tune")
    tune_minutes: float | None = setting(None, "Minutes of trials for each model, in place of their number.")
    resume: bool = setting(False, "Go on with the trials of an interrupted comparison in OUTPUT.")
    seeds: int = setting(1, "Seeds to fit each model under that draws at random; its scores are averaged.")
    folds: int | None = setting(
        None, "Test every user (strong) or cell (cells) once, in so many folds, in place of one held-out part."
    )
    refit: bool = setting(False, "Before the test, fit again on training and validation rows together.")
    metrics: str = setting("", "Metrics, separated by commas; the usual ones of the task without it.")
    titles: Path | None = setting(None, "Table of item titles, for the lists in the report.")
    examples: int = setting(3, "Users whose lists the report shows, without their ids; 0 for none.")
    save_models: bool = setting(False, "Keep the fitted models in OUTPUT/models.")
    seed: int = setting(0, "Seed of the split, the weights and the batches.", kind=SEED)
    overwrite: bool = setting(False, "Replace an earlier comparison.")
    task: Literal["ranking", "rating"] | None = setting(
        None, "Lists, or predicted ratings; the models' own without it."
    )
    who: SplitOptions = field(default_factory=SplitOptions)
    fitting: FittingOptions = field(default_factory=FittingOptions)
    tracking: TrackingOptions = field(default_factory=TrackingOptions)
    reading: ReadingOptions = field(default_factory=ReadingOptions)

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ConfigError(f"Expected at least 1 seed, found {self.seeds}.")
        foldable = self.who.protocol in (None, *FOLDS) and self.who.test is None
        if self.folds is not None and (self.save_models or not foldable):
            raise ConfigError("Expected --folds without --save-models, --test, or a protocol that has no folds.")

    @property
    def budget(self) -> Budget | None:
        """Of each model's search; None where the settings stay as they are."""
        wanted = self.tune or self.tune_minutes is not None
        return Budget(self.tune or 1, self.tune_minutes) if wanted else None

    def of(self, task: Task) -> CompareJob:
        """The same with what is usual for the task where nothing was said."""
        models, metrics = self.models or ",".join(task.models), self.metrics or ",".join(task.metrics)
        return replace(self, task=task.name, models=models, metrics=metrics, fitting=self.fitting.of(task))


@dataclass(frozen=True)
class Comparison:
    """The leaderboard (best first), what was said of it, who was refused and why, how the data were divided, how many
    held-out users could not be tested."""

    leaderboard: pd.DataFrame
    verdicts: list[str]
    refused: Mapping[str, str]
    facts: Mapping[str, int]
    left_out: int
    ledger: str
    directory: Path
    task: str
    metric: str


def run(job: CompareJob) -> Comparison:
    """Do the job. What can be refused is refused before the data are read."""
    task = find_task(job.task, comma_list(job.models))
    job = job.of(task)
    metrics = tuple(dict.fromkeys((job.fitting.metric, *comma_list(job.metrics))))
    for label in metrics:
        task.check(label)
    models = [create_model(name, chosen) for name, chosen in model_settings(job).items()]
    trials = place_of_trials(job)
    titles = {} if job.titles is None else read_titles(job.titles)
    interactions = read_for(task, job.ratings, job.reading)
    splits = dict(divisions(job, interactions))
    finals = {name: for_the_test(split, job.refit) for name, split in splits.items()}
    first = next(iter(finals.values()))
    able, refused = split_by_ability(models, first)
    tracker = job.tracking.open()
    with tracker.run("compare", "compare") as tracked:
        data = log_data(tracked, interactions, first)
        tuned = {} if trials is None else search_all(able, job, splits, trials, tracker, interactions)
        mark = MARK if trials is None else TRIALS
        with new_directory(job.output, mark, job.overwrite or trials is not None) as place:
            results = [measure_all(model, splits, finals, tuned, job, metrics, tracker, place) for model in able]
            standing = comparison.rank(results, job.fitting.metric, metrics, job.seed)
            facts = {
                "data": data,
                "protocol": first.protocol,
                "split": dict(first.facts),
                "refused": refused,
                **comparison.facts(standing),
                "versions": versions(),
            }
            people = (test_part(first), first.train.items, first.train.item_counts)
            examples = comparison.examples(standing.results, *people, titles, job.examples)
            write(place, standing, facts)
            (place / "report.html").write_text(render(facts, examples), encoding="utf-8")
            write_settings(place, tuned, models, trials)
        board = comparison.leaderboard(standing)
        tracked.log_figure(lambda: plotting.leaderboard(board, job.fitting.metric), "leaderboard")
        for name in SHARED:
            tracked.log_artifact(job.output / name)
    return Comparison(
        board,
        standing.verdicts(),
        refused,
        first.facts,
        sum(test_part(split).left_out for split in finals.values()),
        interactions.ledger.line(),
        job.output,
        task.name,
        job.fitting.metric,
    )


def divisions(job: CompareJob, interactions: Interactions) -> Iterator[tuple[str, Split]]:
    """The splits to compare on, by name: one without a name, or the folds."""
    task = TASKS[job.task or "ranking"]
    if job.folds is not None:
        yield from job.who.folds(interactions, job.folds, job.seed, task)
    else:
        yield "", job.who.split(interactions, job.reading, job.seed, task)


def for_the_test(split: Split, refit: bool) -> Split:
    """The split whose training rows the tested models learn: with the validation rows among them, if wanted."""
    if not refit:
        return split
    if split.refit is None:
        raise UnsupportedError(
            "Expected validation rows that training could have had, for --refit; "
            f"the {split.protocol} protocol has none."
        )
    return split.refit()


def model_settings(job: CompareJob) -> dict[str, dict[str, str]]:
    """Settings of each model of the comparison; raises ConfigError for a setting of a model that is not in it."""
    names = comma_list(job.models)
    if not names:
        raise ConfigError(f"Expected models separated by commas for -m, found {job.models!r}.")
    chosen: dict[str, dict[str, str]] = {name: {} for name in names}
    for key, value in parse_settings(job.settings).items():
        name, dot, rest = key.partition(".")
        if not dot or name not in chosen:
            raise click.UsageError(f"Expected -s MODEL.key=value with a model of {', '.join(names)}; found {key!r}.")
        chosen[name][rest] = value
    return chosen


def place_of_trials(job: CompareJob) -> Path | None:
    """Where the trials of all models are kept; None where nothing is tuned. Refuses to write over what is there."""
    if job.budget is None:
        if job.resume:
            raise ConfigError("Expected --resume beside --tune: without trials there is nothing to go on with.")
        refuse_existing(job.output, MARK, job.overwrite)
        return None
    return trials_file(job.output, job.resume, job.overwrite, MARK)


def split_by_ability(models: list[Recommender], split: Split) -> tuple[list[Recommender], dict[str, str]]:
    """Models that can score the test users, and the reason for each that cannot."""
    test = test_part(split)
    if (test.train_rows >= 0).all():
        return models, {}
    reason = f"knows only users it was trained on; the {split.protocol} protocol tests on others"
    refused = {model.name: reason for model in models if model.needs_training_users}
    if len(refused) == len(models):
        raise UnsupportedError(f"No model left: {', '.join(refused)}: {reason}. Use --protocol weak.")
    return [model for model in models if model.name not in refused], refused


def test_part(split: Split) -> Holdout:
    """The test part, which every comparison has."""
    assert split.test is not None
    return split.test


def search_all(
    models: list[Recommender],
    job: CompareJob,
    splits: Mapping[str, Split],
    trials: Path,
    tracker: Tracker,
    interactions: Interactions,
) -> dict[tuple[str, str], Tuned]:
    """The same budget and the same validation users for every model, on every fold; by fold and model."""
    assert job.budget is not None
    chosen, found = model_settings(job), {}
    for model in models:
        for fold, split in splits.items():
            search = Search(model.name, chosen[model.name], split, job.fitting.metric, job.seed, fold)
            found[fold, model.name] = search_settings(search, job.budget, trials, job.fitting, tracker, interactions)
    return found


def measure_all(
    model: Recommender,
    splits: Mapping[str, Split],
    finals: Mapping[str, Split],
    tuned: Mapping[tuple[str, str], Tuned],
    job: CompareJob,
    metrics: tuple[str, ...],
    tracker: Tracker,
    place: Path,
) -> Result:
    """Fit a model on every fold, under every seed if it draws at random, with the settings found there."""
    folds = []
    for fold, split in splits.items():
        found = tuned.get((fold, model.name))
        config = model.config if found is None else replace(model.config, **found.best.settings)
        seeds = range(job.seed, job.seed + (job.seeds if model.is_random else 1))
        last = finals[fold]
        folds.append([measure(type(model)(config), split, job, seed, metrics, tracker, fold, last) for seed in seeds])
    result = Result(folds, tuning_facts([tuned[fold, model.name] for fold in splits]) if tuned else None)
    if job.save_models:
        keep(result.first, next(iter(finals.values())), job.reading, place / "models" / model.name)
    return result


def measure(
    model: Recommender,
    split: Split,
    job: CompareJob,
    seed: int,
    metrics: tuple[str, ...],
    tracker: Tracker,
    fold: str,
    final: Split | None = None,
) -> FittedResult:
    """Fit one model and measure it on the test part, in a run of its own; `final`: see for_the_test."""
    task, last = TASKS[model.task], final or split
    title = " ".join(filter(None, (model.name, fold, f"seed {seed}" if job.seeds > 1 else "")))
    with tracker.run(title, "fit") as tracked:
        started = time.perf_counter()
        with peak_memory() as peak:
            fit_model(model, split, job.fitting, seed, tracked)
            if last is not split:
                model = refit_model(model, last, job.fitting, seed)
        seconds = time.perf_counter() - started
        found = task.evaluate(model, test_part(last), task.labels(metrics))
        described = task.describe(model, found, test_part(last), last.train.item_counts, last.train.matrix)
        fit = replace(described, fit_seconds=seconds, peak_megabytes=peak.megabytes, seed=seed)
        tracked.log_metrics({label: found.averages[label].mean for label in metrics} | dict(fit.beyond))
        log_calibration(tracked, fit)
        costs = {"fit_seconds": seconds, "megabytes": fit.megabytes, "users_per_second": found.n_users / found.seconds}
        tracked.log_metrics(costs)
    return fit


def tuning_facts(found: list[Tuned]) -> dict[str, Any]:
    """How the settings came about, for the report: of the first fold, and all trials together."""
    first, best = found[0], found[0].best
    trials = [trial for tuned in found for trial in tuned.trials]
    return {
        "trials": len(trials),
        "pruned": sum(trial.state == "pruned" for trial in trials),
        "failed": sum(trial.state == "failed" for trial in trials),
        "seconds": sum(trial.seconds for trial in trials),
        "defaults": first.trials[0].value,
        "best": best.value,
        "best_trial": best.number,
        "values": [trial.value if trial.state == "complete" else None for trial in first.trials],
        "settings": dict(best.settings),
    }


def keep(fit: FittedResult, split: Split, reading: ReadingOptions, directory: Path) -> None:
    """Save the fitted model."""
    train = split.train
    about = {"metrics": fit.evaluation.means(), "seed": fit.seed, "reading": meaning(reading)}
    save_model(directory, fit.model, train.items, train.item_counts, train.users, about)


def write(place: Path, standing: RankedResults, facts: dict[str, Any]) -> None:
    """Leaderboard, everything in JSON, and the values of every user."""
    comparison.leaderboard(standing).to_csv(place / MARK, index=False)
    write_json(place / "comparison.json", facts)
    frames = [
        pd.DataFrame(
            {"model": result.name, "user_id": result.users.to_pylist()}
            | {label: result.values(label) for label in standing.metrics}
            | ({"cells": result.average(standing.metric).weights.astype(int)} if result.counts() else {})
        )
        for result in standing.results
    ]
    pd.concat(frames, ignore_index=True).to_parquet(place / "per_user.parquet", index=False)


def write_settings(
    place: Path, tuned: Mapping[tuple[str, str], Tuned], models: list[Recommender], trials: Path | None
) -> None:
    """Best settings of every model, for `train --config`, and the trials they came from."""
    if trials is None:
        return
    shutil.copy2(trials, place / TRIALS)
    configs = {model.name: asdict(model.config) for model in models}
    for (fold, name), found in tuned.items():
        write_best(place / "settings" / fold, found, configs[name])


@click.command("compare")
@click.argument("ratings", type=LocationType(), nargs=-1, required=True)
@options_from(CompareJob)
def command(job: CompareJob) -> None:
    """Fit several models on the same split of RATINGS and rank them on its test part."""
    with nullcontext() if job.budget is None else resumable(job.output):
        found = run(job)
    report(found)


def report(found: Comparison) -> None:
    """The leaderboard on the terminal."""
    if as_json():
        print_json({**asdict(found), "leaderboard": found.leaderboard.to_dict("records")})
        return
    click.echo(found.ledger)
    click.echo(leaderboard_text(found.leaderboard, found.metric, found.left_out))
    for line in found.verdicts:
        click.echo(wrapped(line, "    "))
    for name, reason in found.refused.items():
        click.echo(wrapped(f"{name} left out: {reason}", "    "))
    click.echo(f"\nReport: {found.directory}/report.html")
    click.echo("Beside it: leaderboard.csv, comparison.json, per_user.parquet")


def leaderboard_text(board: pd.DataFrame, metric: str, left_out: int = 0) -> str:
    """Main metric with its interval, the next two, and the costs, in 80 columns; how many users could not be tested."""
    others = [label for label in map(str, board) if f"{label}_low" in board and label not in (metric, "gap")][:2]
    first, *_ = lines = board.to_dict("records")
    rows = [
        (
            row["model"],
            f"{row[metric]:.4f} [{row[f'{metric}_low']:.3f}, {row[f'{metric}_high']:.3f}]",
            *(f"{row[label]:.4f}" for label in others),
            f"{row['fit_seconds']:.1f}",
            f"{row['users_per_second']:,.0f}",
        )
        for row in lines
    ]
    shown = table(rows, ("model", f"{metric} [95 %]", *others, "fit s", "users/s"))
    without = f"; {left_out:,} more have no history, or nothing to find, among the training's items" if left_out else ""
    tested = wrapped(f"{first['users']:,} test users{cells_text(first)}{without}.")
    return f"\n{shown}\n\n{tested}\n"
