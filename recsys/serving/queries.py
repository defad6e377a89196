"""What is asked of a service: in ids (`Wishes`), and in positions of one model (`Query`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

Row = tuple[NDArray[np.int32], NDArray[np.float32]]  # positions of items, in order, and their values


@dataclass(frozen=True)
class Wishes:
    """What may be in a list.

    Parameters
    ----------
    n : int
        Length of the list, at least 1; never more than the catalog.
    filter_seen : bool
        Leave out what the user has had.
    exclude_items : sequence of ids
        Never these.
    candidate_items : sequence of ids, optional
        Only these.
    reasons : int
        For each item of the list, at most so many items of the history that support it most.
    """

    n: int = 10
    filter_seen: bool = True
    exclude_items: Sequence[str | int] = ()
    candidate_items: Sequence[str | int] | None = None
    reasons: int = 0


@dataclass(frozen=True)
class Query:
    """A request for one list, in positions of one model.

    Attributes
    ----------
    history : Row
        What the model sees of the user.
    masked : ndarray of int32
        Positions that must not be listed, in order, each once.
    n : int
        Length of the list.
    candidates : ndarray of int32, optional
        The only positions that may be listed.
    user : int, optional
        Row of the training matrix, for models that know no other users.
    reasons : int
        Reasons of each item, at most.
    unknown : tuple
        Ids of the request that the model does not know.
    user_id : str, optional
        Of a known user, for rules that are for some users.
    """

    history: Row
    masked: NDArray[np.int32]
    n: int
    candidates: NDArray[np.int32] | None = None
    user: int | None = None
    reasons: int = 0
    unknown: tuple[str | int, ...] = ()
    user_id: str | None = None


def row_of(matrix: csr_matrix, row: int) -> Row:
    """Return the positions and values of a row."""
    start, stop = matrix.indptr[row], matrix.indptr[row + 1]
    return matrix.indices[start:stop], matrix.data[start:stop]


def histories_of(positions: Sequence[NDArray[np.int32]], values: NDArray[np.float32], columns: int) -> csr_matrix:
    """Return rows of positions and the values of all of them as a matrix, CSR (rows, columns)."""
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in positions])])
    return csr_matrix((values, np.concatenate(positions), indptr), shape=(len(positions), columns))


def masked_of(queries: Sequence[Query], columns: int) -> csr_matrix:
    """Return a matrix with a cell for each item that must not be listed."""
    masked = [query.masked for query in queries]
    return histories_of(masked, np.ones(sum(map(len, masked)), dtype=np.float32), columns)
