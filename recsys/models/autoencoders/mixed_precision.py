"""bfloat16 on a CPU: a table kept in float32 and used in bfloat16, without extra passes through memory.

Under autocast every step converts the whole table to bfloat16 and its gradient back to float32. Here a step reads a
bfloat16 copy, whose gradient is bfloat16 too; in its single pass over the table Adam converts the gradient and updates
the copy, some rows at a time while they are in the cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

_BLOCK = 1_200_000  # numbers of the table updated at once: with gradient and moments 22 MB, in the last-level cache


class MixedAdam:
    """Adam for one float32 table that is used through a bfloat16 copy, `working`; gradients of both are added.

    Parameters
    ----------
    table : Parameter, shape (rows, width)
    learning_rate : float
    l2 : float
        The gradient of each weight w gets l2 * w.
    betas : tuple of float
        Of Adam.
    """

    def __init__(self, table: nn.Parameter, learning_rate: float, l2: float, betas: tuple[float, float] = (0.9, 0.999)):
        self.table, self.l2, self.betas = table, l2, betas
        self.param_groups = [{"lr": learning_rate}]  # as those of torch's optimizers, for schedules
        self.working = table.detach().bfloat16().requires_grad_()
        rows = max(1, _BLOCK // table.shape[1])
        self._moments = torch.zeros_like(table), torch.zeros_like(table)
        self._blocks = [torch.split(tensor.detach(), rows) for tensor in (table, self.working, *self._moments)]
        self._gradient = torch.empty(rows, table.shape[1])
        self._steps = [torch.zeros(()) for _ in self._blocks[0]]

    def zero_grad(self) -> None:
        """Reset the gradients."""
        self.table.grad = self.working.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update the table and its copy."""
        rows = len(self._gradient)
        found = [torch.split(part.grad, rows) for part in (self.working, self.table) if part.grad is not None]
        if found:
            for number, parts in enumerate(zip(*found, strict=True)):
                self._update(number, parts)

    def slots(self) -> Mapping[Tensor, dict[str, Any]]:
        """Return the state as that of torch's Adam: see `recsys.training.optimizer_state`."""
        mean, square = (moment.detach() for moment in self._moments)
        return {self.table: {"step": self._steps[0], "exp_avg": mean, "exp_avg_sq": square}}

    @torch.no_grad()
    def set_slots(self, weight: Tensor, found: Mapping[str, Tensor]) -> None:
        """Take the state, and the table as it is now into the copy."""
        for step in self._steps:
            step.copy_(found["step"])
        for moment, name in zip(self._moments, ("exp_avg", "exp_avg_sq"), strict=True):
            moment.copy_(found[name])
        self.working.copy_(self.table)

    def _update(self, block: int, gradients: tuple[Tensor, ...]) -> None:
        table, working, mean, square = (blocks[block] for blocks in self._blocks)
        gradient = self._gradient[: len(table)].copy_(gradients[0])
        for more in gradients[1:]:
            gradient += more
        adam(
            [table],
            [gradient],
            [mean],
            [square],
            [],
            [self._steps[block]],
            fused=True,
            amsgrad=False,
            beta1=self.betas[0],
            beta2=self.betas[1],
            lr=self.param_groups[0]["lr"],
            weight_decay=self.l2,
            eps=1e-8,
            maximize=False,
        )
        working.copy_(table)
