"""Measure a saved model on people it was not trained on, or on a test file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click

from recsys import splitting
from recsys.artifacts import SavedModel, load_model
from recsys.data.interactions import Interactions
from recsys.data.reading import ReadingOptions, read_titles
from recsys.errors import ConfigError, UnsupportedError
from recsys.evaluation import comparison
from recsys.evaluation.averages import Interval
from recsys.evaluation.comparison import Result
from recsys.evaluation.tasks import TASKS
from recsys.reporting.report import render
from recsys.splitting.holdout import Holdout
from recsys.system.atomic import new_directory, refuse_existing, write_json
from recsys.system.hardware import versions
from recsys.system.storage import Location

from .cli.options import SEED, LocationType, options_from, setting
from .cli.output import as_json, cells_text, metrics_table, print_json, wrapped
from .cli.settings import TrackingOptions, comma_list, read_histories
from .cli.steps import log_calibration, log_data

CAUTION = (
    "Nobody can tell which of them the model was trained on, and those flatter it. Of the ratings of its training, "
    "read as then (the same files and minima), only people held out then are measured."
)
MARK, REPORT = "evaluation.json", "report.html"


@dataclass(frozen=True)
class EvaluateJob:
    """Which model, on what."""

    model: Location
    ratings: tuple[Location, ...]
    test: Location | None = setting(None, "Held-out rows; RATINGS are then the histories.")
    hidden: float = setting(0.2, "Without --test: share of each user's items to hide and look for.")
    metrics: str = setting(
        "", "Metrics, separated by commas; the first leads the report. The usual ones of the task without it."
    )
    output: Path | None = setting(None, "Folder for report.html and evaluation.json.", "--output", "-o")
    titles: Path | None = setting(None, "Table of item titles, for the lists in the report.")
    examples: int = setting(3, "Users whose lists the report shows, without their ids; 0 for none.")
    overwrite: bool = setting(False, "Replace an earlier evaluation in OUTPUT.")
    seed: int = setting(0, "Seed of what is hidden.", kind=SEED)
    device: str = setting("auto", "auto, cpu, cuda or cuda:N.")
    tracking: TrackingOptions = field(default_factory=TrackingOptions)
    reading: ReadingOptions = field(default_factory=ReadingOptions)

    def __post_init__(self) -> None:
        if self.titles is not None and self.output is None:
            raise ConfigError("Expected --output FOLDER beside --titles FILE, found only the latter.")


@dataclass(frozen=True)
class Evaluated:
    """Metrics with intervals, who was measured, how many could not be, the ledger in a line, the report's folder.

    counts: of what was measured besides users. coverage: a share, of what says the task. caution: what may flatter.
    """

    task: str
    metrics: Mapping[str, Interval]
    counts: Mapping[str, int]
    who: str
    left_out: int
    coverage: float
    ledger: str
    directory: Path | None
    caution: str


def run(job: EvaluateJob) -> Evaluated:
    """Do the job. What can be refused is refused before the data are read."""
    if job.output is not None:
        refuse_existing(job.output, MARK, job.overwrite)
    titles = {} if job.titles is None else read_titles(job.titles)
    saved = load_model(job.model, job.device)
    task = TASKS[saved.model.task]
    labels = tuple(comma_list(job.metrics)) or task.metrics
    for label in labels:
        task.check(label)
    interactions = read_histories(saved, job.ratings, job.reading)
    holdout, protocol, who = people(job, saved, interactions)
    with job.tracking.open().run(f"evaluate {saved.model.name}", "evaluate") as tracked:
        data = log_data(tracked, interactions)
        tracked.set_tags({"recsys.training_run": saved.about.get("run_id") or "", "recsys.model_digest": saved.digest})
        measured = task.evaluate(saved.model, holdout, labels if job.output is None else task.labels(labels))
        found = measured.only(labels)
        fit = task.describe(saved.model, measured, holdout, saved.item_counts)
        tracked.log_metrics({**found.means(), "coverage": found.coverage, **fit.counts})
        log_calibration(tracked, fit)
        if job.output is not None:
            result = Result([[fit]])
            examples = comparison.examples([result], holdout, saved.items, saved.item_counts, titles, job.examples)
            facts = report_facts(result, holdout, labels, job.seed) | {"data": data, "protocol": protocol}
            with new_directory(job.output, MARK, job.overwrite) as place:
                write_json(place / MARK, facts)
                (place / REPORT).write_text(render(facts, examples), encoding="utf-8")
            tracked.log_artifact(job.output / REPORT)
    metrics, ledger = found.intervals(job.seed), interactions.ledger.line()
    caution = CAUTION if protocol == "hidden" else ""
    return Evaluated(task.name, metrics, fit.counts, who, holdout.left_out, found.coverage, ledger, job.output, caution)


def report_facts(result: Result, holdout: Holdout, labels: Sequence[str], seed: int) -> dict[str, Any]:
    """What the report says of one model: a comparison with nobody to compare with."""
    split = {
        "test_users": len(holdout),
        "test_interactions": int(holdout.relevant.sum()),
        "test_users_left_out": holdout.left_out,
    }
    standing = comparison.rank([result], labels[0], labels, seed)
    return {**comparison.facts(standing), "split": split, "refused": {}, "versions": versions()}


def people(job: EvaluateJob, saved: SavedModel, interactions: Interactions) -> tuple[Holdout, str, str]:
    """Whom to measure on, how they were chosen (a name the report knows), and in words who they are.

    With `--test`, the users of that file. On the very data of its training, the users held out then: the split is
    made again from what model.json says. Else all users of RATINGS, a share of whose items is hidden.
    """
    task = TASKS[saved.model.task]
    if job.test is not None:
        held_out = read_histories(saved, job.test, job.reading, "test")
        found = splitting.holdout(interactions, held_out, saved.items, saved.users, task.ratings)
        return found, "test file", f"users of {job.test}"
    split, data = saved.about.get("split", {}), saved.about.get("data", {})
    if data.get("fingerprint") == interactions.fingerprint():
        if split.get("protocol") not in ("strong", "weak", "cells") or split.get("refit"):
            raise UnsupportedError("The model was fitted on all of these ratings: give people or rows it has not seen.")
        again = splitting.PROTOCOLS[split["protocol"]](
            interactions, share=split["held_out"], seed=saved.about["seed"], test=False, ratings=task.ratings
        ).validation
        assert again is not None  # there was one then
        return again, "validation", f"{'rows' if task.ratings else 'users'} held out from its training"
    if saved.model.needs_training_users:
        raise UnsupportedError(f"{saved.model.name} knows only its training users: give --test FILE with their rows.")
    hidden = splitting.hide(interactions, saved.items, job.hidden, job.seed, task.ratings)
    return hidden, "hidden", "all users of these ratings"


@click.command("evaluate")
@click.argument("model", type=LocationType())
@click.argument("ratings", type=LocationType(), nargs=-1, required=True)
@options_from(EvaluateJob)
def command(job: EvaluateJob) -> None:
    """Measure the model directory MODEL on held-out items of the users in RATINGS."""
    found = run(job)
    if as_json():
        print_json(asdict(found))
        return
    click.echo(found.ledger)
    covered = f"{found.coverage:.1%} {TASKS[found.task].covered}"
    click.echo(wrapped(f"Measured on {found.who}{cells_text(found.counts)}; {covered}."))
    if found.caution:
        click.echo(wrapped(found.caution))
    if found.left_out:
        click.echo(f"{found.left_out:,} users left out: no history, or nothing to find, among the model's items.")
    click.echo(f"\n{metrics_table(found.metrics)}")
    if found.directory is not None:
        click.echo(f"\nReport: {found.directory / REPORT}")
