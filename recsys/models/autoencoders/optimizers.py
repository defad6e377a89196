"""The optimizer of a network: Adam, and others for tables with sparse gradients and for bfloat16 on a CPU."""

from __future__ import annotations

from torch import nn

from recsys.models.autoencoders.layers import ItemOutput
from recsys.models.autoencoders.mixed_precision import MixedAdam
from recsys.models.autoencoders.sampled_softmax import ItemTable, RowAdam
from recsys.training.adam import Adam
from recsys.training.loop import Optimizer


class CombinedOptimizer:
    """Several optimizers behind the interface of one."""

    def __init__(self, optimizers: list[Optimizer]):
        self.optimizers = optimizers

    def zero_grad(self) -> None:
        """Reset the gradients of all."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def step(self) -> None:
        """Take a step with each."""
        for optimizer in self.optimizers:
            optimizer.step()


def outputs_of(network: nn.Module) -> list[ItemOutput]:
    """Return the output layers of a network."""
    return [part for part in network.modules() if isinstance(part, ItemOutput)]


def make_optimizer(
    network: nn.Module,
    tables: list[ItemTable],
    learning_rate: float,
    l2: float,
    mixed: bool = False,
    beta2: float = 0.999,
) -> Optimizer:
    """Create the optimizer of a network.

    Parameters
    ----------
    network : Module
    tables : list of ItemTable
        Weights with sparse gradients; they get RowAdam, all others Adam.
    learning_rate, l2, beta2 : float
        Of Adam; the gradient of each weight w gets l2 * w.
    mixed : bool
        Use MixedAdam for the output tables (bfloat16 on a CPU).

    Returns
    -------
    Optimizer
    """
    betas = 0.9, beta2
    outputs = [output for output in outputs_of(network) if mixed and output.keeps_bf16]
    special = [*(table.weight for table in tables), *(output.weight for output in outputs)]
    others = [weight for weight in network.parameters() if all(weight is not other for other in special)]
    fused = others[0].device.type in ("cpu", "cuda")
    optimizers: list[Optimizer] = [Adam(others, lr=learning_rate, betas=betas, weight_decay=l2, fused=fused)]
    if tables:
        optimizers.append(RowAdam(tables, learning_rate, betas))
    for output in outputs:
        one = MixedAdam(output.weight, learning_rate, l2, betas)
        optimizers.append(one)
        output.working = one.working
    return CombinedOptimizer(optimizers) if len(optimizers) > 1 else optimizers[0]
