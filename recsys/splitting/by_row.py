"""Protocols that hold out rows: of every user, at random, the last ones, or those of a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import Interactions
from recsys.errors import ConfigError, DataError
from recsys.splitting.holdout import (
    TEST,
    TRAIN,
    VALIDATION,
    Holdout,
    Split,
    _check_share,
    _finish,
    _holdout,
    _of_task,
    _ranks,
    _training_matrix,
    _whole,
    concatenate,
)


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
    return _by_rows("leave-one-out", _of_task(interactions, ratings), part, _part_of_seen(interactions, part))


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
    others = interactions.seen_only
    seen = None if others is None or others.timestamp is None else np.searchsorted(cuts, others.timestamp, side="right")
    return _by_rows("temporal", _of_task(interactions, ratings), part, seen)


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
    seen = np.repeat(parts, [0 if file.seen_only is None else len(file.seen_only) for file in files])
    return _by_rows("given", _of_task(concatenate(files), ratings), part, seen)


def _part_of_seen(interactions: Interactions, part: NDArray[Any]) -> NDArray[Any] | None:
    """The part that each row of `seen_only` belongs to by its time, or by its place in a file without times."""
    others = interactions.seen_only
    if others is None:
        return None
    timed = interactions.timestamp is not None and others.timestamp is not None
    time, when = (interactions.timestamp, others.timestamp) if timed else (interactions.row, others.row)
    if time is None or when is None:
        return None
    found = np.full(len(others), TRAIN)
    for stage in (VALIDATION, TEST):  # one row of a user at most is held out in each
        held = part == stage
        cut = np.full(len(interactions.users), np.iinfo(np.int64).max)
        cut[interactions.user[held]] = time[held]
        found[when >= cut[others.user]] = stage
    return found


def _by_rows(
    protocol: str, interactions: Interactions, part: NDArray[Any], seen_part: NDArray[Any] | None = None
) -> Split:
    """Split whose every row is training, validation or test: the users are the same in all three.

    `seen_part`: the part of each row of `seen_only`, which is masked in the later ones; masked in all without it.
    """
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
            before = None if seen_part is None else seen_part < stage
            holdouts[stage] = found = _holdout(
                interactions, column, past, hidden, train.items, train.users, asked, before
            )
            facts[f"{name}_interactions_left_out"] = len(hidden) - int(found.relevant.sum())
            facts[f"{name}_interactions_on_untrained_items"] = int(found.unknown.sum())
    made = _finish(protocol, train, holdouts[VALIDATION], holdouts[TEST], facts)
    if not ((part == VALIDATION).any() and (part == TEST).any()):
        return made

    def refit() -> Split:
        again = _by_rows(protocol, interactions, np.where(part == VALIDATION, TRAIN, part), seen_part)
        return replace(again, facts=again.facts | {"validation_rows_in_training": int((part == VALIDATION).sum())})

    return replace(made, refit=refit)
