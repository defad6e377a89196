"""The features of all items of a job: those of the interactions, and those that only the file knows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_matrix

from recsys.data.id_order import canonical_order
from recsys.data.interactions import Vocabulary
from recsys.data.item_features.encoder import FeatureEncoder
from recsys.data.item_features.options import FeatureOptions
from recsys.data.item_features.reading import Whose, read_item_table
from recsys.data.item_features.table import ItemTable
from recsys.system.storage import Location

if TYPE_CHECKING:
    from recsys.data.interactions import Interactions


@dataclass(frozen=True)
class ItemFeatures:
    """Features by item.

    Attributes
    ----------
    items : Vocabulary
        The items that have a row.
    matrix : csr_matrix of float32, shape (items, features), optional
        None where only the items are known: those of a saved model.
    encoder : FeatureEncoder, optional
        How the matrix was made of a table.
    table : ItemTable, optional
        The table itself.
    """

    items: Vocabulary
    matrix: csr_matrix | None = None
    encoder: FeatureEncoder | None = None
    table: ItemTable | None = None

    def over(self, items: Vocabulary) -> csr_matrix | None:
        """Return the rows of the items of a vocabulary, in its order; an item without features has an empty row."""
        if self.matrix is None:
            return None
        return aligned_rows(self.matrix, self.items.positions(items.ids))

    def describe(self, items: Vocabulary) -> dict[str, Any]:
        """Return what was read, as plain values, and which of these items have no features.

        Parameters
        ----------
        items : Vocabulary
            The items of the interactions.

        Returns
        -------
        dict
            `columns` by name with kind, number of features, missing and unreadable values; `ledger` of the rows;
            `items_without_features`, `features_without_items`.
        """
        rows = self.over(items)
        without = int(
            (self.items.positions(items.ids) < 0).sum() if rows is None else (np.diff(rows.indptr) == 0).sum()
        )
        facts: dict[str, Any] = {
            "items": len(self.items),
            "items_without_features": without,
            "features_without_items": len(self.beyond(items)),
        }
        if self.table is None or self.encoder is None:
            return facts
        columns = {
            each.name: {
                "kind": each.kind,
                "features": each.width,
                "missing": self.table.columns[each.name].missing,
                "unreadable": self.table.columns[each.name].unreadable,
            }
            for each in self.encoder.encodings
        }
        about = {"item_column": self.table.item_column, "columns": columns, "unread": list(self.table.unread)}
        return {**about, "ledger": self.table.ledger.line(), **facts}

    def beyond(self, items: Vocabulary) -> pa.Array:
        """Return the ids that are not in a vocabulary, in canonical order, in its type where their spelling allows."""
        new = self.items.ids.take(pa.array(np.flatnonzero(items.positions(self.items.ids) < 0)))
        return as_type(new.take(pa.array(canonical_order(new))), items.ids.type)


def read_item_features(path: Location, options: FeatureOptions | None = None, whose: Whose = "item") -> ItemFeatures:
    """Read a table of items and make features of it.

    Parameters
    ----------
    path : Path or str
    options : FeatureOptions, optional
    whose : {"item", "user"}
        A table of users gives features of users.

    Returns
    -------
    ItemFeatures

    Raises
    ------
    DataError
        As `read_item_table`, or if no column tells items apart.
    """
    options = options or FeatureOptions()
    table = read_item_table(path, options, whose)
    encoder = FeatureEncoder.fit(table, options)
    return ItemFeatures(table.ids, encoder.transform(table), encoder, table)


def with_features(interactions: Interactions, features: ItemFeatures | None) -> Interactions:
    """Return the same rows with features of their items: training matrices then have a column for each item of both."""
    return replace(interactions, features=features)


def encoder_of(interactions: Interactions) -> FeatureEncoder | None:
    """Return how the features of the items were made, for the model folder; None without features."""
    return None if interactions.features is None else interactions.features.encoder


def aligned_rows(matrix: csr_matrix, rows: Any) -> csr_matrix:
    """Return rows of a matrix, -1 for an empty one."""
    indptr, shape = np.append(matrix.indptr, matrix.indptr[-1]), (matrix.shape[0] + 1, matrix.shape[1])
    one_more = csr_matrix((matrix.data, matrix.indices, indptr), shape=shape)
    return csr_matrix(one_more[np.where(rows < 0, matrix.shape[0], rows)], dtype=np.float32)


def fingerprint_of(matrix: csr_matrix, *texts: str) -> str:
    """Return a digest of features, and of texts: equal for equal ones."""
    digest = hashlib.sha256(np.array(matrix.shape, dtype=np.int64).tobytes())
    for part, kind in ((matrix.indptr, np.int64), (matrix.indices, np.int64), (matrix.data, np.float32)):
        digest.update(np.ascontiguousarray(part, dtype=kind).tobytes())
    for text in texts:
        digest.update(hashlib.sha256(text.encode()).digest())
    return digest.hexdigest()


def as_type(ids: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return ids in another type where their spelling stays: "7" as 7, and "007" as it is."""
    if ids.type == kind:
        return ids
    try:
        cast = ids.cast(kind)
        return cast if cast.cast(pa.large_string()).equals(ids.cast(pa.large_string())) else ids
    except pa.ArrowInvalid:
        return ids
