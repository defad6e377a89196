"""What a column of a table of items holds, and its cells as values of that kind."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.data.item_features.options import Kind
from recsys.data.item_features.table import TYPES, Column
from recsys.data.reading.lines import BLANKS
from recsys.data.reading.times import TimeKind, date_order, parse_number, parse_time
from recsys.errors import DataError

BAR = "|"  # between several values of a cell
NO_VALUE = frozenset(("", "na", "n/a", "nan", "null", "none", "\\n", "<na>"))
MOST = 0.98  # share of the values of a column that must be of a kind
SEVERAL = 0.01  # share of cells with a bar from which bars stand between values
LONG = 4.0  # mean number of words of a value from which it is text
LARGEST = float(np.finfo(np.float32).max)  # larger numbers are unreadable
SAMPLE = 5_000  # cells from which the kind is found
_CODE = re.compile(r"-?0\d+")  # 007 is the name of something, no number
_NOT_DATE = re.compile(r"[+-]?[\d.]+")  # 1995 and 20260131: numbers


def text_column(cells: pa.Array, kind: Kind | None, name: str, where: str) -> Column:
    """Turn cells of text into values.

    Parameters
    ----------
    cells : Array of text, shape (items,)
    kind : str or None
        What the column holds; found from the cells if None.
    name, where : str
        Of the column and of the file, for messages.

    Returns
    -------
    Column

    Raises
    ------
    DataError
        If the kind is "embedding", which text cannot be.
    """
    cells = _without_blanks(cells)
    kind = kind or find_kind(_sample(cells), name, where)
    if kind == "embedding":
        raise DataError(
            f"Expected {where} to be Parquet with a column {name!r} of lists of numbers, found text: embeddings are "
            "read from Parquet only."
        )
    if kind == "categories":
        return Column(kind, _several(cells))
    if kind == "text":
        return Column(kind, cells.cast(TYPES["text"]))
    texts = cells.to_pylist()
    if kind == "number":
        numbers = [None if text is None else _finite(text) for text in texts]
        return _with_unreadable(kind, numbers, cells)
    way = _way_of_dates(_sample(cells), name, where)
    times = [None if text is None else parse_time(text, way) for text in texts]
    return _with_unreadable(kind, times, cells)


def find_kind(texts: Sequence[str], name: str, where: str) -> Kind:
    """Find what a column of text holds.

    Numbers and dates where nearly all values are; categories where cells hold several values with bars between them, or
    where values are short and repeat; text otherwise.

    Parameters
    ----------
    texts : sequence of str
        Some of its values.
    name, where : str
        Of the column and of the file, for messages.

    Returns
    -------
    str
    """
    if not texts:
        return "categories"
    least = MOST * len(texts)
    if sum(_finite(text) is not None and not _CODE.fullmatch(text) for text in texts) >= least:
        return "number"
    if sum(_is_date(text) for text in texts) >= least:
        way = _way_of_dates(texts, name, where)
        if sum(parse_time(text, way) is not None for text in texts) >= least:
            return "date"
    values = [value for text in texts for value in _split(text)]
    words = sum(len(value.split()) for value in values) / max(1, len(values))
    if words < LONG and sum(BAR in text for text in texts) >= SEVERAL * len(texts):
        return "categories"
    return "categories" if words < LONG and 2 * len(set(texts)) <= len(texts) else "text"


def typed_column(cells: pa.Array, kind: Kind | None, name: str, where: str) -> Column:
    """Turn a column of Parquet into values; its type says what it holds, and `kind` may say otherwise.

    Parameters
    ----------
    cells : Array, shape (items,)
    kind : str or None
    name, where : str
        Of the column and of the file, for messages.

    Returns
    -------
    Column

    Raises
    ------
    DataError
        If the type is not one that is known, or does not go with the kind.
    """
    if pa.types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    found = _kind_of(cells)
    if found == "text":
        return text_column(cells.cast(pa.string()), kind, name, where)
    if found is None or kind not in (None, found, "categories") or (kind == "categories" and found == "embedding"):
        wanted = kind or "categories, text, a number, a date or an embedding"
        raise DataError(
            f"Expected {wanted} in the column {name!r} of {where}, found the type {cells.type}. Cast the column, or "
            "leave it out (ignore_columns)."
        )
    if found == "embedding":
        return Column("embedding", _embeddings(cells, name, where))
    if found == "categories":
        return Column("categories", _lists(cells))
    if kind == "categories":
        return Column("categories", _several(cells.cast(pa.string())))
    values = cells.cast(TYPES[found], safe=False)
    if found == "number":
        usable = pc.fill_null(pc.less_equal(pc.abs(values), pa.scalar(LARGEST)), False)  # NaN is not
        unreadable = pc.sum(pc.greater(pc.abs(values), pa.scalar(LARGEST))).as_py() or 0
        return Column("number", pc.if_else(usable, values, pa.scalar(None, TYPES["number"])), unreadable)
    return Column("date", values)


def joined(values: pa.Array, row: Any, items: int) -> Column:
    """Turn the values of a long table (several rows an item) into categories.

    Parameters
    ----------
    values : Array of text, shape (rows,)
        Null or blank where a row has none.
    row : ndarray of int, shape (rows,)
        The item of each.
    items : int
        Number of items.

    Returns
    -------
    Column
    """
    values = _without_blanks(values)
    held = np.flatnonzero(values.is_valid().to_numpy(zero_copy_only=False))
    order = held[np.argsort(row[held], kind="stable")]
    counts = np.bincount(row[order], minlength=items)
    return Column("categories", _as_lists(counts, values.take(pa.array(order))))


def _kind_of(cells: pa.Array) -> Kind | None:
    """What a type of Arrow is; None for one that is nothing here."""
    kind, types = cells.type, pa.types
    if types.is_boolean(kind) or types.is_null(kind):
        return "categories"
    if types.is_string(kind) or types.is_large_string(kind) or str(kind) == "string_view":
        return "text"
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    if types.is_date(kind) or types.is_timestamp(kind):
        return "date"
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        inner = kind.value_type
        if types.is_floating(inner) or (types.is_fixed_size_list(kind) and types.is_integer(inner)):
            return "embedding"
        return (
            "categories" if types.is_string(inner) or types.is_large_string(inner) or types.is_integer(inner) else None
        )
    return None


def _embeddings(cells: pa.Array, name: str, where: str) -> pa.Array:
    """Fixed-size lists of float32; of lists of one length too, as pandas writes them."""
    lengths = pc.list_value_length(cells).drop_null().unique().to_pylist()
    if len(lengths) != 1 or not lengths[0]:
        raise DataError(
            f"Expected embeddings of one length in the column {name!r} of {where}, found "
            f"{', '.join(map(str, sorted(lengths)[:5])) or 'none'}."
        )
    width, held = lengths[0], cells.is_valid().to_numpy(zero_copy_only=False)
    vectors = np.zeros((len(cells), width), dtype=np.float32)
    vectors[held] = (
        pc.list_flatten(cells).cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False).reshape(-1, width)
    )
    if not np.isfinite(vectors).all():
        raise DataError(f"Expected finite numbers in the embeddings of {name!r} of {where}, found NaN or infinity.")
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), width, mask=pa.array(~held))


def _lists(cells: pa.Array) -> pa.Array:
    """Lists of text; booleans are lists of one."""
    if pa.types.is_boolean(cells.type) or pa.types.is_null(cells.type):
        cells = cells.cast(pa.string())
        return _as_lists(cells.is_valid().to_numpy(zero_copy_only=False).astype(np.int64), cells.drop_null())
    row = pc.list_parent_indices(cells).to_numpy(zero_copy_only=False)
    return joined(pc.list_flatten(cells).cast(pa.string()), row, len(cells)).values


def _several(cells: pa.Array) -> pa.Array:
    """The values between bars."""
    split = [[] if text is None else _split(text) for text in cells.to_pylist()]
    counts = np.fromiter(map(len, split), dtype=np.int64, count=len(split))
    return _as_lists(counts, pa.array([value for values in split for value in values], pa.string()))


def _as_lists(counts: Any, values: pa.Array) -> pa.Array:
    """Lists of these lengths; an empty one is null."""
    starts = [0, *accumulate(counts.tolist())]
    offsets = pa.array(starts, pa.int32(), mask=np.append(counts == 0, False))
    return pa.ListArray.from_arrays(offsets, values.cast(pa.string()))


def _split(text: str) -> list[str]:
    return list(dict.fromkeys(value for part in text.split(BAR) if (value := part.strip())))


def _without_blanks(cells: pa.Array) -> pa.Array:
    """Text without blanks around it; null where nothing is left, or a word for nothing."""
    trimmed = pc.utf8_trim(cells.cast(pa.large_string()), characters=BLANKS + "\r\n")
    empty = pc.is_in(pc.utf8_lower(trimmed), value_set=pa.array(sorted(NO_VALUE), pa.large_string()))
    return pc.if_else(empty, pa.scalar(None, pa.large_string()), trimmed)


def _sample(cells: pa.Array) -> list[str]:
    """Values from all over the column."""
    held = cells.drop_null()
    step = max(1, len(held) // SAMPLE)
    return list(held.take(pa.array(np.arange(0, len(held), step))).to_pylist())


def _finite(text: str) -> float | None:
    number = parse_number(text)
    return number if number is not None and abs(number) <= LARGEST else None


def _is_date(text: str) -> bool:
    return bool(re.match(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}", text)) and not _NOT_DATE.fullmatch(text)


def _way_of_dates(texts: Sequence[str], name: str, where: str) -> TimeKind:
    return date_order(texts, name, where) or "date"


def _with_unreadable(kind: Kind, values: list[Any], cells: pa.Array) -> Column:
    array = pa.array(values, pa.float64() if kind == "number" else pa.int64()).cast(TYPES[kind])
    return Column(kind, array, int(array.null_count - cells.null_count))
