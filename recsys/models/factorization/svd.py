"""SVD: a history is projected onto the leading singular vectors of the user-item matrix.

scores = history D^-a V V' D^a, V the leading right singular vectors of N^-b X D^-a, where a = item_power / 2,
b = user_power / 2, N the row sums and D the column sums of X. Powers of 0: PureSVD (Cremonesi, Koren, Turrin:
Performance of Recommender Algorithms on Top-N Recommendation Tasks, RecSys 2010); of 1: the ideal low-pass filter of
GF-CF (Shen et al.: How Powerful is Graph Convolution for Recommendation?, CIKM 2021, arXiv:2108.07567).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags
from scipy.sparse.linalg import svds
from torch import Tensor

from recsys.models.base import Recommender
from recsys.models.config import require
from recsys.models.embeddings import Embeddings
from recsys.models.scaling import inverse_roots
from recsys.models.search_space import Range, tunable
from recsys.models.state import StateSpec, TensorSpec
from recsys.training.batches import SparseRows, weighted_sum
from recsys.training.context import TrainingContext


@dataclass(frozen=True)
class SVDConfig:
    """Settings of the decomposition: number of factors, powers of item popularity and user activity."""

    factors: int = tunable(64, Range(8, 512, log=True))
    item_power: float = tunable(0.0, Range(0.0, 1.0))
    user_power: float = tunable(0.0, Range(0.0, 1.0))

    def __post_init__(self) -> None:
        require(self.factors >= 1, f"Expected factors of at least 1, found {self.factors}.")
        for name in ("item_power", "user_power"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"Expected {name} from 0 to 1, found {value}.")


class SVD(Recommender[SVDConfig]):
    """Truncated SVD by ARPACK, on the CPU. Memory: 3 x 8 x factors x (users + items) bytes."""

    name = "svd"
    family = "matrix factorization"
    size_setting = "factors"
    Config = SVDConfig
    is_random = False
    explained_by = "exact"

    def _fit(self, matrix: csr_matrix, context: TrainingContext) -> None:
        config, device = self.config, context.resolve_device()
        users, items = inverse_roots(matrix, config.user_power, 1), inverse_roots(matrix, config.item_power, 0)
        context.on_phase("singular vectors", 0, 1)
        scaled = csr_matrix(diags(users) @ matrix @ diags(items))
        vectors = right_singular_vectors(scaled, config.factors)
        context.on_phase("singular vectors", 1, 1)
        scale = items[:, None]
        self.input = torch.as_tensor((vectors * scale).astype(np.float32), device=device)
        self.output = torch.as_tensor((vectors / scale).astype(np.float32), device=device)
        values = np.sqrt(np.square(scaled @ vectors).sum(axis=0))
        self.values = torch.as_tensor(values.astype(np.float32), device=device)

    def _codes(self, history: csr_matrix) -> Tensor:
        return weighted_sum(SparseRows(history, self.input.device).everything(), self.input)

    def _score(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Tensor:
        return self._codes(history) @ self.output.T

    def _score_blocks(self, history: csr_matrix, users: NDArray[np.int64] | None, width: int) -> Iterator[Tensor]:
        codes = self._codes(history)
        return (codes @ output.T for output in torch.split(self.output, width))

    def _embed_items(self) -> Tensor:
        """V S: the cosines are those of the columns of the decomposed matrix, as far as the factors reach."""
        return singular_vectors(self.input, self.output) * self.values

    def _embed_users(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Embeddings:
        return Embeddings(self._codes(history))

    def _item_scoring_vectors(self) -> Tensor:
        return self.output

    def _user_scoring_vectors(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Tensor:
        return self._codes(history)

    def _get_state(self) -> dict[str, Tensor]:
        return {"input": self.input, "output": self.output, "values": self.values}

    def _set_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        self.input, self.output = state["input"].to(device), state["output"].to(device)
        self.values = state.get("values", torch.ones(self.input.shape[1])).to(device)  # 0.1 kept none

    def _state_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        tables = {name: TensorSpec((n_items, "factors")) for name in ("input", "output")}
        return StateSpec(tables | ({"values": TensorSpec(("factors",), low=0)} if "values" in state else {}))


def singular_vectors(first: Tensor, second: Tensor) -> Tensor:
    """Return V, (items, factors), given D^-a V and D^a V for a diagonal D with positive elements."""
    return first.sign() * (first * second).clamp_min(0).sqrt()


def right_singular_vectors(matrix: csr_matrix, count: int) -> NDArray[Any]:
    """Compute the leading right singular vectors of a matrix.

    Parameters
    ----------
    matrix : csr_matrix, shape (users, items)
    count : int
        Number of vectors, at least 1.

    Returns
    -------
    ndarray, shape (items, min(count, users, items))
        Largest singular value first.
    """
    if count >= min(matrix.shape):
        _, _, vectors = np.linalg.svd(matrix.toarray(), full_matrices=False)
        return np.ascontiguousarray(vectors.T)
    start = np.random.default_rng(0).standard_normal(
        min(matrix.shape)
    )  # any starting vector converges; a fixed one is reproducible
    _, _, vectors = svds(matrix, count, v0=start, return_singular_vectors="vh")  # type: ignore[arg-type]
    return np.ascontiguousarray(vectors[::-1].T)  # a saved model then sums in the same order
