"""The two ends of an autoencoder over a catalog: a sparse input, and an output with the loss of its likelihood.

The input is never made dense: the rows of weights of a history's items are added up. The output is dense by nature,
users x items; it is computed once, in bounded memory, together with its gradients.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.models.autoencoders.likelihood import Likelihood, log_loss
from recsys.models.autoencoders.sampled_softmax import CandidateSampler, gather_rows
from recsys.training.batches import SparseBatch, weighted_sum


class ScaledBatch(SparseBatch):
    """Rows that `SparseInput` takes as they are: they are scaled already, and nothing is hidden."""


class SparseInput(nn.Module):
    """First layer: rows scaled to length 1 (L2), dropout on their items, then X @ W + b -> (rows, width).

    Parameters
    ----------
    items, width : int
        Shape of W.
    dropout : float
        Each item is hidden with this probability in training, and the others are scaled by 1 / (1 - dropout).
    normalize : bool
        Whether rows are scaled to length 1; without it the input is the values themselves.

    Attributes
    ----------
    sparse : bool
        The gradient of W holds only the rows of the batch's items (see recsys.models.autoencoders.sampled_softmax).
    """

    def __init__(self, items: int, width: int, dropout: float, normalize: bool = True):
        super().__init__()
        self.sparse, self.normalize = False, normalize
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(items, width)))
        self.bias = nn.Parameter(torch.zeros(width))
        self.dropout = dropout

    def forward(self, batch: SparseBatch) -> Tensor:
        """Return (rows, width) for a batch (rows, items)."""
        return self.project(self.corrupt(batch))

    def corrupt(self, batch: SparseBatch) -> SparseBatch:
        """Scale the rows and apply dropout; hidden cells stay, with value 0. A ScaledBatch is returned as it is."""
        if isinstance(batch, ScaledBatch):
            return batch
        values = batch.values
        if self.normalize:
            norms = batch.row_sums(values.square()).sqrt().clamp_min(1e-12)
            values = values / norms.repeat_interleave(batch.lengths, output_size=len(values))
        return SparseBatch(batch.items, F.dropout(values, self.dropout, self.training), batch.offsets)

    def project(self, corrupted: SparseBatch) -> Tensor:
        """Return X @ W + b of a batch that `corrupt` returned."""
        return weighted_sum(corrupted, self.weight, self.sparse) + self.bias


class ItemOutput(nn.Module):
    """Last layer: codes (rows, width) -> scores (rows, items), and their loss without holding all scores.

    With a `sampler` the multinomial loss is over candidates (see recsys.models.autoencoders.sampled_softmax).

    Parameters
    ----------
    items, width : int
        Shape of the weights.
    likelihood : {"multinomial", "bernoulli", "gaussian"}
        Of the cells of a row (see recsys.models.autoencoders.likelihood).
    temperature : float, optional
        The vectors of the items are scaled to length 1 / temperature; with codes that `directions` returned, scores
        are then cosines divided by the temperature, plus the bias. None: the vectors are the weights themselves.
    """

    def __init__(
        self, items: int, width: int, likelihood: Likelihood = "multinomial", temperature: float | None = None
    ):
        super().__init__()
        self.likelihood, self.temperature = likelihood, temperature
        self.sampler: CandidateSampler | None = None
        self.working: Tensor | None = None  # the weight in bfloat16 (mixed_precision), which then gets the gradient
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(items, width)))
        self.bias = nn.Parameter(torch.zeros(items))

    def directions(self, codes: Tensor) -> Tensor:
        """Scale codes (rows, width) to length 1 if scores are cosines; the other methods take such codes."""
        return codes if self.temperature is None else F.normalize(codes, dim=1)

    def vectors(self) -> Tensor:
        """Return the vectors of the items (items, width): scores = codes @ vectors.T + bias."""
        return self._scaled(self.weight)

    @property
    def keeps_bf16(self) -> bool:
        """Whether a copy of the weight in bfloat16 can replace it: not if its rows are sampled, or scaled each time."""
        return self.sampler is None and self.temperature is None

    def _scaled(self, weight: Tensor) -> Tensor:
        return weight if self.temperature is None else F.normalize(weight, dim=1) / self.temperature

    def forward(self, codes: Tensor) -> Tensor:
        """Return scores (rows, items)."""
        return F.linear(codes.to(self.weight.dtype), self.vectors(), self.bias)

    def blocks(self, codes: Tensor, width: int) -> Iterator[Tensor]:
        """Yield scores of up to `width` items at a time, in order of position."""
        for weight, bias in zip(torch.split(self.weight, width), torch.split(self.bias, width), strict=True):
            yield F.linear(codes.to(weight.dtype), self._scaled(weight), bias)

    def loss(self, codes: Tensor, target: SparseBatch, smoothing: float = 0.0) -> Tensor:
        """Compute the negative log-likelihood of rows, mean over rows.

        Parameters
        ----------
        codes : Tensor, shape (rows, width)
        target : SparseBatch, shape (rows, items)
            x, the cells.
        smoothing : float
            Share s of a row's target, whose sum is n, that is spread over all items: (1 - s) x_i + s n / items. Must
            be 0 with a sampled softmax and with another likelihood than the multinomial one.

        Returns
        -------
        Tensor
            A scalar, in nats.

        References
        ----------
        Liang et al.: Variational Autoencoders for Collaborative Filtering, WWW 2018, equation 2.
        """
        if self.sampler is None:
            table = self.weight if self.likelihood == "gaussian" else self._table()  # its sums need float32
            loss = log_loss(self.likelihood, codes, table, self.bias, target)
            return loss + smoothing * self._smoothing_term(codes, target) if smoothing else loss
        candidates = self.sampler.draw(target)
        reduced, correction, own = self.sampler.reduce(target, candidates)
        bias = self.bias[candidates] + correction
        return log_loss(self.likelihood, codes, self._scaled(gather_rows(self.weight, candidates)), bias, reduced, own)

    def _table(self) -> Tensor:
        """The vectors of the items that get the gradient of the loss."""
        if self.working is None:
            return self.vectors()
        return self.working if self.weight.requires_grad else self.working.detach()

    def _smoothing_term(self, codes: Tensor, target: SparseBatch) -> Tensor:
        """Sum_i x_i (logit_i - mean logit), mean over rows.

        A smoothed loss is the plain one plus s times this, since the normalizer of the softmax cancels: no second pass
        over the catalog is needed.
        """
        sums = target.row_sums(target.values)
        vectors = self.vectors()
        above = weighted_sum(target, vectors) - sums[:, None] * vectors.mean(dim=0)
        biases = target.values @ self.bias[target.items] - sums.sum() * self.bias.mean()
        return ((codes * above).sum() + biases) / len(codes)
