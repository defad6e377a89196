"""Small tables that name users or items: the first column, or the one with a known name, holds the ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from recsys.data.interactions import Vocabulary
from recsys.data.reading import find_files
from recsys.data.reading.layout import ALIASES, find_separator, plain_name, split_line
from recsys.data.reading.streams import read_lines
from recsys.data.reading.tables import as_ids, whole_parquet
from recsys.errors import DataError
from recsys.system.storage import Location, local_copy


def read_ids(path: Location, kind: str) -> Vocabulary:
    """Read the distinct ids of a file.

    Parameters
    ----------
    path : Path or str
        See `read_columns`.
    kind : {"user", "item"}
        Whose ids they are.

    Returns
    -------
    Vocabulary
        In order of first appearance; it may be empty.
    """
    return Vocabulary(read_columns(path, kind, 1)[0].unique())


def read_columns(path: Location, kind: str, width: int) -> list[pa.Array]:
    """Read the first columns of a small table.

    Parameters
    ----------
    path : Path or str
        Parquet, or text with any separator. A first line that names its id column as ratings files do is a header.
    kind : {"user", "item"}
        The id whose column comes first in the result.
    width : int
        Number of columns to return, 1 or 2.

    Returns
    -------
    list of Array
        Text or integers.

    Raises
    ------
    DataError
        If the file has fewer columns, or ids that are neither text nor integers.
    """
    with local_copy(path) as file:
        return _read_columns(file, kind, width)


def _read_columns(path: Path, kind: str, width: int) -> list[pa.Array]:
    find_files(path)
    names, columns = _read_parquet(path) if path.suffix == ".parquet" else _read_text(path, kind, width)
    if columns and len(columns) < width:
        raise DataError(f"Expected {width} columns in {path}, found {len(columns)}.")
    first = _place(names, kind)
    columns = [columns[first], *columns[:first], *columns[first + 1 :]] if columns else [pa.array([], pa.string())] * 2
    columns = [as_ids(column, kind, path.name) for column in columns[:width]]
    if any(column.null_count for column in columns):
        raise DataError(f"Expected a value in every row of {path.name}, found rows without one. Remove them.")
    return columns


def _read_parquet(path: Path) -> tuple[Sequence[str], list[pa.Array]]:
    table = whole_parquet(path)
    return table.column_names, table.columns


def _read_text(path: Path, kind: str, width: int) -> tuple[Sequence[str], list[pa.Array]]:
    try:
        lines = [line for line in read_lines(path, "utf-8") if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"Expected ids in UTF-8, found {path.name} in another encoding ({error}).") from error
    is_table = width > 1 or any(mark in lines[0] for mark in ",;|\t") if lines else False
    separator = find_separator(lines[:1000], path.name) if is_table else "\0"
    rows = [fields for line in lines if (fields := split_line(line, separator)) is not None]
    if not rows:
        return [], []
    names = rows[0]
    if any(plain_name(name) in ALIASES[kind] for name in names):
        rows = rows[1:]
    columns = [pa.array([row[i] if i < len(row) else "" for row in rows], pa.string()) for i in range(len(names))]
    return names, columns


def _place(names: Sequence[str], kind: str) -> int:
    return next((place for place, name in enumerate(names) if plain_name(name) in ALIASES[kind]), 0)
