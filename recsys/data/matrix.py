"""The sparse user-item matrix: CSR float32 (users, items), with the ids of rows and columns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, issparse

from recsys.data.interactions import Interactions, Vocabulary
from recsys.data.order import in_order, places
from recsys.errors import DataError


class OrderedMatrix(csr_matrix):
    """A matrix (users, items) whose cells hold places in time: 1 for the oldest item of a user.

    A model that uses the order of histories reads the places; for any other the cells are 1 (`without_order`). Rows of
    it are of the same type.

    Attributes
    ----------
    days : ndarray of float32, shape (cells,), or None
        The time of each cell, in days since 1970: of training matrices made of rows with times. Rows of the matrix have
        none.
    """

    days: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class UserItemMatrix:
    """The user-item matrix with the ids of its rows and columns.

    Attributes
    ----------
    matrix : csr_matrix of float32, shape (users, items)
        With int32 indices, sorted within each row. Real zeros are stored.
    users, items : Vocabulary
        Ids of the rows and of the columns.
    unknown : int
        Number of interactions left out because their item is not in a given vocabulary.
    seen : csr_matrix, shape (users, items), or None
        A stored cell for each item that a user has had, liked or not; None where these are the cells of `matrix`.
    features : csr_matrix of float32, shape (items, features), or None
        Features of the items, of training matrices whose interactions have them.
    """

    matrix: csr_matrix
    users: Vocabulary
    items: Vocabulary
    unknown: int = 0
    seen: csr_matrix | None = None
    features: csr_matrix | None = None

    @classmethod
    def from_interactions(
        cls,
        interactions: Interactions,
        items: Vocabulary | None = None,
        ratings: bool = False,
        order: bool | None = None,
    ) -> UserItemMatrix:
        """Make the matrix of interactions.

        Parameters
        ----------
        interactions : Interactions
        items : Vocabulary, optional
            Ids of the columns, of a model for example; those of the interactions if not given. Every user keeps a row,
            even an empty one.
        ratings : bool
            Whether cells hold the ratings; else 1 for each interaction.
        order : bool, optional
            Whether the matrix is an OrderedMatrix, whose cells hold places in time instead of 1; as the interactions
            are (`recsys.data.order`) if not given.

        Returns
        -------
        UserItemMatrix

        Raises
        ------
        DataError
            If ratings or places in time are wanted and there are none.
        """
        if not ratings and (interactions.order is not None if order is None else order):
            ordered = in_order(interactions)
            data = cls.from_interactions(replace(ordered, rating=places(ordered)), items, ratings=True)
            return replace(data, matrix=OrderedMatrix(data.matrix))
        values = interactions.rating if ratings else np.broadcast_to(np.float32(1), len(interactions))
        if values is None:
            raise DataError("Expected interactions with ratings, found none: name their column with rating_column.")
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
        """Number of users of each item, int64, shape (items,)."""
        return np.bincount(self.matrix.indices, minlength=len(self.items)).astype(np.int64)


def with_columns(data: UserItemMatrix, items: Vocabulary) -> UserItemMatrix:
    """Return the same rows with columns for more items, without a cell.

    Parameters
    ----------
    data : UserItemMatrix
        A training matrix, which is changed in place.
    items : Vocabulary
        Begins with the items of `data`.

    Returns
    -------
    UserItemMatrix
    """
    cast(Any, data.matrix).resize((data.matrix.shape[0], len(items)))
    return replace(data, items=items)


def without_order(matrix: csr_matrix) -> csr_matrix:
    """Return a matrix with 1 in the cells of an OrderedMatrix; any other as it is."""
    if not isinstance(matrix, OrderedMatrix):
        return matrix
    plain: csr_matrix = csr_matrix((np.ones_like(matrix.data), matrix.indices, matrix.indptr), shape=matrix.shape)
    plain.has_sorted_indices = True
    return plain


def with_items(data: UserItemMatrix, items: Vocabulary) -> csr_matrix:
    """Return the matrix over the items of another vocabulary.

    Parameters
    ----------
    data : UserItemMatrix
    items : Vocabulary
        Ids of the columns to return.

    Returns
    -------
    csr_matrix of float32, shape (users, items)
        Cells of items that are not among these are left out.
    """
    column = items.positions(data.items.ids)[data.matrix.indices]
    row = np.repeat(np.arange(data.matrix.shape[0], dtype=np.int32), np.diff(data.matrix.indptr))
    known = column >= 0
    cells = sparse_rows(row[known], column[known], data.matrix.data[known], (data.matrix.shape[0], len(items)))
    return OrderedMatrix(cells) if isinstance(data.matrix, OrderedMatrix) else cells


def seen_cells(history: csr_matrix, seen_only: Interactions | None, items: Vocabulary) -> csr_matrix | None:
    """Combine the cells of a history with rows that were seen and are no preference.

    Parameters
    ----------
    history : csr_matrix, shape (users, items)
    seen_only : Interactions or None
        Its first users are the rows of `history`; further ones are passed over.
    items : Vocabulary
        Ids of the columns of `history`.

    Returns
    -------
    csr_matrix, shape (users, items), or None
        A stored cell for each; None where `seen_only` adds nothing.
    """
    if seen_only is None:
        return None
    column = items.positions(seen_only.items.ids)[seen_only.item]
    known = (column >= 0) & (seen_only.user < history.shape[0])
    if not known.any():
        return None
    user = np.repeat(np.arange(history.shape[0], dtype=np.int32), np.diff(history.indptr))
    rows, columns = np.concatenate([user, seen_only.user[known]]), np.concatenate([history.indices, column[known]])
    return sparse_rows(rows, columns, np.ones(len(rows)), history.shape)


def sparse_rows(row: NDArray[Any], column: NDArray[Any], values: NDArray[Any], shape: tuple[int, int]) -> csr_matrix:
    """Make a CSR matrix of given cells.

    Parameters
    ----------
    row, column : ndarray of int, shape (cells,)
        Each pair once.
    values : ndarray, shape (cells,)
        Real zeros are stored, unlike in sums of scipy.
    shape : (int, int)

    Returns
    -------
    csr_matrix of float32
    """
    order = cell_order(row, column, shape)
    starts = np.arange(shape[0] + 1, dtype=row.dtype)
    indptr = np.searchsorted(row if order is None else row[order], starts).astype(np.int32)
    matrix = csr_matrix(cast(Any, shape), dtype=np.float32)  # the stubs do not know that a shape alone will do
    matrix.data = np.array(values if order is None else values[order], dtype=np.float32)
    matrix.indices = np.array(column if order is None else column[order], dtype=np.int32)
    matrix.indptr = indptr
    matrix.has_sorted_indices = True
    return matrix


def cell_order(row: NDArray[Any], column: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.int64] | None:
    """Find the stable order of cells by row, then column.

    Parameters
    ----------
    row, column : ndarray of int, shape (cells,)
    shape : (int, int)
        Upper limits of both.

    Returns
    -------
    ndarray of int64, shape (cells,), or None
        None where the cells are in order already.
    """
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
    """Convert a sparse matrix to the form that models work on.

    Parameters
    ----------
    matrix : sparse matrix or array, shape (users, items) or (items,)
        Any scipy form; it is not changed. Stored zeros are kept, and values of repeated cells are added up. An
        OrderedMatrix stays one.

    Returns
    -------
    csr_matrix of float32
        With int32 indices, sorted, each cell once.

    Raises
    ------
    DataError
        If it is not sparse, or has more than 2^31 - 1 cells.
    """
    if not issparse(matrix):
        raise DataError(f"Expected a scipy sparse matrix (users, items), found {type(matrix).__name__}.")
    # csr_array and int64 indices are refused by implicit; unsorted ones would make results depend on their order.
    given = cast(Any, matrix)
    kind = OrderedMatrix if isinstance(matrix, OrderedMatrix) else csr_matrix
    csr: csr_matrix = kind(given if given.ndim == 2 else given.reshape(1, -1), dtype=np.float32)
    if isinstance(csr, OrderedMatrix) and given.has_canonical_format:
        csr.days = given.days
    if csr.nnz > np.iinfo(np.int32).max:
        raise DataError(f"Expected at most {np.iinfo(np.int32).max:,} interactions in a matrix, found {csr.nnz:,}.")
    if csr.indices.dtype != np.int32 or csr.indptr.dtype != np.int32:
        csr = kind((csr.data, csr.indices.astype(np.int32), csr.indptr.astype(np.int32)), shape=csr.shape)
    writable = all(part.flags.writeable for part in (csr.data, csr.indices, csr.indptr))  # as implicit and torch want
    if not csr.has_canonical_format or not writable:
        csr = csr.copy()
        csr.sum_duplicates()
    return csr


def empty_history(items: int) -> csr_matrix:
    """Return one empty history, CSR of shape (1, items)."""
    none = np.empty(0, dtype=np.int32)
    return sparse_rows(none, none, none, (1, items))
