"""Predict ratings: what users would give to items, for every row of a file of pairs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
import numpy as np

from recsys.artifacts import SavedModel, load_model
from recsys.batch.predictions import (
    NO_HISTORY,
    UNKNOWN_ITEM,
    format_of,
    predict_rows,
    read_pairs,
    with_new_items,
    write_answers,
)
from recsys.data.matrix import UserItemMatrix
from recsys.data.reading import ReadingOptions
from recsys.errors import ArtifactError, UnsupportedError
from recsys.models.ratings.base import RatingRecommender
from recsys.system.storage import Location, folder_at, local_copy

from .cli.options import LocationType, options_from, setting
from .cli.output import as_json, print_json
from .cli.settings import TrackingOptions, read_histories
from .cli.steps import log_data


@dataclass(frozen=True)
class PredictJob:
    """Which model, which pairs, whose histories, and where the answers go."""

    model: Location
    pairs: Location
    ratings: tuple[Location, ...] = setting((), "Ratings that the histories of the users come from.", multiple=True)
    new_items: bool = setting(False, "Also predict items the model does not know but the histories hold ratings of.")
    output: Path = setting(Path("predictions.csv"), "File to write: .csv or .parquet.", "--output", "-o")
    overwrite: bool = setting(False, "Replace an earlier file.")
    device: str = setting("auto", "auto, cpu, cuda or cuda:N.")
    tracking: TrackingOptions = field(default_factory=TrackingOptions)
    reading: ReadingOptions = field(default_factory=ReadingOptions)


@dataclass(frozen=True)
class Predicted:
    """The file, its rows, how many have a rating, how many have none and why, the histories' ledger, seconds.

    new_items: how many items were folded in.
    """

    file: Path
    rows: int
    predicted: int
    without: Mapping[str, int]
    new_items: int
    ledger: str
    seconds: float


def run(job: PredictJob) -> Predicted:
    """Do the job. What can be refused is refused before the data are read."""
    if not job.ratings:
        raise click.UsageError("Expected --ratings FILE with the histories of the users, found none.")
    format = format_of(job.output)
    if job.output.exists() and not job.overwrite:
        raise ArtifactError(f"{job.output} is already there: choose another place, or add --overwrite.")
    saved = load_model(job.model, job.device)
    model = model_of_ratings(saved)
    if job.new_items:
        model.check_new_items()
    interactions = read_histories(saved, job.ratings, job.reading)
    if job.new_items:
        model, histories = with_new_items(model, saved.items, interactions)
    else:
        histories = UserItemMatrix.from_interactions(interactions, saved.items, ratings=True)
    folded_in = len(histories.items) - len(saved.items)
    with job.tracking.open().run(f"predict {saved.model.name}", "predict") as tracked, local_copy(job.pairs) as pairs:
        log_data(tracked, interactions)
        tracked.log_params({"model": saved.model.name})
        tracked.set_tags({"recsys.training_run": saved.about.get("run_id") or "", "recsys.model_digest": saved.digest})
        started = time.perf_counter()
        ratings, reason = predict_rows(model.score, histories, read_pairs(pairs, job.reading.encoding))
        job.output.parent.mkdir(parents=True, exist_ok=True)
        with folder_at(job.output.parent).new_file(job.output.name) as file:
            write_answers(file, format, read_pairs(pairs, job.reading.encoding), ratings, reason)
        seconds = time.perf_counter() - started
        counts = np.bincount(reason, minlength=3).tolist()
        without = {UNKNOWN_ITEM: counts[1], NO_HISTORY: counts[2]}
        tracked.log_metrics({"rows": len(reason), "predicted": counts[0], "new items": folded_in, "seconds": seconds})
        tracked.log_metrics({f"without rating {why}": count for why, count in without.items()})
        if counts[0]:
            tracked.log_metrics({"mean predicted rating": float(np.nanmean(ratings))})
    return Predicted(job.output, len(reason), counts[0], without, folded_in, interactions.ledger.line(), seconds)


def model_of_ratings(saved: SavedModel) -> RatingRecommender:
    """The saved model. Raises UnsupportedError for a model of lists."""
    if not isinstance(saved.model, RatingRecommender):
        raise UnsupportedError(
            f"{saved.model.name} makes lists: its scores order items, and are no ratings. Train a model with "
            "--task rating, or use recsys score for lists."
        )
    return saved.model


@click.command("predict")
@click.argument("model", type=LocationType())
@click.argument("pairs", type=LocationType())
@options_from(PredictJob)
def command(job: PredictJob) -> None:
    """Predict the rating of every (user, item) row of PAIRS with the model directory MODEL.

    Every row is answered, in order: user_id, item_id, rating, reason (empty, or why there is no rating).
    """
    report(run(job))


def report(found: Predicted) -> None:
    """How many rows have a rating, and why others have none."""
    if as_json():
        print_json(asdict(found))
        return
    click.echo(found.ledger)
    click.echo(f"{found.predicted:,} of {found.rows:,} rows have a rating ({found.seconds:.1f} s)")
    if found.new_items:
        click.echo(f"{found.new_items:,} new items folded in from their ratings in the histories")
    for reason, count in found.without.items():
        if count:
            click.echo(f"{count:,} have none: {reason}")
    click.echo(f"Ratings: {found.file}")
