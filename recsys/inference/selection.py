"""The n best of each row of scores, found without sorting the row.

Integer keys instead of `torch.topk`: on processors NumPy compares and sorts integers in vector instructions. Scoring a
VAE of 600-200 on MovieLens-1M, masks and top 100 included, this serves 22,865 users a second, where the same dense
network with `torch.topk` serves 12,528 (benchmarks/README.md, "Scoring": 2 cores, AMD EPYC, 2026-11-21). On other
devices `torch.topk` is used.
"""

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

_EMPTY = np.iinfo(np.int64).max  # a key after all others

_NAN = "Expected finite scores, found NaN: the model has diverged; train it with a smaller learning rate."


def select_best(table: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Find the n best scores of each row.

    Parameters
    ----------
    table : Tensor, shape (rows, items)
        Scores, float32 or bfloat16; -inf is never listed before anything else.
    n : int
        At most the number of items; 0 gives empty rows.

    Returns
    -------
    values, positions : Tensor, shape (rows, n)
        Best first, equal scores in order of position. Where fewer than n scores are above -inf, the rest is -inf.

    Raises
    ------
    DataError
        If a score is NaN.
    """
    if not n:
        return table.new_empty(len(table), 0), torch.empty(len(table), 0, dtype=torch.long)
    return _best_by_keys(table, n) if table.device.type == "cpu" else _best_by_topk(table, n)


def _best_by_keys(table: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """On processors: a threshold from the best of groups, then a sort of integer keys of what reaches it.

    ```
    9 1 4 3 7 2 0 5 8     groups of every third: 9 3 0   1 7 5   4 2 8     the best of each: 9 7 8
    ```
    n groups hold a score at least as good as the n-th best of the groups' best. So the row's own n-th best is not
    lower, and only groups that reach this threshold are searched.
    """
    bits = _bits(table)
    _refuse_nan_bits(bits)
    groups = _number_of_groups(table.shape[1], n)
    best, threshold = _threshold(bits, groups, n)
    if threshold.min(initial=1) <= 0:  # bits of negative numbers run backwards, and -0 has others than 0
        bits = _rising(_bits(table + 0))
        best, threshold = _threshold(bits, groups, n)
    cells, counts = _candidates(bits, best, threshold, n)
    scores = table.flatten()[torch.from_numpy(cells)].float().numpy()
    row = np.repeat(np.arange(len(table)), counts)
    keys = np.full((len(table), max(n, counts.max(initial=0))), _EMPTY)
    place = np.arange(len(cells)) - np.repeat(counts.cumsum() - counts, counts)
    keys[row, place] = _keys(scores, cells - row * table.shape[1])
    keys.sort(axis=1)
    values, positions = _from_keys(keys[:, :n])
    return torch.from_numpy(values), torch.from_numpy(positions)


def _bits(table: Tensor) -> NDArray[Any]:
    """The bits of the scores (rows, items) as integers: of positive scores, the higher the larger."""
    return np.asarray(table.contiguous().view(torch.int16 if table.dtype == torch.bfloat16 else torch.int32))


def _rising(bits: NDArray[Any]) -> NDArray[Any]:
    """Integers in the order of all scores: those of negative scores have their bits inverted, except for the sign."""
    rising: NDArray[Any] = bits ^ ((bits >> (8 * bits.itemsize - 1)) & np.iinfo(bits.dtype).max)
    return rising


def _infinity(bits: NDArray[Any]) -> int:
    """The bits of infinity; -infinity is the bit-wise opposite among rising integers."""
    return 0x7F80 if bits.itemsize == 2 else 0x7F80_0000


def _refuse_nan_bits(bits: NDArray[Any]) -> None:
    """Raise DataError for NaN, which lies beyond infinity on either side: as signed, or as unsigned integers."""
    unsigned = bits.view(np.uint16 if bits.itemsize == 2 else np.uint32)
    sign = np.iinfo(bits.dtype).max + 1
    if bits.max(initial=0) > _infinity(bits) or unsigned.max(initial=0) > sign + _infinity(bits):
        raise DataError(_NAN)


def _number_of_groups(items: int, n: int) -> int:
    """The number of groups for which the fewest scores are read: one per group, and all of about n groups."""
    return items // max(1, math.isqrt(items // n))


def _threshold(bits: NDArray[Any], groups: int, n: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The best of each group, (rows, groups), and the threshold of each row, (rows, 1), which is above -inf."""
    rows, items = bits.shape
    whole = items // groups * groups
    best = bits[:, :whole].reshape(rows, whole // groups, groups).max(axis=1)
    np.maximum(best[:, : items - whole], bits[:, whole:], out=best[:, : items - whole])
    threshold = np.partition(best, groups - n, axis=1)[:, groups - n, None]
    return best, np.maximum(threshold, -_infinity(bits))


def _candidates(
    bits: NDArray[Any], best: NDArray[Any], threshold: NDArray[Any], n: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Flat positions of the scores that reach their row's threshold, and how many of them each row has.

    They are n or more; of a row with many scores equal to the threshold only the first are taken.
    """
    (rows, items), groups = bits.shape, best.shape[1]
    integer = np.int32 if bits.size <= np.iinfo(np.int32).max else np.int64  # int32 halves the memory to read
    reaching = np.flatnonzero(best >= threshold).astype(integer)
    ends = np.searchsorted(reaching, np.arange(1, rows + 1) * groups)
    counts = np.diff(ends, prepend=0)
    if counts.max(initial=0) > 2 * n:
        cells = np.flatnonzero(_first_ties(bits, threshold, n))
        return cells, np.diff(np.searchsorted(cells, np.arange(rows + 1) * items))
    row: NDArray[Any] = np.repeat(np.arange(rows, dtype=integer), counts)
    steps = np.arange(0, items, groups, dtype=integer)
    cells = (reaching + row * (items - groups))[:, None] + steps
    high = bits.reshape(-1).take(cells, mode="clip") >= threshold[row]
    high[:, -1] &= reaching - row * groups < items - steps[-1]  # the other groups have one member fewer
    found = np.flatnonzero(high)
    return cells.reshape(-1)[found], np.diff(np.searchsorted(found, ends * len(steps)), prepend=0)


def _first_ties(bits: NDArray[Any], threshold: NDArray[Any], n: int) -> NDArray[np.bool_]:
    """Which scores are above the threshold or among the first n equal to it: rows of zeros need no full sort."""
    equal = bits == threshold
    return np.asarray((bits > threshold) | (equal & (equal.cumsum(axis=1, dtype=np.int32) <= n)))


def _keys(scores: NDArray[np.float32], positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Integers in the order of the list: higher scores first, equal scores by position."""
    bits = (scores + np.float32(0)).view(np.int32)  # + 0: -0 equals 0
    return (~_rising(bits)).astype(np.int64) << 32 | positions


def _from_keys(keys: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The scores and positions behind the keys; -inf for an empty key."""
    values = _rising(~(keys >> 32).astype(np.int32)).view(np.float32)  # inverting twice restores the bits
    return np.where(keys == _EMPTY, np.float32(-np.inf), values), keys & 0xFFFFFFFF


def _best_by_topk(table: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """On other devices: torch.topk does not define which of equal scores it takes, so a few more are taken."""
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
