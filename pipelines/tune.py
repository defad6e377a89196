"""`recsys tune`: search the settings of a model on held-out data; write the best for `train --config`."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import click
import pandas as pd

from recsys.data.reading import ReadingOptions
from recsys.evaluation.fitting import validation_split
from recsys.evaluation.tasks import Task, find_task
from recsys.models import create_model
from recsys.system.atomic import write_text
from recsys.system.storage import Location
from recsys.system.text import plural
from recsys.tuning import Budget, Search, Tuned

from .cli.features import FeatureFlags
from .cli.interrupts import resumable
from .cli.options import SEED, LocationType, options_from, parse_settings, setting
from .cli.output import as_json, decimal, print_json, program, say, table
from .cli.reading import in_order_for, read_for, typed_again
from .cli.settings import FittingOptions, TrackingOptions
from .cli.steps import resume_hint, search_settings, trials_file, write_best


@dataclass(frozen=True)
class TuneJob:
    """Which model to tune on which ratings, for how long, and where the trials and the best settings go."""

    ratings: tuple[Location, ...]
    output: Path = setting(Path("tuning"), "Folder for the trials and the best settings.", "--output", "-o")
    model: str = setting("", "Name of the model; vae for lists and autorec for ratings by default.", "--model", "-m")
    trials: int = setting(20, "Number of trials; the first one has the default settings.", "--trials", "-n")
    minutes: float | None = setting(None, "Minutes of trials, instead of their number.")
    settings: tuple[str, ...] = setting((), "Setting to keep fixed, key=value.", "--set", "-s", multiple=True)
    held_out: float = setting(0.1, "Share of users (at most 10,000; for ratings, of rows) held out for validation.")
    seed: int = setting(0, "Seed of the split, the proposals, the weights and the batches.", kind=SEED)
    resume: bool = setting(False, "Continue after the trials in OUTPUT.")
    overwrite: bool = setting(False, "Replace an earlier search.")
    task: Literal["ranking", "rating"] | None = setting(
        None, "Lists, or predicted ratings; the task of the model by default."
    )
    features: FeatureFlags = field(default_factory=FeatureFlags)
    fitting: FittingOptions = field(default_factory=FittingOptions)
    tracking: TrackingOptions = field(default_factory=TrackingOptions)
    reading: ReadingOptions = field(default_factory=ReadingOptions)

    def with_task_defaults(self, task: Task) -> TuneJob:
        """Fill in what was not given with the defaults of the task."""
        model = self.model or task.model or "vae"  # train chooses by the size of the data; a search is of one model
        return replace(self, task=task.name, model=model, fitting=self.fitting.with_task_defaults(task))


@dataclass(frozen=True)
class TuneResult:
    """All trials, the file with the best settings, and the account of the rows."""

    tuned: Tuned
    best: Path
    ledger: str


def run(job: TuneJob) -> TuneResult:
    """Search the settings. What can be refused is refused before the data are read."""
    task = find_task(job.task, [job.model])
    job = job.with_task_defaults(task)
    fixed = parse_settings(job.settings)
    model, budget = create_model(job.model, fixed), Budget(job.trials, job.minutes)
    job.features.require_for([model])
    storage = trials_file(job.output, job.resume, job.overwrite)
    interactions = job.features.add_to(in_order_for(read_for(task, job.ratings, job.reading), [model]), [model])
    search = Search(
        job.model, fixed, validation_split(interactions, model, job.held_out, job.seed), job.fitting.metric, job.seed
    )
    tuned = search_settings(search, budget, storage, job.fitting, job.tracking.open(), interactions)
    best = write_best(job.output / f"{job.model}.toml", tuned, fixed)
    write_text(job.output / "trials.csv", trials_table(tuned).to_csv(index=False))
    return TuneResult(tuned, best, interactions.ledger.line())


def trials_table(tuned: Tuned) -> pd.DataFrame:
    """One row for each trial."""
    rows = [{**asdict(trial), "settings": None, **trial.settings} for trial in tuned.trials]
    return pd.DataFrame(rows).drop(columns="settings").rename(columns={"value": tuned.metric})


@click.command("tune")
@click.argument("ratings", type=LocationType(), nargs=-1, required=True)
@options_from(TuneJob)
def command(job: TuneJob) -> None:
    """Search the best settings of a model for RATINGS; an interrupted search continues with --resume."""
    with resumable(lambda: resume_hint(job.output), job.output):
        found = run(job)
    report(found, job)


def report(found: TuneResult, job: TuneJob) -> None:
    """Print the best settings."""
    best = found.tuned.best
    if as_json():
        print_json({**asdict(found), "winner": asdict(best)})
        return
    say(found.ledger)
    defaults = found.tuned.trials[0]
    states = [trial.state for trial in found.tuned.trials]
    say(
        f"\n{plural(len(states), 'trial')} of {found.tuned.model} in {found.tuned.seconds / 60:.1f} min, "
        f"{states.count('pruned')} ended early, {states.count('failed')} failed."
    )
    if defaults.value is not None and best.value is not None:
        first, last = decimal(defaults.value), decimal(best.value)
        say(f"Validation {found.tuned.metric}: defaults {first}, best {last}.\n")
    rows = [(key, f"{value:.4g}" if isinstance(value, float) else value) for key, value in best.settings.items()]
    say(table(rows, ("setting", "best")))
    again = typed_again(job.ratings, job.reading) + job.features.typed_again()
    say(f"\nNext:  {program()} train {again} --config {shlex.quote(str(found.best))}")
