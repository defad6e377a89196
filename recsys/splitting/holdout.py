"""Who may see what: training users, histories and held-out items, under the usual protocols.

The item vocabulary is that of the training part: a model cannot know more. Every function gives a Split whose parts
were checked: nothing held out stands in a history, or in the training row of the same user.

With `ratings=True` the cells of all matrices hold ratings, real zeros stored; else a 1 for every interaction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.data.interactions import Interactions, Vocabulary
from recsys.data.matrix import UserItemMatrix, seen_cells, sparse_rows
from recsys.errors import ConfigError, DataError
from recsys.types import FloatArray

TRAIN, VALIDATION, TEST = 0, 1, 2


@dataclass(frozen=True)
class Holdout:
    """Users to be tested on: what the model sees of each (history) and what it must find (held_out).

    history, held_out: CSR (users, items). users: their ids. unknown: int64 (users,), held-out items that are not in the
    vocabulary: nobody can find them, but they count in what was to be found. train_rows: int64 (users,), the
    user's row in the training matrix, -1 for a user the training has not seen. left_out: how many more users were
    asked for, but have no history, or nothing to find, on these items. unpredicted: float32, the values of all rows
    that were to be held out and are no cell of held_out: their item is unknown, or their user left out. seen: CSR
    (users, items), what a list must not offer: the history and what was seen without being a preference; None where
    that is the history alone.
    """

    history: csr_matrix
    held_out: csr_matrix
    users: pa.Array
    unknown: NDArray[np.int64]
    train_rows: NDArray[np.int64]
    left_out: int = 0
    unpredicted: FloatArray = field(default_factory=lambda: np.empty(0, dtype=np.float32))
    seen: csr_matrix | None = None
    items: Vocabulary | None = None  # ids of the columns: they decide between equal scores

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
                "the test would be answered by the question. Remove them from one of the files."
            )

    def __len__(self) -> int:
        return int(self.history.shape[0])

    def take(self, rows: NDArray[np.int64]) -> Holdout:
        """The same of some of its users, in the order given."""
        users, seen = self.users.take(pa.array(rows)), None if self.seen is None else self.seen[rows]
        history, held_out = self.history[rows], self.held_out[rows]
        return Holdout(
            history, held_out, users, self.unknown[rows], self.train_rows[rows], seen=seen, items=self.items
        )

    @property
    def relevant(self) -> NDArray[np.int64]:
        """How many items were held out of each user, int64 (users,), unknown ones included."""
        return np.diff(self.held_out.indptr) + self.unknown


@dataclass(frozen=True)
class Split:
    """Training matrix, validation part (settings and epochs are chosen on it) and test part (read once).

    A split made for training alone (`test=False`) has no test part: those rows are training too.

    `facts` say what the protocol did: users and interactions of each part, and what was left out and why. Every
    interaction is in train, in a history, held out, unknown or among those left out.

    `refit` makes the same division with the validation rows in training, to fit once more when all is chosen; None
    where there are none, or where they are rows of other people.
    """

    protocol: str
    train: UserItemMatrix
    validation: Holdout | None
    test: Holdout | None
    facts: dict[str, int] = field(default_factory=dict)
    refit: Callable[[], Split] | None = None

    def __post_init__(self) -> None:
        for part in (self.validation, self.test):
            if part is None:
                continue
            known = part.train_rows >= 0
            if _shared_cells(self.train.matrix[part.train_rows[known]], part.held_out[np.flatnonzero(known)]):
                raise DataError("Expected held-out items outside the training rows of their user, found some inside.")


def everybody(interactions: Interactions, ratings: bool = False) -> Split:
    """Nobody is held out: all rows are training."""
    all_rows = np.ones(len(interactions), dtype=bool)
    return _finish("everybody", _training_matrix(_of_task(interactions, ratings), all_rows), None, None, {})


def _of_task(interactions: Interactions, ratings: bool) -> Interactions:
    """The interactions with their ratings, or as preferences without them; those are worth 1 each."""
    if ratings and interactions.rating is None:
        raise DataError("Expected interactions with ratings, found none: name their column with --rating-column.")
    return interactions if ratings else replace(interactions, rating=None)


def _values(interactions: Interactions, rows: NDArray[Any]) -> FloatArray:
    """What cells of these rows hold."""
    return np.ones(len(rows), dtype=np.float32) if interactions.rating is None else interactions.rating[rows]


def _training_matrix(interactions: Interactions, rows: NDArray[np.bool_]) -> UserItemMatrix:
    """Cells of the given rows; vocabularies hold only the users and items they mention, order kept."""
    if not rows.any():
        raise DataError("Expected rows for training, found none left: hold out a smaller share, or give more rows.")
    users, user = np.unique(interactions.user[rows], return_inverse=True)
    items, item = np.unique(interactions.item[rows], return_inverse=True)
    matrix = sparse_rows(user, item, _values(interactions, np.flatnonzero(rows)), (len(users), len(items)))
    return UserItemMatrix(
        matrix, Vocabulary(interactions.users.take(users)), Vocabulary(interactions.items.take(items))
    )


def _holdout(
    interactions: Interactions,
    column: NDArray[np.int32],
    history: NDArray[Any],
    hidden: NDArray[Any],
    items: Vocabulary,
    trained: Vocabulary | None,
    asked: int,
    seen_before: NDArray[np.bool_] | None = None,
) -> Holdout:
    """Holdout from row numbers of the history and of what is hidden.

    Users without either side are left out of the `asked` ones. `seen_before`: bool, which rows of `seen_only` are known
    when the list is made; all of them without it.
    """
    history = history[column[history] >= 0]
    users = np.intersect1d(interactions.user[hidden], interactions.user[history])
    row_of = np.full(len(interactions.users), -1)
    row_of[users] = np.arange(len(users))

    def matrix(rows: NDArray[Any]) -> csr_matrix:
        rows = rows[(row_of[interactions.user[rows]] >= 0) & (column[rows] >= 0)]
        values = _values(interactions, rows)
        return sparse_rows(row_of[interactions.user[rows]], column[rows], values, (len(users), len(items)))

    strangers = hidden[(column[hidden] < 0) & (row_of[interactions.user[hidden]] >= 0)]
    unknown = np.bincount(row_of[interactions.user[strangers]], minlength=len(users)).astype(np.int64)
    ids = interactions.users.take(users)
    trained_rows = np.full(len(users), -1) if trained is None else trained.positions(ids)
    lost = hidden[(row_of[interactions.user[hidden]] < 0) | (column[hidden] < 0)]
    past, found = matrix(history), matrix(hidden)
    return Holdout(
        past,
        found,
        ids,
        unknown,
        trained_rows.astype(np.int64),
        asked - len(users),
        _values(interactions, lost),
        _seen(interactions.seen_only, row_of, items, past, found, seen_before),
        items,
    )


def _seen(
    seen_only: Interactions | None,
    row_of: NDArray[Any],
    items: Vocabulary,
    history: csr_matrix,
    held_out: csr_matrix,
    known: NDArray[np.bool_] | None,
) -> csr_matrix | None:
    """CSR (users, items): the history and the `known` rows that are no preference, without what is held out."""
    if seen_only is None:
        return None
    of_users = row_of[seen_only.user] >= 0
    rows = np.flatnonzero(of_users if known is None else of_users & known)
    user = row_of[seen_only.user[rows]].astype(np.int32)
    seen = seen_cells(history, Interactions(seen_only.users, seen_only.items, user, seen_only.item[rows]), items)
    if seen is None:
        return None
    kept = csr_matrix(seen - seen.multiply(_stored(held_out)))
    kept.eliminate_zeros()
    return kept


def _with_someone(part: Holdout, protocol: str) -> Holdout:
    if not len(part):
        raise DataError(f"Expected test users with a history and a held-out item ({protocol} protocol), found none.")
    return part


def _finish(
    protocol: str, train: UserItemMatrix, validation: Holdout | None, test: Holdout | None, facts: dict[str, int]
) -> Split:
    if test is not None:
        _with_someone(test, protocol)
    sizes = {
        "train_users": train.matrix.shape[0],
        "train_items": train.matrix.shape[1],
        "train_interactions": train.matrix.nnz,
    }
    for name, part in (("validation", validation), ("test", test)):
        sizes[f"{name}_users"] = 0 if part is None else len(part)
        sizes[f"{name}_interactions"] = 0 if part is None else int(part.relevant.sum())
        facts[f"{name}_users_left_out"] = 0 if part is None else part.left_out
    if validation is not None and not len(validation):
        validation = None
    return Split(protocol, train, validation, test, sizes | {key: count for key, count in facts.items() if count})


def _hide(user: NDArray[Any], share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which rows to hide: of each user's n rows, `share` (at least 1 and at most n - 1), at random; none if n = 1."""
    rank, size = _ranks(user, rng.random(len(user)))
    return np.asarray(rank < np.minimum(np.maximum(1, _whole(size * share)), size - 1))


def _whole(amount: float | NDArray[Any]) -> NDArray[np.int64]:
    """Rounded down. The hair keeps .2 of 5 at 1 when .2 was 1 - .8, a little less in binary."""
    return np.floor(np.asarray(amount) + 1e-9).astype(np.int64)


def _ranks(
    user: NDArray[Any], key: NDArray[Any], time: NDArray[Any] | None = None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rank 0.. of every row among its user's rows, by time then key, and how many rows that user has."""
    order = np.lexsort((key, user) if time is None else (key, time, user))
    counts = np.bincount(user) if len(user) else np.zeros(1, dtype=np.int64)
    starts = np.cumsum(counts) - counts
    rank = np.empty(len(user), dtype=np.int64)
    rank[order] = np.arange(len(user)) - starts[user[order]]
    return rank, counts[user]


def _shared_cells(left: csr_matrix, right: csr_matrix) -> int:
    """Number of cells stored in both."""
    if not (left.nnz and right.nnz):
        return 0
    return int(_stored(left).multiply(_stored(right)).nnz)


def _stored(matrix: csr_matrix) -> csr_matrix:
    """The same cells with 1 in each, stored zeros too."""
    return csr_matrix((np.ones(matrix.nnz, dtype=np.int8), matrix.indices, matrix.indptr), shape=matrix.shape)


def _check_share(name: str, value: float, below: float) -> None:
    if not 0 < value < below:
        raise ConfigError(f"Expected {name} above 0 and below {below}, found {value}.")


def concatenate(files: list[Interactions]) -> Interactions:
    """The rows of all files under common vocabularies. Raises DataError where a pair is in more than one."""
    users, user = _union([file.users for file in files], [file.user for file in files])
    items, item = _union([file.items for file in files], [file.item for file in files])
    pairs = user.astype(np.int64) * len(items) + item
    repeated = len(pairs) - len(np.unique(pairs))
    if repeated:
        raise DataError(f"Expected each (user, item) pair in one of the files, found {repeated:,} in more than one.")
    ratings = [file.rating for file in files if file.rating is not None]
    rating = np.concatenate(ratings) if len(ratings) == len(files) else None
    return Interactions(users, items, user, item, rating, seen_only=_seen_in_all(files, users))


def _seen_in_all(files: list[Interactions], users: Vocabulary) -> Interactions | None:
    """What was seen without being a preference, of all files, with positions in the common `users`."""
    parts = [file.seen_only for file in files if file.seen_only is not None]
    if not parts:
        return None
    items, item = _union([part.items for part in parts], [part.item for part in parts])
    user = np.concatenate([users.positions(part.users.ids)[part.user] for part in parts])
    return Interactions(users, items, user, item)


def _union(vocabularies: list[Vocabulary], positions: list[NDArray[Any]]) -> tuple[Vocabulary, NDArray[np.int32]]:
    """One vocabulary over several, first ones first, and all positions translated to it, one after the other.

    Where text meets integers all become text, and the spelling decides.
    """
    kinds = {v.ids.type for v in vocabularies}
    common = pa.int64() if all(map(pa.types.is_integer, kinds)) else pa.large_string()
    arrays = [v.ids if len(kinds) == 1 else v.ids.cast(common) for v in vocabularies]
    union = Vocabulary(pa.chunked_array(arrays).unique())
    return union, np.concatenate([union.positions(a)[p] for a, p in zip(arrays, positions, strict=True)])
