"""Predicted ratings for every row of a file of (user, item) pairs, in order, with the ids as they came in.

The file is read twice, in parts: to find the positions of its ids, and to write it again with the predictions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.data.interactions import Interactions, Vocabulary
from recsys.data.matrix import UserItemMatrix
from recsys.data.reading import ReadingOptions
from recsys.data.reading.delimited import read_text, sniff
from recsys.data.reading.layout import Layout
from recsys.data.reading.rows import Rows
from recsys.data.reading.streams import first_bytes
from recsys.data.reading.tables import NoteColumns, read_parquet
from recsys.errors import ConfigError, DataError
from recsys.inference.pairs import predict_pairs
from recsys.models.ratings.base import RatingModel
from recsys.types import ScoreFunction

UNKNOWN_ITEM = "unknown item"
NO_HISTORY = "user without history"
FORMATS: dict[str, Literal["csv", "parquet"]] = {".csv": "csv", ".parquet": "parquet"}

_ROWS = 1 << 20  # written at once
_REASONS = pa.array([None, UNKNOWN_ITEM, NO_HISTORY], pa.string())


def read_pairs(
    file: Path, reading: ReadingOptions | None = None, note_columns: NoteColumns | None = None
) -> Iterator[Rows]:
    """Read the pairs of a text or Parquet file, in parts.

    Parameters
    ----------
    file : Path
        Columns user_id, item_id, named or first as in a file of ratings; further columns are ignored.
    reading : ReadingOptions, optional
        How the ratings beside the pairs are read: names of columns, separator, header and encoding. Where the pairs
        do not have these columns, they are found as if nothing were given.
    note_columns : callable, optional
        Receives the names of all columns and the positions of those that are read.

    Yields
    ------
    Rows
        Ids of some rows, in the order of the file.

    Raises
    ------
    DataError
        If there is no such file, or a row has no user or no item: every row gets a prediction or a reason.
    """
    if not file.is_file():
        raise DataError(f"Expected a file of pairs, found {'a folder' if file.is_dir() else 'nothing'} at {file}.")
    is_parquet = first_bytes(file, 4) == b"PAR1"
    options, layout = _layout_of_pairs(file, reading or ReadingOptions(), is_parquet)
    if layout is not None and note_columns is not None:
        note_columns(layout.names, layout.columns)
    parts = (
        read_parquet(file, options, note_columns=note_columns) if layout is None else read_text(file, layout, options)
    )
    line = 1 if layout is None else 1 + layout.skip
    for part in parts:
        for reject in part.rejects:
            raise DataError(
                f"Expected a user and an item in every row of {file.name}, as every row gets an answer; found "
                f"{reject.reason}, {reject.detail} in line {line + reject.row:,}. Fix or remove the row."
            )
        line += part.length
        yield part


def _layout_of_pairs(file: Path, reading: ReadingOptions, is_parquet: bool) -> tuple[ReadingOptions, Layout | None]:
    """The options that the file can be read with, and the layout of a text: as the ratings, else as found."""
    plain = ReadingOptions(rating_column="none", timestamp_column="none", encoding=reading.encoding)
    given = {name: getattr(reading, name) for name in ("user_column", "item_column", "separator", "header")}

    def layout(options: ReadingOptions) -> Layout | None:
        if not is_parquet:
            return sniff(file, options)
        next(read_parquet(file, options), None)  # raises where a column is missing
        return None

    try:
        return (options := replace(plain, **given)), layout(options)
    except DataError:
        if not any(value is not None for value in given.values()):
            raise
        try:
            return plain, layout(plain)
        except DataError:
            pass
        raise


def with_new_items(
    model: RatingModel, items: Vocabulary, interactions: Interactions
) -> tuple[RatingModel, UserItemMatrix]:
    """Extend a model by the items that users of the histories rated and it does not know.

    Parameters
    ----------
    model : RatingModel
        The model.
    items : Vocabulary
        The items it knows.
    interactions : Interactions
        Histories with ratings.

    Returns
    -------
    model : RatingModel
        The model with the new items; the same model where there are none.
    histories : UserItemMatrix
        The histories over the known items, then the new ones.

    Raises
    ------
    UnsupportedError
        If the model cannot take new items.
    """
    model.check_new_items()
    rated = interactions.items.take(np.unique(interactions.item))
    new = rated.filter(pa.array(items.positions(rated) < 0))
    histories = UserItemMatrix.from_interactions(interactions, items.extended(new), ratings=True)
    if not len(new):
        return model, histories
    known, others = histories.matrix[:, : len(items)], histories.matrix[:, len(items) :]
    return model.with_rated_items(known, others), histories


def predict_rows(
    score: ScoreFunction, histories: UserItemMatrix, pairs: Iterable[Rows]
) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Predict the rating of every pair.

    Parameters
    ----------
    score : ScoreFunction
        Ratings of histories for all items.
    histories : UserItemMatrix
        What each user has rated.
    pairs : iterable of Rows
        From `read_pairs`.

    Returns
    -------
    ratings : ndarray of float32, shape (pairs,)
        NaN where there is no prediction.
    reason : ndarray of int8, shape (pairs,)
        0 where there is a prediction; 1: the model does not know the item; 2: the user has no history of known items.
    """
    user, item = _positions(histories, pairs)
    known = np.append(np.diff(histories.matrix.indptr) > 0, False)  # -1 is the last
    reason = np.where(item < 0, 1, np.where(known[user], 0, 2)).astype(np.int8)
    return predict_pairs(score, histories.matrix, np.where(reason == 0, user, -1), item), reason


@dataclass(frozen=True)
class PredictionSummary:
    """What became of the pairs.

    Attributes
    ----------
    predicted : int
        Pairs with a rating.
    without : mapping of str to int
        Pairs without one, by reason.
    mean : float or None
        Mean of the ratings; None where there is none.
    """

    predicted: int
    without: Mapping[str, int]
    mean: float | None


def summarize(ratings: NDArray[np.float32], reason: NDArray[np.int8]) -> PredictionSummary:
    """Count the results of `predict_rows`."""
    predicted, unknown, without_history = np.bincount(reason, minlength=3).tolist()
    mean = float(np.nanmean(ratings)) if predicted else None
    return PredictionSummary(predicted, {UNKNOWN_ITEM: unknown, NO_HISTORY: without_history}, mean)


def _positions(histories: UserItemMatrix, pairs: Iterable[Rows]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Rows and columns of the pairs in the histories, -1 for those not there."""
    nothing = np.empty(0, dtype=np.int32)
    found = [(nothing, nothing)]
    for part in pairs:
        users, items = (
            vocabulary.positions(ids.dictionary)[ids.indices.to_numpy()]
            for vocabulary, ids in ((histories.users, part.user), (histories.items, part.item))
        )
        found.append((users, items))
    user, item = (np.concatenate(side) for side in zip(*found, strict=True))
    return user, item


def file_format(file: Any) -> Literal["csv", "parquet"]:
    """Return the format of a file of predictions by the end of its name; ConfigError if it is another than these."""
    suffix = Path(str(file)).suffix.lower()
    if suffix not in FORMATS:
        raise ConfigError(f"Expected an output that ends in {' or '.join(FORMATS)}, found {file}.")
    return FORMATS[suffix]


def write_predictions(
    file: Path,
    format: Literal["csv", "parquet"],
    pairs: Iterable[Rows],
    ratings: NDArray[np.float32],
    reason: NDArray[np.int8],
) -> None:
    """Write one row for every pair: user_id, item_id, rating, reason; either rating or reason is empty.

    Parameters
    ----------
    file : Path
        File to write.
    format : {"csv", "parquet"}
        Its format.
    pairs : iterable of Rows
        From `read_pairs`, read again.
    ratings, reason : ndarray, shape (pairs,)
        From `predict_rows`.
    """
    writer, start = None, 0
    try:
        for part in pairs:
            stop = start + len(part.user)
            table = _table(part, ratings[start:stop], reason[start:stop])
            if writer is None:
                writer = (
                    pa_csv.CSVWriter(file, table.schema)
                    if format == "csv"
                    else pq.ParquetWriter(file, table.schema, compression="zstd")
                )
            writer.write_table(table, _ROWS)
            start = stop
    finally:
        if writer is not None:
            writer.close()


def _table(part: Rows, ratings: NDArray[np.float32], reason: NDArray[np.int8]) -> pa.Table:
    """The rows of a part of the file."""
    return pa.table(
        {
            "user_id": part.user.dictionary_decode(),
            "item_id": part.item.dictionary_decode(),
            "rating": pa.array(ratings, mask=reason > 0),
            "reason": _REASONS.take(pa.array(reason)),
        }
    )
