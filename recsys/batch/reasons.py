"""Reasons in the lists of a batch: two columns for each, the item of the history and its share.

Plain columns are the same in Parquet and in CSV, and ids keep their type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.data.interactions import Vocabulary
from recsys.explain.reasons import reasons_of_lists
from recsys.models import Recommender


@dataclass(frozen=True)
class ListReasons:
    """The reasons of the items in some lists.

    Attributes
    ----------
    items : ndarray of int32, shape (users, n, count)
        Positions of items of the histories, strongest reason first; -1 where there is no further one.
    shares : ndarray of float32, shape (users, n, count)
        Share of each in all that supports the listed item; NaN where there is no reason.
    """

    items: NDArray[np.int32]
    shares: NDArray[np.float32]

    @classmethod
    def of(cls, model: Recommender, history: csr_matrix, positions: NDArray[np.int32], count: int) -> Self:
        """Find the reasons of lists (users, n), at most `count` for an item."""
        return cls(*reasons_of_lists(model, history, positions, count))

    @classmethod
    def joined(cls, parts: Sequence[ListReasons]) -> Self:
        """Put the lists of several parts one after the other."""
        return cls(np.concatenate([part.items for part in parts]), np.concatenate([part.shares for part in parts]))

    def columns(self, row: NDArray[np.int64], place: NDArray[np.int64], ids: Vocabulary) -> dict[str, pa.Array]:
        """Return the columns reason_1, share_1, reason_2, ... of some places of the lists; null without a reason."""
        columns = {}
        for number in range(self.items.shape[2]):
            items, shares = self.items[row, place, number], self.shares[row, place, number]
            columns[f"reason_{number + 1}"] = ids.take(items)
            columns[f"share_{number + 1}"] = pa.array(shares, pa.float32(), mask=items < 0)
        return columns
