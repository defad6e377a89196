"""The two ends of an autoencoder over a catalogue: a sparse input and a multinomial output.

The input is never made dense: an item's row of weights is added for each item of the history. The output is dense by
nature, users x items, but only a block of it exists at a time and its gradient is made in the same pass.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.training import SparseBatch

# Logits held at once, in numbers: 32 MB of float32, reused from block to block, so that pages stay warm.
_BLOCK = 8_000_000


def weighted_sum(batch: SparseBatch, table: Tensor) -> Tensor:
    """X @ table for a sparse batch X (rows, items) and table (items, width) -> (rows, width)."""
    return F.embedding_bag(
        batch.items, table, batch.offsets, mode="sum", per_sample_weights=batch.values, include_last_offset=True
    )


class SparseInput(nn.Module):
    """First layer: rows scaled to length 1 (L2), some of their items hidden, then X @ W + b -> (rows, width).

    Dropout hides each item with probability `dropout` in training and scales the others by 1 / (1 - dropout).
    """

    def __init__(self, items: int, width: int, dropout: float):
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(items, width)))
        self.bias = nn.Parameter(torch.zeros(width))
        self.dropout = dropout

    def forward(self, batch: SparseBatch) -> Tensor:
        """Shapes: batch (rows, items) -> (rows, width)."""
        norms = batch.row_sums(batch.values.square()).sqrt().clamp_min(1e-12)
        values = batch.values / norms.repeat_interleave(batch.lengths, output_size=len(batch.values))
        values = F.dropout(values, self.dropout, self.training)
        return weighted_sum(SparseBatch(batch.items, values, batch.offsets), self.weight) + self.bias


class ItemOutput(nn.Module):
    """Last layer: codes (rows, width) -> logits (rows, items), and the multinomial loss without making them all."""

    def __init__(self, items: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(items, width)))
        self.bias = nn.Parameter(torch.zeros(items))

    def forward(self, codes: Tensor) -> Tensor:
        """Logits (rows, items)."""
        return F.linear(codes, self.weight, self.bias)

    def loss(self, codes: Tensor, target: SparseBatch) -> Tensor:
        """Negative multinomial log-likelihood, -sum_i x_i log softmax(logits)_i, mean over rows, in nats (scalar).

        Liang et al. 2018, equation 2. Shapes: codes (rows, width), target (rows, items).
        """
        loss: Tensor = _MultinomialLoss.apply(codes, self.weight, self.bias, target)  # type: ignore[no-untyped-call]
        return loss


class _MultinomialLoss(torch.autograd.Function):
    """Loss and gradients in one pass over row blocks: three products, and each logit is touched three times.

    With n_u = sum of row u's targets x_u, the gradient of the logits is n_u softmax(logits) - x_u. The factor n_u is
    moved to the codes' side, which are small, so that the block itself is only softmax - x_u / n_u.
    """

    @staticmethod
    def forward(ctx: Any, codes: Tensor, weight: Tensor, bias: Tensor, target: SparseBatch) -> Tensor:
        rows, items = len(codes), len(weight)
        kind = torch.bfloat16 if torch.is_autocast_enabled(codes.device.type) else torch.float32
        codes, table = codes.detach().to(kind), weight.detach().to(kind)
        sums = target.row_sums(target.values)
        share = (sums / rows).to(kind)[:, None]  # n_u over the number of rows: the loss is a mean
        loss = torch.zeros((), device=codes.device)
        grad_codes, grad_weight, grad_bias = torch.empty_like(codes), torch.zeros_like(weight), torch.zeros_like(bias)
        block = max(1, min(rows, _BLOCK // items))
        buffer = torch.empty(block, items, device=codes.device)
        cells = target.rows
        bounds = target.offsets.tolist() if block < rows else [0] * rows + [len(cells)]
        for start in range(0, rows, block):
            stop = min(start + block, rows)
            mine = slice(bounds[start], bounds[stop])
            place = (cells[mine] - start, target.items[mine])
            logits = _logits(codes[start:stop], table, bias, buffer[: stop - start])
            torch.log_softmax(logits, dim=1, out=logits)
            loss -= (logits[place] * target.values[mine]).sum()
            logits.exp_()
            logits.index_put_(place, -target.values[mine] / sums.clamp_min(1e-12)[cells[mine]], accumulate=True)
            slopes = logits.to(kind)
            grad_codes[start:stop] = slopes @ table * share[start:stop]
            _add_product(grad_weight, slopes, codes[start:stop] * share[start:stop])
            grad_bias += (share[start:stop].T @ slopes)[0]
        ctx.save_for_backward(grad_codes.float(), grad_weight, grad_bias)
        return loss / rows

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        return (*(upstream[0] * gradient for gradient in ctx.saved_tensors), None)


def _logits(codes: Tensor, table: Tensor, bias: Tensor, out: Tensor) -> Tensor:
    """codes @ table.T + bias as float32, written to `out`."""
    if codes.dtype == out.dtype:
        return torch.addmm(bias.detach(), codes, table.T, out=out)
    return torch.add(codes @ table.T, bias.detach(), out=out)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left.T @ right, summed in float32."""
    if left.dtype == total.dtype:
        total.addmm_(left.T, right)
    else:
        total += left.T @ right
