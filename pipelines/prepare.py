"""`recsys prepare`: read ratings once and write a compact copy that every command opens in about a second."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click

from recsys.data.reading import ReadingOptions, read_interactions
from recsys.data.store import refuse_existing_store, write_store
from recsys.errors import ConfigError
from recsys.system.storage import Location

from .cli.options import LocationType, options_from, setting
from .cli.output import as_json, files_text, note_columns, print_json, program, say
from .cli.progress import activity


@dataclass(frozen=True)
class PrepareJob:
    """The ratings to prepare, and the folder of the store."""

    ratings: tuple[Location, ...]
    output: Path | None = setting(None, "Folder of the store to write.", "--output", "-o")
    overwrite: bool = setting(False, "Replace an earlier store.")
    reading: ReadingOptions = field(default_factory=ReadingOptions)

    def __post_init__(self) -> None:
        if self.reading.order is not None:
            raise ConfigError(
                "Expected no --order, since a store keeps times and rows both: give it to the next command."
            )


@dataclass(frozen=True)
class Prepared:
    """The store that was written: rows, size in bytes, fingerprint of the data, account of the rows."""

    store: Path
    rows: int
    bytes: int
    fingerprint: str
    ledger: str


def run(job: PrepareJob) -> Prepared:
    """Read the ratings and write the store. An existing folder is refused before anything is read."""
    if job.output is None:
        raise ConfigError("Expected a folder to write the store to, found none: add --output STORE.")
    refuse_existing_store(job.output, job.overwrite)
    with activity(f"reading {files_text(job.ratings)}"):
        interactions = read_interactions(job.ratings, job.reading)
    note_columns(interactions.columns)
    with activity(f"writing {job.output}"):
        write_store(interactions, job.output, job.overwrite)
    size = sum(file.stat().st_size for file in job.output.iterdir())
    return Prepared(job.output, len(interactions), size, interactions.fingerprint(), interactions.ledger.line())


@click.command("prepare")
@click.argument("ratings", type=LocationType(), nargs=-1, required=True)
@options_from(PrepareJob)
def command(job: PrepareJob) -> None:
    """Write a compact, memory-mapped copy of RATINGS that every command accepts instead of them."""
    done = run(job)
    if as_json():
        print_json(asdict(done))
        return
    say(done.ledger)
    say(f"Store: {done.store}, {done.bytes / 1e6:,.1f} MB")
    say(f"Next:  {program()} train {shlex.quote(str(done.store))} -o model")
