"""Batches of rows of a CSR matrix, cut on the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.training.data_parallel import ALONE, Group


@dataclass(frozen=True)
class SparseBatch:
    """Some rows of a sparse matrix.

    Attributes
    ----------
    items : Tensor of int64, shape (cells,)
    values : Tensor of float32, shape (cells,)
    offsets : Tensor of int64, shape (rows + 1,)
        Where each row begins, and the number of cells.
    """

    items: Tensor
    values: Tensor
    offsets: Tensor

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        """Number of cells of each row, int64 (rows,)."""
        return self.offsets.diff()

    @property
    def rows(self) -> Tensor:
        """Row number of each cell, int64 (cells,)."""
        ids = torch.arange(len(self), device=self.items.device)
        return ids.repeat_interleave(self.lengths, output_size=len(self.items))

    def blocks(self, size: int) -> Iterator[tuple[slice, slice, SparseBatch]]:
        """Yield blocks of `size` rows: the slice of rows, the slice of cells, and their batch."""
        if size >= len(self):  # without synchronizing with the device
            yield slice(0, len(self)), slice(0, len(self.items)), self
            return
        starts = range(0, len(self), size)
        bounds = [*self.offsets[::size].tolist()[: len(starts)], len(self.items)]
        for i, start in enumerate(starts):
            rows, cells = slice(start, min(start + size, len(self))), slice(bounds[i], bounds[i + 1])
            offsets = self.offsets[rows.start : rows.stop + 1] - bounds[i]
            yield rows, cells, SparseBatch(self.items[cells], self.values[cells], offsets)

    def row_sums(self, per_cell: Tensor) -> Tensor:
        """Sum values of cells (cells,) over each row, (rows,)."""
        return torch.zeros(len(self), device=per_cell.device, dtype=per_cell.dtype).index_add_(0, self.rows, per_cell)


class SparseRows:
    """A CSR matrix (users, items) that is held on the device; batches of rows are cut from it there."""

    def __init__(self, matrix: csr_matrix, device: torch.device):
        self.offsets = torch.as_tensor(matrix.indptr, device=device).long()
        self.items = torch.as_tensor(matrix.indices, device=device)
        self.values = torch.as_tensor(matrix.data, device=device, dtype=torch.float32)
        self.lengths = torch.as_tensor(matrix.indptr).diff()  # on the host, so that no batch waits for a GPU

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def everything(self) -> SparseBatch:
        """Return all rows as one batch."""
        return SparseBatch(self.items.long(), self.values, self.offsets)

    def cut(self, rows: Tensor, cells: int | None = None) -> SparseBatch:
        """Return the given rows, int64 (batch,), in that order. `cells`: their number of cells, if known."""
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        cells = int(offsets[-1]) if cells is None else cells
        position = (starts - offsets[:-1]).repeat_interleave(lengths, output_size=cells)
        position += torch.arange(cells, device=rows.device)
        return SparseBatch(self.items[position].long(), self.values[position], offsets)

    def shuffled(self, batch_size: int, group: Group = ALONE, done: int = 0) -> Iterator[SparseBatch]:
        """Return this process's shard of batches of `batch_size` rows, in random order; the last may be smaller.

        The order is drawn at once; the first `done` batches are left out.
        """
        order = torch.randperm(len(self))
        group.broadcast([order])  # the processes' random streams differ by the draws of dropout
        return self._cut_all(order[done * batch_size :], batch_size, group)

    def _cut_all(self, order: Tensor, batch_size: int, group: Group) -> Iterator[SparseBatch]:
        on_device = order.to(self.offsets.device)
        for start in range(0, len(order), batch_size):
            rows, known = (group.shard(part[start : start + batch_size]) for part in (on_device, order))
            yield self.cut(rows, int(self.lengths[known].sum()))


def weighted_sum(batch: SparseBatch, table: Tensor, sparse: bool = False) -> Tensor:
    """Compute X @ table.

    Parameters
    ----------
    batch : SparseBatch, shape (rows, items)
        X.
    table : Tensor, shape (items, width)
    sparse : bool
        Give the table a sparse gradient.

    Returns
    -------
    Tensor, shape (rows, width)
    """
    return F.embedding_bag(
        batch.items,
        table,
        batch.offsets,
        mode="sum",
        sparse=sparse,
        per_sample_weights=batch.values.to(table.dtype),
        include_last_offset=True,
    )
