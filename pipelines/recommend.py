"""Recommend for one person, on the terminal: someone in a ratings file, or nobody but a list of items."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.artifacts import load_model
from recsys.data.matrix import sparse_rows
from recsys.data.reading import ReadingOptions, read_titles
from recsys.errors import DataError, UnsupportedError
from recsys.evaluation.tasks import TASKS
from recsys.models.trained import TrainedModel
from recsys.system.storage import Location

from .cli.options import LocationType, options_from, setting
from .cli.output import WIDTH, as_json, print_json, shorten, table
from .cli.settings import comma_list, read_histories


@dataclass(frozen=True)
class RecommendJob:
    """For whom, from which model, how many."""

    model: Location
    user: str | None = setting(None, "The person's id in the ratings file.")
    ratings: Location | None = setting(None, "Ratings that hold the person's history.")
    items: str | None = setting(None, "Instead: items the person took, ids separated by commas.")
    n: int = setting(10, "Length of the list.", "-n")
    keep_seen: bool = setting(False, "Let items of the history be recommended too.")
    titles: Path | None = setting(None, "File with a title for each item id.")
    device: str = setting("auto", "auto, cpu, cuda or cuda:N.")
    reading: ReadingOptions = field(default_factory=ReadingOptions)


@dataclass(frozen=True)
class Recommended:
    """The history the model saw, the list, and items it does not know."""

    history: list[dict[str, Any]]
    items: list[dict[str, Any]]
    unknown: int


def run(job: RecommendJob) -> Recommended:
    """Do the job."""
    if (job.user is None) == (job.items is None):
        raise click.UsageError("Expected either --user ID with --ratings FILE, or --items ID,ID.")
    if job.user is not None and job.ratings is None:
        raise click.UsageError("Expected --ratings FILE with the history of --user, found none.")
    saved = load_model(job.model, job.device)
    titles = read_titles(job.titles) if job.titles else {}
    row, seen, unknown, trained = from_items(job, saved) if job.items is not None else from_ratings(job, saved)
    if not row.nnz:
        raise DataError(f"Expected a history with an item the model knows, found none ({unknown} unknown).")
    best, scores = saved.model.recommend(
        trained, row, N=job.n, filter_already_liked_items=False, filter_items=None if job.keep_seen else seen.indices
    )
    kept = best >= 0
    listed = [
        entry | {"rank": rank, "score": float(score)}
        for rank, (entry, score) in enumerate(zip(named(saved, best[kept], titles), scores[kept], strict=True), start=1)
    ]
    return Recommended(named(saved, row.indices, titles), listed, unknown)


def from_items(job: RecommendJob, saved: TrainedModel) -> tuple[csr_matrix, csr_matrix, int, int]:
    """The history of the items named, CSR (1, items), what was seen, how many are unknown, and no training row."""
    if TASKS[saved.model.task].ratings:
        raise UnsupportedError(
            f"{saved.model.name} needs to know how the items were rated: give --user with --ratings FILE."
        )
    positions = saved.items.positions(comma_list(job.items or ""))
    if saved.model.needs_training_users:
        raise UnsupportedError(f"{saved.model.name} knows only its training users: give --user, or use another model.")
    history = np.unique(positions[positions >= 0])
    row = sparse_rows(np.zeros_like(history), history, np.ones(len(history)), (1, len(saved.items)))
    return row, row, int((positions < 0).sum()), 0


def from_ratings(job: RecommendJob, saved: TrainedModel) -> tuple[csr_matrix, csr_matrix, int, int]:
    """The user's history, CSR (1, items), what was seen, how many are unknown, and the training row if it is needed."""
    assert job.ratings is not None
    interactions = read_histories(saved, job.ratings, job.reading)
    user = int(interactions.users.positions([job.user])[0])
    if user < 0:
        raise DataError(
            f"Expected user {job.user!r} among the {len(interactions.users):,} of {job.ratings}, found none: "
            f"{interactions.ledger.line()}."
        )
    data = saved.to_matrix(interactions)
    row = data.matrix[[user]]
    unknown = int((interactions.user == user).sum()) - row.nnz
    trained = -1 if saved.users is None else int(saved.users.positions([job.user])[0])
    return row, row if data.seen is None else data.seen[[user]], unknown, trained


def named(saved: TrainedModel, positions: NDArray[np.int32], titles: dict[str, str]) -> list[dict[str, Any]]:
    """item_id and title (empty without one) of each position."""
    ids = saved.items.take(positions).to_pylist()
    return [{"item_id": item, "title": titles.get(str(item), "")} for item in ids]


@click.command("recommend")
@click.argument("model", type=LocationType())
@options_from(RecommendJob)
def command(job: RecommendJob) -> None:
    """Recommend for one person with the model directory MODEL."""
    found = run(job)
    if as_json():
        print_json(asdict(found))
    else:
        click.echo(text(found))


def text(found: Recommended, who: str = "") -> str:
    """History in three lines at most, with the name before it, then the list."""
    seen = [entry["title"] or str(entry["item_id"]) for entry in found.history]
    unknown = f" ({found.unknown} more unknown to the model)" if found.unknown else ""
    took = f"{who}took {len(seen)}{unknown}: {'; '.join(seen)}"
    shown = "\n".join(textwrap.wrap(took, WIDTH, max_lines=3, placeholder=" …"))
    titled = any(entry["title"] for entry in found.items)
    rows = [
        (entry["rank"], entry["item_id"], *([shorten(entry["title"], 50)] if titled else []), f"{entry['score']:.4f}")
        for entry in found.items
    ]
    header = ("rank", "item", *(["title"] if titled else []), "score")
    return f"{shown}\n\n{table(rows, header, left=len(header) - 1)}"
