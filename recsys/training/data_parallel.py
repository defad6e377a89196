"""Several processes that train one model, each on its share of every batch: who we are, and what we add up.

torchrun starts the processes and tells each its place. All hold the same ratings and weights; gradients are added up
over the processes before each step, so that the step is the one a single process would make on the whole batch. That
is all torch's DistributedDataParallel would do for us, and it is not used: it hooks into a module's `forward`, which
our losses do not go through, and it averages processes, not rows, which is wrong where shares are unequal.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from recsys.errors import ConfigError, DataError

# The others wait for the main process while it validates and writes; torch would give up after ten minutes.
_PATIENCE = timedelta(hours=6)


@dataclass(frozen=True)
class Group:
    """This process's place among `size` processes. Alone by default: then nothing is ever sent."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # place among those of this machine: which GPU is ours

    @property
    def is_main(self) -> bool:
        """Whether this process validates, tracks and writes for all."""
        return self.rank == 0

    def shard(self, rows: Tensor) -> Tensor:
        """Our part of a batch's rows: every `size`-th. Never empty; an idle process takes a row of weight 0."""
        return rows if self.size == 1 or len(rows) <= self.rank else rows[self.rank :: self.size]

    def weight(self, rows: int) -> float:
        """Our part of a batch of `rows`, as a share of 1: what a mean over our rows counts in the mean over all."""
        return len(range(self.rank, rows, self.size)) / rows

    def all_reduce(self, tensors: Iterable[Tensor]) -> None:
        """Each tensor becomes, in place and in every process, the sum over the processes."""
        self._wait_for([dist.all_reduce(tensor, async_op=True) for tensor in tensors] if self.size > 1 else [])

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Each tensor becomes, in place, what it is in the main process."""
        self._wait_for([dist.broadcast(tensor, 0, async_op=True) for tensor in tensors] if self.size > 1 else [])

    def broadcast_value(self, value: float | None) -> float | None:
        """The main process's number, or None where it has none; what the others pass is not looked at."""
        told = torch.tensor([float("nan") if value is None else value, value is None], dtype=torch.float64)
        self.broadcast([told])
        return None if told[1] else float(told[0])

    def require_same(self, numbers: tuple[int, ...], what: str) -> None:
        """Raise DataError in every process unless all have the same `numbers`: they would wait for each other for ever.

        `what` the numbers describe is named in the message.
        """
        mine = torch.tensor(numbers)
        main = mine.clone()
        self.broadcast([main])
        differ = (mine != main).any().long()
        self.all_reduce([differ])
        if differ:
            raise DataError(f"Expected the same {what} in every process, found others in {int(differ)} of {self.size}.")

    @staticmethod
    def _wait_for(work: list[dist.Work | None]) -> None:
        for one in work:
            if one is not None:
                one.wait()


ALONE = Group()


class _Optimizer(Protocol):
    def zero_grad(self) -> None: ...
    def step(self) -> object: ...


class DataParallelOptimizer:
    """An optimizer that adds the gradients up over the processes before it moves the weights."""

    def __init__(self, optimizer: _Optimizer, network: nn.Module, group: Group):
        self.optimizer, self.weights, self.group = optimizer, list(network.parameters()), group
        group.broadcast(weight.detach() for weight in self.weights)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.optimizer.zero_grad()

    def step(self) -> None:
        """The step of all processes."""
        self.group.all_reduce(weight.grad for weight in self.weights if weight.grad is not None)
        self.optimizer.step()


@contextmanager
def process_group(environment: Mapping[str, str] = os.environ) -> Iterator[Group]:
    """The group that torchrun started this process in, while the block runs; alone where it was not torchrun.

    GPUs talk through nccl, processors through gloo. Raises ConfigError where the others cannot be found.
    """
    if int(environment.get("WORLD_SIZE", "1")) == 1 or "RANK" not in environment:
        yield ALONE
        return
    # Optimizers import this. Were it imported inside the group, default arguments of torch.distributed would hold the
    # group for ever: gloo's threads would outlive it, and one that frees its last tensor while Python ends aborts us.
    importlib.import_module("torch._dynamo")
    local_rank = int(environment.get("LOCAL_RANK", "0"))
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"Expected the other processes torchrun started, found: {error}") from error
    try:
        yield Group(dist.get_rank(), dist.get_world_size(), local_rank)
    finally:
        dist.destroy_process_group()
