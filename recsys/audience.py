"""For whom lists are made, and what may stand in them: users in order, their histories, and the rules for items.

Files that say so are small tables: the first column, or the one with a known name, holds the ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from recsys.artifacts import SavedModel
from recsys.errors import DataError
from recsys.interactions import UserItemMatrix, Vocabulary, sparse_rows
from recsys.places import Place, local_copy
from recsys.reading import ReadingOptions, find_files, read_interactions
from recsys.reading.delimited import read_lines
from recsys.reading.layout import ALIASES, find_separator, plain_name, split_line
from recsys.topn import GroupCap


@dataclass(frozen=True)
class Audience:
    """Who gets lists, in order: ids (n,), histories CSR (n, items).

    excluded: CSR (n, items), what else each must not get; None: nothing. trained: int64 (n,), row of each in the
    training matrix, -1 for strangers; None where the model needs none.
    """

    ids: pa.Array
    history: csr_matrix
    excluded: csr_matrix | None = None
    trained: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def cut(self, start: int, stop: int) -> Audience:
        """Those from `start` to before `stop`."""
        return Audience(
            self.ids[start:stop],
            self.history[start:stop],
            None if self.excluded is None else self.excluded[start:stop],
            None if self.trained is None else self.trained[start:stop],
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
            _feed(digest, getattr(part, field.name))
    else:
        digest.update(repr(part).encode())


def make_audience(histories: UserItemMatrix, saved: SavedModel, users: Place | None = None) -> Audience:
    """All users of `histories`, or those of a file in its order; one without a history there gets an empty one."""
    ids, history = histories.users.ids, histories.matrix
    if users is not None:
        ids = read_ids(users, "user").ids
        positions = histories.users.positions(ids)
        history = csr_matrix(vstack([history, nobody(history.shape[1])], format="csr"))[
            positions
        ]  # -1 is the empty row
    trained = None
    if saved.model.needs_training_users:
        assert saved.users is not None  # save_model saw to it
        trained = saved.users.positions(ids).astype(np.int64)
    return Audience(ids, history, None, trained)


def nobody(items: int) -> csr_matrix:
    """One empty history, CSR (1, items)."""
    none = np.empty(0, dtype=np.int32)
    return sparse_rows(none, none, none, (1, items))


def all_items(saved: SavedModel) -> Audience:
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
    return UserItemMatrix(matrix, Vocabulary(ids), histories.items, histories.unknown + new.unknown)


def excluded_pairs(path: Place, audience: Audience, items: Vocabulary) -> csr_matrix:
    """CSR (audience, items): the pairs of a file (user_id, item_id). Pairs on others are of no use and no harm."""
    pairs = read_interactions(path, ReadingOptions(rating_column="none", timestamp_column="none"))
    row = Vocabulary(audience.ids).positions(pairs.users.ids)[pairs.user]
    column = items.positions(pairs.items.ids)[pairs.item]
    known = (row >= 0) & (column >= 0)
    ones = np.ones(int(known.sum()), dtype=np.float32)
    return sparse_rows(row[known], column[known], ones, (len(audience), len(items)))


def allowed_items(items: Vocabulary, only: Place | None, exclude: Place | None) -> NDArray[np.bool_] | None:
    """Bool (items,): those of the file `only` (all without it) without those of the file `exclude`; None: all."""
    if only is None and exclude is None:
        return None
    allowed = np.full(len(items), only is None)
    if only is not None:
        allowed[_known(items, read_ids(only, "item"), only)] = True
    if exclude is not None:
        allowed[_known(items, read_ids(exclude, "item"), exclude)] = False
    return allowed


def _known(items: Vocabulary, named: Vocabulary, path: Place) -> NDArray[np.int32]:
    positions = items.positions(named.ids)
    if len(named) and (positions < 0).all():
        raise DataError(f"Expected items the model knows in {path}, found none among {len(named)}: check the ids.")
    return positions[positions >= 0]


def group_cap(items: Vocabulary, path: Place, most: int) -> GroupCap:
    """At most `most` items of a group, by a file (item_id, group); an item not in it is not limited."""
    names, groups = read_columns(path, "item", 2)
    positions = items.positions(names)
    codes = groups.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    group = np.full(len(items), -1, dtype=np.int32)
    group[positions[positions >= 0]] = codes[positions >= 0]
    return GroupCap(group, most)


def read_ids(path: Place, kind: str) -> Vocabulary:
    """The distinct ids of a file, in order of first appearance; it may hold none."""
    return Vocabulary(read_columns(path, kind, 1)[0].unique())


def read_columns(path: Place, kind: str, width: int) -> list[pa.Array]:
    """The first `width` columns, text or integers, that of the `kind` of id first: Parquet, or text with any separator.

    A first line of text that names its id column as ratings files do is a header.
    """
    with local_copy(path) as file:
        return _read_columns(file, kind, width)


def _read_columns(path: Path, kind: str, width: int) -> list[pa.Array]:
    find_files(path)
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        names, columns = table.column_names, [column.combine_chunks() for column in table.columns]
    else:
        names, columns = _read_text(path, kind, width)
    if columns and len(columns) < width:
        raise DataError(f"Expected {width} columns in {path}, found {len(columns)}.")
    first = _place(names, kind)
    columns = [columns[first], *columns[:first], *columns[first + 1 :]] if columns else [pa.array([], pa.string())] * 2
    return columns[:width]


def _read_text(path: Path, kind: str, width: int) -> tuple[Sequence[str], list[pa.Array]]:
    lines = [line for line in read_lines(path, "utf-8") if line.strip()]
    is_table = width > 1 or any(mark in lines[0] for mark in ",;|\t") if lines else False
    separator = find_separator(lines[:1000], path.name) if is_table else "\0"
    rows = [fields for line in lines if (fields := split_line(line, separator)) is not None]
    if not rows:
        return [], []
    names = rows[0]
    if any(plain_name(name) in ALIASES[kind] for name in names):
        rows = rows[1:]
    columns = [pa.array([row[i] if i < len(row) else "" for row in rows], pa.string()) for i in range(len(names))]
    return names, columns


def _place(names: Sequence[str], kind: str) -> int:
    return next((place for place, name in enumerate(names) if plain_name(name) in ALIASES[kind]), 0)
