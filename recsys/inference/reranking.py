"""Lists by rules: the best items of each user, from which `recsys.inference.filling` fills the places of a list.

Only users whose list without the rules breaks one are looked at again, where all scores come in one block; and only
their best items. Where a cap uses these up before a list is full, more of them are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.inference.filling import Pools, fill
from recsys.inference.rules import RuleSet
from recsys.inference.topn import (
    MAX_SCORES,
    Lists,
    TopN,
    mask_scores,
    masks_of,
    merge_lists,
    moved,
    top_n,
    top_n_of_blocks,
)
from recsys.inference.variety import POOL, pool_size
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
        Returns the scores (users, items of the block) of consecutive items. Called again where more of them are needed
        and they do not come in one block. Each block is written to.
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
    scored = iter(blocks())
    first = next(scored)
    if first.shape[1] == request.history.shape[1]:
        return _of_one_block(first, rules, request)
    begun = [chain([first], scored)]

    def again() -> Iterable[Tensor]:
        return begun.pop() if begun else blocks()

    plain = None
    if rules.of("boost"):
        plain = top_n_of_blocks(again(), max(request.n, POOL), request.masked, request.allowed)
    return _ruled(again, rules, request, plain)


def _of_one_block(block: Tensor, rules: RuleSet, request: Request) -> RuledLists:
    """Lists from scores of all items: only users whose list breaks a rule are looked at again."""
    n = min(request.n, block.shape[1])
    depth = n
    if rules.variety is not None and not _are_changed(rules):  # it chooses among these
        depth, _ = _depths(rules, n, 1)
    if rules.of("boost"):
        depth = max(n, POOL)
    plain = top_n(block, depth, request.masked, request.allowed, overwrite=True)  # the block is masked from here on
    positions, scores, without = plain[0][:, :n].copy(), plain[1][:, :n].copy(), plain[0][:, :n]
    rows = np.flatnonzero(rules.broken_by(request.users, without))
    if len(rows):
        all_of_them = len(rows) == len(positions)
        own = block if all_of_them else block[torch.as_tensor(rows, device=block.device)]
        users, history = (request.users, request.history) if all_of_them else _rows(request, rows)
        part = replace(request, users=users, history=history, masked=None, allowed=None)
        ruled = _ruled(lambda: [own.clone()], rules, part, (plain[0][rows], plain[1][rows]))
        positions[rows], scores[rows] = ruled.positions, ruled.scores
    return RuledLists(positions, scores, without)


def _rows(request: Request, rows: NDArray[np.int64]) -> tuple[pa.Array, csr_matrix]:
    """Ids and histories of some users."""
    return request.users.take(pa.array(rows)), request.history[rows]


def _ruled(blocks: Blocks, rules: RuleSet, request: Request, plain: Lists | None) -> RuledLists:
    """Lists by rules, of candidates that are more and more; `plain` are lists without the rules, where known."""
    deep = 1
    while True:
        pools = _read(blocks, rules, request, deep, plain)
        (positions, values), starved = fill(pools, rules, request.users, request.history)
        if not starved:
            return RuledLists(positions, values, pools.without)
        deep *= 4


def _are_changed(rules: RuleSet) -> bool:
    """Whether rules change scores before the best are taken."""
    return bool(rules.of("exclude", "only", "boost"))


def _depths(rules: RuleSet, n: int, deep: int) -> tuple[int, int]:
    """How many of the best items a list is made of, and of a promotion's: caps use some up, variety chooses."""
    own = n * deep * (4 if rules.of("cap") else 1)
    return own if rules.variety is None else max(own, deep * pool_size(n)), own


def _spread(plain: Lists) -> Tensor:
    """How far the fiftieth best item of each user, or the last one, is below the best one; shape (users, 1)."""
    best = plain[1][:, :POOL]
    lowest = np.where(np.isfinite(best), best, np.inf).min(axis=1, initial=np.inf)
    return torch.as_tensor(np.where(np.isfinite(lowest), best[:, 0] - lowest, 0))[:, None]


def _read(blocks: Blocks, rules: RuleSet, request: Request, deep: int, plain: Lists | None) -> Pools:
    """Go through the blocks once, `deep` times as far as at first."""
    items = request.history.shape[1]
    most, own = (min(items, depth) for depth in _depths(rules, request.n, deep))
    known = plain if plain is not None and not _are_changed(rules) and plain[0].shape[1] >= most else None
    limits = [most] * (known is None) + [own] * len(rules.of("promote")) + [request.n] * (plain is None)
    found: list[Lists] = []
    start = 0
    for block in blocks() if limits else ():
        parts = _best_of(block, rules, request, start, limits, (plain, known))
        if found:
            parts = [merge_lists(old, new, n) for old, new, n in zip(found, parts, limits, strict=True)]
        found = parts
        start += block.shape[1]
    without = (plain or found[-1])[0][:, : min(request.n, items)]
    best = known or found[0]
    exhausted = best[0][:, -1] < 0 if best[0].shape[1] < items else np.ones(len(best[0]), dtype=bool)
    promoted = found[len(found) - len(limits) + (known is None) :][: len(rules.of("promote"))]
    return Pools(without, best, promoted, exhausted)


def _best_of(
    block: Tensor,
    rules: RuleSet,
    request: Request,
    start: int,
    limits: Sequence[int],
    before: tuple[Lists | None, Lists | None],
) -> list[Lists]:
    """The best of a block: by the rules, of each promotion, and without the rules, as far as not known before."""
    plain, known = before
    columns = slice(start, start + block.shape[1])
    mask, allowed = masks_of(columns, request.masked, request.allowed)
    without = [top_n(block, request.n, mask, allowed, overwrite=True)] if plain is None else []
    if plain is not None and (mask is not None or allowed is not None):
        mask_scores(block, mask, allowed)
    if _are_changed(rules):
        block = _changed(block.float(), rules, request, columns, None if plain is None else _spread(plain))
    parts = [top_n(block, limits[0], overwrite=True)] if known is None else []
    for rule in rules.of("promote"):
        parts.append(_among(block, np.flatnonzero(rule.items[columns]), limits[len(parts)]))
    parts += without
    return [moved(part, start) for part in parts]


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
