"""NetworkRecommender: a Recommender around a torch network that is trained by gradients."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from recsys.errors import UnsupportedError
from recsys.models.base import Recommender
from recsys.models.sampled import RowAdam
from recsys.processes import SharedSteps
from recsys.training import Optimiser, SparseBatch, SparseRows, TrainingContext, one_pass, steps_per_epoch, train


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

    def sample_output(self, rows: SparseRows, items: int, batch_size: int) -> list[nn.Parameter]:
        """Prepare a sampled softmax, where the settings ask for one; the tables whose gradients are then sparse."""
        return []


def default_batch_size(users: int) -> int:
    """A twentieth of the users, within 32..500: few users need many updates an epoch, many need fast ones."""
    return min(500, max(32, users // 20))


def make_optimiser(network: Network, tables: list[nn.Parameter], learning_rate: float, l2: float) -> Optimiser:
    """Adam; for `tables`, whose gradients are sparse, RowAdam."""
    others = [weight for weight in network.parameters() if all(weight is not table for table in tables)]
    fused = others[0].device.type in ("cpu", "cuda")
    adam = torch.optim.Adam(others, lr=learning_rate, weight_decay=l2, fused=fused)
    return Together([adam, RowAdam(tables, learning_rate)]) if tables else adam


class Together:
    """Several optimisers as one."""

    def __init__(self, optimisers: list[torch.optim.Optimizer]):
        self.optimisers = optimisers

    def zero_grad(self) -> None:
        """Forget the gradients of all."""
        for optimiser in self.optimisers:
            optimiser.zero_grad()

    def step(self) -> None:
        """A step of each."""
        for optimiser in self.optimisers:
            optimiser.step()


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes that training holds for a network whatever the batch. `kept`: a copy of the best weights, if validated."""

    parameters: int
    gradients: int
    optimiser: int
    kept: int

    @classmethod
    def of(cls, network: Network) -> TrainingMemory:
        """Of dense tables in full; of sparse ones no gradients, which are a batch's, and RowAdam's state."""
        tables, sizes = network.item_tables(), [weight.numel() for weight in network.parameters()]
        sparse, rows, every = sum(t.numel() for t in tables), sum(map(len, tables)), sum(sizes)
        return cls(4 * every, 4 * (every - sparse), 8 * (every - sparse) + 4 * sparse + 8 * rows, 4 * every)

    @property
    def total(self) -> int:
        """All of it."""
        return self.parameters + self.gradients + self.optimiser + self.kept

    def __str__(self) -> str:
        parts = ("parameters", "gradients", "optimiser state", "best weights kept")
        sizes = (self.parameters, self.gradients, self.optimiser, self.kept)
        named = ", ".join(f"{part} {size / 1e6:,.1f} MB" for part, size in zip(parts, sizes, strict=True))
        return f"{named}; {self.total / 1e6:,.1f} MB in all"


class NetworkRecommender(Recommender):
    """Trains with Adam on shuffled batches. A subclass says which network; its Config has at least the fields

    epochs, batch_size, learning_rate and l2 (the gradient of each weight w gets l2 * w).
    """

    network: Network

    @abstractmethod
    def _build(self, items: int) -> Network:
        """A fresh network for a catalogue of `items`, weights drawn from torch's current generator."""

    def _fit(self, matrix: csr_matrix, context: TrainingContext) -> None:
        config, device = self.config, context.resolve_device()
        network = self.network = self._build(matrix.shape[1]).to(device)
        rows = SparseRows(matrix, device)
        batch_size = config.batch_size or default_batch_size(len(rows))
        tables = network.sample_output(rows, matrix.shape[1], batch_size)
        optimiser = make_optimiser(network, tables, config.learning_rate, config.l2)
        if context.group.size > 1:
            optimiser = self._share(optimiser, matrix, bool(tables), context)
        planned = config.epochs * steps_per_epoch(len(rows), batch_size)
        updates = itertools.count()

        def loss(batch: SparseBatch) -> Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=context.precision == "bf16"):
                return network.loss(batch, next(updates) / planned)

        self.history = train(
            network,
            lambda: one_pass(rows, batch_size, loss, optimiser, context),
            self.score,
            config.epochs,
            context,
        )

    def training_memory(self, items: int) -> TrainingMemory:
        """What training on a catalogue of `items` will hold, before it is taken."""
        with torch.device("meta"):
            return TrainingMemory.of(self._build(items))

    def _share(self, optimiser: Optimiser, matrix: csr_matrix, sampled: bool, context: TrainingContext) -> Optimiser:
        group = context.group
        if sampled:
            raise UnsupportedError(
                f"Expected softmax=full in {group.size} processes, found sampled: its gradients are sparse and are not "
                "added up. Train it in one process."
            )
        group.require_same((*matrix.shape, matrix.nnz, int(matrix.indices.sum(dtype="int64"))), "ratings")
        if not group.is_main:  # another stream of dropout and noise; order and weights come from the main process
            torch.manual_seed(context.seed + group.rank)
        return SharedSteps(optimiser, self.network, group)

    def _score(self, history: csr_matrix, users: NDArray[Any] | None) -> Tensor:
        device = next(self.network.parameters()).device
        scores: Tensor = self.network(SparseRows(history, device).everything())
        return scores

    def _score_blocks(self, history: csr_matrix, users: NDArray[Any] | None, width: int) -> Iterator[Tensor]:
        device = next(self.network.parameters()).device
        return self.network.blocks(SparseRows(history, device).everything(), width)

    def _get_state(self) -> dict[str, Tensor]:
        return dict(self.network.state_dict())

    def _set_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        assert self.items is not None
        with torch.device("meta"):  # no weights are drawn, only to be replaced
            self.network = self._build(self.items)
        self.network.load_state_dict(state, assign=True)
        self.network.to(device).eval()
