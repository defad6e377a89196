"""What an autoencoder takes a history for, and the loss that follows: the negative log-likelihood of its cells.

| likelihood | a cell is | loss of a row x with scores s | expected value of a cell |
| --- | --- | --- | --- |
| multinomial | a count; the items of a row compete | - sum_i x_i log softmax(s)_i | (sum of x) softmax(s)_i |
| bernoulli | a switch, or its probability: 0 to 1 | sum_i log(1 + exp(s_i)) - x_i s_i | sigmoid(s_i) |
| gaussian | an amount, with noise of variance 1/2 | sum_i (s_i - x_i)^2, constants left out | s_i |

Cells that are not stored are zeros: under a Bernoulli or a Gaussian likelihood they are observed as much as the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.errors import DataError
from recsys.models.config import require
from recsys.training.batches import SparseBatch, weighted_sum

Likelihood = Literal["multinomial", "bernoulli", "gaussian"]
LIKELIHOODS = ("multinomial", "bernoulli", "gaussian")

# Numbers held at once: gradients of the logits (256 MB of float32; more on a GPU), and logits between two float32
# products, few enough to stay in the CPU's cache.
_CHUNK, _GPU_CHUNK = 64_000_000, 512_000_000
_BLOCK = 8_000_000
_TINY = 1e-38  # lower bound of probabilities in the loss: it stays finite, and the gradient is unchanged


def check_likelihood(likelihood: str, *, smoothing: float = 0.0, emphasis: float = 1.0, softmax: str = "full") -> None:
    """Raise ConfigError for an unknown likelihood, and for settings of a multinomial target with another one."""
    require(likelihood in LIKELIHOODS, f"Expected likelihood of {', '.join(LIKELIHOODS)}; found {likelihood!r}.")
    if likelihood == "multinomial":
        return
    other = f"with likelihood={likelihood}, found"
    require(softmax == "full", f"Expected softmax=full {other} {softmax}: only a multinomial likelihood has a softmax.")
    shares = "it moves shares of a row from item to item, and only in a multinomial target do items compete."
    require(not smoothing, f"Expected smoothing of 0 {other} {smoothing}: {shares}")
    require(emphasis == 1, f"Expected emphasis of 1 {other} {emphasis}: {shares}")


def check_cells(likelihood: Likelihood | None, matrix: csr_matrix) -> None:
    """Raise DataError if a matrix (users, items) holds values that the likelihood cannot have."""
    if likelihood == "bernoulli" and matrix.data.max(initial=0) > 1:
        raise DataError(
            f"Expected values from 0 to 1 for likelihood=bernoulli, found {matrix.data.max():g}: divide the values by "
            "the largest, or choose likelihood=gaussian."
        )


def expected_cells(likelihood: Likelihood, scores: Tensor, sums: Tensor | float = 1.0) -> Tensor:
    """Return what the scores say of the cells: the expected value of each.

    Parameters
    ----------
    likelihood : {"multinomial", "bernoulli", "gaussian"}
    scores : Tensor, shape (rows, items)
    sums : Tensor, shape (rows,), or float
        Sums of the rows, which a multinomial likelihood does not predict; 1: the shares of the items.

    Returns
    -------
    Tensor, shape (rows, items)
    """
    if likelihood == "gaussian":
        return scores
    if likelihood == "bernoulli":
        return torch.sigmoid(scores)
    return torch.softmax(scores, dim=1) * torch.as_tensor(sums, device=scores.device).reshape(-1, 1)


def log_loss(
    likelihood: Likelihood,
    codes: Tensor,
    weight: Tensor,
    bias: Tensor,
    target: SparseBatch,
    own: Tensor | None = None,
) -> Tensor:
    """Compute the negative log-likelihood of rows under scores = codes @ weight.T + bias, mean over rows.

    Parameters
    ----------
    likelihood : {"multinomial", "bernoulli", "gaussian"}
    codes : Tensor, shape (rows, width)
    weight : Tensor, shape (items, width)
    bias : Tensor, shape (items,)
    target : SparseBatch, shape (rows, items)
    own : Tensor, shape (cells,), optional
        Added to the scores of the target's cells only; under a multinomial likelihood.

    Returns
    -------
    Tensor
        A scalar, in nats, differentiable in codes, weight and bias.
    """
    if likelihood == "gaussian":
        return squared_error(codes, weight, bias, target)
    loss: Tensor = _FusedLoss.apply(codes, weight, bias, target, own, likelihood)  # type: ignore[no-untyped-call]
    return loss


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


class _FusedLoss(torch.autograd.Function):
    """Loss and gradients in one pass of three products; the scores are overwritten by their gradients.

    With n_u = sum of row u's targets x_u, the gradient of a row's scores is n_u softmax(scores) - x_u under a
    multinomial likelihood, and sigmoid(scores) - x_u under Bernoulli's. The factor n_u (1 for Bernoulli) is applied to
    the codes, which are small, so that the stored slopes are softmax - x_u / n_u. Under autocast products are in
    bfloat16; their sums, the softmax and the loss are in float32. Inputs without gradient skip their product.
    """

    @staticmethod
    def forward(
        ctx: Any,
        codes: Tensor,
        weight: Tensor,
        bias: Tensor,
        target: SparseBatch,
        own: Tensor | None,
        likelihood: Likelihood,
    ) -> Tensor:
        kind = torch.bfloat16 if torch.is_autocast_enabled(codes.device.type) else torch.float32
        codes, table, shift = (tensor.detach().to(kind) for tensor in (codes, weight, bias))
        sums = target.row_sums(target.values).clamp_min(1e-12)
        if likelihood == "bernoulli":
            sums = torch.ones_like(sums)
        slopes_of = _SLOPES[likelihood]
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
            loss += _slopes(codes[rows], table, shift, part, sums[rows], extra, slopes, slopes_of)
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
            return (*gradients, None, None, None)
        scaled = (None if gradient is None else gradient.mul_(upstream[0]) for gradient in gradients)
        return (*scaled, None, None, None)


def _slopes(
    codes: Tensor,
    table: Tensor,
    shift: Tensor,
    target: SparseBatch,
    sums: Tensor,
    own: Tensor | None,
    out: Tensor,
    slopes_of: Callable[[Tensor, SparseBatch, Tensor], Tensor],
) -> Tensor:
    """Write the slopes of the scores codes @ table.T + shift to `out` (rows, items); return the loss, summed over rows.

    `slopes_of` turns scores into slopes, in place, and returns their loss.
    """
    # In bfloat16 a CPU reorders the whole table for each product: few products matter more than the cache.
    in_cache = out.device.type == "cpu" and out.dtype == torch.float32
    block = max(1, min(len(out), _BLOCK // len(table))) if in_cache else len(out)
    loss = torch.zeros((), device=out.device)
    for rows, numbers, part in target.blocks(block):
        scores = _logits(codes[rows], table, shift, out[rows])
        if own is not None:
            scores[part.rows, part.items] += own[numbers].to(scores.dtype)
        loss += slopes_of(scores, part, sums[rows])
    return loss


def _multinomial_slopes(scores: Tensor, target: SparseBatch, sums: Tensor) -> Tensor:
    """Softmax(scores) - x / n, in place."""
    cells = (target.rows, target.items)
    p = torch.softmax(scores, dim=1, out=scores)  # sums bfloat16 in float32 internally
    found = p[cells].float()
    p[cells] = (found - target.values / sums[target.rows]).to(p.dtype)
    return -(found.clamp_min(_TINY).log() * target.values).sum()


def _bernoulli_slopes(scores: Tensor, target: SparseBatch, sums: Tensor) -> Tensor:
    """Sigmoid(scores) - x, in place."""
    cells = (target.rows, target.items)
    loss = F.softplus(scores).sum(dtype=torch.float32) - (scores[cells].float() * target.values).sum()
    p = torch.sigmoid(scores, out=scores)
    p[cells] = (p[cells].float() - target.values).to(p.dtype)
    return loss


_SLOPES = {"multinomial": _multinomial_slopes, "bernoulli": _bernoulli_slopes}


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
