"""Batches of sequences: the rows of an ordered matrix, oldest item first, with rows of like length together.

```
cells of a row (place)   a(3) c(1) d(2)      ->   sequence   c d a
```
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.training.batches import SparseBatch, SparseRows
from recsys.training.data_parallel import ALONE, Group

_WINDOW = 32  # batches whose rows are sorted by length together: the order stays random beyond them


def in_order(matrix: csr_matrix, most: int | None = None) -> csr_matrix:
    """Return the rows with their cells from the oldest to the newest, the last `most` of each.

    Parameters
    ----------
    matrix : csr_matrix, shape (users, items)
        Cells hold places in time; equal ones are ordered by column.
    most : int, optional
        Longest sequence to return.

    Returns
    -------
    csr_matrix
        Its column indices are not sorted: they are the sequences.
    """
    lengths = np.diff(matrix.indptr)
    row = np.repeat(np.arange(matrix.shape[0]), lengths)
    order = np.lexsort((matrix.indices, matrix.data, row))
    if most is not None:
        from_end = np.repeat(matrix.indptr[1:], lengths) - np.arange(matrix.nnz)  # 1 for the newest
        order = order[from_end <= most]
        lengths = np.minimum(lengths, most)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    sequences: csr_matrix = csr_matrix((matrix.data[order], matrix.indices[order], indptr), shape=matrix.shape)
    return sequences


class SequenceRows(SparseRows):
    """Sequences on the device, cut in batches of like length, so that little padding is computed.

    Parameters
    ----------
    matrix : csr_matrix, shape (users, items)
        Cells hold places in time.
    device : torch.device
    most : int, optional
        Longest sequence; of longer ones the last items are kept.
    """

    def __init__(self, matrix: csr_matrix, device: torch.device, most: int | None = None):
        super().__init__(in_order(matrix, most), device)

    def shuffled(self, batch_size: int, group: Group = ALONE, done: int = 0) -> Iterator[SparseBatch]:
        """Return this process's shard of batches: random rows, sorted by length within a window, in random order.

        The order is drawn at once; the first `done` batches are left out. The last batch may be smaller.
        """
        order = torch.randperm(len(self))
        windows = torch.split(order, _WINDOW * batch_size)
        order = torch.cat([window[self.lengths[window].argsort(stable=True)] for window in windows])
        whole = len(order) // batch_size
        batches = order[: whole * batch_size].view(whole, batch_size)
        order = torch.cat([batches[torch.randperm(whole)].flatten(), order[whole * batch_size :]])
        group.broadcast([order])
        return self._cut_all(order[done * batch_size :], batch_size, group)


def padded(batch: SparseBatch) -> tuple[Tensor, Tensor]:
    """Return the items of a batch as (rows, longest), 0 where a sequence has ended, and which places are filled."""
    places = torch.arange(int(batch.lengths.max()) if len(batch) else 0, device=batch.items.device)
    filled = places < batch.lengths[:, None]
    items = torch.zeros(filled.shape, dtype=torch.int64, device=batch.items.device)
    items[filled] = batch.items
    return items, filled
