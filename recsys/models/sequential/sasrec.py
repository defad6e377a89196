"""SASRec: a causal transformer over the items of a history, oldest first, that predicts the next one at every place.

```
history        a    b    c             each place attends to itself and to earlier ones
predicts       b    c    ?             at scoring: the last place alone
```
Every place is a softmax over the catalog, not over one sampled negative, which is worth more than any change of the
network. Places are counted from the end, so that the last one is the same at scoring. Input and output share the item
vectors. With `gate` each block multiplies what it adds by a sigmoid of its input, and its feed-forward layer is gated
too (LiGR).

Kang, McAuley: Self-Attentive Sequential Recommendation, ICDM 2018, arXiv:1808.09781.
Klenitskiy, Vasilev: Turning Dross Into Gold Loss: is BERT4Rec really better than SASRec?, RecSys 2023 (softmax).
Borisyuk et al.: From Features to Transformers: Redefining Ranking for Scalable Impact, arXiv:2502.03417 (LiGR).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.models.config import require
from recsys.models.search_space import Range, tunable
from recsys.models.sequential.network import SequenceConfig, SequenceNetwork, SequenceRecommender
from recsys.models.sequential.rows import padded
from recsys.training.batches import SparseBatch


@dataclass(frozen=True)
class SASRecConfig(SequenceConfig):
    """Settings of SASRec."""

    width: int = tunable(64, Range(32, 256, log=True))  # of the item vectors and of all layers; a multiple of heads
    dropout: float = tunable(0.2, Range(0.0, 0.6))  # of item vectors and of what each block adds
    learning_rate: float = tunable(1e-3, Range(3e-4, 1e-2, log=True))
    layers: int = tunable(2, Range(1, 4))  # blocks of attention and feed-forward
    heads: int = 1  # of the attention
    feed_forward: int = 4  # width of the inner layer of a block, in widths
    gate: bool = False  # LiGR blocks

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_positive("layers", "heads", "feed_forward")
        require(
            self.width % self.heads == 0, f"Expected width to be a multiple of heads, found {self.width}, {self.heads}."
        )


class Block(nn.Module):
    """Causal attention and a feed-forward layer, each with a residual connection, normalized before."""

    def __init__(self, config: SASRecConfig):
        super().__init__()
        width, inner = config.width, config.width * config.feed_forward
        self.heads, self.dropout = config.heads, config.dropout
        self.norm, self.second_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.mixed = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner, self.outer = nn.Linear(width, inner * (2 if config.gate else 1)), nn.Linear(inner, width)
        self.gates = nn.ModuleList([nn.Linear(width, width) for _ in range(2)]) if config.gate else None
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return (rows, places, width) of the same shape."""
        hidden = self._add(hidden, self._attend(self.norm(hidden)), 0)
        return self._add(hidden, self._feed_forward(self.second_norm(hidden)), 1)

    def _attend(self, hidden: Tensor) -> Tensor:
        rows, places, width = hidden.shape
        parts = self.attention(hidden).view(rows, places, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        mixed: Tensor = self.mixed(found.transpose(1, 2).reshape(rows, places, width))
        return mixed

    def _feed_forward(self, hidden: Tensor) -> Tensor:
        inner = self.inner(hidden)
        if self.gates is None:
            inner = F.gelu(inner)
        else:
            values, gate = inner.chunk(2, dim=-1)
            inner = values * F.silu(gate)
        outer: Tensor = self.outer(F.dropout(inner, self.dropout, self.training))
        return outer

    def _add(self, hidden: Tensor, change: Tensor, number: int) -> Tensor:
        change = F.dropout(change, self.dropout, self.training)
        if self.gates is not None:
            change = change * torch.sigmoid(self.gates[number](hidden))
        return hidden + change


class SASRecNetwork(SequenceNetwork):
    """Item vectors plus places, blocks with causal attention, and the item vectors again as the output."""

    def __init__(self, items: int, config: SASRecConfig):
        super().__init__(items, config)
        self.config = config
        self.places = nn.Parameter(nn.init.xavier_uniform_(torch.empty(config.length, config.width)))
        self.layers = nn.ModuleList([Block(config) for _ in range(config.layers)])
        self.norm = nn.LayerNorm(config.width)

    def hidden(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Return the last hidden layer (rows, places, width) of sequences (rows, places) of these lengths."""
        vectors = self.vectors(items) * self.config.width**0.5
        from_end = lengths[:, None] - 1 - torch.arange(items.shape[1], device=items.device)
        hidden = vectors + F.embedding(from_end.clamp_min(0), self.places)
        hidden = F.dropout(hidden, self.config.dropout, self.training)
        for block in self.layers:
            hidden = block(hidden)
        normalized: Tensor = self.norm(hidden)
        return normalized

    def last(self, batch: SparseBatch) -> Tensor:
        """Return the last hidden layer (rows, width) at the last item of each sequence; 0 for an empty one."""
        return self.at_the_end(batch, self.config.width)

    def loss(self, batch: SparseBatch, progress: float) -> Tensor:
        """Return the negative log-likelihood of each next item, mean over places."""
        items, filled = padded(batch)
        following = filled[:, 1:]
        if not following.any():
            return self.decoder.bias.sum() * 0  # sequences of one item have no next one
        hidden = self.hidden(items[:, :-1], (batch.lengths - 1).clamp_min(0))
        codes, next_items = hidden[following], items[:, 1:][following]
        offsets = torch.arange(len(next_items) + 1, device=items.device)
        target = SparseBatch(next_items, torch.ones(len(next_items), device=items.device), offsets)
        return self.decoder.loss(codes, target)


class SASRec(SequenceRecommender[SASRecConfig]):
    """A causal transformer over the history, trained with a softmax over the catalog. gate=true: as in eSASRec."""

    name = "sasrec"
    size_setting = "width"
    Config = SASRecConfig
    network: SASRecNetwork

    def _build(self, items: int) -> SASRecNetwork:
        return SASRecNetwork(items, self.config)
