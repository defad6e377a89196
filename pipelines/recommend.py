"""`recsys recommend`: recommend items, on the terminal, for one user of a ratings file or for a list of items."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click

from recsys.artifacts import load_model
from recsys.data.reading import ReadingOptions, read_titles
from recsys.system.storage import Location
from recsys.system.text import plural, printable

from .cli.features import add_new_items
from .cli.histories import check_history, named, read_history
from .cli.models import ModelType
from .cli.options import options_from, setting
from .cli.output import WIDTH, as_json, decimal, print_json, say, shorten, table
from .cli.rules import RuleFlags
from .cli.unknown import UnknownIds, find_unknown, note_unknown


@dataclass(frozen=True)
class RecommendJob:
    """The user, the model, and how many items to recommend."""

    model: Location
    user: str | None = setting(None, "Id of the user in the ratings file.")
    ratings: Location | None = setting(None, "Ratings with the history of the user.")
    items: str | None = setting(None, "Instead of --user: item ids of a history, separated by commas.")
    n: int = setting(10, "Length of the list.", "-n")
    ruling: RuleFlags = field(default_factory=RuleFlags)
    keep_seen: bool = setting(False, "Also recommend items of the history.")
    new_items: Location | None = setting(None, "Table of items that came after training, for a model with features.")
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
    check_history(job.user, job.ratings, job.items)
    saved = add_new_items(load_model(job.model, job.device), job.new_items)
    titles = {} if job.titles is None else read_titles(job.titles)
    history = read_history(saved, job.user, job.ratings, job.items, job.reading)
    unknown = {"history": history.unknown}
    if titles:
        unknown["titles"] = find_unknown(titles, saved.items)
    lists = saved.recommend(
        history.interactions,
        job.n,
        users=[history.user],
        filter_seen=not job.keep_seen,
        rules=job.ruling.read(saved),
    )
    entries = [
        {**named(row["item_id"], titles), "rank": row["rank"], "score": row["score"]}
        for row in lists.to_dict("records")
    ]
    return Recommended([named(item, titles) for item in history.items], entries, unknown)


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
