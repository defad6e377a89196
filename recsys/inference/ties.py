"""The order of equal scores where they must not favor anybody: random, yet the same for the same ids.

Positions follow the first appearance of an item in the data, and so its popularity: with ties by position, a constant
score finds popular items. A TieBreak arranges the items on a circle in the order of hashes of their ids; each user
begins at a place that the hash of the user's id gives. Every item is thus equally likely at every rank, whatever the
order of the input rows, the batch size or the device.
"""

from __future__ import annotations

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

    Attributes
    ----------
    order : ndarray of int64, shape (items,)
        Item positions in the order of the circle.
    starts : ndarray of int64, shape (users,)
        The place on the circle at which each user begins.
    """

    order: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def from_ids(cls, items: Iterable[Any], users: Iterable[Any], seed: int = 0) -> TieBreak:
        """Make the order from ids.

        Parameters
        ----------
        items, users : iterable of ids
            By position. Only the text of an id counts.
        seed : int
            Another seed gives another order.
        """
        item_hashes, user_hashes = _hashes(items, seed, "recsys item hash"), _hashes(users, seed, "recsys user hash")
        starts = user_hashes % np.uint64(max(1, len(item_hashes)))
        return cls(np.argsort(item_hashes, kind="stable"), starts.astype(np.int64))

    def __getitem__(self, users: slice) -> TieBreak:
        """The same for some of the users."""
        return TieBreak(self.order, self.starts[users])

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """Place of each item on the circle, int64 (items,)."""
        places = np.empty_like(self.order)
        places[self.order] = np.arange(len(self.order))
        return places

    def priority(self, users: NDArray[np.int64], items: NDArray[Any]) -> NDArray[np.int64]:
        """How far from a user's start each item is: the lowest comes first."""
        priority: NDArray[np.int64] = (self.places[items] - self.starts[users]) % len(self.order)
        return priority

    def item(self, users: NDArray[np.int64], priority: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the items of the given priorities."""
        items: NDArray[np.int64] = self.order[(priority + self.starts[users]) % len(self.order)]
        return items


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
    keys = level * table.shape[1] + tie_break.priority(rows[:, None], listed[rows])
    listed[rows] = np.take_along_axis(listed[rows], keys.argsort(axis=1), axis=1)
    return best, torch.from_numpy(listed)


def _choose_at_cut(
    table: Tensor, best: Tensor, listed: NDArray[np.int64], rows: NDArray[np.int64], tie_break: TieBreak
) -> None:
    """Fill the last places of these rows' lists with the first, on the circle, of all items that reach the cut."""
    chosen = torch.as_tensor(rows, device=table.device)
    floor = best[chosen.to(best.device), -1:]
    on_floor = (table[chosen] == floor.to(device=table.device, dtype=table.dtype)).nonzero().cpu().numpy()
    row, items = on_floor[:, 0], table.shape[1]
    keys = row * items + tie_break.priority(rows[row], on_floor[:, 1])
    keys.sort()
    row = keys // items
    counts = np.bincount(row, minlength=len(rows))
    nth = np.arange(len(keys)) - np.repeat(np.cumsum(counts) - counts, counts)
    above = (best[chosen.to(best.device)] > floor).sum(dim=1).cpu().numpy()
    kept = nth < (listed.shape[1] - above)[row]
    listed[rows[row[kept]], (above[row] + nth)[kept]] = tie_break.item(rows[row[kept]], keys[kept] % items)


def _hashes(ids: Iterable[Any], seed: int, key: str) -> NDArray[np.uint64]:
    """A number per id, from the seed and the id's text: SipHash with a key of 16 bytes."""
    values = ids.to_pylist() if isinstance(ids, pa.Array) else ids
    texts = np.array([f"{seed} {each}" for each in values], dtype=object)
    if not len(texts):
        return np.empty(0, dtype=np.uint64)
    hashed: NDArray[np.uint64] = pd.util.hash_array(texts, hash_key=key, categorize=False)
    return hashed
