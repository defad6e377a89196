"""Protocols that hold out users: the model is trained on the others. And test parts for a model that exists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import Interactions, Vocabulary
from recsys.errors import ConfigError, DataError
from recsys.splitting._building import (
    STAGES,
    TEST,
    TRAIN,
    VALIDATION,
    build_holdout,
    build_split,
    check_share,
    choose_hidden,
    concatenate,
    for_task,
    protocol,
    require_users,
    round_down,
    training_matrix,
)
from recsys.splitting.holdout import Holdout, Split


def everybody(interactions: Interactions, ratings: bool = False) -> Split:
    """Use every interaction for training; none is held out.

    Parameters
    ----------
    interactions : Interactions
    ratings : bool
        Whether cells hold ratings instead of 1.

    Returns
    -------
    Split
        Without validation and test.
    """
    all_rows = np.ones(len(interactions), dtype=bool)
    return build_split("everybody", training_matrix(for_task(interactions, ratings), all_rows), {}, {})


@protocol("strong")
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
    """Hold out users: the model is trained on the others and sees a part of the history of each.

    ```
                      items   a b c d e
    training users      1     x x . x .      all of it is training
                        2     . x x . x
    test user           3     h h . h o      h history (the model sees), o held out (it must find)
    ```
    Items that no training user has are taken out first; held-out users with fewer than two items then are left out,
    and counted.

    Parameters
    ----------
    interactions : Interactions
    share : float
        Share of the users, above 0 and below 0.5, that serve as validation; as many again serve as test.
    at_most : int
        Largest number of users of each of the two.
    history : float
        Part of the items of each held-out user that the model sees, above 0 and below 1. Both sides get at least one.
    seed : int
        Decides users and items.
    test : bool
        Whether there is a test part; otherwise its users are training.
    ratings : bool
        Whether cells hold ratings instead of 1.

    Returns
    -------
    Split

    Raises
    ------
    ConfigError
        If a parameter is out of range.
    DataError
        If there are too few users, or none of those held out can be tested.

    References
    ----------
    Liang et al., Variational Autoencoders for Collaborative Filtering, WWW 2018, arXiv:1802.05814, section 4.1.
    """
    check_share("share", share, 0.5)
    check_share("history", history, 1)
    if at_most < 1:
        raise ConfigError(f"Expected at_most of at least 1 user, found {at_most}.")
    rng = np.random.default_rng(seed)
    total = len(interactions.users)
    count = min(int(round_down(total * share)), at_most)
    if count < 1:
        raise DataError(
            f"Expected at least {int(np.ceil(1 / share)):,} users to hold {share:g} of them out, found {total:,}: "
            "give a larger share, or use a protocol that keeps every user in training, such as weak."
        )
    order = rng.permutation(total)
    role = np.full(total, TRAIN)
    role[order[total - 2 * count : total - count]] = VALIDATION
    role[order[total - count :]] = TEST if test else TRAIN
    required = (VALIDATION, TEST) if test else (VALIDATION,)
    return _by_users("strong", for_task(interactions, ratings), role, history, rng, required)


def k_fold(
    interactions: Interactions, *, folds: int = 5, history: float = 0.8, seed: int = 0, ratings: bool = False
) -> Iterator[tuple[str, Split]]:
    """Test every user once: as many splits like `strong` as folds.

    ```
                 users   A A B B C C
    fold 1 of 3          o o v v x x      x training, v validation, o test; h and o of each as in `strong`
    fold 2 of 3          x x o o v v
    fold 3 of 3          v v x x o o
    ```
    Each fold is a study of its own: a vocabulary, a search of settings, a fit.

    Parameters
    ----------
    interactions : Interactions
    folds : int
        From 3 to the number of users. They are made at random and differ by one user at most.
    history : float
        As in `strong`.
    seed : int
        Decides folds and items.
    ratings : bool
        Whether cells hold ratings instead of 1.

    Yields
    ------
    (str, Split)
        The name of a fold, and its split.

    Raises
    ------
    ConfigError, DataError
        As in `strong`.
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
        yield name, _by_users("k-fold", for_task(interactions, ratings), role, history, rng, (VALIDATION, TEST))


def _by_users(
    protocol: str,
    interactions: Interactions,
    role: NDArray[Any],
    history: float,
    rng: np.random.Generator,
    required: tuple[int, ...],
) -> Split:
    """The split whose every user is training, validation or test; a share of the items of the latter two is history."""
    train = training_matrix(interactions, role[interactions.user] == TRAIN)
    column = train.items.positions(interactions.items.ids)[interactions.item]
    facts = {"held_out_interactions_on_untrained_items": int(((role[interactions.user] != TRAIN) & (column < 0)).sum())}
    parts: dict[int, Holdout | None] = {VALIDATION: None, TEST: None}
    for stage, name in STAGES:
        if not (role == stage).any():
            continue
        rows = np.flatnonzero((role[interactions.user] == stage) & (column >= 0))
        hidden = choose_hidden(interactions.user[rows], 1 - history, rng)
        parts[stage] = part = build_holdout(
            interactions,
            column,
            rows[~hidden],
            rows[hidden],
            train.items,
            train.users,
            asked=int((role == stage).sum()),
        )
        facts[f"{name}_interactions_left_out"] = len(rows) - part.history.nnz - part.held_out.nnz
    return build_split(protocol, train, parts, facts, required)


def holdout(
    histories: Interactions,
    held_out: Interactions,
    items: Vocabulary,
    users: Vocabulary | None = None,
    ratings: bool = False,
) -> Holdout:
    """Make a test part for a model that exists, from the histories of users and the items they must get.

    Parameters
    ----------
    histories, held_out : Interactions
        No (user, item) pair is in both. Users of `held_out` without a history on the model's items are left out, and
        counted.
    items : Vocabulary
        Items of the model.
    users : Vocabulary, optional
        Training users of the model.
    ratings : bool
        Whether cells hold ratings instead of 1.

    Returns
    -------
    Holdout

    Raises
    ------
    DataError
        If a pair is in both tables, or no user has a history and a held-out item.
    """
    both = for_task(concatenate([histories, held_out]), ratings)
    column = items.positions(both.items.ids)[both.item]
    past, hidden = np.split(np.arange(len(both)), [len(histories)])
    before = [0 if part.seen_only is None else len(part.seen_only) for part in (histories, held_out)]
    seen_before = np.repeat([True, False], before)
    found = build_holdout(both, column, past, hidden, items, users, len(held_out.users), seen_before)
    return require_users(found, "test", "given")


def hide(
    interactions: Interactions, items: Vocabulary, share: float = 0.2, seed: int = 0, ratings: bool = False
) -> Holdout:
    """Make a test part of all users for a model that exists: a share of the items of each is held out.

    Items that the model does not know are taken out first; users with fewer than two items then are left out, and
    counted.

    Parameters
    ----------
    interactions : Interactions
    items : Vocabulary
        Items of the model.
    share : float
        Share of each user's items that is held out, above 0 and below 1: at least one item, and not all.
    seed : int
        Decides which.
    ratings : bool
        Whether cells hold ratings instead of 1.

    Returns
    -------
    Holdout

    Raises
    ------
    ConfigError
        If `share` is out of range.
    DataError
        If no user has two items that the model knows.
    """
    check_share("share", share, 1)
    interactions = for_task(interactions, ratings)
    column = items.positions(interactions.items.ids)[interactions.item]
    rows = np.flatnonzero(column >= 0)
    hidden = choose_hidden(interactions.user[rows], share, np.random.default_rng(seed))
    found = build_holdout(interactions, column, rows[~hidden], rows[hidden], items, None, len(interactions.users))
    return require_users(found, "test", "hide")
