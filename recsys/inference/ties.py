"""The order of equal scores where it must not favor any item: random, yet the same for the same ids.

Positions may follow popularity, as where ids were given in the order in which items were added: with ties by position,
a constant score then finds popular items. A TieBreak numbers the items in the order of hashes of their ids, and
permutes these numbers for each user, by a multiplication and an addition modulo a prime that come from the hash of the
user's id. Every item is thus equally likely at every rank, and every pair of items at every pair of ranks, whatever the
order of the input rows, the batch size or the device.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

_CELLS = 4_000_000  # of scores looked at together


@dataclass(frozen=True)
class TieBreak:
    """A reproducible random order of equal scores, different for each user.

    The item numbered i comes at place factor (i - offset) modulo `prime`; places without an item are skipped.

    Attributes
    ----------
    order : ndarray of int64, shape (items,)
        Item positions by number.
    factors, offsets : ndarray of int64, shape (users,)
        The permutation of each user.
    """

    order: NDArray[np.int64]
    factors: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @classmethod
    def from_ids(cls, items: Iterable[Any], users: Iterable[Any], seed: int = 0) -> TieBreak:
        """Make the order from ids.

        Parameters
        ----------
        items, users : iterable of ids
            By position. Only the text of an id counts.
        seed : int
            From 0 to 10^12 - 1; another seed gives another order.
        """
        item_hashes = _hashes(items, "item", seed)
        prime = np.uint64(_next_prime(len(item_hashes)))
        factors = 1 + _hashes(users, "fact", seed) % (prime - np.uint64(1))
        offsets = _hashes(users, "offs", seed) % prime
        return cls(np.argsort(item_hashes, kind="stable"), factors.astype(np.int64), offsets.astype(np.int64))

    def __getitem__(self, users: slice) -> TieBreak:
        """The same for some of the users."""
        return TieBreak(self.order, self.factors[users], self.offsets[users])

    @cached_property
    def prime(self) -> int:
        """The number of places: the smallest prime that is not below the number of items."""
        return _next_prime(len(self.order))

    @cached_property
    def _numbers(self) -> NDArray[np.int64]:
        """Number of each item, int64 (items,)."""
        numbers = np.empty_like(self.order)
        numbers[self.order] = np.arange(len(self.order))
        return numbers

    def places(self, users: NDArray[np.int64], items: NDArray[Any]) -> NDArray[np.int64]:
        """Return the place of items in the order of users: of equal scores, the lowest comes first."""
        found: NDArray[np.int64] = self.factors[users] * (self._numbers[items] - self.offsets[users]) % self.prime
        return found

    def items(self, users: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the items at places in the order of users; -1 where there is none."""
        number = (_inverse(self.factors[users], self.prime) * places + self.offsets[users]) % self.prime
        known = number < len(self.order)
        found: NDArray[np.int64] = np.where(known, self.order[np.where(known, number, 0)], -1)
        return found


def break_ties(table: Tensor, values: Tensor, positions: Tensor, n: int, tie_break: TieBreak) -> tuple[Tensor, Tensor]:
    """Reorder the best of each row where scores are equal.

    Parameters
    ----------
    table : Tensor, shape (users, items)
        The scores, masked.
    values, positions : Tensor, shape (users, at least n)
        The best of each row, best first; with one more than n where the catalog has more.
    n : int
        Length of a list.
    tie_break : TieBreak
        Of these users.

    Returns
    -------
    values, positions : Tensor, shape (users, n)
        `values` is unchanged but for its length.
    """
    known = values > -torch.inf
    equal = (values[:, 1:] == values[:, :-1]) & known[:, 1:]
    tied = equal.any(dim=1).cpu().numpy()
    best = values[:, :n]
    if not tied.any():
        return best, positions[:, :n]
    listed = torch.where(best > -torch.inf, positions[:, :n], 0).cpu().numpy().astype(np.int64)
    if values.shape[1] > n:
        cut = equal[:, n - 1].cpu().numpy()
        step = max(1, _CELLS // max(1, table.shape[1]))
        rows = np.flatnonzero(cut)
        for start in range(0, len(rows), step):
            _choose_at_cut(table, best, listed, rows[start : start + step], tie_break)
    rows = np.flatnonzero(tied)
    own = best[torch.as_tensor(rows, device=best.device)].float().cpu().numpy()
    changes = np.pad(own[:, 1:] != own[:, :-1], ((0, 0), (1, 0)))  # -inf equals -inf
    level = np.cumsum(changes, axis=1)
    keys = level * tie_break.prime + tie_break.places(rows[:, None], listed[rows])
    listed[rows] = np.take_along_axis(listed[rows], keys.argsort(axis=1), axis=1)
    return best, torch.from_numpy(listed)


def _choose_at_cut(
    table: Tensor, best: Tensor, listed: NDArray[np.int64], rows: NDArray[np.int64], tie_break: TieBreak
) -> None:
    """Fill the last places of these rows' lists with the first of all items that reach the cut."""
    chosen = torch.as_tensor(rows)
    cut = best[chosen.to(best.device), -1:]
    at_cut = table[chosen.to(table.device)] == cut.to(device=table.device, dtype=table.dtype)
    above = (best[chosen.to(best.device)] > cut).sum(dim=1).cpu().numpy()
    missing, counts = listed.shape[1] - above, at_cut.sum(dim=1).cpu().numpy()
    windows = 16 + 3 * missing * table.shape[1] // counts  # hold the missing ones almost surely
    dense = np.flatnonzero(windows < table.shape[1] // 8)
    found = np.zeros(len(rows), dtype=bool)
    if len(dense):
        width = int(windows[dense].max())
        found[dense] = _from_first_places(at_cut, listed, rows, dense, (above, missing), width, tie_break)
    rest = np.flatnonzero(~found)
    if len(rest):
        _by_sorting(at_cut[torch.as_tensor(rest, device=at_cut.device)], listed, rows[rest], above[rest], tie_break)


def _from_first_places(
    at_cut: Tensor,
    listed: NDArray[np.int64],
    rows: NDArray[np.int64],
    dense: NDArray[np.int64],
    places: tuple[NDArray[np.int64], NDArray[np.int64]],
    width: int,
    tie_break: TieBreak,
) -> NDArray[np.bool_]:
    """Where many items reach the cut: go through the first places. Returns which rows were completed."""
    above, missing = (array[dense] for array in places)
    items = tie_break.items(rows[dense, None], np.arange(width)[None, :])
    on = at_cut.device
    hits = at_cut[torch.as_tensor(dense, device=on)[:, None], torch.as_tensor(items, device=on)].cpu().numpy()
    hits &= items >= 0
    nth = hits.cumsum(axis=1) - 1
    kept = hits & (nth < missing[:, None])
    complete: NDArray[np.bool_] = kept.sum(axis=1) == missing
    row, column = np.nonzero(kept & complete[:, None])
    listed[rows[dense[row]], above[row] + nth[row, column]] = items[row, column]
    return complete


def _by_sorting(
    at_cut: Tensor,
    listed: NDArray[np.int64],
    rows: NDArray[np.int64],
    above: NDArray[np.int64],
    tie_break: TieBreak,
) -> None:
    """Where few items reach the cut: sort them by their places."""
    row, item = at_cut.nonzero().cpu().numpy().T
    keys = row * tie_break.prime + tie_break.places(rows[row], item)
    keys.sort()
    row, place = keys // tie_break.prime, keys % tie_break.prime
    counts = np.bincount(row, minlength=len(rows))
    nth = np.arange(len(keys)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = nth < (listed.shape[1] - above)[row]
    listed[rows[row[kept]], (above[row] + nth)[kept]] = tie_break.items(rows[row[kept]], place[kept])


def _hashes(ids: Iterable[Any], kind: str, seed: int) -> NDArray[np.uint64]:
    """A number per id, from its text: SipHash, whose key of 16 bytes is the kind of id and the seed."""
    array = ids if isinstance(ids, pa.Array) else pa.array(ids)
    texts = array.cast(pa.large_string()).to_numpy(zero_copy_only=False)
    if not len(texts):
        return np.empty(0, dtype=np.uint64)
    hashed: NDArray[np.uint64] = pd.util.hash_array(texts, hash_key=f"{kind}{seed:012d}"[:16], categorize=False)
    return hashed


def _next_prime(count: int) -> int:
    """The smallest prime that is at least `count`."""
    prime = max(2, count)
    while any(prime % divisor == 0 for divisor in range(2, math.isqrt(prime) + 1)):
        prime += 1
    return prime


def _inverse(factors: NDArray[np.int64], prime: int) -> NDArray[np.int64]:
    """The inverse of each factor modulo a prime below 2^31: its power of prime - 2 (Fermat)."""
    result, power, exponent = np.ones_like(factors), factors, prime - 2
    while exponent:
        if exponent & 1:
            result = result * power % prime
        power = power * power % prime
        exponent >>= 1
    return result
