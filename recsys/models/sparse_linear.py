"""Sparse EASE: every item is explained by its nearest items alone, for catalogues whose square does not fit.

Column j of EASE solves a ridge regression of item j on all others. Here it is on the `neighbours` that explain it best
one by one, so that a column is a system of neighbours x neighbours. After the sparse approximation in Steck: Markov
Random Fields for Collaborative Filtering, NeurIPS 2019, arXiv:1910.09645. Settings mean what they mean in
recsys.models.linear.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.memory import require_memory
from recsys.models.base import Recommender, require
from recsys.models.linear import RidgeConfig, ridge_of
from recsys.models.scaling import weigh_users
from recsys.search_space import Range, tunable
from recsys.training import TrainingContext

_BATCH = 4_000_000  # numbers held at once in a batch of systems, some 100 bytes each


@dataclass(frozen=True)
class SparseEASEConfig(RidgeConfig):
    """The ridge of EDLAE, and how many items explain an item."""

    l2: float = tunable(100.0, Range(1.0, 3000.0, log=True))
    dropout: float = tunable(0.0, Range(0.0, 0.8))
    neighbours: int = tunable(100, Range(20, 300, log=True))

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.neighbours >= 1, f"Expected neighbours of at least 1, found {self.neighbours}.")


class SparseEASE(Recommender):
    """Memory: 16 bytes a pair of items that some user took both of, and 16 x neighbours an item."""

    name = "sparse-ease"
    family = "linear autoencoder"
    Config = SparseEASEConfig
    is_random = False

    def _fit(self, matrix: csr_matrix, context: TrainingContext) -> None:
        config, device = self.config, context.resolve_device()
        require_memory(self.name, pairs_bytes(matrix), torch.device("cpu"), "elsa, which holds no pairs")
        weighed = weigh_users(matrix, config.user_power)
        gram = csr_matrix(weighed.T @ weighed)
        gram.sort_indices()
        popularity = gram.diagonal()
        ridge = ridge_of(torch.as_tensor(popularity), config).numpy()
        chosen = nearest(gram, popularity + ridge, min(config.neighbours, max(1, matrix.shape[1] - 1)))
        values = np.empty(chosen.shape, dtype=np.float32)
        for rows in np.array_split(np.arange(len(chosen)), -(-chosen.shape[1] * chosen.size // _BATCH)):
            values[rows] = _solve(gram, ridge, rows, chosen[rows], device)
        there = chosen >= 0
        columns = np.nonzero(there)[0]
        self.weights = csr_matrix((values[there], (chosen[there], columns)), shape=gram.shape)

    def _score(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Tensor:
        return torch.as_tensor((history @ self.weights).toarray())

    def item_codes(self) -> Tensor:
        """Rows of B, (items, items), dense."""
        return torch.as_tensor(self.weights.toarray())

    def _get_state(self) -> dict[str, Tensor]:
        return {part: torch.as_tensor(getattr(self.weights, part)) for part in ("data", "indices", "indptr")}

    def _set_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        assert self.items is not None
        data, indices, indptr = (state[part].numpy() for part in ("data", "indices", "indptr"))
        self.weights = csr_matrix((data, indices, indptr), shape=(self.items, self.items))


def pairs_bytes(matrix: csr_matrix) -> int:
    """Bytes of the Gram matrix, sparse, at most: made and sorted, 16 a pair of items that some user took both of."""
    pairs = int((np.diff(matrix.indptr).astype(np.int64) ** 2).sum())
    return 16 * min(pairs, matrix.shape[1] ** 2)


def nearest(gram: csr_matrix, diagonal: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """For each item the others with the largest G_ij^2 / diagonal_j, what a ridge on j alone takes off its error.

    Shapes: gram (items, items), diagonal (items,) -> positions (items, count), best first; -1 where there are no more.
    """
    chosen = np.full((gram.shape[0], count), -1, dtype=np.int64)
    for item in range(gram.shape[0]):
        cells = slice(gram.indptr[item], gram.indptr[item + 1])
        others, together = gram.indices[cells], gram.data[cells]
        gain = np.where(others == item, 0, together * together / diagonal[others])
        best = np.argpartition(-gain, count - 1)[:count] if len(gain) > count else np.arange(len(gain))
        best = best[gain[best] > 0]
        best = best[np.lexsort((others[best], -gain[best]))]
        chosen[item, : len(best)] = others[best]
    return chosen


def _solve(
    gram: csr_matrix,
    ridge: NDArray[np.float32],
    items: NDArray[np.int64],
    chosen: NDArray[np.int64],
    device: torch.device,
) -> NDArray[np.float32]:
    """Weights of the chosen neighbours (batch, count) of some items (batch,), 0 where none is chosen."""
    there = chosen >= 0
    known = np.where(there, chosen, 0)
    upper = np.triu_indices(chosen.shape[1])
    systems = np.zeros((*chosen.shape, chosen.shape[1]), dtype=np.float32)
    pairs = _look_up(gram, known[:, upper[0]], known[:, upper[1]]) * there[:, upper[0]] * there[:, upper[1]]
    systems[:, upper[0], upper[1]] = systems[:, upper[1], upper[0]] = pairs
    inside = np.arange(chosen.shape[1])
    systems[:, inside, inside] += np.where(there, ridge[known], 1)
    target = _look_up(gram, np.broadcast_to(items[:, None], chosen.shape), known) * there
    factor = torch.linalg.cholesky(torch.as_tensor(systems, device=device))
    solved = torch.cholesky_solve(torch.as_tensor(target, device=device)[:, :, None], factor)
    return solved[:, :, 0].cpu().numpy()


def _look_up(matrix: csr_matrix, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float32]:
    """Cells of a sparse matrix by their places, in the shape of the places."""
    return np.asarray(matrix[rows.ravel(), columns.ravel()], dtype=np.float32).reshape(rows.shape)
