"""Filling lists by rules: place after place, the best item that the rules let in.

```
for each place of a list:
    the items that are not in the list yet, are not excluded, and fit every cap
    of them only the promoted ones, where a promotion has the place and one is left
    the one with the highest score, or with the highest value where there is to be variety
```
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.inference.rules import Rule, RuleSet
from recsys.inference.topn import Lists
from recsys.inference.variety import pool_size


@dataclass(frozen=True)
class Pools:
    """The best items of users.

    Attributes
    ----------
    without : ndarray of int32, shape (users, n)
        Positions of the lists without the rules.
    best : Lists
        The best items by the rules, as many as were looked for.
    promoted : list of Lists
        The best items of each promotion.
    exhausted : ndarray of bool, shape (users,)
        Whether `best` holds all items that may be listed.
    """

    without: NDArray[np.int32]
    best: Lists
    promoted: list[Lists]
    exhausted: NDArray[np.bool_]


@dataclass(frozen=True)
class _Candidates:
    """What may come into a list, best first; shapes (users, candidates)."""

    positions: NDArray[np.int32]
    scores: NDArray[np.float32]
    rank: NDArray[np.int64]  # among the best of all; candidates that only a promotion brings come after all others
    last_rank: int
    usable: NDArray[np.bool_]

    @classmethod
    def of(cls, pools: Pools) -> _Candidates:
        """Put the pools together, each item once."""
        positions, scores = pools.best
        rank = np.broadcast_to(np.arange(positions.shape[1]), positions.shape)
        last = positions.shape[1]
        if not pools.promoted:
            return cls(positions, scores, rank, last, positions >= 0)
        extra = [np.full(lists[0].shape, last) for lists in pools.promoted]
        positions = np.hstack([positions, *(lists[0] for lists in pools.promoted)])
        scores = np.hstack([scores, *(lists[1] for lists in pools.promoted)])
        rank = np.hstack([rank, *extra])
        order = np.lexsort((rank, positions, -scores), axis=1)
        positions, scores = np.take_along_axis(positions, order, axis=1), np.take_along_axis(scores, order, axis=1)
        rank = np.take_along_axis(rank, order, axis=1)
        usable = positions >= 0
        usable[:, 1:] &= positions[:, 1:] != positions[:, :-1]
        return cls(positions, scores, rank, last, usable)


def fill(pools: Pools, rules: RuleSet, users: pa.Array, history: csr_matrix) -> tuple[Lists, bool]:
    """Fill the places of lists, one after the other.

    Parameters
    ----------
    pools : Pools
        What may be listed.
    rules : RuleSet
        Caps, promotions and variety; what else there is, the pools have kept already.
    users : Array
        Whose lists.
    history : csr_matrix, shape (users, items)
        What they have had, for calibration.

    Returns
    -------
    lists : Lists, shapes (users, n)
    starved : bool
        Whether the pools were used up before a list was full: deeper ones are needed.
    """
    n = pools.without.shape[1]
    if rules.variety is None and not rules.of("cap", "promote"):
        return (pools.best[0][:, :n], pools.best[1][:, :n]), False
    candidates = _Candidates.of(pools)
    count = len(candidates.positions)
    listed = np.full((count, n), -1, dtype=np.int32)
    scores = np.full((count, n), -np.inf, dtype=np.float32)
    caps = [_Cap(rule, rule.applies(users), candidates.positions, n) for rule in rules.of("cap")]
    promotions = [
        _Promotion(rule, rule.applies(users), best[0], candidates.positions)
        for rule, best in zip(rules.of("promote"), pools.promoted, strict=True)
    ]
    free = candidates.usable.copy()
    in_order = pools.exhausted[:, None] | (candidates.rank < candidates.last_rank)  # of others, better ones may exist
    pooled = free & (candidates.rank < pool_size(n))
    variety = None
    if rules.variety is not None:
        variety = rules.variety.begin(candidates.positions, candidates.scores, pooled, history)
    starved = False
    for place in range(n):
        fits = free
        for cap in caps:
            fits = fits & ~cap.full
        choice = fits & in_order
        for promotion in reversed(promotions):  # the first one has the last word
            choice, short = promotion.claim(place + 1, fits, choice)
            starved |= short and bool(caps)
        able = choice.any(axis=1)
        starved |= bool((~able & ~pools.exhausted).any())
        best = choice.argmax(axis=1)
        if variety is not None:
            varied = choice & pooled
            by_value = np.where(varied, variety.values(), -np.inf).argmax(axis=1)
            best = np.where(varied.any(axis=1), by_value, best)
        rows = np.flatnonzero(able)
        picks = best[rows]
        listed[rows, place] = candidates.positions[rows, picks]
        scores[rows, place] = candidates.scores[rows, picks]
        free[rows, picks] = False
        for cap in caps:
            cap.take(rows, picks)
        for promotion in promotions:
            promotion.take(rows, picks)
        if variety is not None:
            variety.take(rows, picks)
    return (listed, scores), starved


class _Cap:
    """Which candidates are of a group that is full, and the groups of what is listed."""

    def __init__(self, rule: Rule, applies: NDArray[np.bool_], candidates: NDArray[np.int32], n: int):
        self._most, self._applies = rule.most, applies
        self._groups = rule.table[candidates]  # (users, candidates, groups of an item)
        self._listed = np.full((len(candidates), n, self._groups.shape[2]), -2, dtype=np.int32)
        self._place = 0
        self.full = np.zeros(candidates.shape, dtype=bool)

    def take(self, rows: NDArray[np.int64], picks: NDArray[np.int64]) -> None:
        """Note what was listed at the next place."""
        groups = self._groups[rows, picks]
        self._listed[rows, self._place] = groups
        self._place += 1
        before = self._listed[rows, : self._place].reshape(len(rows), 1, self._place * groups.shape[1])
        reached = ((before == groups[:, :, None]).sum(axis=2) >= self._most) & (groups >= 0)
        row, at = np.nonzero(reached & self._applies[rows, None])
        user = rows[row]
        full = (self._groups[user] == groups[row, at, None, None]).any(axis=2)
        np.logical_or.at(self.full, user, full)


class _Promotion:
    """The places that a rule gives to its items, and how many they have so far."""

    def __init__(self, rule: Rule, applies: NDArray[np.bool_], best: NDArray[np.int32], candidates: NDArray[np.int32]):
        self._rule, self._applies = rule, applies
        self._items = rule.items[candidates] & (candidates >= 0)
        self._exhausted = (best[:, -1] < 0) | (best.shape[1] >= rule.items.sum())
        self._listed = np.zeros(len(candidates), dtype=np.int64)

    def claim(self, place: int, fits: NDArray[np.bool_], choice: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], bool]:
        """The choice for a place, of its own items where one is left; whether one might be among those not seen."""
        wanted = self._applies & self._rule.claims(place, self._listed)
        own = fits & self._items
        left = wanted & own.any(axis=1)
        return np.where(left[:, None], own, choice), bool((wanted & ~left & ~self._exhausted).any())

    def take(self, rows: NDArray[np.int64], picks: NDArray[np.int64]) -> None:
        """Count what was listed."""
        self._listed[rows] += self._items[rows, picks]
