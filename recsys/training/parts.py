"""Parts of a fit: what changes while it runs, as tensors by name, and how it is put back.

Optimizers: recsys.training.optimizer_state. How parts are kept: recsys.training.checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from recsys.errors import DataError

State = Mapping[str, Tensor]


class Part(Protocol):
    """What changes during a fit."""

    def get_state(self) -> State:
        """Return tensors by name, to be written before anything changes."""

    def set_state(self, state: State) -> None:
        """Become what `get_state` was called on. Raises DataError if the tensors are not what they must be."""


def copy_into(place: State, found: State, finite: bool = True) -> None:
    """Copy tensors into those of the same names, types and shapes.

    Parameters
    ----------
    place, found : mapping of str to Tensor
    finite : bool
        Whether NaN and infinity are refused.

    Raises
    ------
    DataError
        If a name, type or shape is another, or a number is not finite.
    """
    if place.keys() != found.keys():
        raise DataError(f"expected {', '.join(sorted(place)) or 'nothing'}; found {', '.join(sorted(found))}")
    for name, tensor in place.items():
        check_like(name, found[name], tensor.shape, tensor.dtype, finite)
        with torch.no_grad():
            tensor.copy_(found[name])


def check_like(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype, finite: bool = True) -> None:
    """Raise DataError unless a tensor has this shape and type, and holds finite numbers if it must."""
    if tensor.shape != shape or tensor.dtype != dtype:
        found = f"{tensor.dtype} {tuple(tensor.shape)}"
        raise DataError(f"expected {name} of {dtype} {tuple(shape)}, found {found}")
    if finite and tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        raise DataError(f"expected finite numbers in {name}")


class Counter:
    """A number of updates, epochs or iterations that are done."""

    def __init__(self, start: int = 0):
        self.value = start

    def next(self) -> int:
        """Return the number and count one more."""
        self.value += 1
        return self.value - 1

    def get_state(self) -> State:
        """Return the number."""
        return {"value": torch.tensor(self.value)}

    def set_state(self, state: State) -> None:
        """Take the number."""
        copy_into(own := {"value": torch.tensor(0)}, state)
        self.value = int(own["value"])


class Weights:
    """A network as a part."""

    def __init__(self, network: nn.Module):
        self.network = network

    def get_state(self) -> State:
        """Return parameters and buffers."""
        state: State = self.network.state_dict()
        return state

    def set_state(self, state: State) -> None:
        """Take parameters and buffers."""
        copy_into(self.network.state_dict(), state)


class EpochPosition:
    """Where in an epoch training is: the losses of its finished passes, and how far the pass that runs is.

    A pass that goes on draws the same order of rows from the generator as it was at its start, leaves out the batches
    that are done, and takes up the generator as it was after them.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin a new epoch."""
        self.losses: list[float] = []
        self.step, self.seconds = 0, 0.0
        self.total = torch.zeros(())
        self.start = torch.empty(0, dtype=torch.uint8)  # the generator at the start of the pass
        self._now: Tensor | None = None  # the generator to take up
        self._skipped = 0
        self._entered = time.perf_counter()

    def finished_loss(self) -> float | None:
        """Return the loss of the next pass if it was finished before an interruption; each is returned once."""
        if self._skipped == len(self.losses):
            return None
        self._skipped += 1
        return self.losses[self._skipped - 1]

    def enter(self, device: torch.device) -> tuple[int, Tensor]:
        """Begin a pass; return the number of its steps that are done, and the sum of their losses."""
        if self._now is None:
            self.step, self.total, self.start = 0, torch.zeros((), device=device), torch.get_rng_state()
        else:
            self.total = self.total.to(device)
            torch.set_rng_state(self.start)
        return self.step, self.total

    def go_on(self) -> None:
        """Take up the generator, once the order of the rows is drawn."""
        if self._now is not None:
            torch.set_rng_state(self._now)
            self._now = None

    def leave(self, loss: float) -> None:
        """End a pass."""
        self.losses.append(loss)
        self._skipped, self.step = len(self.losses), 0
        self.start = self.start[:0]

    def get_state(self) -> State:
        """Return the place."""
        numbers = [self.step, self.seconds + time.perf_counter() - self._entered]
        return {
            "losses": torch.tensor(self.losses, dtype=torch.float64),
            "numbers": torch.tensor(numbers, dtype=torch.float64),
            "total": self.total,
            "start": self.start,
        }

    def set_state(self, state: State) -> None:
        """Take the place; the generators must be restored already."""
        self.clear()
        own = {"numbers": torch.zeros(2, dtype=torch.float64), "total": torch.zeros(())}
        own |= {name: torch.empty_like(state[name]) for name in ("losses", "start") if name in state}
        copy_into(own, state)
        self.losses, self.start, self.total = own["losses"].tolist(), own["start"], own["total"]
        self.step, self.seconds = int(own["numbers"][0]), float(own["numbers"][1])
        self._now = torch.get_rng_state() if len(self.start) else None


def part_of(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it: those of a part of a model."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
