"""Search a model's settings on held-out users; the best become a file that `train --config` takes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import click
import pandas as pd

from recsys.data.reading import ReadingOptions
from recsys.evaluation.tasks import Task, find_task
from recsys.models import create_model
from recsys.system.storage import Location
from recsys.tuning import Budget, Search, Tuned

from .cli.options import SEED, LocationType, options_from, parse_settings, setting
from .cli.output import as_json, print_json, table
from .cli.settings import FittingOptions, TrackingOptions, read_for, typed_again
from .cli.steps import resumable, search_settings, trials_file, validation_split, write_best


@dataclass(frozen=True)
class TuneJob:
    """Which model, on what, how long, and where the trials and the best settings go."""

    ratings: tuple[Location, ...]
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


def trials_table(tuned: Tuned) -> pd.DataFrame:
    """A row a trial."""
    rows = [{**asdict(trial), "settings": None, **trial.settings} for trial in tuned.trials]
    return pd.DataFrame(rows).drop(columns="settings").rename(columns={"value": tuned.metric})


@click.command("tune")
@click.argument("ratings", type=LocationType(), nargs=-1, required=True)
@options_from(TuneJob)
def command(job: TuneJob) -> None:
    """Search the best settings of a model for RATINGS on what is held out; killed, it goes on with --resume."""
    with resumable(job.output):
        found = run(job)
    report(found, job)


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
