"""Holdout and Split: who is tested on what, and what the training knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.data.interactions import Interactions, Vocabulary
from recsys.data.matrix import UserItemMatrix
from recsys.errors import ConfigError, DataError
from recsys.types import FloatArray


@dataclass(frozen=True)
class Holdout:
    """Users to test on: what the model sees of each (history) and what it must find (held_out).

    ```
    items        a b c d e
    history      x x . . .      the model scores this
    held_out     . . . x .      and must rank d high
    seen         x x . . x      e was rated low: no list offers it
    ```

    Attributes
    ----------
    history, held_out : csr_matrix, shape (users, items)
        No cell is in both. Cells hold 1, or ratings (zeros stored too).
    users : pyarrow.Array
        Ids of the users, by row.
    unknown : ndarray of int64, shape (users,)
        Held-out items that are not in the vocabulary: no model can find them, but they count as to be found.
    train_rows : ndarray of int64, shape (users,)
        Row of each user in the training matrix; -1 for new users.
    left_out : int
        How many more users were to be tested, and have no history or no held-out item among these items.
    unpredicted : ndarray of float32
        Values of all rows that were to be held out and are no cell of `held_out`: their item is unknown, or their user
        was left out.
    seen : csr_matrix, shape (users, items), optional
        What a list must not offer: the history, and what the user has had without liking it. None where that is the
        history alone.
    items : Vocabulary, optional
        Ids of the columns; they decide the order of equal scores.
    scopes : mapping of str to ndarray of bool, shape (items,)
        Parts of the catalog that some metrics rank alone: "cold" and "warm".

    Raises
    ------
    DataError
        If a cell is in both matrices, or sizes do not match.
    """

    history: csr_matrix
    held_out: csr_matrix
    users: pa.Array
    unknown: NDArray[np.int64]
    train_rows: NDArray[np.int64]
    left_out: int = 0
    unpredicted: FloatArray = field(default_factory=lambda: np.empty(0, dtype=np.float32))
    seen: csr_matrix | None = None
    items: Vocabulary | None = None
    scopes: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.history.shape != self.held_out.shape:
            raise DataError(f"Expected equal shapes, found {self.history.shape} and {self.held_out.shape}.")
        rows = [len(side) for side in (self.users, self.unknown, self.train_rows)]
        if rows != [len(self)] * 3:
            raise DataError(f"Expected an id, a count and a training row for {len(self)} users, found {rows}.")
        leaked = _shared_cells(self.history, self.held_out)
        if leaked:
            raise DataError(
                f"Expected held-out items that the history does not show, found {leaked:,} pairs in both: "
                "a model would be shown what it must find. Remove them from one of the files."
            )

    def __len__(self) -> int:
        return int(self.history.shape[0])

    def take(self, rows: NDArray[np.int64]) -> Holdout:
        """Return some of the users, in the order given.

        Parameters
        ----------
        rows : ndarray of int64
            Rows of this holdout.

        Returns
        -------
        Holdout
            `left_out` and `unpredicted` stay those of the whole: they concern users and items outside its cells.
        """
        return replace(
            self,
            history=self.history[rows],
            held_out=self.held_out[rows],
            users=self.users.take(pa.array(rows)),
            unknown=self.unknown[rows],
            train_rows=self.train_rows[rows],
            seen=None if self.seen is None else self.seen[rows],
        )

    def within(self, scope: str) -> Holdout:
        """Return the same users, who must find only items of a part of the catalog; all of it for an empty name.

        Items that are in no vocabulary count as cold ones. ConfigError if there is no such part.
        """
        if not scope:
            return self
        if scope not in self.scopes:
            raise ConfigError(
                f"Expected the protocol cold-items, or a model of items without interactions, for metrics of {scope} "
                "items alone, found neither."
            )
        inside = csr_matrix(self.held_out.multiply(self.scopes[scope].astype(np.float32)))
        inside.eliminate_zeros()
        return replace(self, held_out=inside, unknown=self.unknown if scope == "cold" else np.zeros_like(self.unknown))

    @property
    def relevant(self) -> NDArray[np.int64]:
        """Number of held-out items of each user, int64 (users,), unknown ones included."""
        return np.diff(self.held_out.indptr) + self.unknown


def cold_and_warm(item_counts: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
    """Return the scopes of items without and with training users, by their number; nothing where all have some."""
    warm = item_counts > 0
    return {} if warm.all() else {"cold": ~warm, "warm": warm}


@dataclass(frozen=True)
class RowParts:
    """The part (0 training, 1 validation, 2 test) of each interaction, and of each row of its `seen_only`.

    Attributes
    ----------
    interactions : Interactions
        Every row is in one part.
    part : ndarray of int, shape (rows,)
    seen_part : ndarray of int, shape (rows of seen_only,), optional
        A row is masked in the lists of later parts; in all lists where this is None.
    item_part : ndarray of int, shape (items,), optional
        The part in which each item is cold, 0 for none; None where no item is kept from training.
    """

    interactions: Interactions
    part: NDArray[Any]
    seen_part: NDArray[Any] | None = None
    item_part: NDArray[Any] | None = None


@dataclass(frozen=True)
class Split:
    """Training matrix, validation part (settings and epochs are chosen on it) and test part (read once).

    Attributes
    ----------
    protocol : str
        Name of the protocol that made it.
    train : UserItemMatrix
        What models learn from; its vocabularies are those of the whole split.
    validation, test : Holdout or None
        None where the protocol was asked for none (`test=False`: those rows are training too), never because nothing
        was left.
    facts : dict of str to int
        Users and interactions of each part, what was left out and why. Every interaction is in `train`, in a history,
        held out, unknown, or among those left out.
    rows : RowParts, optional
        Which interaction went to which part, for protocols by row: `train_on_validation` needs it.

    Raises
    ------
    DataError
        If a held-out item is in the training row of its user.
    """

    protocol: str
    train: UserItemMatrix
    validation: Holdout | None
    test: Holdout | None
    facts: dict[str, int] = field(default_factory=dict)
    rows: RowParts | None = None

    def __post_init__(self) -> None:
        for part in (self.validation, self.test):
            if part is None:
                continue
            known = part.train_rows >= 0
            if _shared_cells(self.train.matrix[part.train_rows[known]], part.held_out[np.flatnonzero(known)]):
                raise DataError("Expected held-out items outside the training rows of their user, found some inside.")


def _shared_cells(left: csr_matrix, right: csr_matrix) -> int:
    """Number of cells stored in both."""
    if not (left.nnz and right.nnz):
        return 0
    return int(stored_cells(left).multiply(stored_cells(right)).nnz)


def stored_cells(matrix: csr_matrix) -> csr_matrix:
    """Return the same cells with 1 in each, stored zeros included."""
    return csr_matrix((np.ones(matrix.nnz, dtype=np.int8), matrix.indices, matrix.indptr), shape=matrix.shape)
