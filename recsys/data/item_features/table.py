"""The table of items: one row an item, columns of categories, text, numbers, dates and embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.data.interactions import Ledger, Vocabulary
from recsys.data.item_features.options import Kind
from recsys.errors import DataError

TYPES: Mapping[Kind, pa.DataType] = {
    "categories": pa.list_(pa.string()),
    "text": pa.string(),
    "number": pa.float64(),
    "date": pa.timestamp("ms"),
}  # an embedding is a fixed-size list of float32


@dataclass(frozen=True)
class Column:
    """One column of a table of items.

    Attributes
    ----------
    kind : {"categories", "text", "number", "date", "embedding"}
    values : Array, shape (items,)
        Lists of text (categories), text, float64 (number), timestamps in milliseconds (date) or fixed-size lists of
        float32 (embedding). Null where an item has no value.
    unreadable : int
        Number of values that were not what the column holds, "free" among prices for example; they are null.
    """

    kind: Kind
    values: pa.Array
    unreadable: int = 0

    def __len__(self) -> int:
        return len(self.values)

    @property
    def missing(self) -> int:
        """Number of items without a value."""
        return int(self.values.null_count)

    def take(self, rows: NDArray[Any]) -> Column:
        """Return the values of the given rows, -1 for none."""
        return replace(self, values=self.values.take(pa.array(rows, mask=rows < 0)))

    def numbers(self) -> NDArray[np.float64]:
        """Return the values of a column of numbers, or the milliseconds since 1970 of dates; (items,), NaN for none.

        Raises
        ------
        DataError
            If the column holds something else.
        """
        if self.kind not in ("number", "date"):
            raise DataError(f"Expected a column of numbers or dates, found one of {self.kind}.")
        values = self.values if self.kind == "number" else self.values.cast(pa.int64()).cast(pa.float64())
        return np.asarray(pc.fill_null(values, np.nan).to_numpy(zero_copy_only=False))

    def labels(self) -> tuple[csr_matrix, list[str]]:
        """Return which item has which category.

        Returns
        -------
        csr_matrix of float32, shape (items, values)
            1 in each cell.
        list of str
            The distinct values, sorted by code point: the columns of the matrix.

        Raises
        ------
        DataError
            If the column holds something else.
        """
        if self.kind != "categories":
            raise DataError(f"Expected a column of categories, found one of {self.kind}.")
        values, row = self.values.flatten(), pc.list_parent_indices(self.values).to_numpy(zero_copy_only=False)
        names = values.unique().sort()
        column = pc.index_in(values, value_set=names).to_numpy(zero_copy_only=False)
        cells = csr_matrix((np.ones(len(row), dtype=np.float32), (row, column)), shape=(len(self), len(names)))
        cells.data[:] = 1  # a value that an item has twice
        return cells, list(names.to_pylist())


@dataclass(frozen=True)
class ItemTable:
    """What is known of items besides who took them.

    Attributes
    ----------
    ids : Vocabulary
        The items.
    columns : mapping of str to Column
        By name, one value an item in the order of `ids`.
    ledger : Ledger
        The account of the rows of the file.
    item_column : str
        The column that the ids were read from.
    unread : tuple of str
        The columns that were not read.
    """

    ids: Vocabulary
    columns: Mapping[str, Column]
    ledger: Ledger = field(default_factory=Ledger)
    item_column: str = ""
    unread: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, column in self.columns.items():
            if len(column) != len(self.ids):
                raise DataError(f"Expected {len(self.ids)} values in the column {name!r}, found {len(column)}.")

    def __len__(self) -> int:
        return len(self.ids)

    def column(self, name: str) -> Column:
        """Return a column. DataError if there is none of that name, with those that there are."""
        if name not in self.columns:
            raise DataError(f"Expected a column of {', '.join(self.columns)} of the item features, found {name!r}.")
        return self.columns[name]

    def aligned(self, items: Vocabulary) -> ItemTable:
        """Return the rows of the items of a vocabulary, in its order; all values of an item without a row are null."""
        rows = self.ids.positions(items.ids)
        return replace(self, ids=items, columns={name: column.take(rows) for name, column in self.columns.items()})
