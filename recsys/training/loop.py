"""The training loop: epochs, validation, early stopping, best weights restored.

A model provides a network and a function that trains one epoch (`one_pass` for most); `train` repeats it, calls the
validation function after each epoch, stops when patience runs out and restores the best weights.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn

from recsys.errors import ConfigError, DataError
from recsys.system.memory import keep_freed_memory
from recsys.training.batches import SparseBatch, SparseRows
from recsys.training.context import Epoch, TrainingContext
from recsys.training.parts import State, check_like, copy_into
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
    group, place = context.group, context.checkpoints.place
    if (known := place.finished_loss()) is not None:
        return known
    steps = steps_per_epoch(len(rows), batch_size)
    done, total = place.enter(rows.offsets.device)
    batches = rows.shuffled(batch_size, group, done)
    place.go_on()
    for step, batch in enumerate(batches, start=done + 1):
        size = min(batch_size, len(rows) - (step - 1) * batch_size)
        optimizer.zero_grad()
        value = loss(batch) * group.weight(size)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += value.detach() * size
        place.step = step
        context.on_step(step, steps)
        context.checkpoints.offer(within_epoch=True)
    group.all_reduce([total])
    mean = float(total) / len(rows)
    place.leave(mean)
    return mean


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
    record, place = EpochRecord(network), context.checkpoints.place
    context.checkpoints.keep(network=network, record=record)
    if context.checkpoints.restore():
        context.on_resume(record.epochs, epochs)
    last = min(epochs, context.stop_after or epochs)
    while len(record.epochs) < last and not record.is_out_of_patience(context.patience):
        number, started = len(record.epochs) + 1, time.perf_counter() - place.seconds
        network.train()
        loss = one_epoch()
        place.clear()
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
        epoch = record.add(loss, value, trained - started, time.perf_counter() - trained)
        context.on_epoch(epoch, epochs)
        context.checkpoints.offer()
    record.restore_best()
    network.eval()
    return record.epochs


class EpochRecord:
    """The epochs that are done, and the weights of the best one.

    Parameters
    ----------
    network : Module
        Whose weights are kept.

    Attributes
    ----------
    epochs : list of Epoch
    """

    def __init__(self, network: nn.Module):
        self.epochs: list[Epoch] = []
        self._network = network
        self._best_weights: dict[str, Tensor] = {}

    @property
    def best(self) -> Epoch | None:
        """The epoch with the best validation value, the first of equals; None without validation."""
        return next((epoch for epoch in reversed(self.epochs) if epoch.best), None)

    def add(self, loss: float, value: float | None, train_seconds: float, validate_seconds: float) -> Epoch:
        """Record an epoch; copy the weights if it is the best so far."""
        highest = -math.inf if self.best is None or self.best.value is None else self.best.value
        better = value is not None and value > highest
        epoch = Epoch(len(self.epochs) + 1, loss, value, train_seconds, validate_seconds, better)
        self.epochs.append(epoch)
        if better:
            self._keep_weights()
        return epoch

    def is_out_of_patience(self, patience: int) -> bool:
        """Whether no value was better for as many epochs as patience allows."""
        if not self.epochs or self.epochs[-1].value is None:
            return False
        last, best = len(self.epochs), 0 if self.best is None else self.best.number
        if last - best >= patience:
            logger.info("stopped after epoch %d: no better validation value since epoch %d", last, best)
        return last - best >= patience

    def restore_best(self) -> None:
        """Bring the network to the weights of the best epoch, if there is one."""
        if self._best_weights:
            self._network.load_state_dict(self._best_weights)

    def _keep_weights(self) -> None:
        """Copy the network's weights, into the memory of an earlier copy."""
        weights = self._network.state_dict()
        if not self._best_weights:
            self._best_weights = {name: weight.detach().clone() for name, weight in weights.items()}
        for name, weight in weights.items():
            self._best_weights[name].copy_(weight)

    def get_state(self) -> State:
        """Return the epochs and the weights of the best one."""
        return with_epochs({f"best.{name}": kept for name, kept in self._best_weights.items()}, self.epochs)

    def set_state(self, state: State) -> None:
        """Take the epochs and the weights of the best one."""
        best, self.epochs = without_epochs(state)
        if best:
            self._keep_weights()
            copy_into({f"best.{name}": kept for name, kept in self._best_weights.items()}, best)


_EPOCHS = "epochs"  # a table, float64 (epochs, 6): what an Epoch holds, and whether it has a value


def with_epochs(state: State, epochs: Sequence[Epoch]) -> dict[str, Tensor]:
    """Return a state with a record of epochs as one more tensor."""
    rows = [(e.loss, e.value or 0.0, e.value is not None, e.train_seconds, e.validate_seconds, e.best) for e in epochs]
    return {**state, _EPOCHS: torch.tensor(rows, dtype=torch.float64).reshape(len(rows), 6)}


def without_epochs(state: State) -> tuple[dict[str, Tensor], list[Epoch]]:
    """Return the state that `with_epochs` was given, and the record; DataError if there is none."""
    rest = dict(state)
    rows = rest.pop(_EPOCHS, torch.empty(0))
    check_like(_EPOCHS, rows, (len(rows), 6), torch.float64, finite=False)
    epochs = [
        Epoch(number, loss, value if has_value else None, train_seconds, validate_seconds, bool(best))
        for number, (loss, value, has_value, train_seconds, validate_seconds, best) in enumerate(rows.tolist(), start=1)
    ]
    return rest, epochs


def iterate(
    step: Callable[..., tuple[Tensor, ...]], start: tuple[Tensor, ...], times: int, context: TrainingContext
) -> tuple[Tensor, ...]:
    """Apply a step to tensors `times` times, for models that alternate between two sides.

    Parameters
    ----------
    step : callable
        Takes and returns the tensors; nothing else may change in it.
    start : tuple of Tensor
    times : int
    context : TrainingContext
        Its `on_phase` is called after each time, and a checkpoint offered.

    Returns
    -------
    tuple of Tensor
    """
    progress = _Iterations(start)
    context.checkpoints.keep(iterations=progress)
    context.checkpoints.restore()
    context.on_phase("iterations", progress.done, times)
    while progress.done < times:
        progress.tensors, progress.done = step(*progress.tensors), progress.done + 1
        context.on_phase("iterations", progress.done, times)
        context.checkpoints.offer()
    return progress.tensors


class _Iterations:
    """Tensors, and how many steps were applied to them."""

    def __init__(self, tensors: tuple[Tensor, ...]):
        self.tensors, self.done = tensors, 0

    def get_state(self) -> State:
        return {"done": torch.tensor(self.done), **{str(n): tensor for n, tensor in enumerate(self.tensors)}}

    def set_state(self, state: State) -> None:
        own = {"done": torch.tensor(0), **{str(n): torch.empty_like(tensor) for n, tensor in enumerate(self.tensors)}}
        copy_into(own, state)
        self.done, self.tensors = int(own.pop("done")), tuple(own.values())
