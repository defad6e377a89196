"""Sparse EASE: each item is predicted from its nearest items only, for catalogs whose full matrix does not fit.

Column j of EASE solves a ridge regression of item j on all others. Here it is on the `neighbors` that explain it best
one by one, so that a column is a system of neighbors x neighbors. After the sparse approximation in Steck: Markov
Random Fields for Collaborative Filtering, NeurIPS 2019, arXiv:1910.09645. Settings have the meaning they have in
recsys.models.linear.ease.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.models.config import require
from recsys.models.linear.ease import RidgeConfig, ridge_of
from recsys.models.neighbors import strongest
from recsys.models.recency import RecencyWeighted, check_half_life
from recsys.models.scaling import weigh_users
from recsys.models.search_space import Range, tunable
from recsys.models.state import CsrSpec, StateSpec, csr_from_state, csr_state
from recsys.training.context import TrainingContext

# Numbers held at once: of the Gram matrix if its rows were full, and in a batch of systems (256 MB and 64 MB).
_GRAM = 64_000_000
_BATCH = 16_000_000


@dataclass(frozen=True)
class SparseEASEConfig(RidgeConfig):
    """The ridge of EDLAE, and the number of items that predict an item."""

    l2: float = tunable(40.0, Range(1.0, 3000.0, log=True))
    neighbors: int = tunable(100, Range(20, 300, log=True))
    half_life: float | None = None  # of an item of a history that is scored, in later items; None: all weigh alike

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.neighbors >= 1, f"Expected neighbors of at least 1, found {self.neighbors}.")
        check_half_life(self.half_life)


class SparseEASE(RecencyWeighted[SparseEASEConfig]):
    """EASE on the nearest items of each item.

    Memory: below 1 GB plus 16 x neighbors bytes per item. Time per item: its neighbors' users, and neighbors^3.
    """

    name = "sparse-ease"
    family = "linear autoencoder"
    Config = SparseEASEConfig
    is_random = False
    explained_by = "exact"

    def _fit(self, matrix: csr_matrix, context: TrainingContext) -> None:
        config, device, items = self.config, context.resolve_device(), matrix.shape[1]
        weighted = weigh_users(matrix, config.user_power)
        columns = weighted.T.tocsr()
        popularity = np.asarray(columns.multiply(columns).sum(axis=1)).ravel()
        ridge = ridge_of(torch.as_tensor(popularity), config).numpy()
        most = min(2 * config.neighbors, max(1, items - 1))
        parts = []
        step = max(1, min(_GRAM // items, _BATCH // most**2))
        for rows in (slice(start, start + step) for start in range(0, items, step)):
            context.on_phase("items", rows.start, items)
            gram = (columns[rows] @ weighted).tocsr()
            chosen, products = nearest(gram, rows.start, popularity + ridge, config.neighbors, most)
            parts.append((chosen, _solve(columns, ridge, chosen, products, device)))
        context.on_phase("items", items, items)
        self.weights = _columns(parts, items)

    def _score(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Tensor:
        return torch.as_tensor((history @ self.weights).toarray())

    def _item_weights(self) -> csr_matrix:
        return self.weights

    def _get_state(self) -> dict[str, Tensor]:
        return csr_state(self.weights)

    def _set_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        self.weights = csr_from_state(state, columns=len(state["indptr"]) - 1)

    def _state_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        return StateSpec(matrices={"": CsrSpec(n_items, n_items)})


def nearest(
    gram: csr_matrix, first: int, diagonal: NDArray[np.float32], count: int, most: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Select, for some items, the other items j with the largest G_ij^2 / diagonal_j.

    That is how much a ridge regression on item j alone reduces the squared error of item i.

    Parameters
    ----------
    gram : csr_matrix, shape (batch, items)
        Rows of the Gram matrix G, from item `first` on.
    first : int
        Position of the item of the first row.
    diagonal : ndarray of float32, shape (items,)
        Diagonal of G plus the ridge.
    count : int
        Neighbors of an item.
    most : int
        Largest number of neighbors with ties (see recsys.models.neighbors).

    Returns
    -------
    positions : ndarray of int32, shape (batch, width)
        Best first; -1 where an item has no more neighbors. `width` is that of the longest row, at least 1.
    products : ndarray of float32, shape (batch, width)
        G_ij of them; 0 where there are none.
    """
    found = []
    for row in range(gram.shape[0]):
        cells = slice(gram.indptr[row], gram.indptr[row + 1])
        others, values = gram.indices[cells], gram.data[cells]
        gain = np.where(others == first + row, 0, values * values / diagonal[others])
        best = np.flatnonzero(strongest(gain, count, most))
        best = best[np.lexsort((others[best], -gain[best]))]
        found.append((others[best], values[best]))
    chosen = np.full((len(found), max([1, *(len(others) for others, _ in found)])), -1, dtype=np.int32)
    products = np.zeros(chosen.shape, dtype=np.float32)
    for row, (others, values) in enumerate(found):
        chosen[row, : len(others)], products[row, : len(others)] = others, values
    return chosen, products


def _columns(parts: list[tuple[NDArray[np.int32], NDArray[np.float32]]], items: int) -> csr_matrix:
    """The weights as CSR (items, items) from the columns of batches of items: their neighbors and weights."""
    rows, columns, values, first = [], [], [], 0
    for chosen, weights in parts:
        item, place = np.nonzero(chosen >= 0)
        rows.append(chosen[item, place])
        columns.append(item + first)
        values.append(weights[item, place])
        first += len(chosen)
    cells = (np.concatenate(rows), np.concatenate(columns))
    return csr_matrix((np.concatenate(values), cells), shape=(items, items))


def _solve(
    columns: csr_matrix,
    ridge: NDArray[np.float32],
    chosen: NDArray[np.int32],
    products: NDArray[np.float32],
    device: torch.device,
) -> NDArray[np.float32]:
    """Weights of the chosen neighbors of some items, (batch, width); 0 where there is none."""
    systems = np.stack([_system(columns, ridge, near[near >= 0], len(near)) for near in chosen])
    factor = torch.linalg.cholesky(torch.as_tensor(systems, device=device))
    solved = torch.cholesky_solve(torch.as_tensor(products, device=device)[:, :, None], factor)
    return solved[:, :, 0].cpu().numpy()


def _system(columns: csr_matrix, ridge: NDArray[np.float32], near: NDArray[np.int32], size: int) -> NDArray[np.float32]:
    """The Gram matrix of some items with their ridge, (size, size); ones on the diagonal beyond them."""
    system = np.eye(size, dtype=np.float32)
    known = columns[near]  # (near, users)
    system[: len(near), : len(near)] = (known @ known.T).toarray()
    inside = np.arange(len(near))
    system[inside, inside] += ridge[near]
    return system
