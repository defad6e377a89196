"""The best n items of each user: masking, cutting and tie-breaking, once for all models.

Seen items become -inf before the cut and are dropped after it, so that a long history still leaves n items and a
negative score can win. Equal scores are ordered by item position, whatever the batch or the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.errors import ConfigError, DataError

# Scores (users, items), a fresh tensor, of histories; `Recommender.score` is one.
ScoreFunction = Callable[..., Tensor]

# Candidates taken beyond n, so that ties at the cut rarely need a full sort of the row.
_MARGIN = 16
_NOTHING = np.iinfo(np.int64).max  # a key after all others
_NAN = "Expected finite scores, found NaN: the model has diverged; train it with a smaller rate."
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


def _best(table: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Values and positions of the n best of each row, (rows, n): best first, equal scores in order of position.

    What is not there is -inf. Raises DataError for NaN.
    """
    if not n:
        return table.new_empty(len(table), 0), torch.empty(len(table), 0, dtype=torch.long)
    return _best_by_keys(table, n) if table.device.type == "cpu" else _best_by_topk(table, n)


def _best_by_keys(table: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """For processors: NumPy compares and sorts whole numbers in vector instructions, many times as fast as torch.topk.

    ```
    9 1 4 3 7 2 0 5 8     groups of every third: 9 3 0   1 7 5   4 2 8     the best of each: 9 7 8
    ```
    n groups hold a score as good as the n-th best of the groups' best: so the row's own n-th best is not lower, and
    only groups that reach this floor are looked into.
    """
    bits = _bits(table)
    _refuse_nan_bits(bits)
    groups = _number_of_groups(table.shape[1], n)
    best, floor = _floor(bits, groups, n)
    if floor.min(initial=1) <= 0:  # bits of numbers below zero run backwards, and -0 has others than 0
        bits = _rising(_bits(table + 0))
        best, floor = _floor(bits, groups, n)
    cells, counts = _cells(bits, best, floor, n)
    scores = table.flatten()[torch.from_numpy(cells)].float().numpy()
    row = np.repeat(np.arange(len(table)), counts)
    keys = np.full((len(table), max(n, counts.max(initial=0))), _NOTHING)
    place = np.arange(len(cells)) - np.repeat(counts.cumsum() - counts, counts)
    keys[row, place] = _keys(scores, cells - row * table.shape[1])
    keys.sort(axis=1)
    values, positions = _from_keys(keys[:, :n])
    return torch.from_numpy(values), torch.from_numpy(positions)


def _bits(table: Tensor) -> NDArray[Any]:
    """What the scores (users, items) spell as whole numbers: of scores above zero, the higher the larger."""
    return np.asarray(table.contiguous().view(torch.int16 if table.dtype == torch.bfloat16 else torch.int32))


def _rising(bits: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers in the order of all scores: below zero their bits, but for the sign, turned over."""
    turned: NDArray[Any] = bits ^ ((bits >> (8 * bits.itemsize - 1)) & np.iinfo(bits.dtype).max)
    return turned


def _infinity(bits: NDArray[Any]) -> int:
    """What infinity spells; -infinity is the bit-wise opposite among rising numbers."""
    return 0x7F80 if bits.itemsize == 2 else 0x7F80_0000


def _refuse_nan_bits(bits: NDArray[Any]) -> None:
    """NaN lies beyond infinity, on either side: as numbers with a sign, or as numbers without."""
    unsigned = bits.view(np.uint16 if bits.itemsize == 2 else np.uint32)
    sign = np.iinfo(bits.dtype).max + 1
    if bits.max(initial=0) > _infinity(bits) or unsigned.max(initial=0) > sign + _infinity(bits):
        raise DataError(_NAN)


def _number_of_groups(items: int, n: int) -> int:
    """In how many groups the fewest numbers are looked at: one a group, and all of about n groups."""
    return items // max(1, math.isqrt(items // n))


def _floor(bits: NDArray[Any], groups: int, n: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The best of each group, (users, groups), and the floor of each row, (users, 1): above -inf, never listed."""
    rows, items = bits.shape
    whole = items // groups * groups
    best = bits[:, :whole].reshape(rows, whole // groups, groups).max(axis=1)
    np.maximum(best[:, : items - whole], bits[:, whole:], out=best[:, : items - whole])
    floor = np.partition(best, groups - n, axis=1)[:, groups - n, None]
    return best, np.maximum(floor, -_infinity(bits))


def _cells(
    bits: NDArray[Any], best: NDArray[Any], floor: NDArray[Any], n: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number of each cell on the floor or above, counted through all rows, and how many of them a row has.

    They are n or more; of a row with many on its floor only the first are taken.
    """
    (rows, items), groups = bits.shape, best.shape[1]
    kind = np.int32 if bits.size <= np.iinfo(np.int32).max else np.int64  # half the memory to run through
    reaching = np.flatnonzero(best >= floor).astype(kind)
    ends = np.searchsorted(reaching, np.arange(1, rows + 1) * groups)
    counts = np.diff(ends, prepend=0)
    if counts.max(initial=0) > 2 * n:
        cells = np.flatnonzero(_first_ties(bits, floor, n))
        return cells, np.diff(np.searchsorted(cells, np.arange(rows + 1) * items))
    row: NDArray[Any] = np.repeat(np.arange(rows, dtype=kind), counts)
    steps = np.arange(0, items, groups, dtype=kind)
    cells = (reaching + row * (items - groups))[:, None] + steps
    high = bits.reshape(-1).take(cells, mode="clip") >= floor[row]
    high[:, -1] &= reaching - row * groups < items - steps[-1]  # others have one member fewer
    found = np.flatnonzero(high)
    return cells.reshape(-1)[found], np.diff(np.searchsorted(found, ends * len(steps)), prepend=0)


def _first_ties(bits: NDArray[Any], floor: NDArray[Any], n: int) -> NDArray[np.bool_]:
    """Which scores are above the floor, or among the first n on it: rows of zeros need not be sorted whole."""
    on_floor = bits == floor
    return np.asarray((bits > floor) | (on_floor & (on_floor.cumsum(axis=1, dtype=np.int32) <= n)))


def _keys(scores: NDArray[np.float32], positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers in the order of the list: the higher score first, of equal scores the lower position."""
    bits = (scores + np.float32(0)).view(np.int32)  # + 0: -0 equals 0
    return (~_rising(bits)).astype(np.int64) << 32 | positions


def _from_keys(keys: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The scores and positions the keys were made of; -inf where there is nothing."""
    values = _rising(~(keys >> 32).astype(np.int32)).view(np.float32)  # turned over twice is as before
    return np.where(keys == _NOTHING, np.float32(-np.inf), values), keys & 0xFFFFFFFF


def _best_by_topk(table: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """For other devices: torch.topk leaves the order of equal scores, and who is in, open; so some more are taken."""
    width = min(n + _MARGIN, table.shape[1])
    values, positions = table.topk(width, dim=1)
    _refuse_nan(values)
    positions, order = positions.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    positions = positions.gather(1, order)
    # All candidates from the n-th on are equal and finite: others as good may have been left outside the margin.
    doubtful = (values[:, n - 1] == values[:, -1]) & (values[:, -1] > -torch.inf) if width < table.shape[1] else None
    if doubtful is not None and bool(doubtful.any()):
        best, where = table[doubtful].sort(dim=1, descending=True, stable=True)
        values[doubtful], positions[doubtful] = best[:, :width], where[:, :width]
    return values[:, :n], positions[:, :n]


def _refuse_nan(table: Tensor) -> None:
    if bool(table.isnan().any()):
        raise DataError(_NAN)


def recommend(
    score: ScoreFunction,
    history: csr_matrix,
    n: int,
    batch_size: int = 512,
    filter_seen: bool = True,
    allowed: NDArray[np.bool_] | None = None,
    users: NDArray[np.int64] | None = None,
) -> Iterator[TopN]:
    """Lists for every row of `history`, batch by batch: memory follows batch_size x items, not users x items.

    Batches are smaller than asked where their scores would take more than 256 MB. `users`, if given, are passed to
    `score` with their histories: rows of the training matrix.
    """
    if batch_size < 1:
        raise ConfigError(f"Expected a batch_size of at least 1, found {batch_size}.")
    batch_size = min(batch_size, max(1, _SCORES // max(1, history.shape[1])))
    for start in range(0, history.shape[0], batch_size):
        batch = history[start : start + batch_size]
        known = {} if users is None else {"users": users[start : start + batch_size]}
        with torch.inference_mode():
            lists = top_n(score(batch, **known), n, batch if filter_seen else None, allowed, overwrite=True)
        yield TopN(start, *lists)
