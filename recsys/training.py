"""The gradient loop: batches cut from a CSR matrix on the device, early stopping, best weights kept.

A model brings a network and says what one epoch is (`one_pass` for most); `train` repeats it, asks the validation
function after each epoch, stops when patience runs out and puts the best weights back.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from recsys.errors import ConfigError, DataError
from recsys.memory import freed_memory_kept
from recsys.processes import ALONE, Group
from recsys.topn import ScoreFunction

logger = logging.getLogger(__name__)

# A function of a score function that says how good it is, higher is better; recsys.evaluation makes one.
Validate = Callable[[ScoreFunction], float]


@runtime_checkable
class SampledValidate(Protocol):
    """A Validate that can make do with some of its users."""

    def __call__(self, score: ScoreFunction) -> float:
        """How good the score function is."""

    def sample(self, users: int) -> Validate:
        """The same over so many users at most."""


@dataclass(frozen=True)
class Epoch:
    """What one epoch brought: mean training loss, validation value (None without one), seconds of each."""

    number: int  # from 1
    loss: float
    value: float | None
    train_seconds: float
    validate_seconds: float
    best: bool  # the best so far


def _ignore_step(step: int, steps: int) -> None:
    """Nothing."""


def _ignore_epoch(epoch: Epoch, epochs: int) -> None:
    """Nothing."""


@dataclass(frozen=True)
class TrainingContext:
    """How this run happens; never saved with the model.

    validate: called after every epoch with the score function; without it all epochs run and the last weights stay.
    patience: epochs without a better value before the loop stops. stop_after: stop after so many epochs in any case,
    schedules being those of all of them. on_step and on_epoch are told the progress. group: the processes that train
    this model together; the main one validates for all.
    """

    seed: int = 0
    device: str = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    validate: Validate | None = None
    patience: int = 10
    stop_after: int | None = None
    group: Group = ALONE
    on_step: Callable[[int, int], None] = field(default=_ignore_step)
    on_epoch: Callable[[Epoch, int], None] = field(default=_ignore_epoch)

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise ConfigError(f"Expected patience of at least 1 epoch, found {self.patience}.")
        if self.stop_after is not None and self.stop_after < 1:
            raise ConfigError(f"Expected stop_after of at least 1 epoch, found {self.stop_after}.")
        if self.precision not in ("fp32", "bf16"):
            raise ConfigError(f"Expected precision fp32 or bf16, found {self.precision!r}.")

    def resolve_device(self) -> torch.device:
        """The device asked for; `auto` is the GPU when there is one. Raises ConfigError where it cannot be had."""
        name = self.device if self.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cuda" and self.group.size > 1:
            name = f"cuda:{self.group.local_rank}"
        try:
            torch.empty(0, device=name)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(
                f"Expected a device such as auto, cpu or cuda:0; {name!r} cannot be used here."
            ) from error
        return torch.device(name)


@dataclass(frozen=True)
class SparseBatch:
    """Some rows of a sparse matrix: items (cells,) int64, values (cells,) float32, offsets (rows + 1,) int64."""

    items: Tensor
    values: Tensor
    offsets: Tensor

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        """Cells in each row, int64 (rows,)."""
        return self.offsets.diff()

    @property
    def rows(self) -> Tensor:
        """Row number of each cell, int64 (cells,)."""
        ids = torch.arange(len(self), device=self.items.device)
        return ids.repeat_interleave(self.lengths, output_size=len(self.items))

    def blocks(self, size: int) -> Iterator[tuple[slice, slice, SparseBatch]]:
        """The batch in blocks of `size` rows: which rows, which cells, and the batch of them."""
        if size >= len(self):  # asks nothing of the device
            yield slice(0, len(self)), slice(0, len(self.items)), self
            return
        starts = range(0, len(self), size)
        bounds = [*self.offsets[::size].tolist()[: len(starts)], len(self.items)]
        for i, start in enumerate(starts):
            rows, cells = slice(start, min(start + size, len(self))), slice(bounds[i], bounds[i + 1])
            offsets = self.offsets[rows.start : rows.stop + 1] - bounds[i]
            yield rows, cells, SparseBatch(self.items[cells], self.values[cells], offsets)

    def row_sums(self, per_cell: Tensor) -> Tensor:
        """Sum of a value a cell over each row, (rows,)."""
        return torch.zeros(len(self), device=per_cell.device, dtype=per_cell.dtype).index_add_(0, self.rows, per_cell)


class SparseRows:
    """A CSR matrix (users, items) held on the device whole; batches of rows are cut from it there."""

    def __init__(self, matrix: csr_matrix, device: torch.device):
        self.offsets = torch.as_tensor(matrix.indptr, device=device).long()
        self.items = torch.as_tensor(matrix.indices, device=device)
        self.values = torch.as_tensor(matrix.data, device=device, dtype=torch.float32)
        self.lengths = torch.as_tensor(matrix.indptr).diff()  # on the host, so that a GPU is never asked and waited for

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def everything(self) -> SparseBatch:
        """All rows as one batch."""
        return SparseBatch(self.items.long(), self.values, self.offsets)

    def cut(self, rows: Tensor, cells: int | None = None) -> SparseBatch:
        """The given rows, int64 (batch,), in that order. `cells`: how many they have, where that is known."""
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        cells = int(offsets[-1]) if cells is None else cells
        place = (starts - offsets[:-1]).repeat_interleave(lengths, output_size=cells)
        place += torch.arange(cells, device=rows.device)
        return SparseBatch(self.items[place].long(), self.values[place], offsets)

    def shuffled(self, batch_size: int, group: Group = ALONE) -> Iterator[SparseBatch]:
        """All rows in a new random order, the group's share of `batch_size` at a time; the last may be smaller."""
        order = torch.randperm(len(self))
        group.copy_main([order])  # dropout, another number of draws in each process, has moved their streams apart
        on_device = order.to(self.offsets.device)
        for rows, known in zip(torch.split(on_device, batch_size), torch.split(order, batch_size), strict=True):
            yield self.cut(group.share(rows), int(self.lengths[group.share(known)].sum()))


class Optimiser(Protocol):
    """What a step needs of an optimiser."""

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
    optimiser: Optimiser,
    context: TrainingContext,
) -> float:
    """One step of the optimiser for every batch of shuffled rows. Returns the mean of the loss over rows.

    `batch_size` counts the rows of all processes of the context's group; `loss` is given this one's.
    """
    group = context.group
    steps = steps_per_epoch(len(rows), batch_size)
    total = torch.zeros((), device=rows.offsets.device)
    for step, batch in enumerate(rows.shuffled(batch_size, group), start=1):
        size = min(batch_size, len(rows) - (step - 1) * batch_size)
        optimiser.zero_grad()
        value = loss(batch) * group.weight(size)
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        total += value.detach() * size
        context.on_step(step, steps)
    group.add_up([total])
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
            value = context.group.main_says(value)
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
