"""Large catalogs: a softmax over candidates instead of all items, and an optimizer that touches only their rows.

A step then costs what the items of its batch cost, not what the catalog does. All positives of the batch are
candidates, and `negatives` items drawn evenly from the catalog. The partition function is estimated from them: each
candidate weighs 1 / (probability of being one), which is the logQ correction (Bengio, Senecal 2008, IEEE Transactions
on Neural Networks 19) for the way we draw. Without it popular items, which are candidates more often, would be pushed
down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.training.batches import SparseBatch, SparseRows


class CandidateSampler:
    """Draws candidates for batches of `batch_size` rows of a matrix (users, items), and knows how likely each was."""

    def __init__(self, rows: SparseRows, items: int, batch_size: int, negatives: int):
        self.items, self.negatives = items, negatives
        counts = torch.bincount(rows.items.long(), minlength=items).double()
        not_in_batch = _log_chance_of_absence(counts, len(rows), min(batch_size, len(rows)))
        not_drawn = negatives * math.log1p(-1 / items) if items > 1 else -math.inf
        # log of 1 - P(in no row of the batch) P(never drawn): float64, since rare items have tiny probabilities.
        self.log_chance = torch.log(-torch.expm1(not_in_batch + not_drawn)).float()

    @property
    def pace(self) -> Tensor:
        """How much further than others the row of an item must move when it is a candidate, (items,).

        Its gradient is then 1 / chance times as large: right on average, but the mean of its squares, by whose root
        Adam divides, is 1 / chance times too large.
        """
        return torch.exp(-0.5 * self.log_chance)

    def draw(self, batch: SparseBatch) -> Tensor:
        """Distinct item positions, sorted, int64 (candidates,): those of the batch and the negatives."""
        drawn = torch.randint(self.items, (self.negatives,), device=batch.items.device)
        return cast(Tensor, torch.unique(torch.cat([batch.items, drawn])))

    def reduce(self, batch: SparseBatch, candidates: Tensor) -> tuple[SparseBatch, Tensor, Tensor]:
        """The batch over the candidates; what to add to each candidate's logit; and to each positive's own.

        A row's own items are candidates for certain: their correction is taken back.
        """
        columns = torch.searchsorted(candidates, batch.items)
        chance = self.log_chance[candidates]
        return SparseBatch(columns, batch.values, batch.offsets), -chance, chance[columns]


def _log_chance_of_absence(counts: Tensor, users: int, batch: int) -> Tensor:
    """log of C(users - count, batch) / C(users, batch): that a batch holds none of an item's users."""
    others = users - counts
    log_chance = torch.lgamma(others + 1) - torch.lgamma((others - batch).clamp_min(0) + 1)
    log_chance -= math.lgamma(users + 1) - math.lgamma(users - batch + 1)
    return torch.where(others < batch, -torch.inf, log_chance)


@dataclass(frozen=True)
class ItemTable:
    """A weight (items, width) whose gradients are sparse. pace (items,): its rows move so many times further."""

    weight: nn.Parameter
    pace: Tensor | None = None


class RowAdam(torch.optim.Optimizer):
    """Adam for item tables with sparse gradients: only the rows in the gradient move.

    Keeps a momentum a weight, in bfloat16, but one squared gradient a row (their mean over the row): it needs a quarter
    of Adam's memory. As in Adam, squares fade at every step: a row that is seldom touched moves further when it is. Its
    momentum rests meanwhile.
    """

    def __init__(self, tables: list[ItemTable], lr: float, betas: tuple[float, float] = (0.9, 0.999)):
        groups = [{"params": [table.weight], "pace": table.pace} for table in tables]
        super().__init__(groups, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move the rows that have a gradient."""
        for group in self.param_groups:
            (table,) = group["params"]
            if table.grad is not None:
                self._move(table, table.grad.coalesce(), group["pace"], group["lr"], *group["betas"])

    def _move(
        self, table: nn.Parameter, gradient: Tensor, pace: Tensor | None, rate: float, beta1: float, beta2: float
    ) -> None:
        state = self.state[table]
        if not state:
            state["now"] = 0
            state["momentum"] = torch.zeros_like(table, dtype=torch.bfloat16)
            for name in ("square", "touched", "last"):
                state[name] = torch.zeros(len(table), device=table.device)
        state["now"] += 1
        rows, slopes = gradient.indices()[0], gradient.values()
        touched = state["touched"].index_add_(0, rows, torch.ones_like(rows, dtype=torch.float32))[rows]
        means = torch.linalg.vector_norm(slopes, dim=1).square_() / slopes.shape[1]
        faded = beta2 ** (state["now"] - state["last"][rows])
        square = state["square"][rows].mul_(faded).add_(means, alpha=1 - beta2)
        momentum = state["momentum"][rows].float().lerp_(slopes, 1 - beta1)
        state["square"][rows], state["momentum"][rows], state["last"][rows] = square, momentum.bfloat16(), state["now"]
        scale = rate / (1 - beta1**touched) / ((square / (1 - beta2 ** state["now"])).sqrt() + 1e-8)
        if pace is not None:
            scale *= pace[rows]
        table.index_add_(0, rows, momentum.mul_(-scale[:, None]))


def gather_rows(table: Tensor, rows: Tensor) -> Tensor:
    """table[rows], whose gradient is sparse."""
    return F.embedding(rows, table, sparse=True)
