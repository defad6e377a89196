"""Protocol cold-items: some items have no interaction in training, as the new ones of a shop have none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import Interactions
from recsys.errors import DataError
from recsys.splitting._building import (
    TEST,
    TRAIN,
    VALIDATION,
    check_share,
    for_task,
    parts_of_users,
    protocol,
    round_down,
    split_rows,
    stages_of,
)
from recsys.splitting.holdout import Split


@protocol("cold-items")
def cold_items(
    interactions: Interactions,
    *,
    share: float = 0.2,
    newest: bool = False,
    warm: float = 0.1,
    seed: int = 0,
    test: bool = True,
    ratings: bool = False,
) -> Split:
    """Hide items from training altogether, and beside them some interactions with the others.

    ```
               warm items      cold items
               a b c d e f     g     h i
    user 1     x x v x o .     v     o .      x training, v validation, o test
    user 2     x o x . x v     .     o o      at test the history is x and v
               training        |     test: no model has seen them with any user
                               validation: the same for the choice of settings
    ```
    Every item is a column of the training matrix. Metrics of lists may rank a part of the catalog alone:
    `cold_recall@100` only the items that are cold in the test, `warm_recall@100` only items that were trained on,
    `recall@100` all. A user counts where there is something to find: for `cold_` metrics, a cold item.

    Parameters
    ----------
    interactions : Interactions
    share : float
        Share of the items that is cold in the test, above 0 and below 0.5; half as many are cold in validation.
    newest : bool
        The items whose first interaction is the latest are cold, those just before them in validation; otherwise
        random ones.
    warm : float
        Share of each user's interactions with warm items that is test, as in `weak`, and as many are validation.
    seed : int
        Decides which items, and which interactions.
    test : bool
        Whether there is a test part; otherwise `share` of the items is cold in validation.
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
        If there are no times to find the newest by, there are too few items, or no user with a history has had a cold
        item.
    """
    check_share("share", share, 0.5)
    check_share("warm", warm, 0.5)
    rng = np.random.default_rng(seed)
    item_part = _parts_of_items(interactions, share, newest, rng, test)
    part = item_part[interactions.item]
    rows = np.flatnonzero(part == TRAIN)
    part[rows] = parts_of_users(interactions.user[rows], warm, rng, test)
    split = split_rows("cold-items", for_task(interactions, ratings), part, None, stages_of(test), item_part)
    for name, held in (("validation", split.validation), ("test", split.test)):
        if held is not None and not np.isin(held.held_out.indices, np.flatnonzero(held.scopes["cold"])).any():
            raise DataError(
                f"Expected a {name} user with a history and a cold item, found none: hold out a larger share."
            )
    cold = {
        "cold_items": int((item_part == TEST).sum()),
        "cold_items_in_validation": int((item_part == VALIDATION).sum()),
    }
    return replace(split, facts=split.facts | {name: count for name, count in cold.items() if count})


def _parts_of_items(
    interactions: Interactions, share: float, newest: bool, rng: np.random.Generator, test: bool
) -> NDArray[np.int64]:
    """The part in which each item is cold; TRAIN for warm ones. The random order is drawn in any case."""
    total = len(interactions.items)
    order = rng.permutation(total)
    if newest:
        if interactions.timestamp is None:
            raise DataError(
                "Expected times to find the newest items by, found none: name their column (timestamp_column), or "
                "take random items (newest=False)."
            )
        first = np.full(total, np.iinfo(np.int64).max)
        np.minimum.at(first, interactions.item, interactions.timestamp)
        order = order[np.argsort(-first[order], kind="stable")]
    tested = int(round_down(total * share))
    validated = max(1, tested // 2) if test else tested
    if tested < 1 or validated + tested * test >= total:
        raise DataError(f"Expected enough items to hold {share:g} of them out, found {total}: give a larger share.")
    part = np.full(total, TRAIN)
    part[order[: tested * test]] = TEST
    part[order[tested * test : tested * test + validated]] = VALIDATION
    return part
