"""The audit of interactions: which of them the model, not having seen them, finds least plausible; whose and on what.

plausibility     the percentile of each interaction among its alternatives, cross-fitted
two_groups       how likely an interaction is unrelated to its user's taste, and the false alarms to expect
shared_accounts  histories that fall in two blocks
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from recsys.data.interactions import Vocabulary
from recsys.data.matrix import UserItemMatrix
from recsys.errors import ConfigError
from recsys.explain.plausibility import OnFold, Plausibility, judge_cells, keep_cells, rows_of
from recsys.explain.shared_accounts import Relations, two_blocks
from recsys.explain.two_groups import TwoGroups, estimate_two_groups
from recsys.models.base import Recommender
from recsys.training.context import TrainingContext
from recsys.types import Values

_MORE_USERS = 10.0


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes
    ----------
    data : UserItemMatrix
        The interactions; what follows is in the order of its cells.
    plausibility : Plausibility
    judged : ndarray of int64, shape (judged,)
        The cells that could be judged.
    groups : TwoGroups
        Of the judged cells.
    relations : Relations or None
        How items are related, where shared accounts were looked for.
    contrasts : ndarray of float64, shape (users,), or None
        How clearly each history falls in two blocks there; NaN for those of fewer than 8 items.
    """

    data: UserItemMatrix
    plausibility: Plausibility
    judged: NDArray[np.int64]
    groups: TwoGroups
    relations: Relations | None = None
    contrasts: Values | None = None

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """The judged cells, most suspicious first."""
        return self.judged[self._order]

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return np.lexsort((self.plausibility.value[self.judged], -self.groups.ratio))

    @property
    def suspicion(self) -> Values:
        """Probability that each judged cell is unrelated to its user's taste, in the order of `order`."""
        return self.groups.suspicion[self._order]

    @property
    def false_alarms(self) -> Values:
        """Expected share of false alarms among each judged cell and those before it, in the order of `order`."""
        return np.cumsum(1 - self.suspicion) / np.arange(1, len(self.order) + 1)

    def expected_false_alarms(self, counts: Iterable[int]) -> dict[int, float]:
        """Return `false_alarms` by the number of interactions taken from the top; of all where fewer are there."""
        alarms = self.false_alarms
        return {min(count, len(alarms)): float(alarms[min(count, len(alarms)) - 1]) for count in counts}

    @cached_property
    def user_shares(self) -> Values:
        """Estimated share of each user's interactions that are unrelated to the rest of the history, (users,)."""
        return self.groups.share_within(rows_of(self.data.matrix)[self.judged], self.data.matrix.shape[0])

    @cached_property
    def item_shares(self) -> Values:
        """Mean share of the users of each item, (items,), drawn to the mean of all as by ten more users.

        Where bought or scripted profiles push an item, it is its users who give it away: the item itself is what they
        have in common, so that a model learns to expect it.
        """
        column, user = self.data.matrix.indices, rows_of(self.data.matrix)
        total = np.bincount(column, self.user_shares[user], self.data.matrix.shape[1])
        users = np.bincount(column, minlength=self.data.matrix.shape[1])
        common = float(self.user_shares.mean())
        return np.asarray((total + _MORE_USERS * common) / (users + _MORE_USERS))

    def worst(self, share: float) -> NDArray[np.int64]:
        """Return the most suspicious cells: this share of all cells, of those that could be judged.

        Raises
        ------
        ConfigError
            If `share` is not above 0 and below 1.
        """
        if not 0 < share < 1:
            raise ConfigError(f"Expected share above 0 and below 1, found {share}.")
        return self.order[: round(share * self.data.matrix.nnz)]

    def interactions(self) -> pd.DataFrame:
        """List the judged interactions, most suspicious first.

        Returns
        -------
        DataFrame
            rank (from 1), user_id, item_id, plausibility, suspicion, false_alarms; of ratings also rating and expected.
        """
        cells, matrix = self.order, self.data.matrix
        columns = {
            "rank": np.arange(1, len(cells) + 1),
            "user_id": self.data.users.take(rows_of(matrix)[cells]).to_pandas(),
            "item_id": self.data.items.take(matrix.indices[cells]).to_pandas(),
        }
        if self.plausibility.expected is not None:
            columns |= {"rating": matrix.data[cells], "expected": self.plausibility.expected[cells]}
        columns |= {
            "plausibility": self.plausibility.value[cells],
            "suspicion": self.suspicion,
            "false_alarms": self.false_alarms,
        }
        return pd.DataFrame(columns)

    def users(self) -> pd.DataFrame:
        """Summarize the users, the largest share of unrelated interactions first.

        Returns
        -------
        DataFrame
            user_id, interactions, unrelated_share, two_blocks (NaN where not looked for, or of fewer than 8 items).
        """
        matrix = self.data.matrix
        frame = _summary("user_id", self.data.users, np.diff(matrix.indptr), self.user_shares)
        contrasts = np.nan if self.contrasts is None else self.contrasts[frame.index]
        return frame.assign(two_blocks=contrasts).reset_index(drop=True)

    def items(self) -> pd.DataFrame:
        """Summarize the items, the one with the most suspicious users first.

        Returns
        -------
        DataFrame
            item_id, interactions, unrelated_share (see `item_shares`).
        """
        return _summary("item_id", self.data.items, self.data.item_counts, self.item_shares).reset_index(drop=True)


def _summary(name: str, ids: Vocabulary, interactions: NDArray[np.int64], shares: Values) -> pd.DataFrame:
    """One row for each id, indexed by position, the largest share first."""
    frame = pd.DataFrame({name: ids.ids.to_pandas(), "interactions": interactions, "unrelated_share": shares})
    return frame.sort_values(["unrelated_share", "interactions"], ascending=False, kind="stable")


def audit(
    model: Recommender,
    data: UserItemMatrix,
    folds: int = 5,
    noise: float = 0.01,
    seed: int = 0,
    accounts: bool = True,
    context: TrainingContext | None = None,
    on_fold: OnFold = lambda done, total: None,
) -> Audit:
    """Find the interactions that a model, not having seen them, finds least plausible given the rest.

    Parameters
    ----------
    model : Recommender
        Its settings, and the number of epochs that validation found best. It is fitted `folds` times, and once more
        with `accounts`.
    data : UserItemMatrix
        Ones for a model of lists, ratings for a model of ratings.
    folds : int
        Number of parts that are held out in turn; 2 or more.
    noise : float
        Assumed share of interactions that are unrelated to their user's taste; it decides how many false alarms are
        expected, and not the order. Where the data allow less, as little as they allow.
    seed : int
        Decides the folds, and the draws of each fit.
    accounts : bool
        Also look for histories that fall in two blocks. Not for models of ratings, or of training users only.
    context : TrainingContext, optional
        Device, precision, progress.
    on_fold : callable (done, total)
        Called before the first fit and after each.

    Returns
    -------
    Audit

    Raises
    ------
    ConfigError
        If there are fewer than 2 folds, or `noise` is out of its range.
    DataError
        If no interaction can be judged.
    UnsupportedError
        If shared accounts do not fit in memory.
    """
    accounts = accounts and model.task == "ranking" and not model.needs_training_users
    fits = folds + accounts
    found = judge_cells(model, data, folds, seed, context, lambda done, _: on_fold(done, fits))
    judged = np.flatnonzero(~np.isnan(found.value))
    even = 0.0 if model.task == "rating" else 0.5
    groups = estimate_two_groups(found.value[judged], found.stratum[judged], found.strata, noise, even)
    if not accounts:
        return Audit(data, found, judged, groups)
    relations = Relations.of(model.refit(data.matrix, replace(context or TrainingContext(), seed=seed)))
    on_fold(fits, fits)
    return Audit(data, found, judged, groups, relations, two_blocks(relations, data.matrix))


def clean(data: UserItemMatrix, cells: NDArray[np.int64]) -> UserItemMatrix:
    """Return the interactions without some cells; users and items keep their positions, and what was seen stays so.

    Parameters
    ----------
    data : UserItemMatrix
    cells : ndarray of int64
        Such as `Audit.worst`.

    Returns
    -------
    UserItemMatrix
    """
    kept = np.ones(data.matrix.nnz, dtype=bool)
    kept[cells] = False
    return UserItemMatrix(keep_cells(data.matrix, kept), data.users, data.items, data.unknown, data.seen)


def pairs_of(data: UserItemMatrix, cells: NDArray[np.int64]) -> tuple[pa.Array, pa.Array]:
    """Return the ids of users and items of some cells."""
    return data.users.take(rows_of(data.matrix)[cells]), data.items.take(data.matrix.indices[cells])
