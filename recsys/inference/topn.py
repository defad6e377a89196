"""The best n items of each user: masking, cutting and tie-breaking, once for all models.

Seen items become -inf before the cut and are dropped after it, so that a long history still leaves n items and a
negative score can win. Equal scores are ordered by item position, whatever the batch or the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.errors import ConfigError, DataError
from recsys.inference.selection import _best
from recsys.types import ScoreFunction

_SCORES = 64_000_000  # of a batch at once, at most: 256 MB


@dataclass(frozen=True)
class TopN:
    """Lists of a batch of users: rows `start`.. of the history.

    positions: int32 (users, n), -1 where fewer than n items are left; scores: float32 (users, n), -inf there.
    """

    start: int
    positions: NDArray[np.int32]
    scores: NDArray[np.float32]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Items in each list, int64 (users,)."""
        return np.asarray((self.positions >= 0).sum(axis=1))


def top_n(
    scores: Tensor | NDArray[Any],
    n: int,
    seen: csr_matrix | None = None,
    allowed: NDArray[np.bool_] | None = None,
    overwrite: bool = False,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Best n positions and their scores, best first, from scores (users, items).

    ```
    scores  9 -2 -1     seen  x . .     n = 3     ->  positions  2 1 -1     scores  -1 -2 -inf
    ```
    `seen`, CSR (users, items): every stored cell is masked, a stored zero too. `allowed`, bool (items,): the others
    are masked. A score of -inf means "never" and is left out. `overwrite` lets the mask be written into `scores`.
    Raises DataError when a score is NaN, or where `seen` or `allowed` has another shape.
    """
    if n < 1:
        raise ConfigError(f"Expected n of at least 1, found {n}.")
    table = torch.as_tensor(scores)
    if table.dtype != torch.bfloat16:  # widened after the cut
        table = table.float()
    _check_shapes(table, seen, allowed)
    if not overwrite and (seen is not None or allowed is not None):
        table = table.clone()
    if seen is not None:
        rows = np.repeat(np.arange(seen.shape[0]), np.diff(seen.indptr))
        table[
            torch.as_tensor(rows, device=table.device), torch.as_tensor(seen.indices, device=table.device).long()
        ] = -torch.inf
    if allowed is not None:
        table[:, torch.as_tensor(~allowed, device=table.device)] = -torch.inf
    values, positions = _best(table, min(n, table.shape[1]))
    listed, their_scores = np.full((len(table), n), -1, dtype=np.int32), np.full((len(table), n), -np.inf, np.float32)
    listed[:, : table.shape[1]] = torch.where(values == -torch.inf, -1, positions).cpu().numpy()
    their_scores[:, : table.shape[1]] = values.float().cpu().numpy()
    return listed, their_scores


@torch.inference_mode()
def top_n_of_blocks(
    blocks: Iterable[Tensor],
    n: int,
    masked: csr_matrix | None = None,
    allowed: NDArray[np.bool_] | None = None,
    cap: GroupCap | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """What `top_n` says of scores that come in blocks of items, side by side: memory follows one block.

    Each block is a fresh tensor and is written to. `cap` limits the items of one group in a list: a lower item then
    takes the place. The best of a whole row are among the best of its blocks, with a cap too.
    """
    best: tuple[NDArray[np.int32], NDArray[np.float32]] | None = None
    start = 0
    for block in blocks:
        stop = start + block.shape[1]
        whole = masked is None or masked.shape[1] == block.shape[1]
        mask, mine = masked if whole or masked is None else masked[:, start:stop], slice(start, stop)
        allowed_here = None if allowed is None else allowed[mine]
        if cap is None:
            part = top_n(block, min(n, block.shape[1]), mask, allowed_here, overwrite=True)
        else:
            part = _capped_top_n(block, n, mask, allowed_here, GroupCap(cap.groups[mine], cap.most))
        part = np.where(part[0] >= 0, part[0] + np.int32(start), -1), part[1]
        best = part if best is None else _merge(best, part, n, cap)
        start = stop
    if best is None:
        raise DataError("Expected at least one block of scores, found none.")
    return best


@dataclass(frozen=True)
class GroupCap:
    """At most `most` items of each group in a list. groups: int32 (items,); items of group -1 are not limited."""

    groups: NDArray[np.int32]
    most: int

    def keeps(self, positions: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Which places of lists (users, places), best first, are not too many of their group; -1 is no item."""
        group = np.where(positions >= 0, self.groups[positions], -1)
        order = group.argsort(axis=1, kind="stable")
        ordered = np.take_along_axis(group, order, axis=1)
        places = np.broadcast_to(np.arange(group.shape[1]), group.shape)
        opens = np.diff(ordered, axis=1, prepend=-2) != 0
        nth = places - np.maximum.accumulate(np.where(opens, places, 0), axis=1)
        kept = np.empty(group.shape, dtype=bool)
        np.put_along_axis(kept, order, (nth < self.most) | (ordered < 0), axis=1)
        return kept & (positions >= 0)


def _capped_top_n(
    block: Tensor, n: int, mask: csr_matrix | None, allowed: NDArray[np.bool_] | None, cap: GroupCap
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Longer and longer lists, until those thinned by the cap still hold n items or all there are."""
    items, longer = block.shape[1], 4 * n
    while True:
        positions, scores = top_n(block, min(longer, items), mask, allowed, overwrite=True)
        kept = cap.keeps(positions)
        if longer >= items or bool(((kept.sum(axis=1) >= n) | (positions[:, -1] < 0)).all()):
            return _first(positions, scores, kept, n)
        longer *= 4


def _merge(
    left: tuple[NDArray[np.int32], NDArray[np.float32]],
    right: tuple[NDArray[np.int32], NDArray[np.float32]],
    n: int,
    cap: GroupCap | None,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The best n of two lists; all positions on the left are lower than on the right: equal scores stay in order."""
    positions, scores = np.hstack([left[0], right[0]]), np.hstack([left[1], right[1]])
    order = np.argsort(-scores, axis=1, kind="stable")
    positions, scores = np.take_along_axis(positions, order, axis=1), np.take_along_axis(scores, order, axis=1)
    return _first(positions, scores, positions >= 0 if cap is None else cap.keeps(positions), n)


def _first(
    positions: NDArray[np.int32], scores: NDArray[np.float32], kept: NDArray[np.bool_], n: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The first n places kept in each row; the rest of a row is -1 and -inf."""
    order = np.argsort(~kept, axis=1, kind="stable")[:, :n]
    kept = np.take_along_axis(kept, order, axis=1)
    positions, scores = np.take_along_axis(positions, order, axis=1), np.take_along_axis(scores, order, axis=1)
    return np.where(kept, positions, np.int32(-1)), np.where(kept, scores, np.float32(-np.inf))


def _check_shapes(table: Tensor, seen: csr_matrix | None, allowed: NDArray[np.bool_] | None) -> None:
    if table.ndim != 2:
        raise DataError(f"Expected scores of shape (users, items), found {tuple(table.shape)}.")
    if seen is not None and seen.shape != tuple(table.shape):
        raise DataError(f"Expected seen items of shape {tuple(table.shape)} like the scores, found {seen.shape}.")
    if allowed is not None and (allowed.dtype != np.bool_ or allowed.shape != table.shape[1:]):
        raise DataError(
            f"Expected allowed as {table.shape[1]} times true or false, found {allowed.dtype} {allowed.shape}."
        )


def recommend(
    score: ScoreFunction,
    history: csr_matrix,
    n: int,
    batch_size: int = 512,
    filter_seen: bool = True,
    allowed: NDArray[np.bool_] | None = None,
    users: NDArray[np.int64] | None = None,
    seen: csr_matrix | None = None,
) -> Iterator[TopN]:
    """Lists for every row of `history`, batch by batch: memory follows batch_size x items, not users x items.

    Batches are smaller than asked where their scores would take more than 256 MB. `users`, if given, are passed to
    `score` with their histories: rows of the training matrix. `seen`, CSR like the histories: what lists must not offer
    with `filter_seen`, where that is more than the histories.
    """
    if batch_size < 1:
        raise ConfigError(f"Expected a batch_size of at least 1, found {batch_size}.")
    batch_size = min(batch_size, max(1, _SCORES // max(1, history.shape[1])))
    for start in range(0, history.shape[0], batch_size):
        batch = history[start : start + batch_size]
        known = {} if users is None else {"users": users[start : start + batch_size]}
        with torch.inference_mode():
            had = batch if seen is None else seen[start : start + batch_size]
            lists = top_n(score(batch, **known), n, had if filter_seen else None, allowed, overwrite=True)
        yield TopN(start, *lists)


BLOCK = 65_536  # items scored at once; like the tile, no business of the machine
