"""`recsys recommend`: recommend items, on the terminal, for one user of a ratings file or for a list of items."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import pandas as pd

from recsys.artifacts import load_model
from recsys.data.interactions import Interactions
from recsys.data.reading import ReadingOptions, read_interactions, read_titles
from recsys.errors import DataError, UnsupportedError
from recsys.evaluation.tasks import TASKS
from recsys.models.trained import TrainedModel
from recsys.system.storage import Location
from recsys.system.text import plural, printable

from .cli.models import ModelType
from .cli.options import options_from, setting
from .cli.output import WIDTH, as_json, decimal, listed, print_json, say, shorten, table
from .cli.reading import read_histories
from .cli.settings import comma_list
from .cli.unknown import SHOWN, UnknownIds, find_unknown, note_unknown

NEW_USER = "new user"  # the id of somebody who is only a list of items


@dataclass(frozen=True)
class RecommendJob:
    """The user, the model, and how many items to recommend."""

    model: Location
    user: str | None = setting(None, "Id of the user in the ratings file.")
    ratings: Location | None = setting(None, "Ratings with the history of the user.")
    items: str | None = setting(None, "Instead of --user: item ids of a history, separated by commas.")
    n: int = setting(10, "Length of the list.", "-n")
    keep_seen: bool = setting(False, "Also recommend items of the history.")
    titles: Path | None = setting(None, "File of item titles.")
    device: str = setting("auto", "auto, cpu, cuda or cuda:N.")
    reading: ReadingOptions = field(default_factory=ReadingOptions)


@dataclass(frozen=True)
class Recommended:
    """The history that the model used, the list, and the ids that the model does not know (history, titles)."""

    history: list[dict[str, Any]]
    items: list[dict[str, Any]]
    unknown: Mapping[str, UnknownIds]


def run(job: RecommendJob) -> Recommended:
    """Recommend items for one history."""
    if (job.user is None) == (job.items is None):
        raise click.UsageError("Expected either --user ID with --ratings FILE, or --items ID,ID.")
    if job.user is not None and job.ratings is None:
        raise click.UsageError("Expected --ratings FILE with the history of --user, found none.")
    saved = load_model(job.model, job.device)
    titles = {} if job.titles is None else read_titles(job.titles)
    histories = read_user(job, saved) if job.items is None else from_items(comma_list(job.items), saved)
    history = item_ids(histories, job.user or NEW_USER)
    unknown = {"history": find_unknown(history, saved.items)}
    if titles:
        unknown["titles"] = find_unknown(titles, saved.items)
    known = [item for item, position in zip(history, saved.items.positions(history), strict=True) if position >= 0]
    if not known:
        names = listed(history, SHOWN)
        raise DataError(f"Expected a history with an item that the model knows, found none of {len(history)}: {names}.")
    lists = saved.recommend(histories, job.n, users=[job.user or NEW_USER], filter_seen=not job.keep_seen)
    entries = [
        {**named(row["item_id"], titles), "rank": row["rank"], "score": row["score"]}
        for row in lists.to_dict("records")
    ]
    return Recommended([named(item, titles) for item in known], entries, unknown)


def from_items(items: list[str], saved: TrainedModel) -> Interactions:
    """The history of a new user who has had these items."""
    if TASKS[saved.model.task].ratings:
        raise UnsupportedError(f"{saved.model.name} needs to know how the items were rated: give --user and --ratings.")
    if saved.model.needs_training_users:
        raise UnsupportedError(f"{saved.model.name} can score only its training users: give --user instead of --items.")
    return read_interactions(pd.DataFrame({"user_id": NEW_USER, "item_id": items}))


def read_user(job: RecommendJob, saved: TrainedModel) -> Interactions:
    """The ratings file, which must have the user."""
    assert job.ratings is not None
    interactions = read_histories(saved, job.ratings, job.reading)
    if interactions.users.positions([job.user])[0] < 0:
        raise DataError(
            f"Expected user {job.user!r} among the {len(interactions.users):,} of {job.ratings}, found none: "
            f"{interactions.ledger.line()}."
        )
    if saved.users is not None and saved.users.positions([job.user])[0] < 0:
        raise UnsupportedError(f"{saved.model.name} can score only its training users, and {job.user!r} is not one.")
    return interactions


def item_ids(histories: Interactions, user: str) -> list[Any]:
    """Ids of the items in a user's history."""
    position = histories.users.positions([user])[0]
    return list(histories.items.take(histories.item[histories.user == position]).to_pylist())


def named(item: Any, titles: Mapping[str, str]) -> dict[str, Any]:
    """An item with its title, empty without one."""
    return {"item_id": item, "title": titles.get(str(item), "")}


@click.command("recommend")
@click.argument("model", type=ModelType())
@options_from(RecommendJob)
def command(job: RecommendJob) -> None:
    """Recommend items for one user with the model directory MODEL."""
    found = run(job)
    if as_json():
        print_json(asdict(found))
        return
    note_unknown(found.unknown)
    say(text(found))


def text(found: Recommended) -> str:
    """The history in three lines at most, then the list."""
    seen = [printable(entry["title"] or str(entry["item_id"]), single_line=True) for entry in found.history]
    history = f"History of {plural(len(seen), 'item')}: {'; '.join(seen)}"
    shown = "\n".join(textwrap.wrap(history, WIDTH, max_lines=3, placeholder=" …"))
    if not found.items:
        return f"{shown}\n\nNothing to recommend: the history holds all items of the model."
    titled = any(entry["title"] for entry in found.items)
    rows = [
        (entry["rank"], entry["item_id"], *([shorten(entry["title"], 50)] if titled else []), decimal(entry["score"]))
        for entry in found.items
    ]
    header = ("rank", "item", *(["title"] if titled else []), "score")
    return f"{shown}\n\n{table(rows, header, left=len(header) - 1)}"
