"""Predictions of the rated cells alone: products of codes and a table, without the cells that are not rated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from recsys.training.batches import SparseBatch, weighted_sum


def cell_products(codes: Tensor, table: Tensor, batch: SparseBatch) -> Tensor:
    """Compute codes @ table.T at the cells of the batch: codes (rows, width), table (columns, width) -> (cells,)."""
    products: Tensor = _CellProducts.apply(codes, table, batch)  # type: ignore[no-untyped-call]
    return products


class _CellProducts(torch.autograd.Function):
    """Products at cells, expressed by weighted sums, which pass over the cells once without temporary memory.

    The products are the gradient of a weighted sum with respect to its weights; their own gradients are a weighted sum,
    and the gradient of a weighted sum with respect to its table.
    """

    @staticmethod
    def forward(ctx: Any, codes: Tensor, table: Tensor, batch: SparseBatch) -> Tensor:
        ctx.save_for_backward(codes, table)
        ctx.batch = batch
        return _gradient(lambda ones: weighted_sum(_with(batch, ones), table), torch.ones_like(batch.values), codes)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        codes, table = ctx.saved_tensors
        cells = _with(ctx.batch, upstream[0])
        return weighted_sum(cells, table), _gradient(lambda rows: weighted_sum(cells, rows), table, codes), None


def _with(batch: SparseBatch, values: Tensor) -> SparseBatch:
    return SparseBatch(batch.items, values, batch.offsets)


def _gradient(function: Callable[[Tensor], Tensor], at: Tensor, upstream: Tensor) -> Tensor:
    with torch.enable_grad():
        point = at.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(function(point), point, upstream)
    return gradient
