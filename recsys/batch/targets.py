"""The targets of a batch: whose lists are made (users, or items for similar items), with their histories."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from recsys.batch.cold_users import TasteByAttributes
from recsys.batch.rules import ListRules
from recsys.data.interactions import Vocabulary
from recsys.data.matrix import UserItemMatrix, empty_history, sparse_rows
from recsys.data.reading import ReadingOptions, read_interactions
from recsys.data.reading.id_files import read_ids
from recsys.errors import DataError
from recsys.inference.rules import Rule, RuleSet
from recsys.inference.topn import GroupCap
from recsys.inference.variety import Variety
from recsys.models.trained import TrainedModel
from recsys.system.storage import Location


@dataclass(frozen=True)
class Targets:
    """Those who get lists, in the order of the output.

    Attributes
    ----------
    ids : pyarrow.Array, length n
        Their ids.
    history : csr_matrix, shape (n, items)
        What the model scores.
    excluded : csr_matrix, shape (n, items), optional
        Further items that each must not get.
    training_rows : ndarray of int64, shape (n,), optional
        Row of each in the training matrix, -1 for users who were not in training; None where the model needs none.
    seen : csr_matrix, shape (n, items), optional
        What each has had, liked or not; None where that is the history.
    attributes : csr_matrix, shape (n, attributes), optional
        What is known of each besides, for those without a history.
    """

    ids: pa.Array
    history: csr_matrix
    excluded: csr_matrix | None = None
    training_rows: NDArray[np.int64] | None = None
    seen: csr_matrix | None = None
    attributes: csr_matrix | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, start: int, stop: int) -> Targets:
        """Return those from `start` to before `stop`."""
        return Targets(
            self.ids[start:stop],
            self.history[start:stop],
            None if self.excluded is None else self.excluded[start:stop],
            None if self.training_rows is None else self.training_rows[start:stop],
            None if self.seen is None else self.seen[start:stop],
            None if self.attributes is None else self.attributes[start:stop],
        )

    @property
    def cold(self) -> NDArray[np.bool_]:
        """Whether each cannot be scored, bool (n,).

        They have no known item in the history, or were not in training and the model knows its training users only.
        """
        empty = np.diff(self.history.indptr) == 0
        return np.asarray(empty if self.training_rows is None else empty | (self.training_rows < 0))


def make_targets(histories: UserItemMatrix, trained: TrainedModel, users: Location | None = None) -> Targets:
    """Make targets of users.

    Parameters
    ----------
    histories : UserItemMatrix
        Histories over the model's items.
    trained : TrainedModel
        The model that will score them.
    users : Path or str, optional
        File of the users who get lists, in its order; all users of `histories` if None. A user of the file without a
        history gets an empty one.

    Returns
    -------
    Targets
    """
    ids, history, seen = histories.users.ids, histories.matrix, histories.seen
    if users is not None:
        ids = read_ids(users, "user").ids
        positions = histories.users.positions(ids)
        history, seen = _take_rows(history, positions), None if seen is None else _take_rows(seen, positions)
    training_rows = None
    if trained.model.needs_training_users:
        assert trained.users is not None  # save_model saw to it
        training_rows = trained.users.positions(ids).astype(np.int64)
    return Targets(ids, history, None, training_rows, seen)


def _take_rows(matrix: csr_matrix, positions: NDArray[np.int32]) -> csr_matrix:
    """Rows of a CSR matrix; an empty one for -1."""
    return csr_matrix(csr_matrix(vstack([matrix, empty_history(matrix.shape[1])], format="csr"))[positions])


def item_targets(trained: TrainedModel) -> Targets:
    """Make a target of every item, for lists of similar items: its history is the item itself."""
    count = len(trained.items)
    positions = np.arange(count, dtype=np.int32)
    return Targets(trained.items.ids, sparse_rows(positions, positions, np.ones(count, np.float32), (count, count)))


def add_new_users(histories: UserItemMatrix, new: UserItemMatrix) -> UserItemMatrix:
    """Append the histories of new users.

    Parameters
    ----------
    histories, new : UserItemMatrix
        Over the same items.

    Returns
    -------
    UserItemMatrix
        The users of `histories`, then those of `new`.

    Raises
    ------
    DataError
        If an id is in both: two users would become one.
    """
    require_new(new.users, histories.users)
    kind = histories.users.ids.type if histories.users.ids.type == new.users.ids.type else pa.large_string()
    ids = pa.concat_arrays([histories.users.ids.cast(kind), new.users.ids.cast(kind)])
    matrix = csr_matrix(vstack([histories.matrix, new.matrix], format="csr"))
    seen = None
    if histories.seen is not None or new.seen is not None:
        parts = [part.matrix if part.seen is None else part.seen for part in (histories, new)]
        seen = csr_matrix(vstack(parts, format="csr"))
    return UserItemMatrix(matrix, Vocabulary(ids), histories.items, histories.unknown + new.unknown, seen)


def require_new(new: Vocabulary, known: Vocabulary) -> None:
    """Raise DataError where users that must be new are among the known ones."""
    both = new.take(np.flatnonzero(known.positions(new.ids) >= 0))
    if len(both):
        raise DataError(
            f"Expected new users only, found {len(both):,} of {len(new):,} among the others, the first "
            f"{both[0].as_py()!r}: rename them."
        )


def excluded_pairs(path: Location, targets: Targets, items: Vocabulary) -> csr_matrix:
    """Read the items that single users must not get.

    Parameters
    ----------
    path : Path or str
        File with the columns user_id, item_id.
    targets : Targets
        Who gets lists.
    items : Vocabulary
        The model's items.

    Returns
    -------
    csr_matrix, shape (targets, items)
        A stored cell for each pair. Pairs with other users or items have no effect.
    """
    pairs = read_interactions(path, ReadingOptions(rating_column="none", timestamp_column="none"))
    row = Vocabulary(targets.ids).positions(pairs.users.ids)[pairs.user]
    column = items.positions(pairs.items.ids)[pairs.item]
    known = (row >= 0) & (column >= 0)
    ones = np.ones(int(known.sum()), dtype=np.float32)
    return sparse_rows(row[known], column[known], ones, (len(targets), len(items)))


# Names of 0.1 in fingerprints: its outputs can be resumed.
_FINGERPRINT_NAMES = {"Targets": "Audience", "ListRules": "Rules"}


def fingerprint(*parts: Any) -> str:
    """Return a hash that is equal for equal content.

    Parameters
    ----------
    *parts : Targets, ListRules, arrays, sparse matrices, ids, plain values
        What decides a result.

    Returns
    -------
    str
        sha256 in hexadecimal.
    """
    digest = hashlib.sha256()
    for part in parts:
        _update(digest, part)
    return digest.hexdigest()


def _update(digest: Any, part: Any) -> None:
    """Add the content of a part to a digest."""
    name = type(part).__name__
    digest.update(_FINGERPRINT_NAMES.get(name, name).encode())
    if isinstance(part, np.ndarray):
        digest.update(f"{part.dtype.str}{part.shape}".encode())
        digest.update(np.ascontiguousarray(part).data)
    elif isinstance(part, csr_matrix):
        for array in (part.indptr, part.indices, part.data):
            _update(digest, array)
    elif isinstance(part, (pa.Array, pa.ChunkedArray)):
        for start in range(0, len(part), 1 << 16):
            digest.update(repr(part[start : start + (1 << 16)].to_pylist()).encode())
    elif isinstance(part, Vocabulary):
        _update(digest, part.ids)
    elif isinstance(part, tuple):
        for each in part:
            _update(digest, each)
    elif isinstance(part, (Targets, ListRules, GroupCap, RuleSet, Rule, Variety, TasteByAttributes)):
        for field in fields(part):
            value = getattr(part, field.name)
            if field.name not in ("seen", "rules", "attributes", "taste") or value is not None:  # 0.1 had none of these
                _update(digest, value)
    else:
        digest.update(repr(part).encode())
