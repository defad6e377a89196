"""How splits are built: what the protocols by user and by row share. Internal to this package.

The item vocabulary is that of the training part: a model cannot know more. With `ratings=True` the cells of all
matrices hold ratings, zeros stored too; otherwise 1 for every interaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.data.interactions import Interactions, Vocabulary
from recsys.data.matrix import OrderedMatrix, UserItemMatrix, seen_cells, sparse_rows, with_columns
from recsys.data.order import in_order, places
from recsys.errors import ConfigError, DataError
from recsys.splitting.holdout import Holdout, RowParts, Split, cold_and_warm, stored_cells
from recsys.types import FloatArray

TRAIN, VALIDATION, TEST = 0, 1, 2
LEAST_SHARE = 1e-15
STAGES = ((VALIDATION, "validation"), (TEST, "test"))

PROTOCOLS: dict[str, Callable[..., Split]] = {}  # by name, filled by `protocol`
_P = TypeVar("_P", bound=Callable[..., Split])


def protocol(name: str) -> Callable[[_P], _P]:
    """Register a function as the protocol of a name: in `split`, and in the options of the command line."""

    def register(function: _P) -> _P:
        PROTOCOLS[name] = function
        return function

    return register


def for_task(interactions: Interactions, ratings: bool) -> Interactions:
    """Return the interactions with their ratings; without them as preferences of 1 each, or places in time."""
    if ratings and interactions.rating is None:
        raise DataError("Expected interactions with ratings, found none: name their column (rating_column).")
    if ratings:
        return replace(interactions, order=None)
    return replace(interactions, rating=None if interactions.order is None else places(interactions))


def _values(interactions: Interactions, rows: NDArray[Any]) -> FloatArray:
    """The values of the cells of these rows."""
    return np.ones(len(rows), dtype=np.float32) if interactions.rating is None else interactions.rating[rows]


def training_matrix(interactions: Interactions, rows: NDArray[np.bool_], all_items: bool = False) -> UserItemMatrix:
    """Return the matrix of the given rows; its vocabularies hold only their users and items, in the same order.

    Items that only the features know follow, with empty columns; before them all others of the interactions, where
    `all_items` says so.
    """
    if not rows.any():
        raise DataError("Expected rows for training, found none left: hold out a smaller share, or give more rows.")
    users, user = np.unique(interactions.user[rows], return_inverse=True)
    items, item = np.unique(interactions.item[rows], return_inverse=True)
    cells = sparse_rows(user, item, _values(interactions, np.flatnonzero(rows)), (len(users), len(items)))
    matrix = cells if interactions.order is None else _in_time(cells, interactions, rows, user, item)
    trained = Vocabulary(interactions.items.take(items))
    data = UserItemMatrix(matrix, Vocabulary(interactions.users.take(users)), trained)
    if all_items:
        data = with_columns(data, trained.extended(_others(interactions.items, trained)))
    features = interactions.features
    if features is None:
        return data
    new = features.beyond(data.items)
    data = with_columns(data, data.items.extended(new)) if len(new) else data
    return replace(data, features=features.over(data.items))


def _others(items: Vocabulary, trained: Vocabulary) -> pa.Array:
    """Ids of the items that are not trained, in their order."""
    return items.take(np.flatnonzero(trained.positions(items.ids) < 0))


def _in_time(
    cells: csr_matrix, interactions: Interactions, rows: NDArray[np.bool_], user: NDArray[Any], item: NDArray[Any]
) -> OrderedMatrix:
    """The matrix of places in time, with the days of its cells where there are times."""
    matrix = OrderedMatrix(cells)
    if interactions.timestamp is not None:
        days = interactions.timestamp[rows] / 86_400_000
        matrix.days = sparse_rows(user, item, days, cells.shape).data
    return matrix


def build_holdout(
    interactions: Interactions,
    column: NDArray[np.int32],
    history: NDArray[Any],
    hidden: NDArray[Any],
    items: Vocabulary,
    trained: Vocabulary | None,
    asked: int,
    seen_before: NDArray[np.bool_] | None = None,
) -> Holdout:
    """Return the holdout of row numbers of the history and of what is hidden.

    column: position in `items` of each row's item, -1 where unknown. asked: number of users to be tested; those without
    either side are left out. seen_before: which rows of `seen_only` are known when the list is made; all if None.
    """
    history = history[column[history] >= 0]
    users = np.intersect1d(interactions.user[hidden], interactions.user[history])
    row_of = np.full(len(interactions.with_all_users().users), -1)
    row_of[users] = np.arange(len(users))

    def matrix(rows: NDArray[Any]) -> csr_matrix:
        rows = rows[(row_of[interactions.user[rows]] >= 0) & (column[rows] >= 0)]
        values = _values(interactions, rows)
        cells = sparse_rows(row_of[interactions.user[rows]], column[rows], values, (len(users), len(items)))
        return cells if interactions.order is None else OrderedMatrix(cells)

    on_unknown_items = hidden[(column[hidden] < 0) & (row_of[interactions.user[hidden]] >= 0)]
    unknown = np.bincount(row_of[interactions.user[on_unknown_items]], minlength=len(users)).astype(np.int64)
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
    kept = csr_matrix(seen - seen.multiply(stored_cells(held_out)))
    kept.eliminate_zeros()
    return kept


def require_users(part: Holdout | None, name: str, protocol: str) -> Holdout:
    """Return the part, or raise DataError where it has no users: an empty part would go unnoticed."""
    if part is None or not len(part):
        raise DataError(
            f"Expected {name} users with a history and a held-out item ({protocol} protocol), found none: hold out "
            "another share, give more interactions, or use another protocol."
        )
    return part


def build_split(
    protocol: str,
    train: UserItemMatrix,
    parts: dict[int, Holdout | None],
    facts: dict[str, int],
    required: Sequence[int] = (),
) -> Split:
    """Return the split with its counts in order. DataError where a required part has no users."""
    for stage, name in STAGES:
        if stage in required:
            require_users(parts[stage], name, protocol)
    sizes = {
        "train_users": train.matrix.shape[0],
        "train_items": train.matrix.shape[1],
        "train_interactions": train.matrix.nnz,
    }
    for stage, name in STAGES:
        part = parts.get(stage)
        sizes[f"{name}_users"] = 0 if part is None else len(part)
        sizes[f"{name}_interactions"] = 0 if part is None else int(part.relevant.sum())
        facts[f"{name}_users_left_out"] = 0 if part is None else part.left_out
    facts = sizes | {key: count for key, count in facts.items() if count}
    return Split(protocol, train, parts.get(VALIDATION), parts.get(TEST), facts)


def stages_of(test: bool) -> tuple[int, ...]:
    """Return the parts that must not be empty."""
    return (VALIDATION, TEST) if test else (VALIDATION,)


def split_rows(
    protocol: str,
    interactions: Interactions,
    part: NDArray[Any],
    seen_part: NDArray[Any] | None = None,
    required: tuple[int, ...] = (VALIDATION, TEST),
    item_part: NDArray[Any] | None = None,
) -> Split:
    """Return the split whose every row is training, validation or test; the users are the same in all three.

    `seen_part`: the part of each row of `seen_only`, which is masked in the later ones; masked in all if None.
    `item_part`: the part in which each item is cold, TRAIN for none; all items then are columns.
    """
    train = training_matrix(interactions, part == TRAIN, all_items=item_part is not None)
    column = train.items.positions(interactions.items.ids)[interactions.item]
    facts: dict[str, int] = {}
    parts: dict[int, Holdout | None] = {VALIDATION: None, TEST: None}
    for stage, name in STAGES:
        if (part == stage).any():
            past, hidden = np.flatnonzero(part < stage), np.flatnonzero(part == stage)
            asked = len(np.unique(interactions.user[hidden]))
            before = None if seen_part is None else seen_part < stage
            parts[stage] = found = build_holdout(
                interactions, column, past, hidden, train.items, train.users, asked, before
            )
            facts[f"{name}_interactions_left_out"] = len(hidden) - int(found.relevant.sum())
            facts[f"{name}_interactions_on_untrained_items"] = int(found.unknown.sum())
            parts[stage] = replace(found, scopes=_scopes(train, interactions.items, item_part, stage))
    split = build_split(protocol, train, parts, facts, required)
    return replace(split, rows=RowParts(interactions, part, seen_part, item_part))


def _scopes(
    train: UserItemMatrix, items: Vocabulary, item_part: NDArray[Any] | None, stage: int
) -> dict[str, NDArray[np.bool_]]:
    """The columns that are cold in a part, and those with training users; nothing where all columns have some."""
    scopes = cold_and_warm(train.item_counts)
    if scopes and item_part is not None:
        scopes["cold"] = np.zeros(len(train.items), dtype=bool)
        scopes["cold"][train.items.positions(items.take(np.flatnonzero(item_part == stage)))] = True
    return scopes


def parts_of_users(user: NDArray[Any], share: float, rng: np.random.Generator, test: bool = True) -> NDArray[np.int64]:
    """Return the part of each row: of a user's n rows a share, at least one, is test if n > 1, validation if n > 2."""
    part = np.full(len(user), TRAIN)
    rank, size = rank_within_users(user, rng.random(len(user)))
    held = np.maximum(1, round_down(size * share))
    part[(size > 2) & (rank >= held) & (rank < 2 * held)] = VALIDATION
    part[(size > 1) & (rank < held)] = TEST if test else TRAIN
    return part


def choose_hidden(user: NDArray[Any], share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Choose rows to hide: of each user's n rows, `share` (at least 1 and at most n - 1), at random; none if n = 1."""
    rank, size = rank_within_users(user, rng.random(len(user)))
    return np.asarray(rank < np.minimum(np.maximum(1, round_down(size * share)), size - 1))


def round_down(amount: float | NDArray[Any]) -> NDArray[np.int64]:
    """Round down. The small addend keeps .2 of 5 at 1 when .2 was 1 - .8, a little less in binary."""
    return np.floor(np.asarray(amount) + 1e-9).astype(np.int64)


def rank_within_users(
    user: NDArray[Any], key: NDArray[Any], time: NDArray[Any] | None = None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the rank (from 0) of every row among its user's rows, by time, then key, and how many that user has."""
    order = np.lexsort((key, user) if time is None else (key, time, user))
    counts = np.bincount(user) if len(user) else np.zeros(1, dtype=np.int64)
    starts = np.cumsum(counts) - counts
    rank = np.empty(len(user), dtype=np.int64)
    rank[order] = np.arange(len(user)) - starts[user[order]]
    return rank, counts[user]


def check_share(name: str, value: float, below: float) -> None:
    """Raise ConfigError unless 0 < value < below, and the value is not so small that no data could have such a part."""
    if not LEAST_SHARE <= value < below:
        least = f" (at least {LEAST_SHARE:g})" if value > 0 else ""
        raise ConfigError(f"Expected {name} above 0 and below {below}{least}, found {value}.")


def concatenate(files: list[Interactions]) -> Interactions:
    """Return the rows of all files under common vocabularies. DataError where a pair is in more than one."""
    users, user = _union([file.users for file in files], [file.user for file in files])
    items, item = _union([file.items for file in files], [file.item for file in files])
    pairs = user.astype(np.int64) * len(items) + item
    repeated = len(pairs) - len(np.unique(pairs))
    if repeated:
        raise DataError(f"Expected each (user, item) pair in one of the files, found {repeated:,} in more than one.")
    ratings = [file.rating for file in files if file.rating is not None]
    rating = np.concatenate(ratings) if len(ratings) == len(files) else None
    features = next((file.features for file in files if file.features is not None), None)
    both = Interactions(users, items, user, item, rating, seen_only=_seen_in_all(files, users), features=features)
    return _in_order_of(both, files)


def _in_order_of(both: Interactions, files: list[Interactions]) -> Interactions:
    """The rows of all files in order, where one is: by time, or file after file."""
    order = next((file.order for file in files if file.order is not None), None)
    if order is None:
        return both
    times = [file.timestamp for file in files if file.timestamp is not None]
    rows = [np.arange(len(file), dtype=np.int32) if file.row is None else file.row for file in files]
    starts = np.cumsum([0, *(int(part.max(initial=-1)) + 1 for part in rows[:-1])])
    row = np.concatenate([part + start for part, start in zip(rows, starts, strict=True)]).astype(np.int32)
    timestamp = np.concatenate(times) if len(times) == len(files) else None
    return in_order(replace(both, row=row, timestamp=timestamp), order)


def _seen_in_all(files: list[Interactions], users: Vocabulary) -> Interactions | None:
    """What was seen without being a preference, of all files; its users begin with the common `users`."""
    parts = [file.seen_only for file in files if file.seen_only is not None]
    if not parts:
        return None
    items, item = _union([part.items for part in parts], [part.item for part in parts])
    none = np.empty(0, dtype=np.int32)
    everybody, user = _union([users, *(part.users for part in parts)], [none, *(part.user for part in parts)])
    return Interactions(everybody, items, user, item)


def _union(vocabularies: list[Vocabulary], positions: list[NDArray[Any]]) -> tuple[Vocabulary, NDArray[np.int32]]:
    """One vocabulary over several, first ones first, and all positions translated to it, in one array.

    Where text meets integers all become text, and the spelling decides.
    """
    kinds = {v.ids.type for v in vocabularies}
    common = pa.int64() if all(map(pa.types.is_integer, kinds)) else pa.large_string()
    arrays = [v.ids if len(kinds) == 1 else v.ids.cast(common) for v in vocabularies]
    union = Vocabulary(pa.chunked_array(arrays).unique())
    return union, np.concatenate([union.positions(a)[p] for a, p in zip(arrays, positions, strict=True)])
