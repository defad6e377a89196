"""The two ends of an autoencoder over a catalog: a sparse input and a multinomial output.

The input is never made dense: an item's row of weights is added for each item of the history. The output is dense by
nature, users x items; it is made once, in bounded memory, and its gradients in the same pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.models.autoencoders.sampled_softmax import CandidateSampler, gather_rows
from recsys.training.batches import SparseBatch, weighted_sum

# Numbers held at once: slopes for the gradients' products (256 MB of float32), and logits between two float32
# products, small enough to stay in the processor's cache.
_CHUNK, _GPU_CHUNK = 64_000_000, 512_000_000
_BLOCK = 8_000_000
_TINY = 1e-38  # a probability below it counts as it: the loss stays finite, the gradient does not notice


class SparseInput(nn.Module):
    """First layer: rows scaled to length 1 (L2), some of their items hidden, then X @ W + b -> (rows, width).

    Dropout hides each item with probability `dropout` in training and scales the others by 1 / (1 - dropout).
    With `sparse` the gradient of W holds only the rows of the batch's items (see recsys.models.sampled).
    """

    def __init__(self, items: int, width: int, dropout: float):
        super().__init__()
        self.sparse = False
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(items, width)))
        self.bias = nn.Parameter(torch.zeros(width))
        self.dropout = dropout

    def forward(self, batch: SparseBatch) -> Tensor:
        """Shapes: batch (rows, items) -> (rows, width)."""
        return self.all_reduce(self.shown(batch))

    def shown(self, batch: SparseBatch) -> SparseBatch:
        """What the encoder is shown of a batch: its cells, scaled, those hidden at 0."""
        norms = batch.row_sums(batch.values.square()).sqrt().clamp_min(1e-12)
        values = batch.values / norms.repeat_interleave(batch.lengths, output_size=len(batch.values))
        return SparseBatch(batch.items, F.dropout(values, self.dropout, self.training), batch.offsets)

    def all_reduce(self, shown: SparseBatch) -> Tensor:
        """X @ W + b of what is shown."""
        return weighted_sum(shown, self.weight, self.sparse) + self.bias


class ItemOutput(nn.Module):
    """Last layer: codes (rows, width) -> logits (rows, items), and the multinomial loss without making them all.

    With a `sampler` the loss is over candidates (see recsys.models.sampled).
    """

    def __init__(self, items: int, width: int):
        super().__init__()
        self.sampler: CandidateSampler | None = None
        self.working: Tensor | None = None  # the weight in bfloat16 (recsys.models.mixed): the loss then learns by it
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(items, width)))
        self.bias = nn.Parameter(torch.zeros(items))

    def forward(self, codes: Tensor) -> Tensor:
        """Logits (rows, items)."""
        return F.linear(codes.to(self.weight.dtype), self.weight, self.bias)

    def blocks(self, codes: Tensor, width: int) -> Iterator[Tensor]:
        """Logits (rows, up to `width`) of some items at a time, side by side."""
        for weight, bias in zip(torch.split(self.weight, width), torch.split(self.bias, width), strict=True):
            yield F.linear(codes.to(weight.dtype), weight, bias)

    def loss(self, codes: Tensor, target: SparseBatch, smoothing: float = 0.0) -> Tensor:
        """Negative multinomial log-likelihood, -sum_i x_i log softmax(logits)_i, mean over rows, in nats (scalar).

        Liang et al. 2018, equation 2. `smoothing` s moves that share of a row's target, whose sum is n, to all items
        evenly: (1 - s) x_i + s n / items. With a sampled softmax it must be 0. Shapes: codes (rows, width), target
        (rows, items).
        """
        if self.sampler is None:
            loss = multinomial_loss(codes, self._table(), self.bias, target)
            return loss + smoothing * self._lift(codes, target) if smoothing else loss
        candidates = self.sampler.draw(target)
        reduced, correction, own = self.sampler.reduce(target, candidates)
        bias = self.bias[candidates] + correction
        return multinomial_loss(codes, gather_rows(self.weight, candidates), bias, reduced, own)

    def _table(self) -> Tensor:
        """What the loss learns by."""
        if self.working is None:
            return self.weight
        return self.working if self.weight.requires_grad else self.working.detach()

    def _lift(self, codes: Tensor, target: SparseBatch) -> Tensor:
        """How far the target's logits stand above the mean of all: sum_i x_i (logit_i - mean logit), mean over rows.

        A smoothed loss is the plain one plus s times this, since the normalizer of the softmax cancels: no other pass
        over the catalog is needed.
        """
        sums = target.row_sums(target.values)
        above = weighted_sum(target, self.weight) - sums[:, None] * self.weight.mean(dim=0)
        biases = target.values @ self.bias[target.items] - sums.sum() * self.bias.mean()
        return ((codes * above).sum() + biases) / len(codes)


def multinomial_loss(
    codes: Tensor, weight: Tensor, bias: Tensor, target: SparseBatch, own: Tensor | None = None
) -> Tensor:
    """-sum_i x_i log softmax(codes @ weight.T + bias)_i, mean over rows.

    `own`: added to the logits of the target's cells alone, (cells,).
    """
    loss: Tensor = _MultinomialLoss.apply(codes, weight, bias, target, own)  # type: ignore[no-untyped-call]
    return loss


def squared_error(codes: Tensor, weight: Tensor, bias: Tensor, target: SparseBatch) -> Tensor:
    """sum_i (y_i - x_i)^2 over all items with y = codes @ weight.T + bias, mean over rows (scalar).

    y is never made: the sum of its squares is codes' (weight' weight) codes and what the bias adds. Shapes: codes
    (rows, width), weight (items, width), bias (items,), target (rows, items).
    """
    with torch.autocast(codes.device.type, enabled=False):  # large numbers are subtracted
        codes = codes.float()
        squares = ((codes @ (weight.T @ weight) + 2 * (bias @ weight)) * codes).sum() + len(codes) * (bias @ bias)
        own = (codes * weighted_sum(target, weight)).sum() + target.values @ bias[target.items]
        return (squares - 2 * own + target.values @ target.values) / len(codes)


class _MultinomialLoss(torch.autograd.Function):
    """Loss and gradients in one pass: three products; the logits become slopes where they were made.

    With n_u = sum of row u's targets x_u, the gradient of the logits is n_u softmax(logits) - x_u. The factor n_u is
    moved to the codes' side, which are small, so that the slopes are softmax - x_u / n_u. Under autocast the products
    are in bfloat16, their sums, the softmax inside and the loss in float32. Codes or a table (with its biases) that
    want no gradient save their product.
    """

    @staticmethod
    def forward(
        ctx: Any, codes: Tensor, weight: Tensor, bias: Tensor, target: SparseBatch, own: Tensor | None
    ) -> Tensor:
        kind = torch.bfloat16 if torch.is_autocast_enabled(codes.device.type) else torch.float32
        codes, table, shift = (tensor.detach().to(kind) for tensor in (codes, weight, bias))
        sums = target.row_sums(target.values).clamp_min(1e-12)
        share = (sums / len(codes)).to(kind)[:, None]  # n_u over the number of rows: the loss is a mean
        grad_codes, grad_weight, grad_bias = torch.empty_like(codes), None, None
        to_codes, to_table = ctx.needs_input_grad[:2]
        loss = torch.zeros((), device=codes.device)
        most = _CHUNK if codes.device.type == "cpu" else _GPU_CHUNK  # one chunk of a large batch asks the GPU nothing
        chunk = max(1, min(len(codes), most // len(weight)))
        buffer = torch.empty(chunk, len(weight), device=codes.device, dtype=kind)
        for rows, cells, part in target.blocks(chunk):
            slopes = buffer[: len(part)]
            extra = None if own is None else own[cells]
            loss += _slopes(codes[rows], table, shift, part, sums[rows], extra, slopes)
            if to_codes:
                torch.mm(slopes, table, out=grad_codes[rows])
            if to_table:
                grad_weight = _sum(grad_weight, slopes.T @ (codes[rows] * share[rows]))
                grad_bias = _sum(grad_bias, (share[rows].T @ slopes)[0])
        ctx.gradients = (
            (grad_codes * share).float() if to_codes else None,
            grad_weight if grad_weight is None else grad_weight.to(weight.dtype),
            grad_bias if grad_bias is None else grad_bias.float(),
        )
        return loss / len(codes)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        # Not kept: autograd takes a gradient nobody else holds as it is, without a copy.
        gradients, ctx.gradients = ctx.gradients, None
        if upstream[0].device.type == "cpu" and upstream[0] == 1:  # a GPU would have to be asked
            return (*gradients, None, None)
        scaled = (None if gradient is None else gradient.mul_(upstream[0]) for gradient in gradients)
        return (*scaled, None, None)


def _slopes(
    codes: Tensor, table: Tensor, shift: Tensor, target: SparseBatch, sums: Tensor, own: Tensor | None, out: Tensor
) -> Tensor:
    """Write softmax(codes @ table.T + shift) - x / n to `out` (rows, items); returns the loss, summed over rows."""
    # In bfloat16 a processor rearranges the whole table for each product: few products are worth more than the cache.
    in_cache = out.device.type == "cpu" and out.dtype == torch.float32
    block = max(1, min(len(out), _BLOCK // len(table))) if in_cache else len(out)
    loss = torch.zeros((), device=out.device)
    for rows, numbers, part in target.blocks(block):
        cells = (part.rows, part.items)
        p = _logits(codes[rows], table, shift, out[rows])
        if own is not None:
            p[cells] += own[numbers].to(p.dtype)
        torch.softmax(p, dim=1, out=p)  # bfloat16 is summed in float32 inside
        found = p[cells].float()
        loss -= (found.clamp_min(_TINY).log() * part.values).sum()
        p[cells] = (found - part.values / sums[rows][part.rows]).to(p.dtype)
    return loss


def _logits(codes: Tensor, table: Tensor, shift: Tensor, out: Tensor) -> Tensor:
    """codes @ table.T + shift, written to `out`."""
    if out.device.type == "cpu" and out.dtype == torch.bfloat16:  # inside the product the shift takes twice as long
        return torch.mm(codes, table.T, out=out).add_(shift)
    return torch.addmm(shift, codes, table.T, out=out)


def _sum(total: Tensor | None, more: Tensor) -> Tensor:
    """total + more, in float32; `more` itself where there is no total yet."""
    return more if total is None else total.float().add_(more)
