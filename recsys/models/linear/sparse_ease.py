"""Sparse EASE: every item is explained by its nearest items alone, for catalogs whose square does not fit.

Column j of EASE solves a ridge regression of item j on all others. Here it is on the `neighbors` that explain it best
one by one, so that a column is a system of neighbors x neighbors. After the sparse approximation in Steck: Markov
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

from recsys.models.base import Recommender
from recsys.models.config import require
from recsys.models.linear.ease import RidgeConfig, ridge_of
from recsys.models.scaling import weigh_users
from recsys.models.search_space import Range, tunable
from recsys.training.context import TrainingContext

# Numbers held at once: of the Gram matrix, were its rows full, and in a batch of systems (256 MB and 64 MB).
_GRAM = 64_000_000
_BATCH = 16_000_000


@dataclass(frozen=True)
class SparseEASEConfig(RidgeConfig):
    """The ridge of EDLAE, and how many items explain an item."""

    l2: float = tunable(40.0, Range(1.0, 3000.0, log=True))
    neighbors: int = tunable(100, Range(20, 300, log=True))

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.neighbors >= 1, f"Expected neighbors of at least 1, found {self.neighbors}.")


class SparseEASE(Recommender):
    """Memory: below 1 GB and 16 x neighbors bytes an item. Time of an item: its neighbors' users, neighbors^3."""

    name = "sparse-ease"
    family = "linear autoencoder"
    Config = SparseEASEConfig
    is_random = False

    def _fit(self, matrix: csr_matrix, context: TrainingContext) -> None:
        config, device, items = self.config, context.resolve_device(), matrix.shape[1]
        weighed = weigh_users(matrix, config.user_power)
        columns = weighed.T.tocsr()
        popularity = np.asarray(columns.multiply(columns).sum(axis=1)).ravel()
        ridge = ridge_of(torch.as_tensor(popularity), config).numpy()
        count = min(config.neighbors, max(1, items - 1))
        chosen, values = np.empty((items, count), dtype=np.int32), np.empty((items, count), dtype=np.float32)
        step = max(1, min(_GRAM // items, _BATCH // count**2))
        for rows in (slice(start, start + step) for start in range(0, items, step)):
            gram = (columns[rows] @ weighed).tocsr()
            chosen[rows], together = nearest(gram, rows.start, popularity + ridge, count)
            values[rows] = _solve(columns, ridge, chosen[rows], together, device)
        there = chosen >= 0
        self.weights = csr_matrix((values[there], (chosen[there], np.nonzero(there)[0])), shape=(items, items))

    def _score(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Tensor:
        return torch.as_tensor((history @ self.weights).toarray())

    def item_codes(self) -> Tensor:
        """Rows of B, (items, items), dense."""
        return torch.as_tensor(self.weights.toarray())

    def _get_state(self) -> dict[str, Tensor]:
        return {part: torch.as_tensor(getattr(self.weights, part)) for part in ("data", "indices", "indptr")}

    def _set_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        assert self.n_items is not None
        data, indices, indptr = (state[part].numpy() for part in ("data", "indices", "indptr"))
        self.weights = csr_matrix((data, indices, indptr), shape=(self.n_items, self.n_items))


def nearest(
    gram: csr_matrix, first: int, diagonal: NDArray[np.float32], count: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """For some items the others with the largest G_ij^2 / diagonal_j, what a ridge on j alone takes off its error.

    Shapes: gram (batch, items) from item `first` on, diagonal (items,) -> positions and G_ij (batch, count), best
    first; -1 and 0 where there are no more.
    """
    chosen = np.full((gram.shape[0], count), -1, dtype=np.int32)
    together = np.zeros(chosen.shape, dtype=np.float32)
    for row in range(gram.shape[0]):
        cells = slice(gram.indptr[row], gram.indptr[row + 1])
        others, found = gram.indices[cells], gram.data[cells]
        gain = np.where(others == first + row, 0, found * found / diagonal[others])
        best = np.argpartition(-gain, count - 1)[:count] if len(gain) > count else np.arange(len(gain))
        best = best[gain[best] > 0]
        best = best[np.lexsort((others[best], -gain[best]))]
        chosen[row, : len(best)], together[row, : len(best)] = others[best], found[best]
    return chosen, together


def _solve(
    columns: csr_matrix,
    ridge: NDArray[np.float32],
    chosen: NDArray[np.int32],
    together: NDArray[np.float32],
    device: torch.device,
) -> NDArray[np.float32]:
    """Weights of the chosen neighbors of some items, (batch, count); 0 where none is chosen."""
    systems = np.stack([_system(columns, ridge, near[near >= 0], len(near)) for near in chosen])
    factor = torch.linalg.cholesky(torch.as_tensor(systems, device=device))
    solved = torch.cholesky_solve(torch.as_tensor(together, device=device)[:, :, None], factor)
    return solved[:, :, 0].cpu().numpy()


def _system(columns: csr_matrix, ridge: NDArray[np.float32], near: NDArray[np.int32], size: int) -> NDArray[np.float32]:
    """The Gram matrix of some items with their ridge, (size, size); ones on the diagonal beyond them."""
    system = np.eye(size, dtype=np.float32)
    known = columns[near]  # (near, users)
    system[: len(near), : len(near)] = (known @ known.T).toarray()
    inside = np.arange(len(near))
    system[inside, inside] += ridge[near]
    return system
