"""Ratings in Parquet files and data frames: typed columns, whose ids keep their type."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.data.reading.layout import Columns, find_columns
from recsys.data.reading.lines import BLANKS
from recsys.data.reading.options import ReadingOptions
from recsys.data.reading.rows import BAD_TIME, INFINITE_RATING, MISSING_ITEM, MISSING_RATING, MISSING_USER, Reject, Rows
from recsys.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

FRAME = "the DataFrame"
BATCH = 1 << 18  # rows

NoteColumns = Callable[[Sequence[str], Columns], None]


def read_parquet(
    path: Path,
    options: ReadingOptions,
    partitions: Mapping[str, str | None] = MappingProxyType({}),
    note_columns: NoteColumns | None = None,
) -> Iterator[Rows]:
    """Read the rows of a Parquet file.

    Parameters
    ----------
    path : Path
    options : ReadingOptions
    partitions : mapping of str to str or None
        Columns with one value for all rows, read where `options` name them.
    note_columns : callable, optional
        Receives the names of all columns and the positions of those that are read.

    Yields
    ------
    Rows
        A batch at a time.

    Raises
    ------
    DataError
        If the file is damaged, or a column has another type than expected.
    """
    try:
        with pq.ParquetFile(path) as file:
            own = file.schema_arrow.names
            names = [*own, *(name for name in partitions if name in options.columns and name not in own)]
            columns = find_columns(names, options, path.name)
            if note_columns is not None:
                note_columns(names, columns)
            constant = {
                place: _constant(names[place], partitions[names[place]], place, columns, path.name)
                for place in columns.used()
                if place >= len(own)
            }
            for batch in file.iter_batches(BATCH, columns=[names[p] for p in columns.used() if p not in constant]):
                arrays = {
                    place: pa.repeat(constant[place], len(batch)) if place in constant else batch.column(names[place])
                    for place in columns.used()
                }
                yield _rows(arrays, columns, path.name)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged(path, error) from error


def whole_parquet(path: Path) -> pa.Table:
    """Read all of a small Parquet file, checked, each column in one piece. DataError if it is damaged."""
    try:
        with pq.ParquetFile(path) as file:  # not read_table: it takes folders named a=b for columns
            table = file.read().combine_chunks()
        table.validate(full=True)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged(path, error) from error
    return table


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"Expected a whole Parquet file, found {path.name} damaged: {error}. Write it again.")


def _constant(name: str, text: str | None, place: int, columns: Columns, where: str) -> Any:
    """The value of a partition in the type of the column that it is."""
    kind = {columns.rating: pa.float64(), columns.timestamp: pa.timestamp("ms")}.get(place, pa.string())
    if place == columns.timestamp and text is not None:
        text = re.sub(r"^(\d{4})(\d\d)(\d\d)$", r"\1-\2-\3", text)  # 20260131: a day, not an epoch
        kind = pa.int64() if re.fullmatch(r"\d{9,}", text) else kind
    try:
        return pa.scalar(text, pa.string()).cast(kind)
    except pa.ArrowInvalid:
        expected = "a date (2026-01-31) or an epoch" if place == columns.timestamp else "a number"
        raise DataError(f"Expected {expected} after {name}= in the folders of {where}, found {text!r}.") from None


def read_frame(frame: pd.DataFrame, options: ReadingOptions, note_columns: NoteColumns | None = None) -> Iterator[Rows]:
    """Read the rows of a pandas DataFrame; its index is ignored.

    Parameters
    ----------
    frame : DataFrame
    options : ReadingOptions
    note_columns : callable, optional
        Receives the names of all columns and the positions of those that are read.

    Yields
    ------
    Rows
        All rows at once.

    Raises
    ------
    DataError
        If a column is missing or has another type than expected.
    """
    names = [str(name) for name in frame.columns]
    columns = find_columns(names, options, FRAME)
    if note_columns is not None:
        note_columns(names, columns)
    if not len(frame):
        raise DataError(f"Expected rows of ratings in {FRAME}, found none.")
    ids = (columns.user, columns.item)
    arrays = {place: _array(frame.iloc[:, place], names[place], place in ids) for place in columns.used()}
    yield _rows(arrays, columns, FRAME)


def _array(column: pd.Series[Any], name: str, is_id: bool) -> Any:
    if hasattr(column.dtype, "tz"):  # to UTC first: Arrow asks pandas 3 in a way that warns
        column = column.dt.tz_convert(None)
    try:
        return pa.Array.from_pandas(column)
    except OverflowError as error:
        if not is_id:
            return _floats(column, name)
        raise DataError(
            f"Expected integers of at most 64 bits in the column {name!r} of {FRAME}, found a larger one. Cast the "
            "column to text: .astype(str)."
        ) from error
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(
            f"Expected one type that Arrow knows in the column {name!r} of {FRAME}, found {column.dtype}: {error}. "
            "Cast the column."
        ) from error


def _floats(column: pd.Series[Any], name: str) -> pa.Array:
    """Numbers beyond 64 bits, which are as good in floating point."""
    try:
        return pa.array([None if value is None else float(value) for value in column], pa.float64())
    except (OverflowError, TypeError, ValueError) as error:
        raise DataError(f"Expected numbers in the column {name!r} of {FRAME}, found: {error}. Cast it.") from error


def _rows(arrays: dict[int, Any], columns: Columns, where: str) -> Rows:
    user, item = as_ids(arrays[columns.user], "user", where), as_ids(arrays[columns.item], "item", where)
    rating = None if columns.rating is None else _numbers(arrays[columns.rating], "rating", where)
    time = None if columns.timestamp is None else _times(arrays[columns.timestamp], where)
    wrong = {MISSING_USER: blank(user), MISSING_ITEM: blank(item)}
    if rating is not None:
        wrong[MISSING_RATING] = np.isnan(rating)
        wrong[INFINITE_RATING] = np.abs(rating) > np.finfo(np.float32).max
    if time is not None:
        wrong[BAD_TIME] = time[1]
    kept = ~np.logical_or.reduce(list(wrong.values()))
    return Rows(
        user.filter(pa.array(kept)).dictionary_encode(),
        item.filter(pa.array(kept)).dictionary_encode(),
        None if rating is None else rating[kept].astype(np.float32),
        None if time is None else time[0][kept],
        np.flatnonzero(kept).astype(np.int32),
        len(user),
        len(user),
        tuple(_rejects(wrong, arrays)),
    )


def _rejects(wrong: dict[str, NDArray[np.bool_]], arrays: dict[int, Any]) -> Iterator[Reject]:
    """The unusable rows, each with its first reason."""
    for place in np.flatnonzero(np.logical_or.reduce(list(wrong.values()))):
        reason = next(reason for reason, rows in wrong.items() if rows[place])
        cells = [array[int(place)].as_py() for array in arrays.values()]
        text = ",".join("" if cell is None else str(cell) for cell in cells)
        yield Reject(int(place), reason, f"found {text}", text)


def as_ids(array: Any, kind: str, where: str) -> Any:
    """Return ids as an array of integers or of text, in their own type.

    Parameters
    ----------
    array : Array or ChunkedArray
    kind : str
        Whose ids they are, for messages.
    where : str
        Name of the source, for messages.

    Raises
    ------
    DataError
        If the column has another type.
    """
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type) or pa.types.is_integer(array.type):
        try:
            array.validate(full=True)
        except pa.ArrowInvalid as error:
            raise DataError(f"Expected {kind} ids in UTF-8 in {where}, found other bytes: {error}.") from error
        return array
    if pa.types.is_null(array.type) or str(array.type) == "string_view":
        return array.cast(pa.string())
    raise DataError(
        f"Expected {kind} ids as integers or text in {where}, found the type {array.type}: 7.0 is not 7. "
        "Cast the column where the data come from."
    )


def blank(ids: Any) -> NDArray[np.bool_]:
    """Return where an id is missing or blank, bool (rows,)."""
    missing = ids.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_integer(ids.type):
        return np.asarray(missing)
    length = pc.binary_length(pc.utf8_trim(ids.fill_null(""), characters=BLANKS))
    return np.asarray(length.to_numpy(zero_copy_only=False) == 0)


def _numbers(array: Any, kind: str, where: str) -> NDArray[np.float64]:
    """Numbers as float64 (rows,), NaN where one is missing."""
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean, pa.types.is_null)
    if not any(is_kind(array.type) for is_kind in kinds):
        wanted = "numbers, dates or timestamps" if kind == "time" else "numbers"
        raise DataError(f"Expected {wanted} as {kind}s in {where}, found the type {array.type}. Cast the column.")
    return np.asarray(pc.fill_null(array.cast(pa.float64(), safe=False), np.nan).to_numpy(zero_copy_only=False))


def _times(array: Any, where: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Epochs as they stand, or dates as datetime64[ms], (rows,); and where there is none."""
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    missing = np.asarray(array.is_null().to_numpy(zero_copy_only=False))
    if pa.types.is_date(array.type) or pa.types.is_timestamp(array.type):
        array = array.cast(pa.timestamp("ms", array.type.tz if pa.types.is_timestamp(array.type) else None), safe=False)
        return array.cast(pa.int64()).fill_null(0).to_numpy().astype("datetime64[ms]"), missing
    if pa.types.is_integer(array.type) and array.type != pa.uint64():
        return array.cast(pa.int64()).fill_null(0).to_numpy(), missing
    if pa.types.is_boolean(array.type):
        raise DataError(f"Expected numbers, dates or timestamps as times in {where}, found the type {array.type}.")
    numbers = _numbers(array, "time", where)
    missing = ~np.isfinite(numbers)
    return np.where(missing, 0, numbers), missing
