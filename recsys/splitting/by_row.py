"""Protocols that hold out interactions at random, or those of a file (by_time has those that go by time)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import Interactions
from recsys.errors import ConfigError, UnsupportedError
from recsys.splitting._building import (
    TEST,
    TRAIN,
    VALIDATION,
    check_share,
    concatenate,
    for_task,
    parts_of_users,
    protocol,
    round_down,
    split_rows,
    stages_of,
)
from recsys.splitting.holdout import Split


@protocol("weak")
def weak(
    interactions: Interactions, *, share: float = 0.1, seed: int = 0, test: bool = True, ratings: bool = False
) -> Split:
    """Hold out a share of the items of every user, at random; the rest of them is training.

    ```
            items   a b c d e
    user 1          x x v x o      x training, v validation, o test
    user 2          . x o v x      at test the history is x and v
    ```

    Parameters
    ----------
    interactions : Interactions
    share : float
        Above 0 and below 0.5. Of each user's n items, this share (at least one) is test if n > 1, and as many are
        validation if n > 2. A user with one item is in training only.
    seed : int
        Decides which.
    test : bool
        Whether there is a test part; otherwise its rows are training.
    ratings : bool
        Whether cells hold ratings instead of 1.

    Returns
    -------
    Split

    Raises
    ------
    ConfigError
        If `share` is out of range.
    DataError
        If no user has enough items for a part.
    """
    check_share("share", share, 0.5)
    rng = np.random.default_rng(seed)
    part = parts_of_users(interactions.user, share, rng, test)
    return split_rows("weak", for_task(interactions, ratings), part, required=stages_of(test))


@protocol("cells")
def cells(
    interactions: Interactions,
    *,
    share: float = 0.1,
    validation: float = 0.1,
    seed: int = 0,
    test: bool = True,
    ratings: bool = False,
) -> Split:
    """Hold out random cells of the whole matrix, as papers on predicted ratings do (90/10 with a share of 0.1).

    ```
            items   a b c d e
    user 1          x o . x x      x training, v validation, o test
    user 2          . x v x .      at test the history is x and v
    user 3          o . . x .      a user may end without test cells, or without others
    ```
    Rows whose item or user is not in training have no prediction: they are counted.

    Parameters
    ----------
    interactions : Interactions
    share : float
        Share of all rows that is test, above 0 and below 1; validation, with `test=False`.
    validation : float
        Share of the other rows that is validation, above 0 and below 1.
    seed : int
        Decides which.
    test : bool
        Whether there is a test part; otherwise `share` of all rows is validation.
    ratings : bool
        Whether cells hold ratings instead of 1.

    Returns
    -------
    Split

    Raises
    ------
    ConfigError
        If a share is out of range.
    DataError
        If a part has no user with a history.
    """
    check_share("share", share, 1)
    check_share("validation", validation, 1)
    order = np.random.default_rng(seed).permutation(len(interactions))
    held = max(1, int(round_down(len(order) * share)))
    part = _parts_of_cells(order, held, validation) if test else _parts_of_cells(order, 0, share)
    return split_rows("cells", for_task(interactions, ratings), part, required=stages_of(test))


def k_fold_cells(
    interactions: Interactions,
    *,
    folds: int = 5,
    validation: float = 0.1,
    seed: int = 0,
    ratings: bool = False,
) -> Iterator[tuple[str, Split]]:
    """Test every cell once: as many splits like `cells` as folds.

    Parameters
    ----------
    interactions : Interactions
    folds : int
        From 2 to the number of rows. They are made at random and differ by one row at most.
    validation : float
        Share of the rows outside a fold that is validation, above 0 and below 1.
    seed : int
        Decides folds and validation rows.
    ratings : bool
        Whether cells hold ratings instead of 1.

    Yields
    ------
    (str, Split)
        The name of a fold, and its split.

    Raises
    ------
    ConfigError, DataError
        As in `cells`.
    """
    check_share("validation", validation, 1)
    total = len(interactions)
    if not 2 <= folds <= total:
        raise ConfigError(f"Expected 2 folds or more, and no more than the {total} rows, found {folds}.")
    order = np.random.default_rng(seed).permutation(total)
    for number in range(folds):
        start, stop = number * total // folds, (number + 1) * total // folds
        turned = np.concatenate([order[start:stop], order[stop:], order[:start]])
        part = _parts_of_cells(turned, stop - start, validation)
        yield f"fold {number + 1} of {folds}", split_rows("k-fold-cells", for_task(interactions, ratings), part)


def _parts_of_cells(order: NDArray[np.int64], tested: int, validation: float) -> NDArray[Any]:
    """Part of each row: the first `tested` in this order are test, a share `validation` of the others follows."""
    part = np.full(len(order), TRAIN)
    part[order[:tested]] = TEST
    part[order[tested : tested + max(1, int(round_down((len(order) - tested) * validation)))]] = VALIDATION
    return part


@protocol("given")
def given(
    train: Interactions,
    test: Interactions,
    validation: Interactions | None = None,
    *,
    share: float = 0,
    seed: int = 0,
    ratings: bool = False,
) -> Split:
    """Use a published division: the tables say what is training, validation and test.

    ```
    train.csv  x        validation.csv  v        test.csv  o
    ```
    Models learn on x; settings and epochs are chosen on v with x as history; at test the history is x and v.

    Parameters
    ----------
    train, test : Interactions
    validation : Interactions, optional
    share : float
        Without `validation`, a random share of the rows of `train` that serves as such; none if 0.
    seed : int
        Decides which.
    ratings : bool
        Whether cells hold ratings instead of 1.

    Returns
    -------
    Split

    Raises
    ------
    ConfigError
        If `share` is out of range.
    DataError
        If a pair is in more than one table, or a part has no user with a history.
    """
    files = [train, *([validation] if validation is not None else []), test]
    parts = [TRAIN, VALIDATION, TEST] if validation is not None else [TRAIN, TEST]
    part = np.repeat(parts, [len(file) for file in files])
    if validation is None and share:
        check_share("share", share, 1)
        part[: len(train)] = _parts_of_cells(np.random.default_rng(seed).permutation(len(train)), 0, share)
    seen = np.repeat(parts, [0 if file.seen_only is None else len(file.seen_only) for file in files])
    required = (VALIDATION, TEST) if (part == VALIDATION).any() or validation is not None else (TEST,)
    return split_rows("given", for_task(concatenate(files), ratings), part, seen, required)


def train_on_validation(split: Split) -> Split:
    """Return the same split with the validation rows in training, to fit once more when all is chosen.

    Parameters
    ----------
    split : Split
        Of a protocol by row, with a validation and a test part.

    Returns
    -------
    Split
        Without a validation part; the test part has the same held-out cells.

    Raises
    ------
    UnsupportedError
        If validation rows belong to users that must stay new, or there are none.
    """
    if split.rows is None or split.validation is None or split.test is None:
        raise UnsupportedError(
            "Expected validation rows that training could have had, to fit again with them; the "
            f"{split.protocol} protocol has none."
        )
    part, item_part = np.where(split.rows.part == VALIDATION, TRAIN, split.rows.part), split.rows.item_part
    if item_part is not None:
        item_part = np.where(item_part == VALIDATION, TRAIN, item_part)
    again = split_rows(split.protocol, split.rows.interactions, part, split.rows.seen_part, (TEST,), item_part)
    return replace(
        again, facts=again.facts | {"validation_rows_in_training": int((split.rows.part == VALIDATION).sum())}
    )
