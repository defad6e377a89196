"""`recsys predict`: predict the rating of every user-item pair in a file."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import click

from recsys.artifacts import load_model
from recsys.batch.predictions import (
    file_format,
    predict_rows,
    read_pairs,
    summarize,
    with_new_items,
    write_predictions,
)
from recsys.data.matrix import UserItemMatrix
from recsys.data.reading import ReadingOptions
from recsys.data.reading.layout import Columns
from recsys.data.reading.rows import column_use
from recsys.data.store import is_store
from recsys.errors import ArtifactError, UnsupportedError
from recsys.models.ratings.base import RatingModel
from recsys.models.trained import TrainedModel
from recsys.system.files import new_file
from recsys.system.storage import Location, local_copy
from recsys.system.text import plural

from .cli.models import ModelType
from .cli.options import LocationType, options_from, setting
from .cli.output import as_json, note_columns, print_json, say
from .cli.progress import activity
from .cli.reading import read_histories
from .cli.settings import TrackingOptions
from .cli.steps import log_data, log_used_model


@dataclass(frozen=True)
class PredictJob:
    """Which model, which pairs, which histories, and where the predictions go."""

    model: Location
    pairs: Location
    ratings: tuple[Location, ...] = setting((), "Ratings with the histories of the users.", multiple=True)
    new_items: bool = setting(False, "Also predict items that are unknown to the model but rated in the histories.")
    output: Path = setting(Path("predictions.csv"), "File to write: .csv or .parquet.", "--output", "-o")
    overwrite: bool = setting(False, "Replace an existing file.")
    device: str = setting("auto", "auto, cpu, cuda or cuda:N.")
    tracking: TrackingOptions = field(default_factory=TrackingOptions)
    reading: ReadingOptions = field(default_factory=ReadingOptions)


@dataclass(frozen=True)
class Predicted:
    """The file, its rows, how many have a rating, how many have none and why, the account of the histories, seconds.

    new_items: number of items that were folded in.
    """

    file: Path
    rows: int
    predicted: int
    without: Mapping[str, int]
    new_items: int
    ledger: str
    seconds: float


def run(job: PredictJob) -> Predicted:
    """Predict the ratings. What can be refused is refused before the data are read."""
    if not job.ratings:
        raise click.UsageError("Expected --ratings FILE with the histories of the users, found none.")
    format = file_format(job.output)
    if job.output.exists() and not job.overwrite:
        raise ArtifactError(f"{job.output} already exists: choose another place, or set overwrite.")
    saved = load_model(job.model, job.device)
    model = rating_model(saved)
    if job.new_items:
        model.check_new_items()
    interactions = read_histories(saved, job.ratings, _reading_of_ratings(job))
    if job.new_items:
        model, histories = with_new_items(model, saved.items, interactions)
    else:
        histories = UserItemMatrix.from_interactions(interactions, saved.items, ratings=True)
    folded_in = len(histories.items) - len(saved.items)
    with job.tracking.open().run(f"predict {saved.model.name}", "predict") as tracked, local_copy(job.pairs) as pairs:
        log_data(tracked, interactions)
        tracked.log_params({"model": saved.model.name})
        log_used_model(tracked, saved)
        started = time.perf_counter()
        with activity("predicting"):
            ratings, reason = predict_rows(model.score, histories, read_pairs(pairs, job.reading, _note_pairs))
        with activity(f"writing {job.output}"), new_file(job.output) as file:
            write_predictions(file, format, read_pairs(pairs, job.reading), ratings, reason)
        seconds = time.perf_counter() - started
        found = summarize(ratings, reason)
        counts = {"rows": len(reason), "predicted": found.predicted, "new items": folded_in, "seconds": seconds}
        tracked.log_metrics(counts | {f"without rating {why}": count for why, count in found.without.items()})
        if found.mean is not None:
            tracked.log_metrics({"mean predicted rating": found.mean})
    return Predicted(
        job.output, len(reason), found.predicted, found.without, folded_in, interactions.ledger.line(), seconds
    )


def _note_pairs(names: Sequence[str], columns: Columns) -> None:
    """Say which columns of PAIRS are read."""
    note_columns(column_use(names, columns), "pairs")


def _reading_of_ratings(job: PredictJob) -> ReadingOptions:
    """The options for the histories: names of columns are for PAIRS alone where the ratings are a prepared store."""
    if len(job.ratings) == 1 and is_store(Path(job.ratings[0])):
        return replace(job.reading, user_column=None, item_column=None, separator=None, header=None)
    return job.reading


def rating_model(saved: TrainedModel) -> RatingModel:
    """The saved model. Raises UnsupportedError for a model of the ranking task."""
    if not isinstance(saved.model, RatingModel):
        raise UnsupportedError(
            f"{saved.model.name} makes lists: its scores rank items and are not ratings. Train a model of the rating "
            "task, or use recsys score for lists."
        )
    return saved.model


@click.command("predict")
@click.argument("model", type=ModelType())
@click.argument("pairs", type=LocationType())
@options_from(PredictJob)
def command(job: PredictJob) -> None:
    """Predict the rating of every (user, item) row of PAIRS with the model directory MODEL.

    The output has the rows of PAIRS in the same order: user_id, item_id, rating, reason (why there is no rating).
    """
    report(run(job))


def report(found: Predicted) -> None:
    """Print how many rows have a rating, and why others have none."""
    if as_json():
        print_json(asdict(found))
        return
    say(found.ledger)
    say(f"{found.predicted:,} of {plural(found.rows, 'row')} have a rating ({found.seconds:.1f} s)")
    if found.new_items:
        say(f"{plural(found.new_items, 'new item')} folded in from their ratings in the histories")
    for reason, count in found.without.items():
        if count:
            say(f"{plural(count, 'row')} without a rating: {reason}")
    say(f"Ratings: {found.file}")
