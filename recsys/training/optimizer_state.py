"""The state of optimizers as tensors by the names of the weights: `encoder.weight.exp_avg`, `encoder.weight.step`.

The names and shapes are those of the weights, so that rows of items can be found in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from recsys.errors import DataError
from recsys.training.parts import Counter, State, check_like, copy_into


@runtime_checkable
class HasSlots(Protocol):
    """An optimizer that is not torch's, or has other slots than Adam."""

    def slots(self) -> Mapping[Tensor, dict[str, Any]]:
        """Return for each weight its tensors and numbers by name, made where it has none yet."""

    def set_slots(self, weight: Tensor, found: Mapping[str, Tensor]) -> None:
        """Take the tensors and numbers of a weight; their types and shapes are right."""


class OptimizerState:
    """The state of the optimizers of a network, as a part of a checkpoint.

    Parameters
    ----------
    optimizer : object
        torch's Adam, an optimizer with slots of its own, or what combines or wraps such.
    network : Module
        Whose weights they update; it gives the names.
    """

    def __init__(self, optimizer: Any, network: nn.Module):
        self._optimizers = list(_simple(optimizer))
        self._names: dict[Tensor, str] = {weight: name for name, weight in network.named_parameters()}

    def get_state(self) -> State:
        """Return the tensors, and numbers as tensors, by name of the weight and of the slot."""
        return {
            f"{self._names[weight]}.{slot}": torch.as_tensor(value)
            for optimizer in self._optimizers
            for weight, slots in _slots(optimizer).items()
            for slot, value in slots.items()
        }

    def set_state(self, state: State) -> None:
        """Take them; DataError where names, types or shapes are not those of the optimizer."""
        expected = self.get_state()
        if expected.keys() != state.keys():
            odd = sorted(expected.keys() ^ state.keys())
            raise DataError(f"expected the state of the same optimizer, {', '.join(odd[:3])} is in one of them only")
        for name, tensor in expected.items():
            check_like(name, state[name], tensor.shape, tensor.dtype)
        for optimizer in self._optimizers:
            for weight, slots in _slots(optimizer).items():
                found = {slot: state[f"{self._names[weight]}.{slot}"] for slot in slots}
                if isinstance(optimizer, HasSlots):
                    optimizer.set_slots(weight, found)
                else:
                    copy_into(optimizer.state[weight], found)


class RateState:
    """The learning rate of an optimizer and how far its schedule is, as a part of a checkpoint."""

    def __init__(self, schedule: torch.optim.lr_scheduler.LRScheduler):
        self._schedule = schedule

    def get_state(self) -> State:
        """Return rates and counts."""
        schedule: Any = self._schedule
        rates = [group["lr"] for group in schedule.optimizer.param_groups]
        return {
            "rates": torch.tensor(rates, dtype=torch.float64),
            "counts": torch.tensor([schedule.last_epoch, schedule._step_count]),
        }

    def set_state(self, state: State) -> None:
        """Take rates and counts."""
        schedule: Any = self._schedule
        copy_into(own := {name: torch.empty_like(tensor) for name, tensor in self.get_state().items()}, state)
        schedule.last_epoch, schedule._step_count = own["counts"].tolist()
        schedule._last_lr = own["rates"].tolist()
        for group, rate in zip(schedule.optimizer.param_groups, schedule._last_lr, strict=True):
            group["lr"] = rate


class FallingRate:
    """An optimizer whose learning rate falls in equal steps from its own to 0.

    Parameters
    ----------
    optimizer : object
        torch's Adam, MixedAdam, RowAdam, or what combines or wraps such.
    steps : int
        Updates after which the rate is 0.
    done : Counter
        Counts the updates; a part of checkpoints.
    """

    def __init__(self, optimizer: Any, steps: int, done: Counter):
        self.optimizer, self.steps, self.done = optimizer, steps, done
        self._rates = [(group, group["lr"]) for one in _simple(optimizer) for group in one.param_groups]

    def zero_grad(self) -> None:
        """Reset the gradients."""
        self.optimizer.zero_grad()

    def step(self) -> None:
        """Take a step with the rate that is left."""
        left = max(0.0, 1 - self.done.next() / self.steps)
        for group, rate in self._rates:
            group["lr"] = left * rate
        self.optimizer.step()


def _simple(optimizer: Any) -> Iterator[Any]:
    """The optimizers inside of one that combines or wraps others."""
    inner = getattr(optimizer, "optimizers", None) or getattr(optimizer, "optimizer", None)
    if inner is None:
        yield optimizer
        return
    for one in inner if isinstance(inner, list) else [inner]:
        yield from _simple(one)


def _slots(optimizer: Any) -> Mapping[Tensor, dict[str, Any]]:
    """The slots of an optimizer. Adam's are made where there are none, as its first step would."""
    if isinstance(optimizer, HasSlots):
        return optimizer.slots()
    assert isinstance(optimizer, torch.optim.Adam)
    for group in optimizer.param_groups:
        for weight in group["params"]:
            if not optimizer.state[weight]:
                device = weight.device if group["fused"] or group["capturable"] else None
                optimizer.state[weight] = {
                    "step": torch.zeros((), dtype=torch.float32, device=device),
                    "exp_avg": torch.zeros_like(weight, memory_format=torch.preserve_format),
                    "exp_avg_sq": torch.zeros_like(weight, memory_format=torch.preserve_format),
                }
    return {weight: optimizer.state[weight] for group in optimizer.param_groups for weight in group["params"]}
