"""How plausible every interaction is to a model that has not seen it: cross-fitted over cells.

```
                    items  a b c d e f         cells of a user in three folds: 1 1 2 3
fold 1 held out            h h x x . .         h judged by a model fitted without any h, from the history x
judged: a                  is a more plausible than b, e, f, the items of like popularity that the user did not take?
```
The judged value is a percentile: the share of alternatives that are less plausible than what is recorded. Of lists, the
alternatives are the items of like popularity that the user has not had; of ratings, all ratings beside all predictions.
An interaction that tells nothing about its user is then uniform on (0, 1), whatever the model and its scale (a
conformal p-value, ties broken at random: Vovk, Gammerman, Shafer: Algorithmic Learning in a Random World, 2005); one
that follows a taste the model knows is near 1. Popularity is counted without the cell itself, else rare items would be
compared unfairly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.data.matrix import UserItemMatrix
from recsys.errors import ConfigError, DataError
from recsys.inference.topn import MAX_SCORES
from recsys.models.base import Recommender
from recsys.training.context import TrainingContext
from recsys.types import Values

MOST_STRATA = 20  # of items by popularity
_ITEMS, _CELLS = 50, 500  # of a stratum at least, on average
_BATCH = 512  # users scored at once
_LEVELS, _PREDICTIONS = 100, 10_000  # that a rating is compared with, at most

OnFold = Callable[[int, int], None]


@dataclass(frozen=True)
class Plausibility:
    """What cross-fitting finds for every cell of a user-item matrix, in the order of its cells.

    Attributes
    ----------
    value : ndarray of float64, shape (cells,)
        Share of alternatives that are less plausible than the cell, in (0, 1). NaN for a cell that cannot be judged:
        without it its user has no history, or its item no user.
    stratum : ndarray of int, shape (cells,)
        Group of items of like popularity, from 0 for the rarest; -1 where not judged.
    strata : int
        Number of groups, with about as many items in each.
    expected : ndarray of float32, shape (cells,), or None
        Predicted rating of each cell; None for models of lists.
    """

    value: Values
    stratum: NDArray[np.int64]
    strata: int
    expected: NDArray[np.float32] | None = None


def judge_cells(
    model: Recommender,
    data: UserItemMatrix,
    folds: int = 5,
    seed: int = 0,
    context: TrainingContext | None = None,
    on_fold: OnFold = lambda done, total: None,
) -> Plausibility:
    """Judge every cell by a model of the same settings that was fitted without it.

    Parameters
    ----------
    model : Recommender
        Its settings are used, and the number of epochs that validation found best; its weights are not.
    data : UserItemMatrix
        The interactions. `seen` says what else a user has had: no item of it is an alternative.
    folds : int
        As many fits, each without a part of the cells of every user. 2 or more; more are better and cost more.
    seed : int
        Decides the folds, and the draws of each fit.
    context : TrainingContext, optional
        Device, precision, progress.
    on_fold : callable (done, total)
        Called before the first fold and after each.

    Returns
    -------
    Plausibility

    Raises
    ------
    ConfigError
        If there are fewer than 2 folds.
    DataError
        If no cell can be judged.
    """
    if folds < 2:
        raise ConfigError(f"Expected folds of at least 2, found {folds}.")
    matrix, ratings = data.matrix, model.task == "rating"
    row = rows_of(matrix)
    fold = assign_folds(row, matrix.shape[0], folds, seed)
    strata = max(1, min(MOST_STRATA, matrix.shape[1] // _ITEMS, matrix.nnz // _CELLS))
    value, stratum = np.full(matrix.nnz, np.nan), np.full(matrix.nnz, -1, dtype=np.int64)
    expected = np.full(matrix.nnz, np.nan, dtype=np.float32) if ratings else None
    context = replace(context or TrainingContext(), seed=seed)
    ties = np.random.default_rng([seed, folds]).random(matrix.nnz)
    on_fold(0, folds)
    for number in range(folds):
        train = keep_cells(matrix, fold != number)
        fitted = model.refit(train, context)
        groups = group_by_popularity(np.bincount(train.indices, minlength=matrix.shape[1]), strata)
        able = (fold == number) & (np.diff(train.indptr)[row] > 0) & (groups[matrix.indices] >= 0)
        for cells, scores, users in _scored(fitted, train, row, np.flatnonzero(able)):
            place, item = row[cells] - users.start, matrix.indices[cells]
            if expected is None:
                seen = (matrix if data.seen is None else data.seen)[users]
                value[cells] = rank_among_unseen(scores, seen, place, item, groups, ties[cells])
            else:
                expected[cells] = scores[place, item]
        if expected is not None:
            value[able] = rank_among_ratings(matrix.data[able], expected[able], ties[able])
        stratum[able] = groups[matrix.indices[able]]
        on_fold(number + 1, folds)
    stratum[np.isnan(value)] = -1
    if (stratum < 0).all():
        raise DataError(
            f"Expected interactions that can be judged, found none among {matrix.nnz}: their users have no others, or "
            "their items no other users."
        )
    return Plausibility(value, stratum, strata, expected)


def rows_of(matrix: csr_matrix) -> NDArray[np.int64]:
    """Return the row of each cell, int64 (cells,)."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def assign_folds(row: NDArray[np.int64], users: int, folds: int, seed: int) -> NDArray[np.int64]:
    """Draw the fold of each cell, so that the cells of a user are divided evenly: int64 (cells,)."""
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.random(len(row)), row))
    starts = np.searchsorted(row, np.arange(users))
    fold = np.empty(len(row), dtype=np.int64)
    fold[order] = np.arange(len(row)) - starts[row]
    return (fold + rng.integers(folds, size=users)[row]) % folds


def keep_cells(matrix: csr_matrix, kept: NDArray[np.bool_]) -> csr_matrix:
    """Return the matrix with some of its cells only; stored zeros stay."""
    starts = np.concatenate([[0], np.cumsum(kept)])[matrix.indptr].astype(np.int32)
    return csr_matrix((matrix.data[kept], matrix.indices[kept], starts), shape=matrix.shape)


def group_by_popularity(counts: NDArray[Any], groups: int) -> NDArray[np.int64]:
    """Divide the items with users into groups of equal size by their number of users, from 0 for the rarest.

    Parameters
    ----------
    counts : ndarray of int, shape (items,)
        Users of each item.
    groups : int

    Returns
    -------
    ndarray of int64, shape (items,)
        -1 for an item without users.
    """
    known = np.flatnonzero(counts > 0)
    order = known[np.argsort(counts[known], kind="stable")]
    group = np.full(len(counts), -1, dtype=np.int64)
    group[order] = np.arange(len(order)) * groups // max(1, len(order))
    return group


def _scored(
    model: Recommender, history: csr_matrix, row: NDArray[np.int64], cells: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32], slice]]:
    """The cells of some users at a time, the scores of all items for these users, and which users they are."""
    size = max(1, min(_BATCH, MAX_SCORES // max(1, history.shape[1])))
    for start in range(0, history.shape[0], size):
        users = slice(start, min(start + size, history.shape[0]))
        of_batch = cells[np.searchsorted(row[cells], users.start) : np.searchsorted(row[cells], users.stop)]
        if len(of_batch):
            known = {"users": np.arange(users.start, users.stop)} if model.needs_training_users else {}
            yield of_batch, model.score(history[users], **known).cpu().numpy(), users


def rank_among_unseen(
    scores: NDArray[np.float32],
    seen: csr_matrix,
    user: NDArray[np.int64],
    item: NDArray[Any],
    group: NDArray[np.int64],
    tie: Values,
) -> Values:
    """Rank the score of each cell among those of the unseen items of its group.

    ```
    group         0 0 0 0 1      scores  .9 .1 .5 .7 .2      seen  x . . . .
    item 0: all 3 unseen of group 0 score less -> (3 + tie) / (3 + 1)
    ```

    Parameters
    ----------
    scores : ndarray of float32, shape (users, items)
    seen : csr_matrix, shape (users, items)
        What each user has had, the cells themselves included.
    user, item : ndarray of int, shape (cells,)
        Row and column of each cell.
    group : ndarray of int, shape (items,)
    tie : ndarray of float64, shape (cells,)
        In (0, 1): the place of each cell among those of equal score, itself included.

    Returns
    -------
    ndarray of float64, shape (cells,)
        (less + tie (equal + 1)) / (unseen + 1); NaN where nothing of the group is unseen.
    """
    others = torch.from_numpy(scores).clone()
    others[torch.from_numpy(rows_of(seen)), torch.from_numpy(seen.indices).long()] = (
        torch.nan
    )  # never less, never equal
    found = np.empty(len(user))
    for number in np.unique(group[item]):
        cells = np.flatnonzero(group[item] == number)
        of_group = others[:, torch.from_numpy(np.flatnonzero(group == number))]
        for some in np.array_split(cells, len(cells) * of_group.shape[1] // MAX_SCORES + 1):
            own = torch.from_numpy(scores[user[some], item[some]])[:, None]
            found[some] = _percentile(of_group[torch.from_numpy(user[some])], own, tie[some])
    return found


def _percentile(others: Tensor, own: Tensor, tie: Values) -> Values:
    """(less + tie (equal + 1)) / (others + 1) of each row; NaN among the others are none."""
    parts = (others < own, others == own, ~others.isnan())
    less, equal, count = (part.sum(dim=1).double().numpy() for part in parts)
    value: Values = (less + tie * (equal + 1)) / (count + 1)
    value[count == 0] = np.nan
    return value


def rank_among_ratings(rating: NDArray[np.float32], expected: NDArray[np.float32], tie: Values) -> Values:
    """Find the share of all ratings, each beside the prediction of every cell, that lie farther off than a cell's own.

    ```
    ratings 1 2, expected 1.2 1.9     pairs are off by .2 .8 .9 .1     the first cell is off by .2: .8 and .9 are more
    ```

    Parameters
    ----------
    rating, expected : ndarray of float32, shape (cells,)
    tie : ndarray of float64, shape (cells,)
        In (0, 1): the place of each cell among pairs that are equally far.

    Returns
    -------
    ndarray of float64, shape (cells,)
        Of many cells and ratings, some stand for all.
    """
    levels, counts = np.unique(rating, return_counts=True)
    if len(levels) > _LEVELS:
        levels = np.quantile(rating, (np.arange(_LEVELS) + 0.5) / _LEVELS).astype(np.float32)
        counts = np.ones(_LEVELS, dtype=np.int64)
    some = expected[np.linspace(0, len(expected) - 1, min(len(expected), _PREDICTIONS)).astype(np.int64)]
    distance = np.abs(levels[:, None] - some).ravel()
    order = np.argsort(distance)
    below = np.concatenate([[0], np.cumsum(np.repeat(counts, len(some))[order])]) / (counts.sum() * len(some))
    own, distance = np.abs(rating - expected), distance[order]
    low, high = (below[np.searchsorted(distance, own, side=side)] for side in ("left", "right"))
    found: Values = 1 - high + tie * (high - low)
    return np.clip(found, 1e-9, 1 - 1e-9)
