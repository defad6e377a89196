"""Lists by rules: place after place, the best item that the rules let in.

```
for each place of a list:
    the items that are not in the list yet, are not excluded, and fit every cap
    of them only the promoted ones, where a promotion has the place and one is left
    the one with the highest score, or with the highest value where there is to be variety
```

Only the best items of a user are looked at; where a cap uses them up before a list is full, more of them are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.inference.rules import REACH, Rule, RuleSet
from recsys.inference.topn import MAX_SCORES, Lists, TopN, merge_lists, top_n, top_n_of_blocks
from recsys.inference.variety import pool_size
from recsys.types import ScoreFunction

Blocks = Callable[[], Iterable[Tensor]]  # the scores of some users, in blocks of items; called for them again


@dataclass(frozen=True)
class Request:
    """Whose lists are made, and what may be in them besides the rules.

    Attributes
    ----------
    users : Array
        Ids, for rules that are for some users; null for users who are not known.
    history : csr_matrix, shape (users, items)
        What the users have had, for calibration.
    n : int
        Length of a list.
    masked : csr_matrix, shape (users, items), optional
        Every stored cell is masked.
    allowed : ndarray of bool, shape (items,), optional
        The other items are masked.
    """

    users: pa.Array
    history: csr_matrix
    n: int
    masked: csr_matrix | None = None
    allowed: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class RuledLists:
    """Lists by rules, and those without them.

    Attributes
    ----------
    positions, scores : ndarray of int32 and of float32, shape (users, min(n, items))
        Best first; -1 and -inf where nothing is left. A score holds what boosts add.
    without : ndarray of int32, shape (users, min(n, items))
        Positions of the lists without the rules.
    """

    positions: NDArray[np.int32]
    scores: NDArray[np.float32]
    without: NDArray[np.int32]


@torch.inference_mode()
def ruled_lists(blocks: Blocks, rules: RuleSet, request: Request) -> RuledLists:
    """Make lists by rules.

    Parameters
    ----------
    blocks : callable
        Returns the scores (users, items of the block) of consecutive items. Called again where more items are needed
        and the scores do not come in one block, which is kept. Each block is written to.
    rules : RuleSet
        For the items of these scores.
    request : Request
        Whose lists.

    Returns
    -------
    RuledLists

    Raises
    ------
    DataError
        If a score is NaN or a shape does not match.
    """
    scores: Iterable[Tensor] = blocks()
    if rules.of("boost", "cap"):  # gone through more than once
        scores = _Scores(blocks, request.history.shape[1])
    plain = None
    if rules.of("boost"):
        plain = top_n_of_blocks(scores, max(request.n, REACH), request.masked, request.allowed)
    deep = request.n * (4 if rules.of("cap") else 1)
    while True:
        pools = _Pools.read(scores, rules, request, deep, plain)
        (positions, values), starved = _fill(pools, rules, request)
        if not starved:
            return RuledLists(positions, values, pools.without)
        deep *= 4


class _Scores:
    """Scores in blocks, to go through more than once; kept where one block holds all items."""

    def __init__(self, blocks: Blocks, items: int):
        self._blocks, self._items = blocks, items
        self._kept: Tensor | None = None

    def __iter__(self) -> Iterator[Tensor]:
        if self._kept is not None:
            yield self._kept.clone()
            return
        for block in self._blocks():
            if block.shape[1] == self._items:
                self._kept = block.clone()
            yield block


def _spread(plain: Lists) -> Tensor:
    """How far the fiftieth best item of each user, or the last one, is below the best one; shape (users, 1)."""
    best = plain[1][:, :REACH]
    lowest = np.where(np.isfinite(best), best, np.inf).min(axis=1, initial=np.inf)
    return torch.as_tensor(np.where(np.isfinite(lowest), best[:, 0] - lowest, 0))[:, None]


@dataclass(frozen=True)
class _Pools:
    """The best items of each user: of all without rules, of all with them, and of each promotion."""

    without: NDArray[np.int32]
    best: Lists
    promoted: list[Lists]
    exhausted: NDArray[np.bool_]  # by user: `best` holds all items that may be listed

    @classmethod
    def read(cls, blocks: Iterable[Tensor], rules: RuleSet, request: Request, deep: int, plain: Lists | None) -> _Pools:
        """Go through the blocks once; `plain` are lists without the rules, where they are known."""
        changes, promotions = bool(rules.of("exclude", "only", "boost")), rules.of("promote")
        spread = None if plain is None else _spread(plain)
        most = deep if rules.variety is None else max(deep, pool_size(request.n))
        apart = changes and plain is None  # lists without the rules are made besides
        limits = [most, *[deep] * len(promotions), *[request.n] * apart]
        found: list[Lists] = []
        start = 0
        for block in blocks:
            columns = slice(start, start + block.shape[1])
            whole = request.masked is None or request.masked.shape[1] == block.shape[1]
            mask = request.masked if whole or request.masked is None else request.masked[:, columns]
            allowed = None if request.allowed is None else request.allowed[columns]
            without = [top_n(block, request.n, mask, allowed, overwrite=True)] if apart else []
            if changes:
                block = _changed(block.float(), rules, request, columns, spread)
            parts = [top_n(block, most, None if apart else mask, None if apart else allowed, overwrite=True)]
            parts += [_among(block, np.flatnonzero(rule.items[columns]), deep) for rule in promotions]
            parts += without
            parts = [(np.where(at >= 0, at + np.int32(start), np.int32(-1)), values) for at, values in parts]
            if found:
                parts = [merge_lists(old, new, n) for old, new, n in zip(found, parts, limits, strict=True)]
            found = parts
            start = columns.stop
        best = found[0]
        exhausted = best[0][:, -1] < 0 if best[0].shape[1] < start else np.ones(len(best[0]), dtype=bool)
        lists = plain or found[-1 if apart else 0]
        return cls(lists[0][:, : min(request.n, start)], best, found[1 : 1 + len(promotions)], exhausted)


def _changed(block: Tensor, rules: RuleSet, request: Request, columns: slice, spread: Tensor | None) -> Tensor:
    """The scores without the items that a rule keeps out, and with what boosts add."""
    for rule in rules.of("exclude", "only", "boost"):
        rows = torch.as_tensor(rule.applies(request.users), device=block.device)
        items = torch.as_tensor(rule.items[columns] if rule.kind != "only" else ~rule.items[columns])
        if rule.kind == "boost" and spread is not None:
            lift = spread.to(block.device) * rows[:, None] * rule.strength
            block.addmm_(lift, items[None].to(block))  # + 0 for the other items
        elif rows.all():
            block.masked_fill_(items.to(block.device), -torch.inf)
        else:
            block.masked_fill_(rows[:, None] & items.to(block.device), -torch.inf)
    return block


def _among(block: Tensor, items: NDArray[np.int64], deep: int) -> Lists:
    """The best of some items of a block; positions are those of the block."""
    if not len(items):
        return np.full((len(block), 1), -1, dtype=np.int32), np.full((len(block), 1), -np.inf, dtype=np.float32)
    at, values = top_n(block[:, torch.as_tensor(items, device=block.device)], deep, overwrite=True)
    return np.where(at >= 0, items[at], -1).astype(np.int32), values


@dataclass(frozen=True)
class _Candidates:
    """What may come into a list, best first; shapes (users, candidates)."""

    positions: NDArray[np.int32]
    scores: NDArray[np.float32]
    rank: NDArray[np.int64]  # among the best of all; candidates that only a promotion brings come after all others
    last_rank: int
    usable: NDArray[np.bool_]

    @classmethod
    def of(cls, pools: _Pools) -> _Candidates:
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


def _fill(pools: _Pools, rules: RuleSet, request: Request) -> tuple[Lists, bool]:
    """Fill the places of all lists, and say whether the candidates were used up before a list was full."""
    candidates = _Candidates.of(pools)
    users, n = len(candidates.positions), pools.without.shape[1]
    listed = np.full((users, n), -1, dtype=np.int32)
    scores = np.full((users, n), -np.inf, dtype=np.float32)
    caps = [_Cap(rule, rule.applies(request.users), candidates.positions) for rule in rules.of("cap")]
    promotions = [
        _Promotion(rule, rule.applies(request.users), best[0], candidates.positions)
        for rule, best in zip(rules.of("promote"), pools.promoted, strict=True)
    ]
    free = candidates.usable.copy()
    in_order = pools.exhausted[:, None] | (candidates.rank < candidates.last_rank)  # of others, better ones may exist
    pooled = free & (candidates.rank < pool_size(request.n))
    variety = None
    if rules.variety is not None:
        variety = rules.variety.begin(candidates.positions, candidates.scores, pooled, request.history)
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
    """Which candidates are of a group that is full, and how many items of each group are in the lists so far."""

    def __init__(self, rule: Rule, applies: NDArray[np.bool_], candidates: NDArray[np.int32]):
        assert rule.groups is not None
        self._most, self._applies = rule.most, applies
        self._none = rule.groups.shape[1]  # the group of the places without one
        sizes = np.diff(rule.groups.indptr)
        table = np.full((len(sizes), max(1, int(sizes.max(initial=0)))), self._none, dtype=np.int32)
        place = np.arange(rule.groups.nnz) - np.repeat(rule.groups.indptr[:-1], sizes)
        table[np.repeat(np.arange(len(sizes)), sizes), place] = rule.groups.indices
        self._table, self._candidates = table, candidates
        self._counts = np.zeros((len(candidates), self._none + 1), dtype=np.int32)
        self.full = np.zeros(candidates.shape, dtype=bool)

    def take(self, rows: NDArray[np.int64], picks: NDArray[np.int64]) -> None:
        """Count what was listed."""
        groups = self._table[self._candidates[rows, picks]]
        self._counts[rows[:, None], groups] += 1
        reached = (self._counts[rows[:, None], groups] == self._most) & (groups != self._none)
        for row, place in zip(*np.nonzero(reached & self._applies[rows, None]), strict=True):
            user = rows[row]
            self.full[user] |= (self._table[self._candidates[user]] == groups[row, place]).any(axis=1)


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


def recommend_by_rules(
    score: ScoreFunction,
    rules: RuleSet,
    request: Request,
    users: NDArray[np.int64] | None = None,
    batch_size: int = 256,
) -> Iterator[TopN]:
    """Make lists by rules for many users, batch by batch.

    Parameters
    ----------
    score : ScoreFunction
        From histories to scores.
    rules : RuleSet
        For the items of the model.
    request : Request
        Of all users.
    users : ndarray of int64, shape (users,), optional
        Rows of the training matrix, passed to `score`.
    batch_size : int
        Users at once; fewer where their scores would take more than 256 MB.

    Yields
    ------
    TopN
        Lists of consecutive users.
    """
    count, items = request.history.shape
    batch_size = min(batch_size, max(1, MAX_SCORES // max(1, items)))
    for start in range(0, count, batch_size):
        rows = slice(start, start + batch_size)
        part = replace(
            request,
            users=request.users[rows],
            history=request.history[rows],
            masked=None if request.masked is None else request.masked[rows],
        )
        known = {} if users is None else {"users": users[rows]}
        scores = torch.as_tensor(score(part.history, **known))
        lists = ruled_lists(lambda scores=scores: [scores.clone()], rules, part)  # type: ignore[misc]
        yield TopN(start, lists.positions, lists.scores)
