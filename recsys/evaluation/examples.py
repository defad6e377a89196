"""Test users to look at: what a few of them took, and what each model would have recommended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import Vocabulary
from recsys.evaluation.evaluate import ListEvaluation
from recsys.evaluation.results import ModelResult
from recsys.evaluation.tasks import LIST_LENGTH
from recsys.splitting.holdout import Holdout

_SHOWN = 8  # items of a history


@dataclass(frozen=True)
class Example:
    """A test user without the id.

    Attributes
    ----------
    history : list of str
        Titles of the rarest items of the history: they say most about a user's taste.
    history_length, held_out : int
        Items in the history, and items to be found.
    lists : mapping of str to list of (str, bool)
        For each model the titles it recommends, best first, and whether each was held out.
    """

    history: list[str]
    history_length: int
    held_out: int
    lists: Mapping[str, list[tuple[str, bool]]] = field(default_factory=dict)


def examples(
    results: Sequence[ModelResult],
    test: Holdout,
    items: Vocabulary,
    item_counts: NDArray[np.int64],
    titles: Mapping[str, str],
    count: int = 3,
) -> list[Example]:
    """Choose test users with short, medium and long histories, and show their lists.

    Parameters
    ----------
    results : sequence of ModelResult
        Their first fits were measured on `test`.
    test : Holdout
        The test part, the first fold's where there are several.
    items : Vocabulary
        Ids of the columns.
    item_counts : ndarray of int64, shape (items,)
        Training users of each item.
    titles : mapping of str to str
        Titles by item id; an item without one is shown by its id.
    count : int
        How many users.

    Returns
    -------
    list of Example
        Shortest history first; empty for predicted ratings, which have no lists.
    """
    if not isinstance(results[0].first.evaluation, ListEvaluation):
        return []
    order = np.argsort(np.diff(test.history.indptr), kind="stable")
    chosen = [order[int(len(order) * (place + 0.5) / count)] for place in range(min(count, len(order)))]
    names = [titles.get(str(item), str(item)) for item in items.to_list()]
    return [_example(int(user), results, test, item_counts, names) for user in chosen]


def _example(
    user: int, results: Sequence[ModelResult], test: Holdout, item_counts: NDArray[np.int64], names: list[str]
) -> Example:
    history = test.history[[user]].indices
    wanted = set(test.held_out[[user]].indices.tolist())
    rarest = sorted(history.tolist(), key=lambda item: int(item_counts[item]))[:_SHOWN]
    lists = {
        result.name: [
            (names[item], item in wanted) for item in found.positions[user, :LIST_LENGTH].tolist() if item >= 0
        ]
        for result in results
        if isinstance(found := result.first.evaluation, ListEvaluation)
    }
    return Example([names[item] for item in rarest], len(history), int(test.relevant[user]), lists)
