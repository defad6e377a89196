"""Protocols that hold out users: the model is trained on other people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import Interactions, Vocabulary
from recsys.errors import ConfigError, DataError
from recsys.splitting.holdout import (
    TEST,
    TRAIN,
    VALIDATION,
    Holdout,
    Split,
    _check_share,
    _finish,
    _hide,
    _holdout,
    _of_task,
    _training_matrix,
    _whole,
    _with_someone,
    concatenate,
)


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
    together = _of_task(concatenate([histories, held_out]), ratings)
    column = items.positions(together.items.ids)[together.item]
    past, hidden = np.split(np.arange(len(together)), [len(histories)])
    before = [0 if part.seen_only is None else len(part.seen_only) for part in (histories, held_out)]
    seen_before = np.repeat([True, False], before)
    found = _holdout(together, column, past, hidden, items, users, len(held_out.users), seen_before)
    return _with_someone(found, "given")


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
