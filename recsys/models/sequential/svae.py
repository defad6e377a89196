"""SVAE: a variational autoencoder over a sequence: a code at every item, which predicts the next few items.

```
history        a      b      c            a GRU reads the items, oldest first
               |      |      |
posterior     N(a)   N(ab)  N(abc)        of the code of the history so far
               |      |      |
predicts      b c    c d     ?            the next `next_items`; at scoring: after the last place alone
```
Loss: the negative log-likelihood of the next items under a softmax over the catalog, plus beta KL(posterior, N(0, I)).
Several next items make a set of them: what follows soon counts, not only what follows at once. Input and output share
the item vectors here, as in sasrec; the published model has two tables.

Sachdeva, Manco, Ritacco, Pudi: Sequential Variational Autoencoders for Collaborative Filtering, WSDM 2019,
arXiv:1811.09975.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.models.autoencoders.posterior import annealed, divergence, draw
from recsys.models.config import require
from recsys.models.embeddings import Embeddings
from recsys.models.search_space import Range, tunable
from recsys.models.sequential.network import SequenceConfig, SequenceNetwork, SequenceRecommender
from recsys.models.sequential.rows import padded
from recsys.training.batches import SparseBatch


@dataclass(frozen=True)
class SVAEConfig(SequenceConfig):
    """Settings of SVAE."""

    width: int = tunable(128, Range(32, 256, log=True))  # of the item vectors and of the layers around the code
    dropout: float = tunable(0.3, Range(0.0, 0.6))  # of item vectors, of the GRU's output and of the last layer
    learning_rate: float = tunable(4e-3, Range(3e-4, 1e-2, log=True))
    hidden: int = 200  # of the GRU
    latent: int = tunable(64, Range(16, 256, log=True))  # of the code
    next_items: int = tunable(4, Range(1, 8))  # items after a place that it predicts
    beta: float = tunable(0.01, Range(0.001, 1.0, log=True))  # weight of the KL term after annealing
    anneal: float = 0.2  # share of all planned updates over which beta rises from 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_positive("hidden", "latent", "next_items")
        require(self.beta >= 0, f"Expected beta of 0 or more, found {self.beta}.")
        require(0 <= self.anneal <= 1, f"Expected anneal in [0, 1], found {self.anneal}.")


class SVAENetwork(SequenceNetwork):
    """Item vectors, a GRU, a code of what it has read, and the item vectors again as the output."""

    def __init__(self, items: int, config: SVAEConfig):
        super().__init__(items, config)
        self.config = config
        self.gru = nn.GRU(config.width, config.hidden, batch_first=True)
        self.encoder = nn.Linear(config.hidden, config.width)
        self.posterior = nn.Linear(config.width, 2 * config.latent)
        self.widen = nn.Linear(config.latent, config.width)

    def hidden(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Return mean and log variance of the code (rows, places, 2 latent) of sequences (rows, places)."""
        read, _ = self.gru(self._dropped(self.vectors(items) * self.config.width**0.5))
        found: Tensor = self.posterior(torch.tanh(self.encoder(self._dropped(read))))
        return found

    def embed(self, batch: SparseBatch) -> Embeddings:
        """Return the means of the codes (rows, latent) at the last item of each sequence, and their deviations."""
        mean, log_variance = self.at_the_end(batch, 2 * self.config.latent).chunk(2, dim=-1)
        return Embeddings(mean, (0.5 * log_variance).exp())

    def last(self, batch: SparseBatch) -> Tensor:
        """Return the last hidden layer (rows, width) of the mean codes."""
        return self.from_code(self.embed(batch).mean)

    def from_code(self, code: Tensor) -> Tensor:
        """Return the last hidden layer (rows, width) of codes (rows, latent)."""
        return self._dropped(torch.tanh(self.widen(code)))

    def loss(self, batch: SparseBatch, progress: float) -> Tensor:
        """Return the negative log-likelihood of the next items plus the annealed KL term, mean over places."""
        items, filled = padded(batch)
        following = filled[:, 1:]
        if not following.any():
            return self.decoder.bias.sum() * 0  # sequences of one item have no next one
        hidden = self.hidden(items[:, :-1], batch.lengths - 1)[following]
        mean, log_variance = hidden.float().chunk(2, dim=-1)
        beta = annealed(progress, self.config.anneal) * self.config.beta
        kl = divergence(mean, log_variance).sum(dim=-1).mean()
        code = draw(mean, log_variance)
        return self.decoder.loss(self.from_code(code), self._targets(items, filled)) + beta * kl

    def _targets(self, items: Tensor, filled: Tensor) -> SparseBatch:
        """The next items of every place that has one: rows are places, in order; values sum to 1 in each."""
        most = self.config.next_items
        after = F.pad(items, (0, most - 1)).unfold(1, most, 1)[:, 1:]  # (rows, places, most): from the next item on
        exists = F.pad(filled, (0, most - 1)).unfold(1, most, 1)[:, 1:]
        after, exists = after[filled[:, 1:]], exists[filled[:, 1:]]
        counts = exists.sum(dim=1)
        offsets = F.pad(counts.cumsum(0), (1, 0))
        values = (1 / counts).repeat_interleave(counts, output_size=int(counts.sum()))
        return SparseBatch(after[exists], values, offsets)

    def _dropped(self, layer: Tensor) -> Tensor:
        return F.dropout(layer, self.config.dropout, self.training)


class SVAE(SequenceRecommender[SVAEConfig]):
    """A variational autoencoder over the history as a sequence: a GRU, a code at every item, the next items."""

    name = "svae"
    size_setting = "latent"
    Config = SVAEConfig
    network: SVAENetwork

    def _build(self, items: int) -> SVAENetwork:
        return SVAENetwork(items, self.config)
