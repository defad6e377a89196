"""Search a model's settings on held-out users; the best become a file that `train --config` takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import click
import pandas as pd

from recsys.artifacts import refuse_existing
from recsys.errors import ArtifactError
from recsys.interactions import Interactions
from recsys.models import create_model
from recsys.places import Place
from recsys.reading import ReadingOptions
from recsys.tasks import Task, find_task
from recsys.tracking import Tracker
from recsys.training import TrainingContext
from recsys.tuning import Budget, Search, Trial, Tuned, load_optuna, settings_toml, tune

from .cli import as_json
from .fitting import log_data
from .options import SEED, PlaceType, options_from, parse_settings, setting
from .output import print_json, table
from .progress import trials_progress
from .settings import FittingOptions, TrackingOptions, read_for, typed_again
from .train import validation_split

TRIALS = "tuning.db"  # all trials of all models, an Optuna study each


@dataclass(frozen=True)
class TuneJob:
    """Which model, on what, how long, and where the trials and the best settings go."""

    ratings: tuple[Place, ...]
    output: Path = setting(Path("tuning"), "Folder for the trials and the best settings.", "--output", "-o")
    model: str = setting("", "Which model; vae, for ratings autorec, without it.", "--model", "-m")
    trials: int = setting(20, "Settings to try, the defaults first.", "--trials", "-n")
    minutes: float | None = setting(None, "Minutes of trials, in place of their number.")
    settings: tuple[str, ...] = setting((), "Setting to hold fixed, key=value.", "--set", "-s", multiple=True)
    held_out: float = setting(0.1, "Share of users (10,000 at most), for ratings of rows, held out for validation.")
    seed: int = setting(0, "Seed of the split, the proposals, the weights and the batches.", kind=SEED)
    resume: bool = setting(False, "Go on with the trials in OUTPUT.")
    overwrite: bool = setting(False, "Replace an earlier search.")
    task: Literal["ranking", "rating"] | None = setting(
        None, "Lists, or predicted ratings; the model's own without it."
    )
    fitting: FittingOptions = field(default_factory=FittingOptions)
    tracking: TrackingOptions = field(default_factory=TrackingOptions)
    reading: ReadingOptions = field(default_factory=ReadingOptions)

    def of(self, task: Task) -> TuneJob:
        """The same with what is usual for the task where nothing was said."""
        model = self.model or task.model or "vae"  # train chooses by the size of the data, a search is of one model
        return replace(self, task=task.name, model=model, fitting=self.fitting.of(task))


@dataclass(frozen=True)
class TuneResult:
    """All trials, and the file with the best settings."""

    tuned: Tuned
    best: Path
    ledger: str


def run(job: TuneJob) -> TuneResult:
    """Do the job. What can be refused is refused before the data are read."""
    task = find_task(job.task, [job.model])
    job = job.of(task)
    fixed = parse_settings(job.settings)
    model, budget = create_model(job.model, fixed), Budget(job.trials, job.minutes)
    storage = trials_file(job.output, job.resume, job.overwrite)
    interactions = read_for(task, job.ratings, job.reading)
    search = Search(
        job.model, fixed, validation_split(interactions, model, job.held_out, job.seed), job.fitting.metric, job.seed
    )
    tuned = search_settings(search, budget, storage, job.fitting, job.tracking.open(), interactions)
    best = write_best(job.output, tuned, fixed)
    trials_table(tuned).to_csv(job.output / "trials.csv", index=False)
    return TuneResult(tuned, best, interactions.ledger.line())


def trials_file(output: Path, resume: bool, overwrite: bool, mark: str = TRIALS) -> Path:
    """The file of trials in `output`: the one that is there to go on with, else a new one. `mark`: see artifacts."""
    load_optuna()  # before the work, not after it
    storage = output / TRIALS
    if resume:
        if not storage.is_file():
            raise ArtifactError(f"Expected trials to go on with in {storage}, found none: leave --resume out.")
        return storage
    if storage.is_file() and not overwrite:
        raise ArtifactError(f"{output} already holds trials: add --resume to go on, or --overwrite to start again.")
    refuse_existing(output, TRIALS if storage.is_file() else mark, overwrite)
    storage.unlink(missing_ok=True)
    return storage


def search_settings(
    search: Search, budget: Budget, storage: Path, options: FittingOptions, tracker: Tracker, interactions: Interactions
) -> Tuned:
    """Search with progress and a tracked run a trial, inside a run of the search."""
    context = TrainingContext(search.seed, options.device, options.precision, patience=options.patience)
    plan = {"data": interactions.fingerprint(), "patience": options.patience, "precision": options.precision}
    with tracker.run(f"tune {search.name}", "tune") as tracked, trials_progress(search.name, budget) as progress:
        log_data(tracked, interactions, search.split)

        def on_trial(trial: Trial, so_far: Tuned) -> None:
            progress(trial, so_far)
            with tracker.run(f"{search.name} trial {trial.number}", "trial") as child:
                child.log_params({"model": search.model, **search.fixed, **trial.settings})
                child.log_metrics(_values(trial, search.metric))
                child.set_tags({"recsys.trial_state": trial.state, "recsys.trial_reason": trial.reason})
            if so_far.leader is not None and so_far.leader.value is not None:
                tracked.log_metrics({f"best validation {search.metric}": so_far.leader.value}, step=trial.number)

        tuned = tune(search, budget, storage, plan, context, on_trial)
        tracked.log_params({"model": search.model, "trials": len(tuned.trials), **search.fixed, **tuned.best.settings})
    return tuned


def _values(trial: Trial, metric: str) -> dict[str, float]:
    return {"seconds": trial.seconds} | ({} if trial.value is None else {f"validation {metric}": trial.value})


def write_best(folder: Path, tuned: Tuned, fixed: Mapping[str, Any]) -> Path:
    """MODEL.toml with all settings of the best trial."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{tuned.model}.toml"
    file.write_text(settings_toml(create_model(tuned.model, {**fixed, **tuned.best.settings})), encoding="utf-8")
    return file


def trials_table(tuned: Tuned) -> pd.DataFrame:
    """A row a trial."""
    rows = [{**asdict(trial), "settings": None, **trial.settings} for trial in tuned.trials]
    return pd.DataFrame(rows).drop(columns="settings").rename(columns={"value": tuned.metric})


@click.command("tune")
@click.argument("ratings", type=PlaceType(), nargs=-1, required=True)
@options_from(TuneJob)
def command(job: TuneJob) -> None:
    """Search the best settings of a model for RATINGS on what is held out; killed, it goes on with --resume."""
    with resumable(job.output):
        found = run(job)
    report(found, job)


@contextmanager
def resumable(output: Path) -> Iterator[None]:
    """Ctrl-C tells how to go on, where there are trials to go on after."""
    try:
        yield
    except KeyboardInterrupt as error:
        if not (output / TRIALS).is_file():
            raise
        raise click.ClickException(
            f"Stopped: by you. The trials so far are in {output}; the same command with --resume goes on after them."
        ) from error


def report(found: TuneResult, job: TuneJob) -> None:
    """The best settings on the terminal."""
    best = found.tuned.best
    if as_json():
        print_json({**asdict(found), "winner": asdict(best)})
        return
    click.echo(found.ledger)
    defaults = found.tuned.trials[0]
    states = [trial.state for trial in found.tuned.trials]
    click.echo(
        f"\n{len(states)} trials of {found.tuned.model} in {found.tuned.seconds / 60:.1f} min, "
        f"{states.count('pruned')} ended early, {states.count('failed')} failed."
    )
    if defaults.value is not None:
        click.echo(f"Validation {found.tuned.metric}: defaults {defaults.value:.4f}, best {best.value:.4f}.\n")
    rows = [(key, f"{value:.4g}" if isinstance(value, float) else value) for key, value in best.settings.items()]
    click.echo(table(rows, ("setting", "best")))
    click.echo(f"\nNext:  recsys train {typed_again(job.ratings, job.reading)} --config {found.best}")
