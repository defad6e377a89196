"""Item-based nearest neighbors: the items most similar to those of the history.

scores = history S, where row i of S holds the similarities of item i to its nearest items: cosines of item columns,
plain or weighted by TF-IDF, or products of columns weighted by BM25.

Deshpande, Karypis: Item-Based Top-N Recommendation Algorithms, ACM TOIS 22, 2004. The weights are those of the package
`implicit`, so that similarities equal its own; which neighbors are kept is decided by `recsys.models.neighbors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags
from torch import Tensor

from recsys.models.base import Recommender
from recsys.models.config import require
from recsys.models.neighbors import strongest_products
from recsys.models.search_space import Categorical, Range, tunable
from recsys.models.state import CsrSpec, StateSpec, csr_from_state, csr_state
from recsys.training.context import TrainingContext

_K1, _B = 1.2, 0.75  # of BM25


@dataclass(frozen=True)
class ItemKNNConfig:
    """Settings of item neighbors."""

    neighbors: int = tunable(100, Range(10, 1000, log=True))
    similarity: Literal["cosine", "tfidf", "bm25"] = tunable("cosine", Categorical(("cosine", "tfidf", "bm25")))

    def __post_init__(self) -> None:
        require(self.neighbors >= 1, f"Expected neighbors of at least 1, found {self.neighbors}.")
        require(
            self.similarity in ("cosine", "tfidf", "bm25"),
            f"Expected similarity cosine, tfidf or bm25, found {self.similarity!r}.",
        )


class ItemKNN(Recommender[ItemKNNConfig]):
    """Nearest neighbors of items by cosine, TF-IDF or BM25. Time and memory follow the pairs of items of one user."""

    name = "item-knn"
    family = "neighbors"
    Config = ItemKNNConfig
    is_random = False
    explained_by = "exact"

    def _fit(self, matrix: csr_matrix, context: TrainingContext) -> None:
        # The product of the weighted columns is divided by their norms last: for histories of ones it is exact, so
        # that equal similarities are equal whatever the order of the users.
        weighted, norms = _weighted(matrix.astype(np.float64), self.config.similarity)
        columns, items = weighted.T.tocsr(), matrix.shape[1]

        def products(rows: slice) -> csr_matrix:
            return csr_matrix(diags(1 / norms[rows]) @ (columns[rows] @ weighted) @ diags(1 / norms))

        self.similarity = strongest_products(products, items, items, min(self.config.neighbors, items), context)

    def _score(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Tensor:
        return torch.as_tensor((history @ self.similarity).toarray().astype(np.float32))

    def _item_weights(self) -> csr_matrix:
        return self.similarity

    def _get_state(self) -> dict[str, Tensor]:
        return csr_state(self.similarity)

    def _set_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        self.similarity = csr_from_state(state, columns=len(state["indptr"]) - 1)

    def _state_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        return StateSpec(matrices={"": CsrSpec(n_items, n_items, torch.float64)})


def _weighted(matrix: csr_matrix, similarity: str) -> tuple[csr_matrix, NDArray[np.float64]]:
    """The matrix (users, items) with its cells weighted, and what each item is divided by, (items,)."""
    lengths = np.diff(matrix.indptr)
    rows = np.repeat(np.arange(matrix.shape[0]), lengths)
    rarity = np.log(matrix.shape[1]) - np.log1p(lengths)  # of users, as `implicit` has it: short histories say more
    data = matrix.data
    if similarity == "tfidf":
        data = np.sqrt(data) * rarity[rows]
    if similarity == "bm25":
        sums = np.asarray(matrix.sum(axis=0)).ravel()
        length = (1 - _B) + _B * sums / sums.mean()
        data = data * (_K1 + 1) / (_K1 * length[matrix.indices] + data) * rarity[rows]
    weighted = csr_matrix((data, matrix.indices, matrix.indptr), shape=matrix.shape)
    squares = np.bincount(matrix.indices, weights=np.square(data), minlength=matrix.shape[1])
    norms = np.ones(matrix.shape[1]) if similarity == "bm25" else np.sqrt(squares)
    return weighted, np.where(norms > 0, norms, 1)
