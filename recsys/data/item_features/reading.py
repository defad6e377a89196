"""Reading a table of items: CSV with any separator, gzipped text, Parquet; wide (a row an item) or long."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from recsys.data.id_order import canonical_order
from recsys.data.interactions import Ledger, Vocabulary
from recsys.data.item_features.cells import joined, text_column, typed_column
from recsys.data.item_features.options import FeatureOptions, Kind
from recsys.data.item_features.table import Column, ItemTable
from recsys.data.reading.layout import ALIASES, find_separator, plain_name
from recsys.data.reading.options import SEPARATORS
from recsys.data.reading.streams import SAMPLE, first_bytes, read_pieces, refuse_other_kinds, without_byte_order_marks
from recsys.data.reading.tables import as_ids, blank, whole_parquet
from recsys.errors import DataError
from recsys.system.storage import Location, local_copy

DEFAULT = FeatureOptions()
Whose = Literal["item", "user"]
MANY_REPEATED = 0.05  # share of the rows from which a file of two columns is long, whatever the column holds
WRONG_WIDTH, BAD_QUOTES = "wrong number of columns", "quotes that do not pair"


def read_item_table(path: Location, options: FeatureOptions = DEFAULT, whose: Whose = "item") -> ItemTable:
    """Read what is known of items.

    A file of two columns in which items repeat is long: `item,tag` with a row for each tag. Its values are categories,
    unless the column holds numbers, dates or text and fewer than 5 % of the rows repeat an item. In any other file the
    first row of an item counts, and the account says how many more there were.

    Parameters
    ----------
    path : Path or str
        Text with a header (CSV, TSV, any separator, also gzipped) or Parquet.
    options : FeatureOptions
        What is not given is found.
    whose : {"item", "user"}
        A table of users is read alike, by the usual names of their ids.

    Returns
    -------
    ItemTable
        Items in canonical order, their ids as in the source.

    Raises
    ------
    DataError
        If the file cannot be read, has no column of features, or lacks a column that was named.
    """
    with local_copy(path) as file:
        if not file.is_file():
            raise DataError(f"Expected a table of {whose} features, found no file {path}. Check the path.")
        if first_bytes(file, 4) == b"PAR1":
            return _assemble(*_read_parquet(file), None, options, file.name, whose)
        names, cells, ledger = _read_text(file, options, whose)
        return _assemble(names, cells, ledger, options, file.name, whose)


def _assemble(
    names: Sequence[str],
    cells: Sequence[pa.Array],
    ledger: Ledger | None,
    options: FeatureOptions,
    where: str,
    whose: Whose,
) -> ItemTable:
    """The table of the columns of a file. Without a ledger they are typed, and all rows are there."""
    place = _id_column(names, options, where, whose)
    wanted = _wanted(names, place, options, where)
    given = as_ids(cells[place], whose, where)
    held = np.flatnonzero(~blank(given))
    read = len(given) if ledger is None else ledger.read
    rejected = {} if ledger is None else dict(ledger.rejected)
    rejected[f"missing {whose} id"] = len(given) - len(held)
    ids = given.take(pa.array(held))
    distinct = ids.unique()
    distinct = distinct.take(pa.array(canonical_order(distinct)))
    items = Vocabulary.of(distinct)
    row = items.positions(ids)
    columns: dict[str, Column] = {}
    repeated = len(ids) - len(items)
    if (
        len(names) == 2
        and repeated
        and _is_long(cells[1 - place], repeated, names[1 - place], wanted[1 - place], where)
    ):
        name = names[1 - place]
        columns[name] = joined(_as_text(cells[1 - place].take(pa.array(held)), name, where), row, len(items))
    else:
        first = held[np.unique(row, return_index=True)[1]]
        rejected[f"repeated {whose} id"] = repeated
        make = text_column if ledger is not None else typed_column
        for at, kind in wanted.items():
            columns[names[at]] = make(cells[at].take(pa.array(first)), kind, names[at], where)
    if not len(items):
        raise DataError(f"Expected rows of {whose}s in {where}, found none.")
    unread = tuple(name for at, name in enumerate(names) if at != place and name not in columns)
    return ItemTable(items, columns, Ledger(read, rejected), names[place], unread)


def _id_column(names: Sequence[str], options: FeatureOptions, where: str, whose: Whose) -> int:
    """Position of the column of ids: as named, by its usual names, else the first."""
    if options.item_column is not None:
        if options.item_column not in names:
            raise DataError(f"Expected the column {options.item_column!r} in {where}, found {', '.join(names)}.")
        return list(names).index(options.item_column)
    plain = [plain_name(name) for name in names]
    return next((plain.index(name) for name in (*ALIASES[whose], "id") if name in plain), 0)


def _wanted(names: Sequence[str], place: int, options: FeatureOptions, where: str) -> dict[int, Kind | None]:
    """Positions of the columns to read, with what they hold where that was said."""
    for name in (*options.kinds, *options.ignore_columns):
        if name not in names or name == names[place]:
            others = ", ".join(other for other in names if other != names[place])
            raise DataError(f"Expected {name!r} among {others}, the feature columns of {where}; found no such column.")
    read = [at for at in range(len(names)) if at != place and names[at] not in options.ignore_columns]
    read = [at for at in read if not options.kinds or names[at] in options.kinds]
    if not read:
        raise DataError(f"Expected a column of features beside {names[place]!r} in {where}, found none to read.")
    return {at: options.kinds.get(names[at]) for at in read}


def _is_long(cells: pa.Array, repeated: int, name: str, kind: Kind | None, where: str) -> bool:
    """Whether the rows of repeated items are further values of theirs, and not a few rows too many."""
    if kind is not None:
        return kind == "categories"
    if pa.types.is_nested(cells.type):
        return False
    return (
        repeated >= MANY_REPEATED * len(cells)
        or text_column(_as_text(cells, name, where), None, name, where).kind == "categories"
    )


def _as_text(cells: pa.Array, name: str, where: str) -> pa.Array:
    if pa.types.is_nested(cells.type):
        raise DataError(f"Expected text or numbers in the column {name!r} of {where}, found the type {cells.type}.")
    return cells.cast(pa.string())


def _read_parquet(path: Path) -> tuple[list[str], list[pa.Array]]:
    table = whole_parquet(path)
    return _distinct(table.column_names, path.name), [
        column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column for column in table.columns
    ]


def _read_text(path: Path, options: FeatureOptions, whose: Whose) -> tuple[list[str], list[pa.Array], Ledger]:
    """The columns of a text file with a header, and the account of rows that have other columns than it."""
    text = _decoded(path, options.encoding)
    lines = [line for line in text[:SAMPLE].split("\n") if line.strip()]
    if len(lines) < 2:
        raise DataError(f"Expected a header and rows of {whose}s in {path.name}, found {len(lines)} lines.")
    separator = SEPARATORS.get((options.separator or "").lower(), options.separator)
    separator = separator or _separator(lines, path.name)
    rows = _records(text, separator, path.name)
    names = _distinct([name.strip() for name in next(rows) or []], path.name)
    cells: list[list[str]] = [[] for _ in names]
    read, rejected = 0, {WRONG_WIDTH: 0, BAD_QUOTES: 0}
    for row in rows:
        read += 1
        if row is None:
            rejected[BAD_QUOTES] += 1
        elif len(row) != len(names):
            rejected[WRONG_WIDTH] += 1
        else:
            for column, cell in zip(cells, row, strict=True):
                column.append(cell)
    return names, [pa.array(column, pa.string()) for column in cells], Ledger(read, rejected)


def _decoded(path: Path, encoding: str | None) -> str:
    content = b"".join(read_pieces(path, encoding or "utf-8"))
    refuse_other_kinds(content[:SAMPLE], path)
    content = without_byte_order_marks(content)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        if encoding is not None:
            raise DataError(f"Expected text in {encoding}, found other bytes in {path.name}: {error}.") from error
        return content.decode("latin-1")


def _separator(lines: Sequence[str], where: str) -> str:
    """What stands between the names in the header, if one mark alone does; else what fits most lines."""
    marks = [mark for mark in ("\t", "::", ";", ",") if mark in lines[0]]
    return marks[0] if len(marks) == 1 else find_separator(lines[:1000], where)


def _records(text: str, separator: str, where: str) -> Iterator[list[str] | None]:
    """The fields of each record, which may run over several lines in quotes; None where quotes do not pair."""
    if len(separator) > 1:  # knows no quotes
        yield from (line.rstrip("\r").split(separator) for line in text.split("\n") if line.strip())
        return
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error) or "field limit" in str(error):
                raise DataError(
                    f"Expected quotes that close in {where}, found one that is open up to line {reader.line_num:,} "
                    f"({error}). Write a quote in a field twice."
                ) from error
            yield None
            continue
        if row:
            yield row


def _distinct(names: list[str], where: str) -> list[str]:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(f"Expected columns of different names in {where}, found {twice[0]!r} twice. Rename one.")
    return names
