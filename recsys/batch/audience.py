"""For whom lists are made, and what may stand in them: users in order, their histories, and the rules for items.

Files that say so are small tables: the first column, or the one with a known name, holds the ids.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from recsys.data.interactions import Vocabulary
from recsys.data.matrix import UserItemMatrix, nobody, sparse_rows
from recsys.data.reading import ReadingOptions, read_interactions
from recsys.data.reading.id_files import read_columns, read_ids
from recsys.errors import DataError
from recsys.inference.topn import GroupCap
from recsys.models.trained import TrainedModel
from recsys.system.storage import Location


@dataclass(frozen=True)
class Audience:
    """Who gets lists, in order: ids (n,), histories CSR (n, items).

    excluded: CSR (n, items), what else each must not get; None: nothing. trained: int64 (n,), row of each in the
    training matrix, -1 for strangers; None where the model needs none. seen: CSR (n, items), what each has had, liked
    or not; None where that is the history.
    """

    ids: pa.Array
    history: csr_matrix
    excluded: csr_matrix | None = None
    trained: NDArray[np.int64] | None = None
    seen: csr_matrix | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def cut(self, start: int, stop: int) -> Audience:
        """Those from `start` to before `stop`."""
        return Audience(
            self.ids[start:stop],
            self.history[start:stop],
            None if self.excluded is None else self.excluded[start:stop],
            None if self.trained is None else self.trained[start:stop],
            None if self.seen is None else self.seen[start:stop],
        )

    @property
    def cold(self) -> NDArray[np.bool_]:
        """Who cannot be scored: no known item in the history, or a stranger to a model that takes none."""
        empty = np.diff(self.history.indptr) == 0
        return np.asarray(empty if self.trained is None else empty | (self.trained < 0))


@dataclass(frozen=True)
class Rules:
    """What may stand in a list. allowed: bool (items,); None: all. popularity: scores for cold users; None: no list."""

    allowed: NDArray[np.bool_] | None = None
    cap: GroupCap | None = None
    min_score: float | None = None
    popularity: NDArray[np.float32] | None = None


def fingerprint(*parts: Any) -> str:
    """sha256 over arrays, sparse matrices, ids, and dataclasses of these: equal for equal content."""
    digest = hashlib.sha256()
    for part in parts:
        _feed(digest, part)
    return digest.hexdigest()


def _feed(digest: Any, part: Any) -> None:
    digest.update(type(part).__name__.encode())
    if isinstance(part, np.ndarray):
        digest.update(f"{part.dtype.str}{part.shape}".encode())
        digest.update(np.ascontiguousarray(part).data)
    elif isinstance(part, csr_matrix):
        for array in (part.indptr, part.indices, part.data):
            _feed(digest, array)
    elif isinstance(part, (pa.Array, pa.ChunkedArray)):
        for start in range(0, len(part), 1 << 16):
            digest.update(repr(part[start : start + (1 << 16)].to_pylist()).encode())
    elif isinstance(part, (Audience, Rules, GroupCap)):
        for field in fields(part):
            value = getattr(part, field.name)
            if field.name != "seen" or value is not None:  # outputs of 0.1 knew no such field and can be resumed
                _feed(digest, value)
    else:
        digest.update(repr(part).encode())


def make_audience(histories: UserItemMatrix, saved: TrainedModel, users: Location | None = None) -> Audience:
    """All users of `histories`, or those of a file in its order; one without a history there gets an empty one."""
    ids, history, seen = histories.users.ids, histories.matrix, histories.seen
    if users is not None:
        ids = read_ids(users, "user").ids
        positions = histories.users.positions(ids)
        history, seen = _rows(history, positions), None if seen is None else _rows(seen, positions)
    trained = None
    if saved.model.needs_training_users:
        assert saved.users is not None  # save_model saw to it
        trained = saved.users.positions(ids).astype(np.int64)
    return Audience(ids, history, None, trained, seen)


def _rows(matrix: csr_matrix, positions: NDArray[np.int32]) -> csr_matrix:
    """Rows of a CSR matrix; an empty one for -1."""
    return csr_matrix(csr_matrix(vstack([matrix, nobody(matrix.shape[1])], format="csr"))[positions])


def all_items(saved: TrainedModel) -> Audience:
    """Every item as the target of a list of similar items: its history is itself."""
    count = len(saved.items)
    place = np.arange(count, dtype=np.int32)
    return Audience(saved.items.ids, sparse_rows(place, place, np.ones(count, np.float32), (count, count)))


def add_new_users(histories: UserItemMatrix, new: UserItemMatrix) -> UserItemMatrix:
    """Histories with those of more people below. Raises DataError where an id is on both sides: two people as one."""
    both = int((histories.users.positions(new.users.ids) >= 0).sum())
    if both:
        raise DataError(f"Expected new users only, found {both} of {len(new.users)} among the others: rename them.")
    kind = histories.users.ids.type if histories.users.ids.type == new.users.ids.type else pa.large_string()
    ids = pa.concat_arrays([histories.users.ids.cast(kind), new.users.ids.cast(kind)])
    matrix = csr_matrix(vstack([histories.matrix, new.matrix], format="csr"))
    seen = None
    if histories.seen is not None or new.seen is not None:
        parts = [part.matrix if part.seen is None else part.seen for part in (histories, new)]
        seen = csr_matrix(vstack(parts, format="csr"))
    return UserItemMatrix(matrix, Vocabulary(ids), histories.items, histories.unknown + new.unknown, seen)


def excluded_pairs(path: Location, audience: Audience, items: Vocabulary) -> csr_matrix:
    """CSR (audience, items): the pairs of a file (user_id, item_id). Pairs on others are of no use and no harm."""
    pairs = read_interactions(path, ReadingOptions(rating_column="none", timestamp_column="none"))
    row = Vocabulary(audience.ids).positions(pairs.users.ids)[pairs.user]
    column = items.positions(pairs.items.ids)[pairs.item]
    known = (row >= 0) & (column >= 0)
    ones = np.ones(int(known.sum()), dtype=np.float32)
    return sparse_rows(row[known], column[known], ones, (len(audience), len(items)))


def allowed_items(items: Vocabulary, only: Location | None, exclude: Location | None) -> NDArray[np.bool_] | None:
    """Bool (items,): those of the file `only` (all without it) without those of the file `exclude`; None: all."""
    if only is None and exclude is None:
        return None
    allowed = np.full(len(items), only is None)
    if only is not None:
        allowed[_known(items, read_ids(only, "item"), only)] = True
    if exclude is not None:
        allowed[_known(items, read_ids(exclude, "item"), exclude)] = False
    return allowed


def _known(items: Vocabulary, named: Vocabulary, path: Location) -> NDArray[np.int32]:
    positions = items.positions(named.ids)
    if len(named) and (positions < 0).all():
        raise DataError(f"Expected items the model knows in {path}, found none among {len(named)}: check the ids.")
    return positions[positions >= 0]


def group_cap(items: Vocabulary, path: Location, most: int) -> GroupCap:
    """At most `most` items of a group, by a file (item_id, group); an item not in it is not limited."""
    names, groups = read_columns(path, "item", 2)
    positions = items.positions(names)
    codes = groups.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    group = np.full(len(items), -1, dtype=np.int32)
    group[positions[positions >= 0]] = codes[positions >= 0]
    return GroupCap(group, most)
