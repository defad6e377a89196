"""A file of (user, item) pairs answered with predicted ratings: every row, in order, its ids as they came in.

The file is read twice, a piece at a time: for the places of its ids, and to be written out again with the answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
from recsys.data.reading.rows import Rows
from recsys.data.reading.tables import read_parquet
from recsys.errors import ConfigError, DataError
from recsys.inference.pairs import predict_pairs
from recsys.models.ratings.base import RatingRecommender
from recsys.types import ScoreFunction

UNKNOWN_ITEM = "unknown item"
NO_HISTORY = "user without history"
FORMATS: dict[str, Literal["csv", "parquet"]] = {".csv": "csv", ".parquet": "parquet"}

_PIECE = 1 << 20  # rows of the answers written at once
_REASONS = pa.array([None, UNKNOWN_ITEM, NO_HISTORY], pa.string())


def read_pairs(file: Path, encoding: str = "utf-8") -> Iterator[Rows]:
    """The pairs of a text or Parquet file, piece by piece. Raises DataError for a row without a user and an item."""
    if not file.is_file():
        raise DataError(f"Expected a file of pairs, found {'a folder' if file.is_dir() else 'nothing'} at {file}.")
    options = ReadingOptions(rating_column="none", timestamp_column="none", encoding=encoding)
    with file.open("rb") as start:
        is_parquet = start.read(4) == b"PAR1"
    layout = None if is_parquet else sniff(file, options)
    pieces = read_parquet(file, options) if layout is None else read_text(file, layout, options)
    line = 1 if layout is None else 1 + layout.skip
    for piece in pieces:
        for reject in piece.rejects:
            raise DataError(
                f"Expected a user and an item in every row of {file.name}, as every row is answered; found "
                f"{reject.reason}, {reject.detail} in line {line + reject.row:,}. Fix or remove the row."
            )
        line += piece.length
        yield piece


def with_new_items(
    model: RatingRecommender, items: Vocabulary, interactions: Interactions
) -> tuple[RatingRecommender, UserItemMatrix]:
    """A model that also knows the items people rated and it had never seen, and the histories over all of them.

    items: what the model knows. Raises UnsupportedError for a model that cannot take new items.
    """
    model.check_new_items()
    rated = interactions.items.take(np.unique(interactions.item))
    new = rated.filter(pa.array(items.positions(rated) < 0))
    histories = UserItemMatrix.from_interactions(interactions, items.extended(new), ratings=True)
    if not len(new):
        return model, histories
    known, others = histories.matrix[:, : len(items)], histories.matrix[:, len(items) :]
    return model.with_new_items(known, others), histories


def predict_rows(
    score: ScoreFunction, histories: UserItemMatrix, pairs: Iterable[Rows]
) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Of every pair: its rating, float32 (pairs,), NaN where there is none; and why, int8 (pairs,), 0 where there is.

    1: the model does not know the item. 2: the user has no history of known items.
    """
    user, item = _positions(histories, pairs)
    known = np.append(np.diff(histories.matrix.indptr) > 0, False)  # -1 is the last
    reason = np.where(item < 0, 1, np.where(known[user], 0, 2)).astype(np.int8)
    return predict_pairs(score, histories.matrix, np.where(reason == 0, user, -1), item), reason


def _positions(histories: UserItemMatrix, pairs: Iterable[Rows]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Rows and columns of the pairs in the histories, -1 for those not there."""
    nothing = np.empty(0, dtype=np.int32)
    found = [(nothing, nothing)]
    for piece in pairs:
        users, items = (
            vocabulary.positions(ids.dictionary)[ids.indices.to_numpy()]
            for vocabulary, ids in ((histories.users, piece.user), (histories.items, piece.item))
        )
        found.append((users, items))
    user, item = (np.concatenate(side) for side in zip(*found, strict=True))
    return user, item


def format_of(file: Any) -> Literal["csv", "parquet"]:
    """How a file of answers is written, by the end of its name. Raises ConfigError for any other than these."""
    suffix = Path(str(file)).suffix.lower()
    if suffix not in FORMATS:
        raise ConfigError(f"Expected an output that ends in {' or '.join(FORMATS)}, found {file}.")
    return FORMATS[suffix]


def write_answers(
    file: Path,
    format: Literal["csv", "parquet"],
    pairs: Iterable[Rows],
    ratings: NDArray[np.float32],
    reason: NDArray[np.int8],
) -> None:
    """Write user_id, item_id, rating, reason: a row for every pair; rating or reason is empty."""
    writer, start = None, 0
    try:
        for piece in pairs:
            stop = start + len(piece.user)
            table = _table(piece, ratings[start:stop], reason[start:stop])
            if writer is None:
                writer = (
                    pa_csv.CSVWriter(file, table.schema)
                    if format == "csv"
                    else pq.ParquetWriter(file, table.schema, compression="zstd")
                )
            writer.write_table(table, _PIECE)
            start = stop
    finally:
        if writer is not None:
            writer.close()


def _table(piece: Rows, ratings: NDArray[np.float32], reason: NDArray[np.int8]) -> pa.Table:
    return pa.table(
        {
            "user_id": piece.user.dictionary_decode(),
            "item_id": piece.item.dictionary_decode(),
            "rating": pa.array(ratings, mask=reason > 0),
            "reason": _REASONS.take(pa.array(reason)),
        }
    )
