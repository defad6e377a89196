"""Sampled softmax for large catalogs: a softmax over candidates, and an optimizer that updates only their rows.

The cost of a step then depends on the items of its batch, not on the catalog. Candidates are all positives of the batch
and `negatives` items drawn uniformly from the catalog. The partition function is estimated from them: each candidate
weighs 1 / (probability of being a candidate), the logQ correction for this way of drawing. Without it popular items,
which are candidates more often, would be scored too low.

Bengio, Senecal: Adaptive Importance Sampling to Accelerate Training of a Neural Probabilistic Language Model, IEEE
Transactions on Neural Networks 19, 2008.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.training.batches import SparseBatch, SparseRows


class CandidateSampler:
    """Draws candidates for the batches of an epoch, and knows the probability of each item to be one.

    Parameters
    ----------
    rows : SparseRows
        The training matrix (users, items).
    items : int
        Size of the catalog.
    batch_size : int
        Rows of a batch.
    negatives : int
        Items drawn uniformly, with replacement, for each batch.
    """

    def __init__(self, rows: SparseRows, items: int, batch_size: int, negatives: int):
        self.items, self.negatives = items, negatives
        counts = torch.bincount(rows.items.long(), minlength=items).double()
        not_in_batch = _log_chance_of_absence(counts, len(rows), min(batch_size, len(rows)))
        not_drawn = negatives * math.log1p(-1 / items) if items > 1 else -math.inf
        # log of 1 - P(in no row of the batch) P(never drawn): float64, since rare items have tiny probabilities.
        self.log_chance = torch.log(-torch.expm1(not_in_batch + not_drawn)).float()

    @property
    def lr_scale(self) -> Tensor:
        """Factor of the learning rate of an item's row when it is a candidate, (items,).

        Its gradient is then 1 / chance times as large: right on average, but the mean of its squares, by whose root
        Adam divides, is 1 / chance times too large.
        """
        return torch.exp(-0.5 * self.log_chance)

    def draw(self, batch: SparseBatch) -> Tensor:
        """Draw candidates: distinct item positions, sorted, int64 (candidates,)."""
        drawn = torch.randint(self.items, (self.negatives,), device=batch.items.device)
        return cast(Tensor, torch.unique(torch.cat([batch.items, drawn])))

    def reduce(self, batch: SparseBatch, candidates: Tensor) -> tuple[SparseBatch, Tensor, Tensor]:
        """Express a batch in terms of its candidates.

        Parameters
        ----------
        batch : SparseBatch, shape (rows, items)
        candidates : Tensor, shape (candidates,)
            As `draw` returned them.

        Returns
        -------
        reduced : SparseBatch, shape (rows, candidates)
        correction : Tensor, shape (candidates,)
            Added to the logits of the candidates.
        own : Tensor, shape (cells,)
            Added to the logits of the positives: a row's own items are always candidates, so that their correction is
            undone.
        """
        columns = torch.searchsorted(candidates, batch.items)
        chance = self.log_chance[candidates]
        return SparseBatch(columns, batch.values, batch.offsets), -chance, chance[columns]


def _log_chance_of_absence(counts: Tensor, users: int, batch: int) -> Tensor:
    """log of C(users - count, batch) / C(users, batch): the probability that a batch has none of an item's users."""
    others = users - counts
    log_chance = torch.lgamma(others + 1) - torch.lgamma((others - batch).clamp_min(0) + 1)
    log_chance -= math.lgamma(users + 1) - math.lgamma(users - batch + 1)
    return torch.where(others < batch, -torch.inf, log_chance)


@dataclass(frozen=True)
class ItemTable:
    """A weight (items, width) with sparse gradients. lr_scale (items,): factor of the learning rate of each row."""

    weight: nn.Parameter
    lr_scale: Tensor | None = None


class RowAdam(torch.optim.Optimizer):
    """Adam for item tables with sparse gradients: only the rows in the gradient are updated.

    It keeps a momentum per weight, in bfloat16, but one squared gradient per row (the mean over the row): a quarter of
    Adam's memory. As in Adam, squares decay at every step, so that a row that is rarely updated takes larger steps; its
    momentum does not decay in between.

    Parameters
    ----------
    tables : list of ItemTable
    lr : float
    betas : tuple of float
    """

    def __init__(self, tables: list[ItemTable], lr: float, betas: tuple[float, float] = (0.9, 0.999)):
        groups = [{"params": [table.weight], "lr_scale": table.lr_scale} for table in tables]
        super().__init__(groups, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update the rows that have a gradient."""
        for group in self.param_groups:
            (table,) = group["params"]
            if table.grad is not None:
                self._update(table, table.grad.coalesce(), group["lr_scale"], group["lr"], *group["betas"])

    def _update(
        self, table: nn.Parameter, gradient: Tensor, lr_scale: Tensor | None, lr: float, beta1: float, beta2: float
    ) -> None:
        state = self._slots_of(table)
        state["now"] += 1
        rows, slopes = gradient.indices()[0], gradient.values()
        updates = state["updates"].index_add_(0, rows, torch.ones_like(rows, dtype=torch.float32))[rows]
        means = torch.linalg.vector_norm(slopes, dim=1).square_() / slopes.shape[1]
        decay = beta2 ** (state["now"] - state["last"][rows])
        square = state["square"][rows].mul_(decay).add_(means, alpha=1 - beta2)
        momentum = state["momentum"][rows].float().lerp_(slopes, 1 - beta1)
        state["square"][rows], state["momentum"][rows], state["last"][rows] = square, momentum.bfloat16(), state["now"]
        scale = lr / (1 - beta1**updates) / ((square / (1 - beta2 ** state["now"])).sqrt() + 1e-8)
        if lr_scale is not None:
            scale *= lr_scale[rows]
        table.index_add_(0, rows, momentum.mul_(-scale[:, None]))

    def _slots_of(self, table: Tensor) -> dict[str, Any]:
        """The state of a table, made before its first update."""
        state: dict[str, Any] = self.state[table]
        if not state:
            state["now"] = 0
            state["momentum"] = torch.zeros_like(table, dtype=torch.bfloat16)
            for name in ("square", "updates", "last"):
                state[name] = torch.zeros(len(table), device=table.device)
        return state

    def slots(self) -> Mapping[Tensor, dict[str, Any]]:
        """Return the state of each table: see `recsys.training.optimizer_state`."""
        return {table: self._slots_of(table) for group in self.param_groups for table in group["params"]}

    def set_slots(self, weight: Tensor, found: Mapping[str, Tensor]) -> None:
        """Take the state of a table."""
        state = self._slots_of(weight)
        state["now"] = int(found["now"])
        for name in ("momentum", "square", "updates", "last"):
            state[name].copy_(found[name])


def gather_rows(table: Tensor, rows: Tensor) -> Tensor:
    """Return table[rows] with a sparse gradient."""
    return F.embedding(rows, table, sparse=True)
