"""The gradient loop: batches cut from a CSR matrix on the device, early stopping, best weights kept.

A model brings a network and says what one epoch is (`one_pass` for most); `train` repeats it, asks the validation
function after each epoch, stops when patience runs out and puts the best weights back.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from recsys.errors import ConfigError, DataError
from recsys.system.memory import freed_memory_kept
from recsys.training.batches import SparseBatch, SparseRows
from recsys.training.context import Epoch, TrainingContext
from recsys.types import ScoreFunction

logger = logging.getLogger(__name__)


class Optimizer(Protocol):
    """What a step needs of an optimizer."""

    def zero_grad(self) -> None:
        """Forget the gradients."""

    def step(self) -> object:
        """Move the weights."""


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Batches that hold all rows."""
    return math.ceil(rows / batch_size)


def one_pass(
    rows: SparseRows,
    batch_size: int,
    loss: Callable[[SparseBatch], Tensor],
    optimizer: Optimizer,
    context: TrainingContext,
) -> float:
    """One step of the optimizer for every batch of shuffled rows. Returns the mean of the loss over rows.

    `batch_size` counts the rows of all processes of the context's group; `loss` is given this one's.
    """
    group = context.group
    steps = steps_per_epoch(len(rows), batch_size)
    total = torch.zeros((), device=rows.offsets.device)
    for step, batch in enumerate(rows.shuffled(batch_size, group), start=1):
        size = min(batch_size, len(rows) - (step - 1) * batch_size)
        optimizer.zero_grad()
        value = loss(batch) * group.weight(size)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += value.detach() * size
        context.on_step(step, steps)
    group.all_reduce([total])
    return float(total) / len(rows)


def train(
    network: nn.Module, one_epoch: Callable[[], float], score: ScoreFunction, epochs: int, context: TrainingContext
) -> list[Epoch]:
    """Run `one_epoch` up to `epochs` times; the network ends with the weights of the best validation value.

    Raises ConfigError when the loss is no longer a number, DataError when the validation value is none.
    """
    history: list[Epoch] = []
    best_value, best_number, best_weights = -math.inf, 0, None
    with freed_memory_kept():
        for number in range(1, min(epochs, context.stop_after or epochs) + 1):
            started = time.perf_counter()
            network.train()
            loss = one_epoch()
            trained = time.perf_counter()
            if not math.isfinite(loss):
                raise ConfigError(f"Expected a finite loss, found {loss} in epoch {number}: lower the learning_rate.")
            network.eval()
            value = context.validate(score) if context.validate and context.group.is_main else None
            value = context.group.broadcast_value(value)
            if value is not None and math.isnan(value):
                raise DataError("Expected a validation value, found NaN: no validation user has anything held out.")
            better = value is not None and value > best_value
            if value is not None and better:
                best_value, best_number, best_weights = value, number, _copy_weights(network, best_weights)
            history.append(Epoch(number, loss, value, trained - started, time.perf_counter() - trained, better))
            context.on_epoch(history[-1], epochs)
            if value is not None and number - best_number >= context.patience:
                logger.info("stopped after epoch %d: no better value since epoch %d", number, best_number)
                break
    if best_weights is not None:
        network.load_state_dict(best_weights)
    network.eval()
    return history


def _copy_weights(network: nn.Module, into: dict[str, Tensor] | None) -> dict[str, Tensor]:
    """A copy of the network's weights, in the memory of an earlier copy where there is one."""
    if into is None:
        return {name: weight.detach().clone() for name, weight in network.state_dict().items()}
    for name, weight in network.state_dict().items():
        into[name].copy_(weight)
    return into
