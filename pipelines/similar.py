"""`recsys similar`: find, on the terminal, the items nearest to an item, or the users nearest to a user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd

from recsys.artifacts import load_model
from recsys.data.interactions import Interactions
from recsys.data.reading import ReadingOptions, read_titles
from recsys.errors import ArtifactError, DataError
from recsys.latent.index import VectorIndex
from recsys.models.trained import TrainedModel
from recsys.system.storage import Location
from recsys.system.text import plural

from .cli.models import ModelType
from .cli.options import options_from, setting
from .cli.output import as_json, decimal, note, print_json, say, shorten, table
from .cli.reading import read_histories
from .cli.unknown import UnknownIds, find_unknown, note_unknown

MANY = 200_000  # items beyond which an index is worth its time for many questions


@dataclass(frozen=True)
class SimilarJob:
    """The item or the user, the model, and how many neighbors to find."""

    model: Location
    item: str | None = setting(None, "Id of an item of the model.")
    user: str | None = setting(None, "Instead of --item: id of a user in the ratings file.")
    ratings: Location | None = setting(None, "Ratings with the histories of --user and of the others.")
    n: int = setting(10, "How many neighbors.", "-n")
    titles: Path | None = setting(None, "File of item titles.")
    index: Path | None = setting(
        None, "Index of the items, of recsys encode --items --index, to search instead of all."
    )
    device: str = setting("auto", "auto, cpu, cuda or cuda:N.")
    reading: ReadingOptions = field(default_factory=ReadingOptions)


@dataclass(frozen=True)
class Similar:
    """What was asked for, its neighbors (id, title or items in common, rank, cosine), ids in titles that are unknown.

    searched: how many items or users there are to choose from.
    """

    asked: dict[str, Any]
    neighbors: list[dict[str, Any]]
    searched: int
    unknown: Mapping[str, UnknownIds]


def run(job: SimilarJob) -> Similar:
    """Find the nearest neighbors."""
    if (job.item is None) == (job.user is None):
        raise click.UsageError("Expected either --item ID, or --user ID with --ratings FILE.")
    if job.user is not None and job.ratings is None:
        raise click.UsageError("Expected --ratings FILE with the history of --user, found none.")
    if job.user is not None and job.index is not None:
        raise click.UsageError("Expected --index with --item: users are compared exactly.")
    titles = {} if job.titles is None else read_titles(job.titles)
    index = None if job.index is None else VectorIndex.load(job.index)
    saved = load_model(job.model, job.device)
    unknown = {"titles": find_unknown(titles, saved.items)} if titles else {}
    if job.item is not None:
        return similar_items(job, saved, titles, index, unknown)
    return similar_users(job, saved, titles, unknown)


def similar_items(
    job: SimilarJob,
    saved: TrainedModel,
    titles: Mapping[str, str],
    index: VectorIndex | None,
    unknown: Mapping[str, UnknownIds],
) -> Similar:
    """The items nearest to an item, with titles."""
    assert job.item is not None
    near = saved.similar_items(job.item, job.n) if index is None else search(index, saved, job.item, job.n)
    neighbors = [
        {**named(item, titles), "rank": rank, "score": score}
        for item, rank, score in zip(near["item_id"], near["rank"], near["score"], strict=True)
    ]
    return Similar(named(job.item, titles), neighbors, len(saved.items), unknown)


def search(index: VectorIndex, saved: TrainedModel, item: str, n: int) -> pd.DataFrame:
    """The items nearest to an item, by an index that must be of this model's items."""
    if index.about != {"model_digest": saved.digest, "of": "items", "vectors": "embeddings"}:
        raise ArtifactError(
            "Expected an index of the embeddings of this model's items, found another one: write it with "
            "recsys encode MODEL --items --index FILE."
        )
    position = saved.items.positions([item])[0]
    if position < 0:
        raise DataError(f"Expected an item of the model, found {item!r}, which it does not know.")
    vector = saved.embed_items().iloc[[position]].to_numpy()
    best, cosines = (found[0] for found in index.search(vector, n + 1))
    kept = np.flatnonzero(best != position)[:n]
    frame = pd.DataFrame({"item_id": saved.items.take(best[kept]).to_pandas()})
    return frame.assign(rank=np.arange(1, len(frame) + 1), score=cosines[kept])


def similar_users(
    job: SimilarJob, saved: TrainedModel, titles: Mapping[str, str], unknown: Mapping[str, UnknownIds]
) -> Similar:
    """The users nearest to a user, with what they have in common."""
    assert job.user is not None and job.ratings is not None
    interactions = read_histories(saved, job.ratings, job.reading)
    near = saved.similar_users(job.user, interactions, job.n)
    own = history_of(interactions, job.user)
    neighbors = []
    for user, rank, score in zip(near["user_id"], near["rank"], near["score"], strict=True):
        common = [item for item in history_of(interactions, user) if item in set(own)]
        example = next((titles[str(item)] for item in common if str(item) in titles), "")
        neighbors.append({"user_id": user, "in_common": len(common), "such_as": example, "rank": rank, "score": score})
    return Similar({"user_id": job.user, "items": len(own)}, neighbors, len(interactions.users), unknown)


def history_of(interactions: Interactions, user: Any) -> list[Any]:
    """Ids of the items of a user."""
    position = interactions.users.positions([user])[0]
    return list(interactions.items.take(interactions.item[interactions.user == position]).to_pylist())


def named(item: Any, titles: Mapping[str, str]) -> dict[str, Any]:
    """An item with its title, empty without one."""
    return {"item_id": item, "title": titles.get(str(item), "")}


@click.command("similar")
@click.argument("model", type=ModelType())
@options_from(SimilarJob)
def command(job: SimilarJob) -> None:
    """Find the items nearest to an item, or the users nearest to a user, with the model directory MODEL.

    Near are those whose embeddings have a large cosine.
    """
    found = run(job)
    if as_json():
        print_json(asdict(found))
        return
    note_unknown(found.unknown)
    if job.item is not None and job.index is None and found.searched > MANY:
        note(
            f"All {found.searched:,} items were compared: for many questions, recsys encode --items --index is faster."
        )
    say(text(found))


def text(found: Similar) -> str:
    """What was asked for, then the neighbors."""
    if "item_id" in found.asked:
        shown = found.asked["title"] or found.asked["item_id"]
        titled = any(entry["title"] for entry in found.neighbors)
        rows = [
            (
                entry["rank"],
                entry["item_id"],
                *([shorten(entry["title"], 50)] if titled else []),
                decimal(entry["score"]),
            )
            for entry in found.neighbors
        ]
        header = ("rank", "item", *(["title"] if titled else []), "cosine")
        first = f"Nearest to {shorten(str(shown), 60)}"
    else:
        titled = any(entry["such_as"] for entry in found.neighbors)
        rows = [
            (
                entry["rank"],
                entry["user_id"],
                *([shorten(entry["such_as"], 40)] if titled else []),
                entry["in_common"],
                decimal(entry["score"]),
            )
            for entry in found.neighbors
        ]
        header = ("rank", "user", *(["both had, for one"] if titled else []), "in common", "cosine")
        first = f"Nearest to user {shorten(str(found.asked['user_id']), 40)}, of {plural(found.asked['items'], 'item')}"
    if not found.neighbors:
        return f"{first}: there is nothing else to compare with."
    return f"{first}\n\n{table(rows, header, left=len(header) - (1 if 'item_id' in found.asked else 2))}"
