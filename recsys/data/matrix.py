"""The sparse user-item matrix: CSR float32 (users, items), and the ids of both sides."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, issparse

from recsys.data.interactions import Interactions, Vocabulary
from recsys.errors import DataError


@dataclass(frozen=True)
class UserItemMatrix:
    """CSR float32 (users, items) with int32 indices sorted within each row, and the ids of both sides.

    `unknown` counts the interactions left out because their item is not in a given vocabulary. `seen`: CSR of the same
    shape that stores a cell for each item a user has had, liked or not; None where that is `matrix` itself.
    """

    matrix: csr_matrix
    users: Vocabulary
    items: Vocabulary
    unknown: int = 0
    seen: csr_matrix | None = None

    @classmethod
    def from_interactions(
        cls, interactions: Interactions, items: Vocabulary | None = None, ratings: bool = False
    ) -> UserItemMatrix:
        """Matrix of preferences (1 for each interaction), or of the ratings themselves, real zeros stored.

        With `items` (a model's vocabulary) the columns are that vocabulary's; every user keeps a row, empty perhaps.
        """
        values = interactions.rating if ratings else np.broadcast_to(np.float32(1), len(interactions))
        if values is None:
            raise DataError("Expected interactions with ratings, found none: name their column with --rating-column.")
        user, users = interactions.user, interactions.users
        if items is None:
            matrix = sparse_rows(user, interactions.item, values, (len(users), len(interactions.items)))
            return cls(
                matrix, users, interactions.items, 0, seen_cells(matrix, interactions.seen_only, interactions.items)
            )
        column = items.positions(interactions.items.ids)[interactions.item]
        known = column >= 0
        matrix = sparse_rows(user[known], column[known], values[known], (len(users), len(items)))
        return cls(matrix, users, items, int((~known).sum()), seen_cells(matrix, interactions.seen_only, items))

    @cached_property
    def item_counts(self) -> NDArray[np.int64]:
        """Number of users of each item, int64 (items,)."""
        return np.bincount(self.matrix.indices, minlength=len(self.items)).astype(np.int64)


def seen_cells(history: csr_matrix, seen_only: Interactions | None, items: Vocabulary) -> csr_matrix | None:
    """CSR (users, items) with a stored cell for each in `history` or `seen_only`, whose users are those of its rows.

    None where `seen_only` adds nothing.
    """
    if seen_only is None:
        return None
    column = items.positions(seen_only.items.ids)[seen_only.item]
    known = column >= 0
    if not known.any():
        return None
    user = np.repeat(np.arange(history.shape[0], dtype=np.int32), np.diff(history.indptr))
    rows, columns = np.concatenate([user, seen_only.user[known]]), np.concatenate([history.indices, column[known]])
    return sparse_rows(rows, columns, np.ones(len(rows)), history.shape)


def sparse_rows(row: NDArray[Any], column: NDArray[Any], values: NDArray[Any], shape: tuple[int, int]) -> csr_matrix:
    """CSR float32 of the given cells, each pair once. Real zeros stay stored, unlike in scipy's sums."""
    order = cell_order(row, column, shape)
    starts = np.arange(shape[0] + 1, dtype=row.dtype)
    indptr = np.searchsorted(row if order is None else row[order], starts).astype(np.int32)
    matrix = csr_matrix(cast(Any, shape), dtype=np.float32)  # the stubs know no shape alone
    matrix.data = np.array(values if order is None else values[order], dtype=np.float32)
    matrix.indices = np.array(column if order is None else column[order], dtype=np.int32)
    matrix.indptr = indptr
    matrix.has_sorted_indices = True
    return matrix


def cell_order(row: NDArray[Any], column: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.int64] | None:
    """The order of cells by row, then column, equal ones as they stand; None where they already stand so."""
    if ((row[1:] > row[:-1]) | ((row[1:] == row[:-1]) & (column[1:] >= column[:-1]))).all():
        return None
    bits = int(shape[1]).bit_length(), len(row).bit_length()
    if int(shape[0]).bit_length() + sum(bits) > 63:
        return np.lexsort((column, row))
    key = row.astype(np.int64)  # row, column and place in one number: one fast sort instead of a stable sort of three
    key <<= bits[0]
    key |= column
    key <<= bits[1]
    key |= np.arange(len(key), dtype=np.int32)
    key.sort()
    key &= (1 << bits[1]) - 1
    return key


def as_csr(matrix: Any) -> csr_matrix:
    """csr_matrix float32 with int32 sorted indices, each cell once, whatever sparse form came in (1-D: one row).

    Stored zeros stay; the matrix given is not changed. Raises DataError for what is not sparse.
    """
    if not issparse(matrix):
        raise DataError(f"Expected a scipy sparse matrix (users, items), found {type(matrix).__name__}.")
    # csr_array and int64 indices are refused by implicit; unsorted ones would make results depend on their order.
    given = cast(Any, matrix)
    csr: csr_matrix = csr_matrix(given if given.ndim == 2 else given.reshape(1, -1), dtype=np.float32)
    if csr.nnz > np.iinfo(np.int32).max:
        raise DataError(f"Expected at most {np.iinfo(np.int32).max:,} interactions in a matrix, found {csr.nnz:,}.")
    if csr.indices.dtype != np.int32 or csr.indptr.dtype != np.int32:
        csr = csr_matrix((csr.data, csr.indices.astype(np.int32), csr.indptr.astype(np.int32)), shape=csr.shape)
    writable = all(part.flags.writeable for part in (csr.data, csr.indices, csr.indptr))  # as implicit and torch want
    if not csr.has_canonical_format or not writable:
        csr = csr.copy()
        csr.sum_duplicates()
    return csr


def nobody(items: int) -> csr_matrix:
    """One empty history, CSR (1, items)."""
    none = np.empty(0, dtype=np.int32)
    return sparse_rows(none, none, none, (1, items))
