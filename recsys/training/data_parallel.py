"""Data-parallel training: several processes train one model, each on its shard of every batch.

torchrun starts the processes. All hold the same ratings and weights; gradients are summed over the processes before
each step, so that the step equals that of a single process on the whole batch. torch's DistributedDataParallel is not
used: it hooks into a module's `forward`, which our losses bypass, and it averages over processes instead of rows, which
is wrong where shards have different sizes.
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

# The others wait while the main process validates and writes; torch's own limit is ten minutes.
_TIMEOUT = timedelta(hours=6)


@dataclass(frozen=True)
class Group:
    """This process among those that train together. The default is a single process, which never communicates.

    Attributes
    ----------
    rank, size : int
        Number of this process, from 0, and number of processes.
    local_rank : int
        Number of this process on its machine: which GPU it uses.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this is the process that validates, tracks and writes."""
        return self.rank == 0

    def shard(self, rows: Tensor) -> Tensor:
        """Return this process's rows of a batch, every `size`-th; an idle process gets a row of weight 0."""
        return rows if self.size == 1 or len(rows) <= self.rank else rows[self.rank :: self.size]

    def weight(self, rows: int) -> float:
        """Return this process's share of a batch of `rows`, in [0, 1]: the weight of its mean in that of all rows."""
        return len(range(self.rank, rows, self.size)) / rows

    def all_reduce(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor in place, in every process, by the sum over the processes."""
        self._wait_for([dist.all_reduce(tensor, async_op=True) for tensor in tensors] if self.size > 1 else [])

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor in place by that of the main process."""
        self._wait_for([dist.broadcast(tensor, 0, async_op=True) for tensor in tensors] if self.size > 1 else [])

    def broadcast_value(self, value: float | None) -> float | None:
        """Return the main process's number, or None if it has none; what the others pass is ignored."""
        sent = torch.tensor([float("nan") if value is None else value, value is None], dtype=torch.float64)
        self.broadcast([sent])
        return None if sent[1] else float(sent[0])

    def broadcast_text(self, text: str) -> str:
        """Return the main process's text; what the others pass is ignored."""
        if self.size == 1:
            return text
        sent = torch.tensor([*text.encode(), 0], dtype=torch.uint8)  # a byte more: an empty tensor cannot be sent
        length = torch.tensor([len(sent)])
        self.broadcast([length])
        sent = sent if self.is_main else torch.empty(int(length), dtype=torch.uint8)
        self.broadcast([sent])
        return sent[:-1].numpy().tobytes().decode()

    def gather(self, tensor: Tensor) -> Tensor:
        """Return the tensors of all processes, which have equal shapes (...), as (size, ...)."""
        if self.size == 1:
            return tensor[None]
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(found, tensor)
        return torch.stack(found)

    def require_same(self, numbers: tuple[int, ...], what: str) -> None:
        """Raise DataError in every process unless all pass the same `numbers`; otherwise training would deadlock.

        Parameters
        ----------
        numbers : tuple of int
        what : str
            What they describe, for the message.

        Raises
        ------
        DataError
            In every process, if they differ.
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
    """An optimizer that sums the gradients over the processes before each step."""

    def __init__(self, optimizer: _Optimizer, network: nn.Module, group: Group):
        self.optimizer, self.weights, self.group = optimizer, list(network.parameters()), group
        group.broadcast(weight.detach() for weight in self.weights)

    def zero_grad(self) -> None:
        """Reset the gradients."""
        self.optimizer.zero_grad()

    def step(self) -> None:
        """Sum the gradients and take the step."""
        self.group.all_reduce(weight.grad for weight in self.weights if weight.grad is not None)
        self.optimizer.step()


@contextmanager
def process_group(environment: Mapping[str, str] = os.environ) -> Iterator[Group]:
    """Join the processes that torchrun started, for the duration of the block.

    GPUs communicate by nccl, CPUs by gloo.

    Parameters
    ----------
    environment : mapping
        The variables that torchrun sets.

    Yields
    ------
    Group
        A single process if torchrun did not start this one.

    Raises
    ------
    ConfigError
        If the other processes cannot be reached.
    """
    if int(environment.get("WORLD_SIZE", "1")) == 1 or "RANK" not in environment:
        yield ALONE
        return
    # Parts of torch import this when they are first used. If it were imported inside the group, default arguments of
    # torch.distributed would keep the group alive: gloo's threads would outlive it, and freeing a tensor in one of them
    # at exit aborts the process.
    importlib.import_module("torch._dynamo")
    local_rank = int(environment.get("LOCAL_RANK", "0"))
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_TIMEOUT)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"Expected the other processes torchrun started, found: {error}") from error
    try:
        yield Group(dist.get_rank(), dist.get_world_size(), local_rank)
    finally:
        dist.destroy_process_group()
