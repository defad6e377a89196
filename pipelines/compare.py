"""Compare models: the same split, histories, mask, cut and metrics for all; the losers are shown too."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import pandas as pd

from recsys import plotting
from recsys.artifacts import new_directory, refuse_existing, save_model, write_json
from recsys.errors import UnsupportedError
from recsys.evaluation import DEFAULT_METRICS, Evaluation, Interval, evaluate, paired_difference, per_user_table
from recsys.interactions import Interactions
from recsys.metrics import parse_metric
from recsys.models import Recommender, create_model
from recsys.reading import ReadingOptions, read_interactions
from recsys.splitting import Holdout, Split
from recsys.tracking import Tracker
from recsys.tuning import Budget, Search, Tuned

from .cli import as_json
from .fitting import fit_model, log_data
from .options import options_from, parse_settings, setting
from .output import print_json, table
from .settings import FittingOptions, SplitOptions, TrackingOptions, comma_list
from .tune import TRIALS, search_settings, trials_file

MARK = "leaderboard.csv"


@dataclass(frozen=True)
class CompareJob:
    """Which models, on what, divided how, and where the leaderboard goes."""

    ratings: tuple[Path, ...]
    output: Path = setting(Path("comparison"), "Folder for the leaderboard.", "--output", "-o")
    models: str = setting("popularity,item-knn,als,ease,dae,vae", "Models, separated by commas.", "--models", "-m")
    settings: tuple[str, ...] = setting((), "Setting of one model, model.key=value.", "--set", "-s", multiple=True)
    tune: int = setting(0, "Settings to try for each model on the validation users before it is compared.", "--tune")
    tune_minutes: float | None = setting(None, "Minutes of trials for each model, in place of their number.")
    resume: bool = setting(False, "Go on with the trials of an interrupted comparison in OUTPUT.")
    metrics: str = setting(",".join(DEFAULT_METRICS), "Metrics, separated by commas.", "--metrics")
    save_models: bool = setting(False, "Keep the fitted models in OUTPUT/models.")
    seed: int = setting(0, "Seed of the split, the weights and the batches.")
    overwrite: bool = setting(False, "Replace an earlier comparison.")
    who: SplitOptions = field(default_factory=SplitOptions)
    fitting: FittingOptions = field(default_factory=FittingOptions)
    tracking: TrackingOptions = field(default_factory=TrackingOptions)
    reading: ReadingOptions = field(default_factory=ReadingOptions)

    @property
    def budget(self) -> Budget | None:
        """Of each model's search; None where the settings stay as they are."""
        return Budget(self.tune or 1, self.tune_minutes) if self.tune or self.tune_minutes else None


@dataclass(frozen=True)
class Result:
    """One model of the comparison: what it reached and what it cost."""

    model: Recommender
    evaluation: Evaluation
    fit_seconds: float
    megabytes: float

    @property
    def users_per_second(self) -> float:
        """Users whose lists were made in a second."""
        return self.evaluation.users / self.evaluation.seconds


@dataclass(frozen=True)
class Comparison:
    """The leaderboard (best first), what was said of it, who was refused and why, how the data were divided."""

    leaderboard: pd.DataFrame
    verdicts: list[str]
    refused: Mapping[str, str]
    facts: Mapping[str, int]
    ledger: str
    directory: Path


def run(job: CompareJob) -> Comparison:
    """Do the job. What can be refused is refused before the data are read."""
    metrics = tuple(dict.fromkeys((job.fitting.metric, *comma_list(job.metrics))))
    for label in metrics:
        parse_metric(label)
    models = [create_model(name, chosen) for name, chosen in model_settings(job).items()]
    trials = place_of_trials(job)
    interactions = read_interactions(job.ratings, job.reading)
    split = job.who.split(interactions, job.reading, job.seed)
    able, refused = split_by_ability(models, split)
    tracker = job.tracking.open()
    with tracker.run("compare", "compare") as tracked:
        data = log_data(tracked, interactions, split)
        tuned = {} if trials is None else search_all(able, job, split, trials, tracker, interactions)
        able = [with_best(model, tuned) for model in able]
        with new_directory(
            job.output, MARK if trials is None else TRIALS, job.overwrite or trials is not None
        ) as place:
            results = [measure(model, split, job, metrics, tracker, place) for model in able]
            board, verdicts = leaderboard(results, job.fitting.metric, job.seed)
            facts = {"data": data, "split": split.facts, "verdicts": verdicts, "refused": refused}
            write(place, board, results, split, facts)
            if trials is not None:
                shutil.copy2(trials, place / TRIALS)
        tracked.log_figure(lambda: plotting.leaderboard(board, job.fitting.metric), "leaderboard")
        for name in (MARK, "comparison.json"):  # not per_user.parquet: ids of people stay here
            tracked.log_artifact(job.output / name)
    return Comparison(board, verdicts, refused, split.facts, interactions.ledger.line(), job.output)


def model_settings(job: CompareJob) -> dict[str, dict[str, str]]:
    """Settings of each model of the comparison; raises ConfigError for a setting of a model that is not in it."""
    names = comma_list(job.models)
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
        refuse_existing(job.output, MARK, job.overwrite)
        return None
    return trials_file(job.output, job.resume, job.overwrite, MARK)


def search_all(
    models: list[Recommender], job: CompareJob, split: Split, trials: Path, tracker: Tracker, interactions: Interactions
) -> dict[str, Tuned]:
    """The same budget and the same validation users for every model."""
    assert job.budget is not None
    found = {}
    for name, fixed in model_settings(job).items():
        if any(model.name == name for model in models):
            search = Search(name, fixed, split, job.fitting.metric, job.seed)
            found[name] = search_settings(search, job.budget, trials, job.fitting, tracker, interactions)
    return found


def with_best(model: Recommender, tuned: Mapping[str, Tuned]) -> Recommender:
    """The model with the settings its search found, itself where there was none."""
    if model.name not in tuned:
        return model
    return type(model)(replace(model.config, **tuned[model.name].best.settings))


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


def measure(
    model: Recommender, split: Split, job: CompareJob, metrics: tuple[str, ...], tracker: Tracker, place: Path
) -> Result:
    """Fit one model and measure it on the test part, in a run of its own."""
    with tracker.run(model.name, "fit") as tracked:
        started = time.perf_counter()
        fit_model(model, split, job.fitting, job.seed, tracked)
        seconds = time.perf_counter() - started
        found = evaluate(model.score, test_part(split), metrics, with_users=model.needs_training_users)
        size = sum(tensor.nbytes for tensor in model.get_state().values()) / 1e6
        result = Result(model, found, seconds, size)
        tracked.log_metrics(
            {**found.means(), "coverage": found.coverage, "fit_seconds": seconds, "megabytes": size}
            | {"users_per_second": result.users_per_second}
        )
        if job.save_models:
            train = split.train
            about = {"metrics": found.means(), "seed": job.seed, "run_id": tracked.id}
            save_model(place / "models" / model.name, model, train.items, train.item_counts, train.users, about)
    return result


def leaderboard(results: list[Result], metric: str, seed: int) -> tuple[pd.DataFrame, list[str]]:
    """A row a model, best first, each with its paired difference to the best matrix factorisation; and the verdicts."""
    ranked = sorted(results, key=lambda result: -result.evaluation.means()[metric])
    rival = next((result for result in ranked if result.model.family == "matrix factorisation"), None)
    rows, verdicts = [], []
    for result in ranked:
        row: dict[str, Any] = {"model": result.model.name, "family": result.model.family}
        for label, interval in result.evaluation.intervals(seed).items():
            row |= {label: interval.mean, f"{label}_low": interval.low, f"{label}_high": interval.high}
            row["users"] = interval.users
        row |= {"coverage": result.evaluation.coverage, "fit_seconds": result.fit_seconds}
        row |= {"users_per_second": result.users_per_second, "megabytes": result.megabytes}
        row["takes_new_users"] = not result.model.needs_training_users
        if rival is not None and result is not rival:
            gap = paired_difference(result.evaluation.values[metric], rival.evaluation.values[metric], seed)
            row |= {"rival": rival.model.name, "gap": gap.mean, "gap_low": gap.low, "gap_high": gap.high}
            verdicts.append(verdict(result.model.name, rival.model.name, metric, gap))
        rows.append(row)
    return pd.DataFrame(rows), verdicts


def verdict(name: str, rival: str, metric: str, gap: Interval) -> str:
    """The difference in words."""
    figures = f"{abs(gap.mean):.4f} {metric} [{gap.low:+.4f}, {gap.high:+.4f}]"
    if not gap.excludes_zero:
        return f"{name} and {rival}: no difference can be claimed, {figures}"
    return f"{name} {'beats' if gap.mean > 0 else 'is behind'} {rival} by {figures}"


def write(place: Path, board: pd.DataFrame, results: list[Result], split: Split, facts: dict[str, Any]) -> None:
    """The files of the comparison."""
    evaluations = {result.model.name: result.evaluation for result in results}
    board.to_csv(place / MARK, index=False)
    per_user_table(evaluations, test_part(split).users.to_pylist()).to_parquet(place / "per_user.parquet", index=False)
    settings = {result.model.name: asdict(result.model.config) for result in results}
    write_json(place / "comparison.json", {**facts, "protocol": split.protocol, "settings": settings})


@click.command("compare")
@click.argument("ratings", type=click.Path(path_type=Path), nargs=-1, required=True)
@options_from(CompareJob)
def command(job: CompareJob) -> None:
    """Fit several models on the same split of RATINGS and rank them on its test part."""
    report(run(job), job)


def report(found: Comparison, job: CompareJob) -> None:
    """The leaderboard on the terminal."""
    if as_json():
        print_json({**asdict(found), "leaderboard": found.leaderboard.to_dict("records")})
        return
    click.echo(found.ledger)
    click.echo(leaderboard_text(found.leaderboard, job.fitting.metric))
    for line in found.verdicts:
        click.echo(line)
    for name, reason in found.refused.items():
        click.echo(f"{name} left out: {reason}")
    click.echo(f"\nFiles: {found.directory}/leaderboard.csv, per_user.parquet, comparison.json")


def leaderboard_text(board: pd.DataFrame, metric: str) -> str:
    """Main metric with its interval, two more metrics, and the costs, in 80 columns."""
    others = [label for label in DEFAULT_METRICS if label in board and label != metric][:2]
    rows = [
        (
            row["model"],
            f"{row[metric]:.4f} [{row[f'{metric}_low']:.3f}, {row[f'{metric}_high']:.3f}]",
            *(f"{row[label]:.4f}" for label in others),
            f"{row['fit_seconds']:.1f}",
            f"{row['users_per_second']:,.0f}",
        )
        for row in board.to_dict("records")
    ]
    users = int(board["users"].iloc[0])
    return f"\n{table(rows, ('model', f'{metric} [95 %]', *others, 'fit s', 'users/s'))}\n\n{users:,} test users.\n"
