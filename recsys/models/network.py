"""NetworkRecommender: a Recommender around a torch network that is trained by gradients."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from recsys.models.base import Recommender
from recsys.training import SparseBatch, SparseRows, TrainingContext, one_pass, steps_per_epoch, train


class Network(nn.Module):
    """A network over sparse batches: `forward` gives scores (rows, items), `loss` a scalar to be made small."""

    def loss(self, batch: SparseBatch, progress: float) -> Tensor:
        """Training loss, mean over rows. `progress` runs from 0 to 1 over all planned updates."""
        raise NotImplementedError


def default_batch_size(users: int) -> int:
    """A twentieth of the users, within 32..500: few users need many updates an epoch, many need fast ones."""
    return min(500, max(32, users // 20))


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
        optimiser = torch.optim.Adam(
            network.parameters(), lr=config.learning_rate, weight_decay=config.l2, fused=device.type in ("cpu", "cuda")
        )
        batch_size = config.batch_size or default_batch_size(len(rows))
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

    def _score(self, history: csr_matrix, users: NDArray[Any] | None) -> Tensor:
        device = next(self.network.parameters()).device
        scores: Tensor = self.network(SparseRows(history, device).everything())
        return scores

    def _get_state(self) -> dict[str, Tensor]:
        return dict(self.network.state_dict())

    def _set_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        assert self.items is not None
        self.network = self._build(self.items)
        self.network.load_state_dict(state)
        self.network.to(device).eval()
