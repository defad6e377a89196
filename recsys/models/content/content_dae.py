"""Content DAE: a denoising autoencoder whose vector of an item is one of its own plus one made of its features.

```
history ──> sum of the input vectors of its items ──> code, of length 1
item j  ──> own[j] x (0 or 1)  +  features[j] T   ──> vector, of length 1       score = code x vector / temperature
```
All are learned together, by a softmax over the items with interactions. In each step a share of the items
(`own_dropout`) goes without its own vector, so that the features have to do: those of an item without interactions then
place it among the others. A ridge (`feature_l2`) keeps rare features from learning their few items by heart.

After Volkovs, Yu, Poutanen: DropoutNet: Addressing Cold Start in Recommender Systems, NeurIPS 2017; there the vectors
of the items are those of another model, and here they are learned with the tower.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from recsys.models.autoencoders.layers import ItemOutput, SparseInput
from recsys.models.autoencoders.likelihood import log_loss
from recsys.models.autoencoders.network import Network, NetworkRecommender
from recsys.models.config import check_training, require
from recsys.models.content.weighing import rarity, weighed, weighed_new
from recsys.models.search_space import Range, tunable
from recsys.models.state import StateSpec, module_spec
from recsys.training.batches import SparseBatch, SparseRows, weighted_sum
from recsys.training.context import TrainingContext

_NEVER = -1e9  # logit of an item that is not in the softmax


@dataclass(frozen=True)
class ContentDAEConfig:
    """Settings of a content DAE."""

    latent: int = tunable(128, Range(32, 400, log=True))  # width of the code and of all vectors
    dropout: float = tunable(0.5, Range(0.1, 0.8))  # share of a user's items hidden from the encoder
    own_dropout: float = 0.5  # share of the items that are without their own vector in a step
    # ridge of the vectors of the features, per interaction
    feature_l2: float = tunable(0.01, Range(1e-4, 0.1, log=True))
    temperature: float = tunable(0.2, Range(0.05, 0.5, log=True))  # of the softmax over cosines
    average: float = 0.0  # decay of the running average of weights per epoch; 0: no averaging
    l2: float = 0.0  # weight decay of everything
    epochs: int = 40
    batch_size: int | None = None  # None: a twentieth of the users, within 32..500
    learning_rate: float = tunable(1e-3, Range(3e-4, 1e-2, log=True))

    def __post_init__(self) -> None:
        require(self.latent >= 1, f"Expected latent of at least 1, found {self.latent}.")
        require(0 <= self.own_dropout <= 1, f"Expected own_dropout from 0 to 1, found {self.own_dropout}.")
        require(self.feature_l2 >= 0, f"Expected feature_l2 of 0 or more, found {self.feature_l2}.")
        require(self.temperature > 0, f"Expected temperature above 0, found {self.temperature}.")
        check_training(self.dropout, self.epochs, self.batch_size, self.learning_rate, self.l2, self.average)


class FeatureOutput(ItemOutput):
    """Output layer whose vectors are `weight` plus the features' vectors `tower` of each item.

    After training (`settle`) `weight` is that sum, and the layer is an ItemOutput; the tower is kept for later items.

    Attributes
    ----------
    tower : Parameter, shape (features, width)
    rarity : Tensor, shape (features,)
        Weights of the features.
    described : SparseBatch, shape (items, features), or None
        The weighed features, while it is trained.
    """

    def __init__(self, items: int, features: int, config: ContentDAEConfig):
        super().__init__(items, config.latent, temperature=config.temperature)
        self.own_dropout, self.feature_l2 = config.own_dropout, config.feature_l2
        self.tower = nn.Parameter(nn.init.xavier_uniform_(torch.empty(features, config.latent)))
        self.rarity: Tensor
        self.register_buffer("rarity", torch.ones(features))
        self.bias.requires_grad_(False)  # popularity would put items without interactions last
        self.described: SparseBatch | None = None
        self.never: Tensor | None = None  # (items,), added to the logits in training

    def vectors(self) -> Tensor:
        """Return the vectors of the items (items, width); in training some are without their own part."""
        if self.described is None:
            return super().vectors()
        described = weighted_sum(self.described, self.tower)
        if not self.training:
            return self._scaled(self.weight + described)
        kept = torch.rand(len(described), 1, device=described.device) >= self.own_dropout
        return self._scaled(self.weight * kept + described)

    def blocks(self, codes: Tensor, width: int) -> Iterator[Tensor]:
        """Yield scores of up to `width` items at a time, in order of position."""
        return (codes.to(part.dtype) @ part.T for part in torch.split(self.vectors(), width))

    def loss(self, codes: Tensor, target: SparseBatch, smoothing: float = 0.0) -> Tensor:
        """Return the negative log-likelihood over the items with interactions, mean over rows, and the ridge."""
        assert self.never is not None
        likelihood = log_loss(self.likelihood, codes, self.vectors(), self.never, target)
        return likelihood + 0.5 * self.feature_l2 * self.tower.square().sum() * target.values.sum() / len(codes)

    @torch.no_grad()
    def settle(self) -> None:
        """Add the vectors of the features to `weight`, for good."""
        assert self.described is not None
        self.weight.add_(weighted_sum(self.described, self.tower))
        self.described = self.never = None


class ContentDAENetwork(Network):
    """code = normalized, dropped input @ W, of length 1; logits = cosines of code and vectors / temperature."""

    decoder: FeatureOutput

    def __init__(self, items: int, features: int, config: ContentDAEConfig):
        super().__init__()
        self.encoder = SparseInput(items, config.latent, config.dropout)
        self.decoder = FeatureOutput(items, features, config)

    def last(self, batch: SparseBatch) -> Tensor:
        """Return the code, (rows, latent)."""
        return self.decoder.directions(self.encoder(batch))

    def loss(self, batch: SparseBatch, progress: float) -> Tensor:
        """Return the negative log-likelihood of the whole row, and the ridge."""
        return self.decoder.loss(self.last(batch), batch)


class ContentDAE(NetworkRecommender[ContentDAEConfig]):
    """A denoising autoencoder with a tower for item features: knows items without interactions, and later ones.

    Each step makes the vectors of all items: up to some 100,000 items with features in proportion.
    """

    name = "content-dae"
    family = "by item features"
    size_setting = "latent"
    explained_by = "leave-one-out"
    Config = ContentDAEConfig
    network: ContentDAENetwork
    _features: int = 0

    @property
    def uses_features(self) -> bool:
        """True."""
        return True

    def _build(self, items: int) -> ContentDAENetwork:
        return ContentDAENetwork(items, self._features, self.config)

    def _fit(self, matrix: csr_matrix, context: TrainingContext) -> None:
        assert context.item_features is not None
        self._features = context.item_features.shape[1]
        self._known = np.bincount(matrix.indices, minlength=matrix.shape[1]) > 0
        self._given = context.item_features
        super()._fit(matrix, context)
        self.network.decoder.settle()
        del self._known, self._given

    def _initialize(self, rows: SparseRows) -> None:
        """Describe the items; those without interactions have no vectors but those of their features."""
        encoder, decoder = self.network.encoder, self.network.decoder
        weights = rarity(self._given, self._known)
        decoder.rarity.copy_(torch.as_tensor(weights))
        decoder.described = SparseRows(weighed(self._given, weights), decoder.weight.device).everything()
        new = torch.as_tensor(~self._known, device=decoder.weight.device)
        decoder.never = new * _NEVER
        with torch.no_grad():
            encoder.weight[new] = 0
            decoder.weight[new] = 0

    def with_new_items(self, features: csr_matrix) -> Self:
        """Return a copy that knows more items; see `Recommender.with_new_items`."""
        self._require_fitted()
        decoder = self.network.decoder
        new = weighed_new(features, decoder.rarity.numpy(force=True))
        vectors = torch.as_tensor(new @ decoder.tower.numpy(force=True), device=decoder.weight.device)
        state = dict(self._get_state())
        for name, rows in {"encoder.weight": torch.zeros_like(vectors), "decoder.weight": vectors}.items():
            state[name] = torch.cat([state[name], rows])
        state["decoder.bias"] = torch.cat([state["decoder.bias"], vectors.new_zeros(len(vectors))])
        model = type(self)(self.config).set_state(state, len(state["decoder.weight"]), str(vectors.device))
        model.epochs = self.epochs
        return model

    def _set_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        self._features = len(state["decoder.rarity"])
        super()._set_state(state, device)

    def _state_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        found = state.get("decoder.rarity")
        with torch.device("meta"):
            features = self._features if found is None else found.numel()
            return module_spec(ContentDAENetwork(n_items, features, self.config))

    def _start_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        return StateSpec()  # the own vectors of a settled layer are not known apart
