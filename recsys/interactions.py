"""Who took what: interactions, the vocabularies of ids, and the sparse user-item matrix.

The outside world speaks in ids, the models in positions 0..n-1. A Vocabulary translates; ids come back in the
type and the spelling they came in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.errors import DataError

IntArray = NDArray[np.int32]
FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Vocabulary:
    """Distinct ids in order of their position. `ids` is an Arrow array without nulls, of text or of integers."""

    ids: pa.Array

    @classmethod
    def of(cls, ids: Iterable[Any]) -> Vocabulary:
        """Vocabulary of distinct ids, in the order given. Raises DataError for a missing or repeated id."""
        array = _as_array(ids)
        if array.null_count:
            raise DataError(f"Expected ids without gaps, found {array.null_count} missing.")
        if len(pc.unique(array)) != len(array):
            raise DataError("Expected distinct ids, found repeated ones.")
        return cls(array)

    def __len__(self) -> int:
        return len(self.ids)

    def positions(self, ids: Iterable[Any]) -> IntArray:
        """Positions of `ids`, int32 (n,); -1 where an id is unknown.

        Where text meets integers the spelling decides: "7" finds 7, "007" does not.
        """
        wanted = _as_array(ids)
        known = self.ids
        if wanted.type != known.type:
            wanted, known = wanted.cast(pa.large_string()), known.cast(pa.large_string())
        found = pc.fill_null(pc.index_in(wanted, value_set=known), -1)
        return np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.int32)

    def take(self, positions: NDArray[Any]) -> pa.Array:
        """Ids at `positions` (every one within 0..n-1), in the type they came in."""
        return self.ids.take(pa.array(positions))

    def to_list(self) -> list[Any]:
        """All ids as Python objects."""
        return list(self.ids.to_pylist())


def _as_array(ids: Iterable[Any]) -> pa.Array:
    if isinstance(ids, pa.ChunkedArray):
        return ids.combine_chunks()
    array = ids if isinstance(ids, pa.Array) else pa.array(ids)
    if pa.types.is_null(array.type):  # an empty list has no type of its own
        return array.cast(pa.string())
    return array


@dataclass(frozen=True)
class Ledger:
    """The account of every input row: rows read = rows kept + rows rejected, by reason."""

    read: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)

    @property
    def kept(self) -> int:
        """Rows that became interactions."""
        return self.read - sum(self.rejected.values())

    def line(self) -> str:
        """The account in one line: `rows read 12 = kept 9 + missing user id 1 + duplicate 2`."""
        parts = [f"kept {self.kept:,}"] + [f"{reason} {count:,}" for reason, count in self.rejected.items() if count]
        return f"rows read {self.read:,} = " + " + ".join(parts)


@dataclass(frozen=True)
class Interactions:
    """The table user_id, item_id[, rating][, timestamp], its ids already translated to positions.

    `user` and `item` are int32 (rows,), positions in `users` and `items`; `rating` is float32 (rows,) or None;
    `timestamp` is int64 (rows,), milliseconds since 1970 UTC, or None. A (user, item) pair occurs once.
    Vocabularies hold no id without a row, in order of first appearance.
    """

    users: Vocabulary
    items: Vocabulary
    user: IntArray
    item: IntArray
    rating: FloatArray | None = None
    timestamp: NDArray[np.int64] | None = None
    ledger: Ledger = field(default_factory=Ledger)

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True)
class UserItemMatrix:
    """CSR float32 (users, items) with int32 indices sorted within each row, and the ids of both sides.

    `unknown` counts the interactions left out because their item is not in a given vocabulary.
    """

    matrix: csr_matrix
    users: Vocabulary
    items: Vocabulary
    unknown: int = 0

    @classmethod
    def from_interactions(
        cls, interactions: Interactions, items: Vocabulary | None = None, ratings: bool = False
    ) -> UserItemMatrix:
        """Matrix of preferences (1 for each interaction), or of the ratings themselves, real zeros stored.

        With `items` (a model's vocabulary) the columns are that vocabulary's; every user keeps a row, empty perhaps.
        """
        column = interactions.item if items is None else items.positions(interactions.items.ids)[interactions.item]
        columns = interactions.items if items is None else items
        known = column >= 0
        values = interactions.rating if ratings else np.ones(len(interactions), dtype=np.float32)
        if values is None:
            raise DataError("Expected interactions with ratings, found none: name their column with --rating-column.")
        matrix = sparse_rows(
            interactions.user[known], column[known], values[known], (len(interactions.users), len(columns))
        )
        return cls(matrix, interactions.users, columns, int((~known).sum()))

    @cached_property
    def item_counts(self) -> NDArray[np.int64]:
        """Number of users of each item, int64 (items,)."""
        return np.bincount(self.matrix.indices, minlength=len(self.items)).astype(np.int64)


def sparse_rows(row: NDArray[Any], column: NDArray[Any], values: NDArray[Any], shape: tuple[int, int]) -> csr_matrix:
    """CSR float32 of the given cells, each pair once. Real zeros stay stored, unlike in scipy's sums."""
    order = np.lexsort((column, row))
    indptr = np.zeros(shape[0] + 1, dtype=np.int32)
    np.cumsum(np.bincount(row, minlength=shape[0]), out=indptr[1:])
    matrix = csr_matrix(shape, dtype=np.float32)
    matrix.data = np.ascontiguousarray(values[order], dtype=np.float32)
    matrix.indices = column[order].astype(np.int32)
    matrix.indptr = indptr
    matrix.has_sorted_indices = True
    return matrix
