"""Content map: any model with vectors of items, whose vectors of new items are predicted from their features.

```
known items     features G ──ridge regression──> vectors V of the member
a new item      its features g ── the same map ──> its vector;   score = vector of the user x vector of the item
```
The member (`als`, `ials`, `svd`, `vae`, ...) is fitted as it is, and scores known items as it does alone. The map is

    V[j] = mean + g[j] C,    C = (G'G + l2 I)^-1 G' (V - mean) = G' (G G' + l2 I)^-1 (V - mean)

over the items with interactions, in the form that is smaller; features are weighed by rarity and scaled to length 1. An
item that comes later gets a vector by the same map, without training.

Gantner et al.: Learning Attribute-to-Feature Mappings for Cold-Start Recommendations, ICDM 2010; for networks it is the
output layer that gets a tower for features, as in Volkovs, Yu, Poutanen: DropoutNet, NeurIPS 2017.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.models.base import Recommender
from recsys.models.blend import own_and_members
from recsys.models.config import make_config, require
from recsys.models.content.ridge import Ridge
from recsys.models.content.weighing import rarity, weighed, weighed_new
from recsys.models.embeddings import Embeddings
from recsys.models.search_space import Range, tunable
from recsys.models.state import StateSpec, TensorSpec
from recsys.training.context import TrainingContext
from recsys.training.parts import part_of

_MEMBER = "member."  # before the names of its tensors


@dataclass(frozen=True)
class ContentMapConfig:
    """Settings of a content map.

    Parameters
    ----------
    member : str
        The name of a model whose scores are inner products of vectors of users and items.
    l2 : float
        Ridge of the map; an item's features have length 1.
    settings : mapping
        Settings of the member by its name; in `ContentMap.create` also by dotted names (als.factors=64).
    """

    member: str = "als"
    l2: float = tunable(1.0, Range(0.1, 30.0, log=True))
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(self.l2 > 0, f"Expected l2 above 0, found {self.l2}.")
        for name in self.settings:
            require(name == self.member, f"Expected settings of the member {self.member}, found some of {name!r}.")


class ContentMap(Recommender[ContentMapConfig]):
    """Vectors of items without interactions, predicted from their features by ridge regression.

    Attributes
    ----------
    member : Recommender
        The fitted model.
    vectors : Tensor, shape (items, width)
        Of the member, or predicted.
    kinds : mapping
        The models by name; `recsys.models` fills it in.
    """

    name = "content-map"
    family = "by item features"
    Config = ContentMapConfig
    is_kept_whole = False  # the epochs of its member are kept with it
    kinds: ClassVar[Mapping[str, type[Recommender]]] = {}

    member: Recommender
    vectors: Tensor
    map: Tensor  # (features, width)
    mean: Tensor  # (width,)
    weights: Tensor  # of the features

    def __init__(self, config: ContentMapConfig | None = None):
        super().__init__(config)
        full = {self.config.member: dataclasses.asdict(self._unfitted().config)}
        self.config = replace(self.config, settings=full)

    @classmethod
    def create(cls, settings: Mapping[str, Any] | None = None) -> Self:
        """Create one; `als.factors` is the setting `factors` of its member `als`. See `Recommender.create`."""
        own, members = own_and_members(cls._with_preset(settings or {}))
        name = own.get("member", ContentMapConfig.member)
        return cls(replace(make_config(cls.Config, own, cls.name), member=name, settings=members))

    @property
    def uses_features(self) -> bool:
        """True."""
        return True

    @property
    def uses_order(self) -> bool:
        """Whether the member uses the order of histories."""
        return self._unfitted().uses_order

    def _unfitted(self) -> Recommender:
        name = self.config.member
        allowed = [
            other
            for other, kind in self.kinds.items()
            if kind.task == "ranking"
            and not kind.needs_training_users
            and kind is not type(self)
            and kind._item_scoring_vectors is not Recommender._item_scoring_vectors
        ]
        require(name in allowed, f"Expected a member of {', '.join(allowed)}; found {name!r}.")
        return self.kinds[name].create(self.config.settings.get(name, {}))

    def _fit(self, matrix: csr_matrix, context: TrainingContext) -> None:
        self.member = self._unfitted().fit(matrix, self._own(context))
        self.epochs = self.member.epochs
        self._map_items(matrix, context)

    def _refit(self, user_items: csr_matrix, context: TrainingContext) -> Self:
        fresh = type(self)(self.config)
        fresh.member, fresh.n_items = self.member.refit(user_items, self._own(context)), user_items.shape[1]
        fresh._map_items(user_items, context)
        return fresh

    def _own(self, context: TrainingContext) -> TrainingContext:
        start = None if context.start is None else context.start.part(_MEMBER)
        checkpoints = context.checkpoints.part("member")
        return replace(context, item_features=None, start=start, checkpoints=checkpoints)

    def _map_items(self, matrix: csr_matrix, context: TrainingContext) -> None:
        assert context.item_features is not None
        known = np.bincount(matrix.indices, minlength=matrix.shape[1]) > 0
        weights = rarity(context.item_features, known)
        features, vectors = weighed(context.item_features, weights), self.member.item_scoring_vectors()
        context.on_phase("map of features", 0, 1)
        found = vectors[torch.as_tensor(known)]
        self.weights, self.mean = torch.as_tensor(weights), found.mean(dim=0)
        ridge = Ridge.of(features[known], self.config.l2, found.device, self.name)
        self.map = ridge.map(found - self.mean)
        context.on_phase("map of features", 1, 1)
        new = ~known & (np.diff(features.indptr) > 0)  # an item without features keeps the member's vector
        self.vectors = vectors.clone()
        self.vectors[torch.as_tensor(new)] = self._predicted(features[new])

    def _predicted(self, features: csr_matrix) -> Tensor:
        """Vectors of items by their weighed features."""
        found = torch.as_tensor(features @ self.map.numpy(force=True), dtype=torch.float32, device=self.mean.device)
        return found + self.mean

    def with_new_items(self, features: csr_matrix) -> Self:
        """Return a copy that knows more items; see `Recommender.with_new_items`."""
        self._require_fitted()
        new = weighed_new(features, self.weights.numpy(force=True))
        model = type(self)(self.config)
        model.member, model.map, model.mean, model.weights = self.member, self.map, self.mean, self.weights
        model.vectors = torch.cat([self.vectors, self._predicted(new)])
        model.n_items, model.epochs = len(model.vectors), self.epochs
        return model

    def _score(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Tensor:
        return self._user_scoring_vectors(history, users) @ self.vectors.T

    def _user_scoring_vectors(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Tensor:
        return self.member.user_scoring_vectors(history[:, : self.member.n_items])

    def _item_scoring_vectors(self) -> Tensor:
        return self.vectors

    def _embed_items(self) -> Tensor:
        return self.vectors

    def _embed_users(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Embeddings:
        return Embeddings(self._user_scoring_vectors(history, users))

    def _get_state(self) -> dict[str, Tensor]:
        own = {"vectors": self.vectors, "map": self.map, "mean": self.mean, "weights": self.weights}
        own["member_items"] = torch.tensor(self.member.n_items)
        return own | {_MEMBER + name: tensor for name, tensor in self.member.get_state().items()}

    def _set_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        self.vectors, self.map, self.mean = (state[name].to(device) for name in ("vectors", "map", "mean"))
        self.weights = state["weights"]
        self.member = self._unfitted().set_state(part_of(state, _MEMBER), int(state["member_items"]), str(device))

    def _state_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        shapes: dict[str, tuple[int | str, ...]] = {
            **{"vectors": (n_items, "width"), "map": ("features", "width"), "mean": ("width",)},
            **{"weights": ("features",)},
        }
        spec = StateSpec({name: TensorSpec(shape) for name, shape in shapes.items()})
        spec |= StateSpec({"member_items": TensorSpec((), torch.int64, low=1)})
        found = state.get("member_items")
        known = int(found) if found is not None and found.numel() == 1 and 1 <= int(found) <= n_items else n_items
        return spec | self._unfitted()._state_spec(known, part_of(state, _MEMBER)).prefixed(_MEMBER)

    def _start_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        return self._unfitted()._start_spec(n_items, part_of(state, _MEMBER)).prefixed(_MEMBER)
