"""`recsys audit`: find the interactions that a model finds least plausible, and write the ratings without the worst."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import pandas as pd

from recsys.artifacts import load_model
from recsys.batch.predictions import file_format
from recsys.data.interactions import Interactions
from recsys.data.reading import ReadingOptions, read_titles
from recsys.data.reading.copying import Pairs, check_copyable, copy_without
from recsys.errors import ArtifactError, ConfigError
from recsys.evaluation.cleaning import CleaningEffect, measure_cleaning
from recsys.evaluation.fitting import validation_split
from recsys.evaluation.tasks import TASKS
from recsys.explain.audit import Audit, audit, pairs_of
from recsys.explain.plausibility import OnFold
from recsys.models import Recommender
from recsys.models.trained import TrainedModel
from recsys.reporting.audit_page import AuditTexts, render_audit
from recsys.system.files import new_file, write_text
from recsys.system.packages import versions
from recsys.system.storage import Location, local_copy
from recsys.system.text import plural
from recsys.tracking.tracker import Run

from .cli.models import ModelType
from .cli.options import SEED, LocationType, ShareType, options_from, setting
from .cli.output import as_json, note, print_json, say, shorten, table, wrapped
from .cli.progress import activity
from .cli.reading import read_histories
from .cli.settings import FittingOptions, TrackingOptions
from .cli.steps import fit_context, fit_model, log_data
from .cli.unknown import find_unknown, note_unknown

VALIDATION = 0.1  # share of users, or of rows, on which epochs are chosen and cleaning is measured


@dataclass(frozen=True)
class AuditJob:
    """Which ratings are audited by which model, and where the results go."""

    model: Location
    ratings: tuple[Location, ...]
    output: Path = setting(
        Path("suspicious.parquet"),
        "File to write: .csv or .parquet. Beside it NAME-users, NAME-items and the page NAME.html.",
        "--output",
        "-o",
    )
    titles: Path | None = setting(None, "File of item titles, for the page.")
    clean: Path | None = setting(None, "Also write RATINGS without the most suspicious interactions to this file.")
    share: float = setting(0.02, "How many of all interactions --clean leaves out: 2% or 0.02.", kind=ShareType())
    noise: float = setting(
        0.01, "Assumed share of wrong interactions; decides how many false alarms are expected.", kind=ShareType()
    )
    folds: int = setting(5, "Parts that are held out in turn, with a fit for each.", kind=click.IntRange(2))
    accounts: bool = setting(True, "Look for accounts that people share.")
    overwrite: bool = setting(False, "Replace existing files.")
    seed: int = setting(0, "Seed of folds and fits.", kind=SEED)
    fitting: FittingOptions = field(default_factory=FittingOptions)
    tracking: TrackingOptions = field(default_factory=TrackingOptions)
    reading: ReadingOptions = field(default_factory=ReadingOptions)

    @property
    def files(self) -> dict[str, Path]:
        """The files that are written, by what they hold."""
        stem = self.output.stem
        return {
            "interactions": self.output,
            "users": self.output.with_stem(f"{stem}-users"),
            "items": self.output.with_stem(f"{stem}-items"),
            "page": self.output.with_suffix(".html"),
            **({} if self.clean is None else {"cleaned": self.clean}),
        }


@dataclass(frozen=True)
class Audited:
    """The files, how many interactions were judged of how many, the assumed share of wrong ones and the largest that
    the data allow, false alarms expected among the first so many, the worst interactions and users, the account of the
    rows, how many rows cleaning left out and what it did."""

    files: Mapping[str, Path]
    judged: int
    total: int
    noise: float
    limit: float
    false_alarms: Mapping[int, float]
    worst: Sequence[Mapping[str, Any]]
    users: Sequence[Mapping[Any, Any]]
    ledger: str
    rows_removed: int = 0
    effect: CleaningEffect | None = None


def run(job: AuditJob) -> Audited:
    """Audit the interactions. What can be refused is refused before the work."""
    format = file_format(job.output)
    for file in job.files.values():
        if file.exists() and not job.overwrite:
            raise ArtifactError(f"{file} already exists: choose another place, or set overwrite.")
    if job.clean is not None:
        check_source(job)
    titles = {} if job.titles is None else read_titles(job.titles)
    saved = load_model(job.model, job.fitting.device)
    task = TASKS[saved.model.task]
    job_fitting = job.fitting.with_task_defaults(task)
    interactions = read_histories(saved, job.ratings, job.reading)
    if titles:
        note_unknown({"titles": find_unknown(titles, interactions.items)}, "the ratings")
    data = interactions.to_matrix(ratings=task.ratings)
    context = fit_context(job_fitting, job.seed)
    with job.tracking.open().run(f"audit {saved.model.name}", "audit") as tracked:
        log_data(tracked, interactions)
        model = with_epochs(saved, interactions, job_fitting, job.seed, tracked)
        with fits_shown(f"auditing with {model.name}") as shown:
            found = audit(model, data, job.folds, job.noise, job.seed, job.accounts, context, shown)
        removed, effect = 0, None
        if job.clean is not None:
            removed = write_cleaned(job, found)
            split = validation_split(interactions, model, VALIDATION, job.seed)
            with fits_shown("measuring what cleaning does") as shown:
                effect = measure_cleaning(model, split, job.share, job.folds, job.seed, context, shown)
            tracked.log_metrics({f"{effect.metric} before": effect.before.mean, effect.metric: effect.after.mean})
        with activity(f"writing {job.output}"):
            frames = {"interactions": found.interactions(), "users": found.users(), "items": found.items()}
            for name, frame in frames.items():
                write_frame(job.files[name], frame, format)
            ledger, version = interactions.ledger.line(), versions().get("recsys", "")
            texts = AuditTexts(model.name, job.folds, ledger, titles, version, effect)
            write_text(job.files["page"], render_audit(found, texts))
        tracked.log_metrics({"judged": len(found.judged), "limit": found.groups.limit})
    worst = [named(row, titles) for row in frames["interactions"].head(10).to_dict("records")]
    return Audited(
        job.files,
        len(found.judged),
        len(interactions),
        found.groups.share,
        found.groups.limit,
        found.expected_false_alarms((10, 100, 1_000, 10_000)),
        worst,
        frames["users"].head(3).to_dict("records"),
        ledger,
        removed,
        effect,
    )


def check_source(job: AuditJob) -> None:
    """Raise an error where RATINGS cannot be copied without some rows."""
    assert job.clean is not None
    if len(job.ratings) != 1:
        raise ConfigError(
            f"Expected a single ratings file to clean, found {len(job.ratings)}: clean one after another."
        )
    (source,) = job.ratings
    if isinstance(source, Path):
        check_copyable(source, job.reading)
        if job.clean.exists() and job.clean.samefile(source):
            raise ConfigError(f"Expected another file as `clean`, found the ratings themselves: {source}.")


def with_epochs(
    saved: TrainedModel, interactions: Interactions, fitting: FittingOptions, seed: int, tracked: Run
) -> Recommender:
    """The model; of one with epochs a new fit, for a folder does not say how many were best."""
    if not hasattr(saved.model.config, "epochs"):
        return saved.model
    model = type(saved.model)(saved.model.config)
    return fit_model(model, validation_split(interactions, model, VALIDATION, seed), fitting, seed, tracked)


@contextmanager
def fits_shown(label: str) -> Iterator[OnFold]:
    """A function that shows how many fits are done."""
    with activity(label) as working:

        def show(done: int, total: int) -> None:
            working.state = f"{done} of {plural(total, 'fit')}"
            if working.bar is not None:
                working.bar.set_postfix_str(working.state)

        yield show


def write_cleaned(job: AuditJob, found: Audit) -> int:
    """Write RATINGS without the worst; return how many rows that left out."""
    assert job.clean is not None
    pairs = Pairs(*pairs_of(found.data, found.worst(job.share)))
    with activity(f"writing {job.clean}"), local_copy(job.ratings[0]) as source, new_file(job.clean) as file:
        return copy_without(source, file, pairs, job.reading)


def write_frame(file: Path, frame: pd.DataFrame, format: str) -> None:
    """Write a table as CSV or Parquet, whole or not at all."""
    with new_file(file) as draft:
        if format == "csv":
            frame.to_csv(draft, index=False)
        else:
            frame.to_parquet(draft, index=False)


def named(row: Mapping[Any, Any], titles: Mapping[str, str]) -> dict[str, Any]:
    """An interaction with the title of its item, empty without one."""
    return {**row, "title": titles.get(str(row["item_id"]), "")}


@click.command("audit")
@click.argument("model", type=ModelType())
@click.argument("ratings", type=LocationType(), nargs=-1, required=True)
@options_from(AuditJob)
def command(job: AuditJob) -> None:
    """Rank the interactions in RATINGS by how little they fit the rest, as a model of MODEL's settings sees it.

    The model is fitted anew without what it judges. Users and items are summarized; a page shows the worst.
    """
    report(run(job))


def report(found: Audited) -> None:
    """Print the worst, what to expect of the list, and where the files are."""
    if as_json():
        print_json(asdict(found))
        return
    say(found.ledger)
    left = found.total - found.judged
    more = f"; {left:,} cannot be judged, the only one of a user or of an item" if left else ""
    say(
        wrapped(
            f"{found.judged:,} of {plural(found.total, 'interaction')} judged by models that did not see them{more}"
        )
    )
    rows = [
        (
            shorten(str(row["user_id"]), 16),
            shorten(row["title"] or str(row["item_id"]), 36),
            f"{row['rating']:g} ({row['expected']:.1f})" if "rating" in row else f"{row['plausibility']:.4f}",
            f"{row['suspicion']:.0%}",
        )
        for row in found.worst
    ]
    value = "rated (expected)" if found.worst and "rating" in found.worst[0] else "plausibility"
    say(f"\n{table(rows, ('user', 'item', value, 'suspicion'), left=2)}\n")
    alarms = ", ".join(f"{share:.0%} of the first {n:,}" for n, share in found.false_alarms.items())
    say(
        wrapped(
            f"False alarms expected: {alarms}, if {found.noise:.2g} of all interactions are wrong "
            f"(--noise; these data allow at most {found.limit:.2g})."
        )
    )
    if found.effect is not None:
        note(f"{plural(found.rows_removed, 'row')} left out", str(found.files["cleaned"]))
        effect = found.effect
        say(wrapped(f"On held-out data, {effect.metric} {effect.before} as it is, {effect.after} cleaned:"))
        say(wrapped(f"{effect.difference}."))
    for what, file in found.files.items():
        say(f"{what.capitalize() + ':':<14}{file}")
