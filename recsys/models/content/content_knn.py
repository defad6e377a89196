"""Content neighbors: the items whose features are most like those of the history; the baseline for new items.

scores = history S, where S[i, j] is the cosine of the features of i and j if i is one of the `neighbors` items with
interactions that are nearest to j. Features are weighed by their rarity (TF-IDF). Without a number of neighbors all
count, and S is never made: scores = (history F) F'.

Lops, de Gemmis, Semeraro: Content-based Recommender Systems: State of the Art and Trends, in Recommender Systems
Handbook, 2011 (section 3.3.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack, vstack
from torch import Tensor

from recsys.data.matrix import as_csr
from recsys.models.base import Recommender
from recsys.models.config import require
from recsys.models.content.weighing import rarity, weighed
from recsys.models.neighbors import strongest_products
from recsys.models.search_space import Range, tunable
from recsys.models.state import CsrSpec, StateSpec, TensorSpec, csr_from_state, csr_state
from recsys.training.context import TrainingContext
from recsys.types import FloatArray


@dataclass(frozen=True)
class ContentKNNConfig:
    """Settings of content neighbors."""

    # items with interactions that count for an item; None: all of them, in less memory
    neighbors: int | None = tunable(100, Range(10, 1000, log=True))

    def __post_init__(self) -> None:
        require(
            self.neighbors is None or self.neighbors >= 1, f"Expected neighbors of at least 1, found {self.neighbors}."
        )


class ContentKNN(Recommender[ContentKNNConfig]):
    """Nearest neighbors of items by the cosine of their features. The interactions say only which items are known."""

    name = "content-knn"
    family = "neighbors"
    Config = ContentKNNConfig
    is_random = False
    explained_by = "exact"

    features: csr_matrix  # (items, features), rows of length 1
    weights: FloatArray  # of the features
    known: NDArray[np.bool_]  # items with interactions
    similarity: csr_matrix | None  # (items, items); the column of an item holds its neighbors

    @property
    def uses_features(self) -> bool:
        """True."""
        return True

    def _fit(self, matrix: csr_matrix, context: TrainingContext) -> None:
        assert context.item_features is not None
        self.known = np.bincount(matrix.indices, minlength=matrix.shape[1]) > 0
        self.weights = rarity(context.item_features, self.known)
        self.features = weighed(context.item_features, self.weights)
        self.similarity = self._neighbors_of(self.features, context)

    def _neighbors_of(self, features: csr_matrix, context: TrainingContext) -> csr_matrix | None:
        """The cosines of items (items, features) with their neighbors, as columns (known items, items)."""
        if self.config.neighbors is None:
            return None
        own = csr_matrix(self.features.multiply(self.known[:, None]), dtype=np.float32).T.tocsr()

        def products(rows: slice) -> csr_matrix:
            found = csr_matrix(features[rows] @ own)
            found.data = found.data.round(6)  # equal features are equally near
            return found

        nearest = strongest_products(products, features.shape[0], own.shape[1], self.config.neighbors, context)
        columns = csr_matrix(nearest.T.tocsr(), dtype=np.float32)
        columns.sort_indices()
        return columns

    def _score(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Tensor:
        if self.similarity is None:
            profiles = (history @ self.features).T
            scores = (self.features @ profiles).T
        else:
            scores = history @ self.similarity
        return torch.as_tensor(scores.toarray().astype(np.float32))

    def with_new_items(self, features: csr_matrix) -> Self:
        """Return a copy that knows more items; see `Recommender.with_new_items`."""
        self._require_fitted()
        new, model = weighed(as_csr(features), self.weights), type(self)(self.config)
        model.weights, model.n_items = self.weights, self.features.shape[0] + new.shape[0]
        model.features = csr_matrix(vstack([self.features, new], format="csr"))
        model.known = np.append(self.known, np.zeros(new.shape[0], dtype=bool))
        model.similarity = None
        if self.similarity is not None:
            columns = self._neighbors_of(new, TrainingContext())
            assert columns is not None
            wide = csr_matrix(hstack([self.similarity, columns], format="csr"))
            rows = np.append(wide.indptr, np.full(new.shape[0], wide.indptr[-1], dtype=wide.indptr.dtype))
            model.similarity = csr_matrix((wide.data, wide.indices, rows), shape=(len(rows) - 1, wide.shape[1]))
        return model

    def _embed_items(self) -> Tensor:
        if self.similarity is None:
            return super()._embed_items()
        return torch.as_tensor(self.similarity.T.toarray())

    def _item_weights(self) -> csr_matrix | None:
        return self.similarity

    def _get_state(self) -> dict[str, Tensor]:
        whole = {} if self.similarity is None else csr_state(self.similarity, "similarity.")
        own = {"weights": torch.as_tensor(self.weights), "known": torch.as_tensor(self.known)}
        return own | csr_state(self.features, "features.") | whole

    def _set_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        self.weights, self.known = state["weights"].numpy(force=True), state["known"].numpy(force=True)
        self.features = csr_from_state(state, len(self.weights), "features.")
        has_neighbors = self.config.neighbors is not None
        self.similarity = csr_from_state(state, len(self.known), "similarity.") if has_neighbors else None

    def _state_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        width = len(state["weights"]) if "weights" in state else 0
        matrices = {"features.": CsrSpec(n_items, width)}
        if self.config.neighbors is not None:
            matrices["similarity."] = CsrSpec(n_items, n_items)
        return StateSpec({"weights": TensorSpec((width,)), "known": TensorSpec((n_items,), torch.bool)}, matrices)
