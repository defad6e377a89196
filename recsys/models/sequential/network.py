"""What networks over sequences share: item vectors that are input and output, and the hidden layer at the last item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from scipy.sparse import csr_matrix
from torch import Tensor, nn
from typing_extensions import TypeVar

from recsys.models.autoencoders.layers import ItemOutput
from recsys.models.autoencoders.network import Network, NetworkRecommender
from recsys.models.autoencoders.sampled_softmax import CandidateSampler, ItemTable
from recsys.models.config import check_training, require
from recsys.models.sequential.rows import SequenceRows, padded
from recsys.training.batches import SparseBatch, SparseRows

FULL_SOFTMAX = 50_000  # items up to which softmax=auto takes them all


@dataclass(frozen=True)
class SequenceConfig:
    """Settings that every network over sequences has; a subclass has others and may have other defaults of these."""

    width: int = 64  # of the item vectors
    length: int = 50  # last items of a history that count
    dropout: float = 0.2
    softmax: Literal["auto", "full", "sampled"] = "auto"  # auto: full up to 50,000 items
    negatives: int = 4000  # items drawn for each step of a sampled softmax
    average: float = 0.0  # decay of the running average of weights per epoch; 0: no averaging
    l2: float = 0.0  # weight decay
    epochs: int = 100
    batch_size: int | None = 128  # sequences of a step
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        self._require_positive("width", "length", "negatives")
        known = ("auto", "full", "sampled")
        require(self.softmax in known, f"Expected softmax auto, full or sampled, found {self.softmax!r}.")
        require(
            self.softmax != "sampled" or not self.l2,
            "Expected l2 of 0 with a sampled softmax, which updates only some rows.",
        )
        check_training(self.dropout, self.epochs, self.batch_size, self.learning_rate, self.l2, self.average)

    def _require_positive(self, *names: str) -> None:
        """Raise ConfigError for a setting below 1."""
        for name in names:
            value = getattr(self, name)
            require(value >= 1, f"Expected {name} of at least 1, found {value}.")

    def is_sampled(self, items: int) -> bool:
        """Return whether a catalog of `items` is trained with a sampled softmax."""
        return self.softmax == "sampled" or (self.softmax == "auto" and items > FULL_SOFTMAX and not self.l2)


SequenceConfigT = TypeVar("SequenceConfigT", bound=SequenceConfig, default=Any)


class SequenceNetwork(Network):
    """Item vectors as input and output, around what a subclass makes of a sequence (`hidden`).

    Sequences lie at the left, and end in padding: no place sees what comes after it, so that no mask is needed.
    """

    def __init__(self, items: int, config: SequenceConfig):
        super().__init__()
        self.negatives, self.sampled = config.negatives, config.is_sampled(items)
        self.sparse = False  # the gradients of the item vectors; set with the sampler
        self.decoder = ItemOutput(items, config.width)

    def hidden(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Return a layer (rows, places, size) of sequences (rows, places) of these lengths."""
        raise NotImplementedError

    def vectors(self, items: Tensor) -> Tensor:
        """Return the vectors of items (rows, places), (rows, places, width)."""
        found: Tensor = F.embedding(items, self.decoder.weight, sparse=self.sparse)
        return found

    def at_the_end(self, batch: SparseBatch, size: int) -> Tensor:
        """Return the hidden layer (rows, size) at the last item of each sequence; 0 for an empty one."""
        items, _ = padded(batch)
        result = self.decoder.weight.new_zeros(len(batch), size)
        known = batch.lengths > 0
        if items.shape[1]:
            lengths = batch.lengths[known]
            hidden = self.hidden(items[known], lengths)
            result[known] = hidden[torch.arange(len(lengths), device=items.device), lengths - 1].to(result.dtype)
        return result

    def item_tables(self) -> list[nn.Parameter]:
        """Return the item vectors if the softmax is sampled."""
        return [self.decoder.weight] if self.sampled else []

    def sample_output(self, rows: SparseRows, items: int, batch_size: int) -> list[ItemTable]:
        """Prepare a sampled softmax for a large catalog; return the item vectors."""
        if not self.sampled:
            return []
        self.sparse = True
        sampler = self.decoder.sampler = CandidateSampler(rows, items, batch_size, self.negatives)
        return [ItemTable(self.decoder.weight, sampler.lr_scale)]


class SequenceRecommender(NetworkRecommender[SequenceConfigT]):
    """A network over histories whose order counts."""

    family = "sequential"
    explained_by = "leave-one-out"

    @property
    def uses_order(self) -> bool:
        """True: cells of a history hold places in time."""
        return True

    def _rows(self, matrix: csr_matrix, device: torch.device) -> SequenceRows:
        return SequenceRows(matrix, device, self.config.length + 1)

    def _batch(self, history: csr_matrix) -> SparseBatch:
        return SequenceRows(history, next(self.network.parameters()).device, self.config.length).everything()
