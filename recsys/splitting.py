"""Who may see what: training users, histories and held-out items, under the usual protocols.

The item vocabulary is that of the training part: a model cannot know more. Every function gives a Split whose parts
were checked: nothing held out stands in a history, or in the training row of the same user.

With `ratings=True` the cells of all matrices hold ratings, real zeros stored; else a 1 for every interaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.errors import ConfigError, DataError
from recsys.interactions import FloatArray, Interactions, UserItemMatrix, Vocabulary, sparse_rows

TRAIN, VALIDATION, TEST = 0, 1, 2


@dataclass(frozen=True)
class Holdout:
    """Users to be tested on: what the model sees of each (history) and what it must find (held_out).

    history, held_out: CSR (users, items). users: their ids. unknown: int64 (users,), held-out items that are not in
    the vocabulary: nobody can find them, but they count in what was to be found. train_rows: int64 (users,), the
    user's row in the training matrix, -1 for a user the training has not seen. left_out: how many more users were
    asked for, but have no history, or nothing to find, on these items. unpredicted: float32, the values of all rows
    that were to be held out and are no cell of held_out: their item is unknown, or their user left out.
    """

    history: csr_matrix
    held_out: csr_matrix
    users: pa.Array
    unknown: NDArray[np.int64]
    train_rows: NDArray[np.int64]
    left_out: int = 0
    unpredicted: FloatArray = field(default_factory=lambda: np.empty(0, dtype=np.float32))

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
        users = self.users.take(pa.array(rows))
        return Holdout(self.history[rows], self.held_out[rows], users, self.unknown[rows], self.train_rows[rows])

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


def strong(
    interactions: Interactions,
    *,
    share: float = 0.1,
    at_most: int = 10_000,
    history: float = 0.8,
    seed: int = 0,
    test: bool = True,
    ratings: bool = False,
) -> Split:
    """Held-out users: the model is trained on other people (Liang et al. 2018, section 4.1).

    ```
                      items   a b c d e
    training users      1     x x . x .      all of it is training
                        2     . x x . x
    test user           3     h h . h o      h history (the model sees), o held out (it must find)
    ```
    `share` of the users, `at_most` so many, serve as validation and as many again as test. `history` is the part of
    each one's items the model sees; both sides get at least one. Items no training user has are taken out first;
    held-out users with fewer than two items then are left out, and counted.
    """
    _check_share("share", share, 0.5)
    _check_share("history", history, 1)
    if at_most < 1:
        raise ConfigError(f"Expected at_most of at least 1 user, found {at_most}.")
    rng = np.random.default_rng(seed)
    total = len(interactions.users)
    count = min(int(_whole(total * share)), at_most)
    if count < 1:
        raise DataError(
            f"Expected at least {int(np.ceil(1 / share))} users to hold {share:.0%} of them out, found {total}: "
            "give a larger --held-out share, or keep every user in training (compare: --protocol weak; train: "
            "--held-out 0)."
        )
    order = rng.permutation(total)
    role = np.full(total, TRAIN)
    role[order[total - 2 * count : total - count]] = VALIDATION
    role[order[total - count :]] = TEST if test else TRAIN
    return _by_users("strong", _of_task(interactions, ratings), role, history, rng)


def k_fold(
    interactions: Interactions, *, folds: int = 5, history: float = 0.8, seed: int = 0, ratings: bool = False
) -> Iterator[tuple[str, Split]]:
    """Every user is tested once: as many strong splits as folds, each with its name.

    ```
                 users   A A B B C C
    fold 1 of 3          o o v v x x      x training, v validation, o test; h and o of each as in `strong`
    fold 2 of 3          x x o o v v
    fold 3 of 3          v v x x o o
    ```
    Folds are made at random and differ by one user at most. Each is a study of its own: a vocabulary, a search, a fit.
    """
    total = len(interactions.users)
    if not 3 <= folds <= total:
        raise ConfigError(f"Expected 3 folds or more, and no more than the {total} users, found {folds}.")
    rng = np.random.default_rng(seed)
    fold = np.empty(total, dtype=np.int64)
    fold[rng.permutation(total)] = np.arange(total) % folds
    for number in range(folds):
        role = np.full(total, TRAIN)
        role[fold == (number + 1) % folds] = VALIDATION
        role[fold == number] = TEST
        name = f"fold {number + 1} of {folds}"
        yield name, _by_users("k-fold", _of_task(interactions, ratings), role, history, rng)


def _by_users(
    protocol: str, interactions: Interactions, role: NDArray[Any], history: float, rng: np.random.Generator
) -> Split:
    """Split whose every user is training, validation or test; a share of the latter's items is their history."""
    train = _training_matrix(interactions, role[interactions.user] == TRAIN)
    column = train.items.positions(interactions.items.ids)[interactions.item]
    facts = {"held_out_interactions_on_untrained_items": int(((role[interactions.user] != TRAIN) & (column < 0)).sum())}
    parts: dict[str, Holdout | None] = {"test": None}
    for stage, name in ((VALIDATION, "validation"), (TEST, "test")):
        if not (role == stage).any():
            continue
        rows = np.flatnonzero((role[interactions.user] == stage) & (column >= 0))
        hidden = _hide(interactions.user[rows], 1 - history, rng)
        parts[name] = part = _holdout(
            interactions,
            column,
            rows[~hidden],
            rows[hidden],
            train.items,
            train.users,
            asked=int((role == stage).sum()),
        )
        facts[f"{name}_interactions_left_out"] = len(rows) - part.history.nnz - part.held_out.nnz
    return _finish(protocol, train, parts["validation"], parts["test"], facts)


def weak(
    interactions: Interactions, *, share: float = 0.1, seed: int = 0, test: bool = True, ratings: bool = False
) -> Split:
    """Every user is in training with a part of their items; others are held out at random.

    ```
            items   a b c d e
    user 1          x x v x o      x training, v validation, o test
    user 2          . x o v x      at test the history is x and v
    ```
    Of each user's n items, `share` (at least one) is test if n > 1, and as many validation if n > 2. A user with one
    item is in training only.
    """
    _check_share("share", share, 0.5)
    rng = np.random.default_rng(seed)
    part = np.full(len(interactions), TRAIN)
    rank, size = _ranks(interactions.user, rng.random(len(interactions)))
    held = np.maximum(1, _whole(size * share))
    part[(size > 2) & (rank >= held) & (rank < 2 * held)] = VALIDATION
    part[(size > 1) & (rank < held)] = TEST if test else TRAIN
    return _by_rows("weak", _of_task(interactions, ratings), part)


def cells(
    interactions: Interactions,
    *,
    share: float = 0.1,
    validation: float = 0.1,
    seed: int = 0,
    test: bool = True,
    ratings: bool = False,
) -> Split:
    """Random cells of the whole table: how papers on predicted ratings measure (90/10 with a share of 0.1).

    ```
            items   a b c d e
    user 1          x o . x x      x training, v validation, o test
    user 2          . x v x .      at test the history is x and v
    user 3          o . . x .      nothing is kept for anybody: a user may end without test cells, or without others
    ```
    `share` of all rows is test, and `validation` of the others. Rows whose item, or user, training has not seen have no
    prediction: they are counted. With `test=False`, `share` of all rows is validation.
    """
    _check_share("share", share, 1)
    _check_share("validation", validation, 1)
    order = np.random.default_rng(seed).permutation(len(interactions))
    held = max(1, int(_whole(len(order) * share)))
    part = _cells(order, held, validation) if test else _cells(order, 0, share)
    return _by_rows("cells", _of_task(interactions, ratings), part)


def k_fold_cells(
    interactions: Interactions,
    *,
    folds: int = 5,
    validation: float = 0.1,
    seed: int = 0,
    ratings: bool = False,
) -> Iterator[tuple[str, Split]]:
    """Every cell is tested once: as many splits like `cells` as folds, each with its name.

    Folds are made at random and differ by one row at most; `validation` of the rows outside a fold serve as such.
    """
    _check_share("validation", validation, 1)
    total = len(interactions)
    if not 2 <= folds <= total:
        raise ConfigError(f"Expected 2 folds or more, and no more than the {total} rows, found {folds}.")
    order = np.random.default_rng(seed).permutation(total)
    for number in range(folds):
        start, stop = number * total // folds, (number + 1) * total // folds
        turned = np.concatenate([order[start:stop], order[stop:], order[:start]])
        part = _cells(turned, stop - start, validation)
        yield f"fold {number + 1} of {folds}", _by_rows("k-fold-cells", _of_task(interactions, ratings), part)


def _cells(order: NDArray[np.int64], tested: int, validation: float) -> NDArray[Any]:
    """Part of each row: the first `tested` in this order are test, a share `validation` of the others follows."""
    part = np.full(len(order), TRAIN)
    part[order[:tested]] = TEST
    part[order[tested : tested + max(1, int(_whole((len(order) - tested) * validation)))]] = VALIDATION
    return part


def leave_one_out(interactions: Interactions, *, seed: int = 0, ratings: bool = False) -> Split:
    """The last item of each user is test, the one before validation; by time, or as the file goes where it has none.

    ```
            time ->
    user 1   x x x v o      x training, v validation (seen at test), o test
    user 2   x v o          with two items: x o; with one: x
    ```
    Equal times are ordered at random. Other people's later rows do stand in training: `temporal` avoids that. Without
    timestamps the seed decides nothing, and a file sorted by item would have its last items found: `weak` is fairer.
    """
    row = np.arange(len(interactions)) if interactions.row is None else interactions.row
    key = row if interactions.timestamp is None else np.random.default_rng(seed).random(len(interactions))
    rank, size = _ranks(interactions.user, key, interactions.timestamp)
    from_end = size - 1 - rank
    part = np.full(len(interactions), TRAIN)
    part[(from_end == 0) & (size > 1)] = TEST
    part[(from_end == 1) & (size > 2)] = VALIDATION
    return _by_rows("leave-one-out", _of_task(interactions, ratings), part)


def temporal(interactions: Interactions, *, share: float = 0.1, ratings: bool = False) -> Split:
    """A cut in time: training is the past of everybody, nothing of the future is in it.

    ```
                 training  | validation |  test
    user 1       x   x     |     v      |  o o      at test the history is x and v
    user 2           x     |            |  o
    user 3                 |            |  o        no history: left out, and counted
    ```
    The last `share` of all rows (by time) is test, as much before it validation; rows of one instant stay together.
    Raises DataError without timestamps, or where equal ones leave no row before the first cut.
    """
    _check_share("share", share, 0.5)
    if interactions.timestamp is None:
        raise DataError("The temporal protocol needs timestamps, found none: name their column or use another.")
    times = np.sort(interactions.timestamp)
    count = max(1, int(_whole(len(times) * share)))
    cuts = times[-2 * count :: count]  # of the first validation row and of the first test row
    if len(cuts) < 2 or cuts[0] == times[0]:
        raise DataError(
            f"Expected rows before and after two cuts in time, found {len(times):,} rows and too few different times: "
            "hold out a smaller share, or use another protocol."
        )
    part = np.searchsorted(cuts, interactions.timestamp, side="right")
    return _by_rows("temporal", _of_task(interactions, ratings), part)


def given(
    train: Interactions,
    test: Interactions,
    validation: Interactions | None = None,
    *,
    share: float = 0,
    seed: int = 0,
    ratings: bool = False,
) -> Split:
    """A published division: the files say what is training, validation and test.

    ```
    train.csv  x        validation.csv  v        test.csv  o
    ```
    Models learn on x; settings and epochs are chosen on v with x as history; at test the history is x and v. Without
    a validation file, a random `share` of the rows of train serves. Raises DataError where a pair stands in more than
    one file.
    """
    files = [train, *([validation] if validation is not None else []), test]
    parts = [TRAIN, VALIDATION, TEST] if validation is not None else [TRAIN, TEST]
    part = np.repeat(parts, [len(file) for file in files])
    if validation is None and share:
        _check_share("share", share, 1)
        part[: len(train)] = _cells(np.random.default_rng(seed).permutation(len(train)), 0, share)
    return _by_rows("given", _of_task(_join(files), ratings), part)


def holdout(
    histories: Interactions,
    held_out: Interactions,
    items: Vocabulary,
    users: Vocabulary | None = None,
    ratings: bool = False,
) -> Holdout:
    """A test part for a model that is already there: `items` is its vocabulary, `users` its training users.

    Users of `held_out` without a history on these items are left out, and counted.
    """
    together = _of_task(_join([histories, held_out]), ratings)
    column = items.positions(together.items.ids)[together.item]
    past, hidden = np.split(np.arange(len(together)), [len(histories)])
    return _with_someone(_holdout(together, column, past, hidden, items, users, len(held_out.users)), "given")


def hide(
    interactions: Interactions, items: Vocabulary, share: float = 0.2, seed: int = 0, ratings: bool = False
) -> Holdout:
    """A test part of all users, for a model that is already there: `share` of each one's items is held out.

    Items outside `items` are taken out first; users with fewer than two items then are left out, and counted.
    """
    _check_share("hidden", share, 1)
    interactions = _of_task(interactions, ratings)
    column = items.positions(interactions.items.ids)[interactions.item]
    rows = np.flatnonzero(column >= 0)
    hidden = _hide(interactions.user[rows], share, np.random.default_rng(seed))
    found = _holdout(interactions, column, rows[~hidden], rows[hidden], items, None, len(interactions.users))
    return _with_someone(found, "hide")


def everybody(interactions: Interactions, ratings: bool = False) -> Split:
    """Nobody is held out: all rows are training."""
    all_rows = np.ones(len(interactions), dtype=bool)
    return _finish("everybody", _training_matrix(_of_task(interactions, ratings), all_rows), None, None, {})


PROTOCOLS: dict[str, Callable[..., Split]] = {
    "strong": strong,
    "weak": weak,
    "cells": cells,
    "leave-one-out": leave_one_out,
    "temporal": temporal,
    "given": given,
}


FOLDS: dict[str, Callable[..., Iterator[tuple[str, Split]]]] = {"strong": k_fold, "cells": k_fold_cells}


def _by_rows(protocol: str, interactions: Interactions, part: NDArray[Any]) -> Split:
    """Split whose every row is training, validation or test: users are the same people in all three."""
    if not (part != TRAIN).any():
        raise DataError(f"Expected users with enough items to hold one out ({protocol} protocol), found none.")
    train = _training_matrix(interactions, part == TRAIN)
    column = train.items.positions(interactions.items.ids)[interactions.item]
    facts: dict[str, int] = {}
    holdouts: dict[int, Holdout | None] = {VALIDATION: None, TEST: None}
    for stage, name in ((VALIDATION, "validation"), (TEST, "test")):
        if (part == stage).any():
            past, hidden = np.flatnonzero(part < stage), np.flatnonzero(part == stage)
            asked = len(np.unique(interactions.user[hidden]))
            holdouts[stage] = found = _holdout(interactions, column, past, hidden, train.items, train.users, asked)
            facts[f"{name}_interactions_left_out"] = len(hidden) - int(found.relevant.sum())
            facts[f"{name}_interactions_on_untrained_items"] = int(found.unknown.sum())
    made = _finish(protocol, train, holdouts[VALIDATION], holdouts[TEST], facts)
    if not ((part == VALIDATION).any() and (part == TEST).any()):
        return made

    def refit() -> Split:
        again = _by_rows(protocol, interactions, np.where(part == VALIDATION, TRAIN, part))
        return replace(again, facts=again.facts | {"validation_rows_in_training": int((part == VALIDATION).sum())})

    return replace(made, refit=refit)


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
) -> Holdout:
    """Holdout from row numbers of the history and of what is hidden.

    Users without either side are left out of the `asked` ones.
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
    return Holdout(
        matrix(history),
        matrix(hidden),
        ids,
        unknown,
        trained_rows.astype(np.int64),
        asked - len(users),
        _values(interactions, lost),
    )


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


def _join(files: list[Interactions]) -> Interactions:
    """The rows of all files under common vocabularies. Raises DataError where a pair is in more than one."""
    users, user = _union([file.users for file in files], [file.user for file in files])
    items, item = _union([file.items for file in files], [file.item for file in files])
    pairs = user.astype(np.int64) * len(items) + item
    repeated = len(pairs) - len(np.unique(pairs))
    if repeated:
        raise DataError(f"Expected each (user, item) pair in one of the files, found {repeated:,} in more than one.")
    ratings = [file.rating for file in files if file.rating is not None]
    rating = np.concatenate(ratings) if len(ratings) == len(files) else None
    return Interactions(users, items, user, item, rating)


def _union(vocabularies: list[Vocabulary], positions: list[NDArray[Any]]) -> tuple[Vocabulary, NDArray[np.int32]]:
    """One vocabulary over several, first ones first, and all positions translated to it, one after the other.

    Where text meets integers all become text, and the spelling decides.
    """
    kinds = {v.ids.type for v in vocabularies}
    common = pa.int64() if all(map(pa.types.is_integer, kinds)) else pa.large_string()
    arrays = [v.ids if len(kinds) == 1 else v.ids.cast(common) for v in vocabularies]
    union = Vocabulary(pa.chunked_array(arrays).unique())
    return union, np.concatenate([union.positions(a)[p] for a, p in zip(arrays, positions, strict=True)])


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
