"""The training loop: epochs, validation, early stopping, best weights restored.

A model provides a network and a function that trains one epoch (`one_pass` for most); `train` repeats it, calls the
validation function after each epoch, stops when patience runs out and restores the best weights.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn

from recsys.errors import ConfigError, DataError
from recsys.system.memory import keep_freed_memory
from recsys.training.batches import SparseBatch, SparseRows
from recsys.training.context import Epoch, TrainingContext
from recsys.types import ScoreFunction

logger = logging.getLogger(__name__)


class Optimizer(Protocol):
    """The methods of an optimizer that a step uses."""

    def zero_grad(self) -> None:
        """Reset the gradients."""

    def step(self) -> object:
        """Update the weights."""


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Return the number of batches that cover all rows."""
    return math.ceil(rows / batch_size)


def one_pass(
    rows: SparseRows,
    batch_size: int,
    loss: Callable[[SparseBatch], Tensor],
    optimizer: Optimizer,
    context: TrainingContext,
) -> float:
    """Take one optimizer step for every batch of shuffled rows.

    Parameters
    ----------
    rows : SparseRows
    batch_size : int
        Rows of a batch, over all processes of the context's group.
    loss : callable
        Mean loss of this process's rows of a batch.
    optimizer : Optimizer
    context : TrainingContext

    Returns
    -------
    float
        Mean loss over all rows.
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
    """Train for up to `epochs` epochs and restore the weights of the best validation value.

    Parameters
    ----------
    network : Module
        Its state is what is kept; without validation, the last one.
    one_epoch : callable
        Trains for one epoch and returns the mean loss.
    score : ScoreFunction
        What `context.validate` is called with.
    epochs : int
    context : TrainingContext

    Returns
    -------
    list of Epoch

    Raises
    ------
    ConfigError
        If the loss is not finite.
    DataError
        If the validation value is NaN.
    """
    memory = keep_freed_memory() if context.keep_freed_memory else nullcontext()
    with memory:
        return _train(network, one_epoch, score, epochs, context)


def _train(
    network: nn.Module, one_epoch: Callable[[], float], score: ScoreFunction, epochs: int, context: TrainingContext
) -> list[Epoch]:
    done: list[Epoch] = []
    best_value, best_number, best_weights = -math.inf, 0, None
    for number in range(1, min(epochs, context.stop_after or epochs) + 1):
        started = time.perf_counter()
        network.train()
        loss = one_epoch()
        trained = time.perf_counter()
        if not math.isfinite(loss):
            raise ConfigError(
                f"Expected a finite loss, found {loss} in epoch {number}: lower the learning_rate, or scale the values "
                "of the matrix to an ordinary range."
            )
        network.eval()
        value = context.validate(score) if context.validate and context.group.is_main else None
        value = context.group.broadcast_value(value)
        if value is not None and math.isnan(value):
            raise DataError("Expected a validation value, found NaN: no validation user has held-out items.")
        better = value is not None and value > best_value
        if value is not None and better:
            best_value, best_number, best_weights = value, number, _copy_weights(network, best_weights)
        done.append(Epoch(number, loss, value, trained - started, time.perf_counter() - trained, better))
        context.on_epoch(done[-1], epochs)
        if value is not None and number - best_number >= context.patience:
            logger.info("stopped after epoch %d: no better validation value since epoch %d", number, best_number)
            break
    if best_weights is not None:
        network.load_state_dict(best_weights)
    network.eval()
    return done


def _copy_weights(network: nn.Module, into: dict[str, Tensor] | None) -> dict[str, Tensor]:
    """A copy of the network's weights, reusing the memory of an earlier copy."""
    if into is None:
        return {name: weight.detach().clone() for name, weight in network.state_dict().items()}
    for name, weight in network.state_dict().items():
        into[name].copy_(weight)
    return into
