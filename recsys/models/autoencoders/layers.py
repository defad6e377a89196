"""The two ends of an autoencoder over a catalog: a sparse input and a multinomial output.

The input is never made dense: the rows of weights of a history's items are added up. The output is dense by nature,
users x items; it is computed once, in bounded memory, together with its gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.models.autoencoders.sampled_softmax import CandidateSampler, gather_rows
from recsys.training.batches import SparseBatch, weighted_sum

# Numbers held at once: gradients of the logits (256 MB of float32; more on a GPU), and logits between two float32
# products, few enough to stay in the CPU's cache.
_CHUNK, _GPU_CHUNK = 64_000_000, 512_000_000
_BLOCK = 8_000_000
_TINY = 1e-38  # lower bound of probabilities in the loss: it stays finite, and the gradient is unchanged


def logits_memory(rows: float, items: float, precision: Literal["fp32", "bf16"] = "fp32") -> float:
    """Estimate the bytes that the logits of a training step hold on a CPU, chunk by chunk.

    Parameters
    ----------
    rows, items : float
        Size of the batch and of the output layer (all items, or the candidates of a sampled softmax).
    precision : {"fp32", "bf16"}
        Of the matrix products.

    Returns
    -------
    float
        Bytes.
    """
    return (4 if precision == "fp32" else 2) * min(rows * items, max(_CHUNK, items))


def loss_in_chunks(rows: float, items: float) -> bool:
    """Return whether the logits of a step on a CPU need several chunks, whose weight gradients are then added up."""
    return rows * items > _CHUNK


class SparseInput(nn.Module):
    """First layer: rows scaled to length 1 (L2), dropout on their items, then X @ W + b -> (rows, width).

    Parameters
    ----------
    items, width : int
        Shape of W.
    dropout : float
        Each item is hidden with this probability in training, and the others are scaled by 1 / (1 - dropout).

    Attributes
    ----------
    sparse : bool
        The gradient of W holds only the rows of the batch's items (see recsys.models.autoencoders.sampled_softmax).
    """

    def __init__(self, items: int, width: int, dropout: float):
        super().__init__()
        self.sparse = False
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(items, width)))
        self.bias = nn.Parameter(torch.zeros(width))
        self.dropout = dropout

    def forward(self, batch: SparseBatch) -> Tensor:
        """Return (rows, width) for a batch (rows, items)."""
        return self.project(self.corrupt(batch))

    def corrupt(self, batch: SparseBatch) -> SparseBatch:
        """Scale the rows and apply dropout; hidden cells stay, with value 0."""
        norms = batch.row_sums(batch.values.square()).sqrt().clamp_min(1e-12)
        values = batch.values / norms.repeat_interleave(batch.lengths, output_size=len(batch.values))
        return SparseBatch(batch.items, F.dropout(values, self.dropout, self.training), batch.offsets)

    def project(self, corrupted: SparseBatch) -> Tensor:
        """Return X @ W + b of a batch that `corrupt` returned."""
        return weighted_sum(corrupted, self.weight, self.sparse) + self.bias


class ItemOutput(nn.Module):
    """Last layer: codes (rows, width) -> logits (rows, items), and the multinomial loss without holding all logits.

    With a `sampler` the loss is over candidates (see recsys.models.autoencoders.sampled_softmax).
    """

    def __init__(self, items: int, width: int):
        super().__init__()
        self.sampler: CandidateSampler | None = None
        self.working: Tensor | None = None  # the weight in bfloat16 (mixed_precision), which then gets the gradient
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(items, width)))
        self.bias = nn.Parameter(torch.zeros(items))

    def forward(self, codes: Tensor) -> Tensor:
        """Return logits (rows, items)."""
        return F.linear(codes.to(self.weight.dtype), self.weight, self.bias)

    def blocks(self, codes: Tensor, width: int) -> Iterator[Tensor]:
        """Yield logits of up to `width` items at a time, in order of position."""
        for weight, bias in zip(torch.split(self.weight, width), torch.split(self.bias, width), strict=True):
            yield F.linear(codes.to(weight.dtype), weight, bias)

    def loss(self, codes: Tensor, target: SparseBatch, smoothing: float = 0.0) -> Tensor:
        """Compute the negative multinomial log-likelihood, -sum_i x_i log softmax(logits)_i, mean over rows.

        Parameters
        ----------
        codes : Tensor, shape (rows, width)
        target : SparseBatch, shape (rows, items)
            x, the counts.
        smoothing : float
            Share s of a row's target, whose sum is n, that is spread over all items: (1 - s) x_i + s n / items. Must
            be 0 with a sampled softmax.

        Returns
        -------
        Tensor
            A scalar, in nats.

        References
        ----------
        Liang et al.: Variational Autoencoders for Collaborative Filtering, WWW 2018, equation 2.
        """
        if self.sampler is None:
            loss = multinomial_loss(codes, self._table(), self.bias, target)
            return loss + smoothing * self._smoothing_term(codes, target) if smoothing else loss
        candidates = self.sampler.draw(target)
        reduced, correction, own = self.sampler.reduce(target, candidates)
        bias = self.bias[candidates] + correction
        return multinomial_loss(codes, gather_rows(self.weight, candidates), bias, reduced, own)

    def _table(self) -> Tensor:
        """The weight that gets the gradient of the loss."""
        if self.working is None:
            return self.weight
        return self.working if self.weight.requires_grad else self.working.detach()

    def _smoothing_term(self, codes: Tensor, target: SparseBatch) -> Tensor:
        """Sum_i x_i (logit_i - mean logit), mean over rows.

        A smoothed loss is the plain one plus s times this, since the normalizer of the softmax cancels: no second pass
        over the catalog is needed.
        """
        sums = target.row_sums(target.values)
        above = weighted_sum(target, self.weight) - sums[:, None] * self.weight.mean(dim=0)
        biases = target.values @ self.bias[target.items] - sums.sum() * self.bias.mean()
        return ((codes * above).sum() + biases) / len(codes)


def multinomial_loss(
    codes: Tensor, weight: Tensor, bias: Tensor, target: SparseBatch, own: Tensor | None = None
) -> Tensor:
    """Compute -sum_i x_i log softmax(codes @ weight.T + bias)_i, mean over rows.

    Parameters
    ----------
    codes : Tensor, shape (rows, width)
    weight : Tensor, shape (items, width)
    bias : Tensor, shape (items,)
    target : SparseBatch, shape (rows, items)
    own : Tensor, shape (cells,), optional
        Added to the logits of the target's cells only.

    Returns
    -------
    Tensor
        A scalar, in nats, differentiable in codes, weight and bias.
    """
    loss: Tensor = _MultinomialLoss.apply(codes, weight, bias, target, own)  # type: ignore[no-untyped-call]
    return loss


def squared_error(codes: Tensor, weight: Tensor, bias: Tensor, target: SparseBatch) -> Tensor:
    """Compute sum_i (y_i - x_i)^2 over all items with y = codes @ weight.T + bias, mean over rows.

    y is never computed: the sum of its squares is codes' (weight' weight) codes plus the terms of the bias.

    Parameters
    ----------
    codes : Tensor, shape (rows, width)
    weight : Tensor, shape (items, width)
    bias : Tensor, shape (items,)
    target : SparseBatch, shape (rows, items)

    Returns
    -------
    Tensor
        A scalar.
    """
    with torch.autocast(codes.device.type, enabled=False):  # large numbers are subtracted
        codes = codes.float()
        squares = ((codes @ (weight.T @ weight) + 2 * (bias @ weight)) * codes).sum() + len(codes) * (bias @ bias)
        own = (codes * weighted_sum(target, weight)).sum() + target.values @ bias[target.items]
        return (squares - 2 * own + target.values @ target.values) / len(codes)


class _MultinomialLoss(torch.autograd.Function):
    """Loss and gradients in one pass of three products; the logits are overwritten by their gradients.

    With n_u = sum of row u's targets x_u, the gradient of the logits is n_u softmax(logits) - x_u. The factor n_u is
    applied to the codes, which are small, so that the stored slopes are softmax - x_u / n_u. Under autocast products
    are in bfloat16; their sums, the softmax and the loss are in float32. Inputs without gradient skip their product.
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
        most = (
            _CHUNK if codes.device.type == "cpu" else _GPU_CHUNK
        )  # with one chunk there is no synchronization with the GPU
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
        # Not kept: autograd takes a gradient without a copy if nothing else refers to it.
        gradients, ctx.gradients = ctx.gradients, None
        if upstream[0].device.type == "cpu" and upstream[0] == 1:  # on a GPU the comparison would synchronize
            return (*gradients, None, None)
        scaled = (None if gradient is None else gradient.mul_(upstream[0]) for gradient in gradients)
        return (*scaled, None, None)


def _slopes(
    codes: Tensor, table: Tensor, shift: Tensor, target: SparseBatch, sums: Tensor, own: Tensor | None, out: Tensor
) -> Tensor:
    """Write softmax(codes @ table.T + shift) - x / n to `out` (rows, items); return the loss, summed over rows."""
    # In bfloat16 a CPU reorders the whole table for each product: few products matter more than the cache.
    in_cache = out.device.type == "cpu" and out.dtype == torch.float32
    block = max(1, min(len(out), _BLOCK // len(table))) if in_cache else len(out)
    loss = torch.zeros((), device=out.device)
    for rows, numbers, part in target.blocks(block):
        cells = (part.rows, part.items)
        p = _logits(codes[rows], table, shift, out[rows])
        if own is not None:
            p[cells] += own[numbers].to(p.dtype)
        torch.softmax(p, dim=1, out=p)  # sums bfloat16 in float32 internally
        found = p[cells].float()
        loss -= (found.clamp_min(_TINY).log() * part.values).sum()
        p[cells] = (found - part.values / sums[rows][part.rows]).to(p.dtype)
    return loss


def _logits(codes: Tensor, table: Tensor, shift: Tensor, out: Tensor) -> Tensor:
    """codes @ table.T + shift, written to `out`."""
    if (
        out.device.type == "cpu" and out.dtype == torch.bfloat16
    ):  # adding the shift inside the product takes twice as long
        return torch.mm(codes, table.T, out=out).add_(shift)
    return torch.addmm(shift, codes, table.T, out=out)


def _sum(total: Tensor | None, more: Tensor) -> Tensor:
    """total + more, in float32; `more` itself where there is no total yet."""
    return more if total is None else total.float().add_(more)
