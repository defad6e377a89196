"""NetworkRecommender: a Recommender around a torch network that is trained by gradients."""

from __future__ import annotations

import copy
import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from recsys.errors import UnsupportedError
from recsys.models.autoencoders.layers import ItemOutput
from recsys.models.autoencoders.mixed_precision import MixedAdam
from recsys.models.autoencoders.sampled_softmax import ItemTable, RowAdam
from recsys.models.base import Recommender
from recsys.training.batches import SparseBatch, SparseRows
from recsys.training.context import TrainingContext
from recsys.training.data_parallel import DataParallelOptimizer
from recsys.training.loop import Optimizer, one_pass, steps_per_epoch, train


class Network(nn.Module):
    """A network over sparse batches: `forward` gives scores (rows, items), `loss` a scalar to be made small."""

    def loss(self, batch: SparseBatch, progress: float) -> Tensor:
        """Training loss, mean over rows. `progress` runs from 0 to 1 over all planned updates."""
        raise NotImplementedError

    def blocks(self, batch: SparseBatch, width: int) -> Iterator[Tensor]:
        """Scores of some items at a time, side by side; of all at once where a network knows no better."""
        yield self(batch)

    def item_tables(self) -> list[nn.Parameter]:
        """The tables whose gradients are sparse, where the settings ask for a sampled softmax."""
        return []

    def sample_output(self, rows: SparseRows, items: int, batch_size: int) -> list[ItemTable]:
        """Prepare a sampled softmax, where the settings ask for one; the tables whose gradients are then sparse."""
        return []


def default_batch_size(users: int) -> int:
    """A twentieth of the users, within 32..500: few users need many updates an epoch, many need fast ones."""
    return min(500, max(32, users // 20))


def make_optimizer(
    network: nn.Module,
    tables: list[ItemTable],
    learning_rate: float,
    l2: float,
    mixed: bool = False,
    beta2: float = 0.999,
) -> Optimizer:
    """Adam; for `tables`, whose gradients are sparse, RowAdam; with `mixed`, MixedAdam for the other output tables."""
    betas = 0.9, beta2
    outputs = [output for output in _outputs(network) if mixed and output.sampler is None]
    apart = [*(table.weight for table in tables), *(output.weight for output in outputs)]
    others = [weight for weight in network.parameters() if all(weight is not other for other in apart)]
    fused = others[0].device.type in ("cpu", "cuda")
    optimizers: list[Optimizer] = [
        torch.optim.Adam(others, lr=learning_rate, betas=betas, weight_decay=l2, fused=fused)
    ]
    if tables:
        optimizers.append(RowAdam(tables, learning_rate, betas))
    for output in outputs:
        one = MixedAdam(output.weight, learning_rate, l2, betas)
        optimizers.append(one)
        output.working = one.working
    return CombinedOptimizer(optimizers) if len(optimizers) > 1 else optimizers[0]


def with_autocast(context: TrainingContext, loss: Callable[[SparseBatch], Tensor]) -> Callable[[SparseBatch], Tensor]:
    """The loss with its products in the precision of the context."""

    def in_precision(batch: SparseBatch) -> Tensor:
        with torch.autocast(batch.values.device.type, torch.bfloat16, enabled=context.precision == "bf16"):
            return loss(batch)

    return in_precision


def averaging(one_epoch: Callable[[], float], learner: nn.Module, kept: nn.Module, share: float) -> Callable[[], float]:
    """The epoch, after which `kept` holds the running average of the learner's weights.

    After epoch n the average moves max(1 / n, 1 - share) of the way to the weights: first it is their plain mean. Noise
    of the last steps goes out of it (Izmailov et al.: Averaging Weights Leads to Wider Optima, UAI 2018).
    """
    numbers = itertools.count(1)

    def epoch() -> float:
        loss = one_epoch()
        step = max(1 / next(numbers), 1 - share)
        with torch.no_grad():
            for average, weight in zip(kept.parameters(), learner.parameters(), strict=True):
                average.lerp_(weight, step)
        return loss

    return epoch


def _outputs(network: nn.Module) -> list[ItemOutput]:
    return [part for part in network.modules() if isinstance(part, ItemOutput)]


class CombinedOptimizer:
    """Several optimizers as one."""

    def __init__(self, optimizers: list[Optimizer]):
        self.optimizers = optimizers

    def zero_grad(self) -> None:
        """Forget the gradients of all."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def step(self) -> None:
        """A step of each."""
        for optimizer in self.optimizers:
            optimizer.step()


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes that training holds for a network whatever the batch. `kept`: a copy of the best weights, if validated."""

    parameters: int
    gradients: int
    optimizer: int
    kept: int

    @classmethod
    def of(cls, network: Network, averaged: bool = False) -> TrainingMemory:
        """Of dense tables in full; of sparse ones no gradients, which are a batch's, and RowAdam's state."""
        tables, sizes = network.item_tables(), [weight.numel() for weight in network.parameters()]
        sparse, rows, every = sum(t.numel() for t in tables), sum(map(len, tables)), sum(sizes)
        return cls(
            4 * every * (1 + averaged), 4 * (every - sparse), 8 * (every - sparse) + 2 * sparse + 12 * rows, 4 * every
        )

    @property
    def total(self) -> int:
        """All of it."""
        return self.parameters + self.gradients + self.optimizer + self.kept

    def __str__(self) -> str:
        parts = ("parameters", "gradients", "optimizer state", "best weights kept")
        sizes = (self.parameters, self.gradients, self.optimizer, self.kept)
        named = ", ".join(f"{part} {size / 1e6:,.1f} MB" for part, size in zip(parts, sizes, strict=True))
        return f"{named}; {self.total / 1e6:,.1f} MB in all"


class NetworkRecommender(Recommender):
    """Trains with Adam on shuffled batches. A subclass says which network; its Config has at least the fields

    epochs, batch_size, learning_rate and l2 (the gradient of each weight w gets l2 * w). With a field `average` above 0
    the model is the running average of the weights after each epoch (see `averaging`); `beta2` is Adam's.
    """

    network: Network

    @abstractmethod
    def _build(self, items: int) -> Network:
        """A fresh network for a catalog of `items`, weights drawn from torch's current generator."""

    def _fit(self, matrix: csr_matrix, context: TrainingContext) -> None:
        config, device = self.config, context.resolve_device()
        network = self.network = self._build(matrix.shape[1]).to(device)
        rows = SparseRows(matrix, device)
        if context.group.size > 1:
            self._join(matrix, context)
        average = getattr(config, "average", 0.0)
        kept = copy.deepcopy(network) if average else network
        one_epoch = self._one_epoch(rows, config.batch_size or default_batch_size(len(rows)), context)
        if average:
            self.network, one_epoch = kept, averaging(one_epoch, network, kept, average)
        self.epochs = train(kept, one_epoch, self.score, config.epochs, context)
        for output in _outputs(network):
            output.working = None

    def _one_epoch(self, rows: SparseRows, batch_size: int, context: TrainingContext) -> Callable[[], float]:
        """What one epoch is: here a pass over all rows, every weight learning. Returns a function of its mean loss."""
        network, config = self.network, self.config
        tables = network.sample_output(rows, cast(int, self.n_items), batch_size)
        optimizer = self._optimizer(network, tables, context)
        planned = config.epochs * steps_per_epoch(len(rows), batch_size)
        updates = itertools.count()

        def loss(batch: SparseBatch) -> Tensor:
            return network.loss(batch, next(updates) / planned)

        return lambda: one_pass(rows, batch_size, with_autocast(context, loss), optimizer, context)

    def _optimizer(self, part: nn.Module, tables: list[ItemTable], context: TrainingContext) -> Optimizer:
        """For a part of the network, or all of it: Adam by the config, shared over the processes of the context."""
        on_cpu = context.resolve_device().type == "cpu"
        mixed = context.precision == "bf16" and on_cpu and context.group.size == 1  # gradients of several are float32
        config, beta2 = self.config, getattr(self.config, "beta2", 0.999)
        optimizer = make_optimizer(part, tables, config.learning_rate, config.l2, mixed, beta2)
        if context.group.size == 1:
            return optimizer
        if tables:
            raise UnsupportedError(
                f"Expected softmax=full in {context.group.size} processes, found sampled: its gradients are sparse and "
                "are not added up. Train it in one process."
            )
        return DataParallelOptimizer(optimizer, part, context.group)

    def training_memory(self, items: int) -> TrainingMemory:
        """What training on a catalog of `items` will hold, before it is taken."""
        with torch.device("meta"):
            return TrainingMemory.of(self._build(items), getattr(self.config, "average", 0.0) > 0)

    def _join(self, matrix: csr_matrix, context: TrainingContext) -> None:
        group = context.group
        group.require_same((*matrix.shape, matrix.nnz, int(matrix.indices.sum(dtype="int64"))), "ratings")
        if not group.is_main:  # another stream of dropout and noise; order and weights come from the main process
            torch.manual_seed(context.seed + group.rank)

    def _score(self, history: csr_matrix, users: NDArray[Any] | None) -> Tensor:
        device = next(self.network.parameters()).device
        scores: Tensor = self.network(SparseRows(history, device).everything())
        return scores

    def _score_blocks(self, history: csr_matrix, users: NDArray[Any] | None, width: int) -> Iterator[Tensor]:
        device = next(self.network.parameters()).device
        return self.network.blocks(SparseRows(history, device).everything(), width)

    def to_bf16(self) -> None:
        """Score with weights and products in bfloat16 from now on; half the memory."""
        self.network.to(torch.bfloat16)

    def item_codes(self) -> Tensor:
        """Weights of the output layer, (items, its width)."""
        output = self.network.decoder
        assert isinstance(output, ItemOutput)  # a network that ends otherwise has codes of its own
        return output.weight.detach()

    def _get_state(self) -> dict[str, Tensor]:
        return dict(self.network.state_dict())

    def _set_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        assert self.n_items is not None
        with torch.device("meta"):  # no weights are drawn, only to be replaced
            self.network = self._build(self.n_items)
        self.network.load_state_dict(state, assign=True)
        self.network.to(device).eval()
