"""The n best of each row of scores, found without sorting the row."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.errors import DataError

# Candidates taken beyond n, so that ties at the cut rarely need a full sort of the row.
_MARGIN = 16

_NOTHING = np.iinfo(np.int64).max  # a key after all others

_NAN = "Expected finite scores, found NaN: the model has diverged; train it with a smaller rate."


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
