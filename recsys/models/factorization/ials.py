"""iALS: matrix factorization by alternating least squares, with frequency-scaled regularization.

Rendle, Krichene, Zhang, Koren: Revisiting the Performance of iALS on Item Recommendation Benchmarks, RecSys 2022,
arXiv:2110.14037, equations 2 to 5. With users w_u, items h_i, values x_ui of the observed cells S and
n their number in a row or column:

    sum_S x_ui (w_u.h_i - 1)^2  +  unobserved sum_all (w_u.h_i)^2
    +  l2 sum_u (n_u + unobserved |I|)^power |w_u|^2  +  l2 sum_i (n_i + unobserved |U|)^power |h_i|^2

Given the items, a user's factors solve a small linear system. It is solved in the basis where sum_i h_i h_i' is
diagonal, so that a row of n cells costs min(n, factors)^2 max(n, factors): many factors are cheap where histories are
short.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.models.config import require
from recsys.models.contributions import folded_in
from recsys.models.embeddings import Embeddings
from recsys.models.factorization.known_users import KnownUsers
from recsys.models.factorization.scaled import ScaledFactorization, scaled_weights
from recsys.models.recency import RecencyWeighted, check_half_life
from recsys.models.search_space import Range, tunable
from recsys.models.state import StateSpec, TensorSpec
from recsys.training.context import TrainingContext
from recsys.training.loop import iterate

# Numbers held at once in a batch of systems (64 MB of float32).
_BATCH = 16_000_000
_SPREAD = 0.1  # standard deviation of the initial factors times the root of their number, as in the paper


L2, UNOBSERVED = (1e-4, 0.3), (0.003, 1.0)  # what is tried, and between what the scaled values lie


@dataclass(frozen=True)
class IALSConfig:
    """Settings of iALS."""

    factors: int = tunable(128, Range(16, 512, log=True))
    # None: scaled with the data, see scaled_ials
    l2: float | None = tunable(None, Range(*L2, log=True))
    # weight of every cell; an observed one has its value added to it
    unobserved: float | None = tunable(None, Range(*UNOBSERVED, log=True))
    power: float = 1.0  # exponent of the frequency scaling: 0 the same regularization for all, 1 in proportion
    iterations: int = tunable(8, Range(4, 24))
    half_life: float | None = None  # of an item of a history that is scored, in later items; None: all weigh alike

    def __post_init__(self) -> None:
        require(self.factors >= 1, f"Expected factors of at least 1, found {self.factors}.")
        require(self.l2 is None or self.l2 > 0, f"Expected l2 above 0, found {self.l2}.")
        require(
            self.unobserved is None or self.unobserved > 0, f"Expected unobserved above 0, found {self.unobserved}."
        )
        require(0 <= self.power <= 1, f"Expected power from 0 to 1, found {self.power}.")
        require(self.iterations >= 1, f"Expected iterations of at least 1, found {self.iterations}.")
        check_half_life(self.half_life)


class Weights(NamedTuple):
    """The weights in use, given or scaled."""

    l2: float
    unobserved: float
    power: float


def scaled_ials(user_items: csr_matrix, config: IALSConfig) -> Weights:
    """Scale the weights of iALS that are None with the data.

        unobserved = 1 / alpha
        l2         = l2 of als / alpha / ((n_i + unobserved |U|) (n_u + unobserved |I|))^(power / 2)

    They make the objective that of `als` with its scaled weights (`scaled_weights`), divided by alpha, for a row and a
    column of mean length n_u and n_i. Fixed weights, .3 and .007 in 0.1, suit dense data only: NDCG@100 .008 instead of
    .108 on Amazon Beauty (benchmarks/als_defaults.py).

    Parameters
    ----------
    user_items : csr_matrix, shape (users, items)
        The training matrix.
    config : IALSConfig
        What is given stays.

    Returns
    -------
    Weights
    """
    users, items = user_items.shape
    alpha, l2 = scaled_weights(user_items, None if config.unobserved is None else 1 / config.unobserved)
    unobserved = float(np.clip(1 / alpha, *UNOBSERVED)) if config.unobserved is None else config.unobserved
    if config.l2 is not None:
        return Weights(config.l2, unobserved, config.power)
    lengths = (user_items.nnz / items + unobserved * users) * (user_items.nnz / users + unobserved * items)
    scaled = l2 / alpha / lengths ** (config.power / 2)
    return Weights(float(np.clip(scaled, *L2)) if config.power == 1 else scaled, unobserved, config.power)


class IALS(RecencyWeighted[IALSConfig], ScaledFactorization[IALSConfig]):
    """iALS, matrix factorization with frequency-scaled regularization; histories are folded in by a solve.

    Memory: 4 x factors x (users + items) bytes, and 64 MB.
    """

    name = "ials"
    family = "matrix factorization"
    size_setting = "factors"
    Config = IALSConfig
    explained_by = "closed form"
    scalable = ("l2", "unobserved")

    l2: float  # the values in use, given or scaled
    unobserved: float

    @property
    def _weights(self) -> Weights:
        return Weights(self.l2, self.unobserved, self.config.power)

    def scaled_config(self, user_items: csr_matrix) -> IALSConfig:
        """Return the config with l2 and unobserved scaled with the data where they are None."""
        scaled = scaled_ials(user_items, self.config)
        return replace(self.config, l2=scaled.l2, unobserved=scaled.unobserved)

    def _fit(self, matrix: csr_matrix, context: TrainingContext) -> None:
        self.l2, self.unobserved, _ = scaled_ials(matrix, self.config)
        device = context.resolve_device()
        by_item = matrix.T.tocsr()
        if context.start is None:
            items = torch.randn(matrix.shape[1], self.config.factors) * _SPREAD / math.sqrt(self.config.factors)
        else:
            items = context.start.state["item_factors"]
        items = _on_axes(items.to(device))

        def iteration(items: Tensor) -> tuple[Tensor]:
            users = _on_axes(_solve(matrix, items, self._weights))
            return (_on_axes(_solve(by_item, users, self._weights)),)

        (self.item_factors,) = iterate(iteration, (items,), context.planned(self.config.iterations), context)
        self._known = KnownUsers.of(self._scored_alike(matrix), self._solve, self.config.factors)

    def _solve(self, history: csr_matrix) -> Tensor:
        return _solve(history, self.item_factors, self._weights)

    def _fold_in(self, history: csr_matrix) -> Tensor:
        return self._known.factors_of(history, self._solve)

    def _score(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Tensor:
        return self._fold_in(history) @ self.item_factors.T

    def _score_blocks(self, history: csr_matrix, users: NDArray[np.int64] | None, width: int) -> Iterator[Tensor]:
        folded = self._fold_in(history)
        return (folded @ factors.T for factors in torch.split(self.item_factors, width))

    def _contributions(self, history: csr_matrix, items: NDArray[np.int64]) -> Tensor:
        table = self.item_factors
        values = torch.as_tensor(history.data, device=table.device).double()
        ridge = torch.diag(_diagonal(table.double(), torch.tensor([history.nnz]), self._weights)[0])
        terms = folded_in(table, history, values, values, ridge)
        return terms @ table[torch.as_tensor(items, device=table.device)].double().T

    def _embed_users(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Embeddings:
        return Embeddings(self._user_scoring_vectors(history, users))

    def _embed_items(self) -> Tensor:
        return self.item_factors

    def _user_scoring_vectors(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Tensor:
        return self._fold_in(history)

    def _item_scoring_vectors(self) -> Tensor:
        return self.item_factors

    def _get_state(self) -> dict[str, Tensor]:
        return {"item_factors": self.item_factors} | self._scaled_state() | self._known.get_state()

    def _set_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        self.item_factors = state["item_factors"].to(device)
        self._set_scaled(state)
        self._known = KnownUsers.from_state(state, self.config.factors, device)

    def _state_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        own = StateSpec({"item_factors": TensorSpec((n_items, self.config.factors))} | self._scaled_spec())
        return own | KnownUsers.spec(state, self.config.factors)

    def _start_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        return StateSpec({"item_factors": TensorSpec((n_items, self.config.factors))})


def _on_axes(table: Tensor) -> Tensor:
    """Rotate a table (rows, factors) so that table' table is diagonal; products of its rows stay the same."""
    basis: Tensor = torch.linalg.eigh((table.T @ table).double())[1]
    return table @ basis.to(table.dtype)


def _solve(matrix: csr_matrix, table: Tensor, weights: Weights) -> Tensor:
    """The optimal factors of the rows of the matrix, (rows, factors), given those of its columns, rotated."""
    solved = table.new_zeros(matrix.shape[0], table.shape[1])
    for rows, columns, values in _batches(matrix, table.shape[1]):
        lengths = torch.as_tensor(np.diff(matrix.indptr)[rows], device=table.device)
        diagonal = _diagonal(table, lengths, weights)
        root = torch.as_tensor(values, device=table.device).sqrt()
        known = table[torch.as_tensor(columns, device=table.device)] * root[:, :, None]
        solved[torch.as_tensor(rows, device=table.device)] = _solve_batch(known, root, diagonal)
    return solved


def _diagonal(table: Tensor, lengths: Tensor, weights: Weights) -> Tensor:
    """What unobserved cells and the regularization add to the system of each row, (rows, factors): it is diagonal."""
    l2 = weights.l2 * (lengths + weights.unobserved * len(table)) ** weights.power
    return weights.unobserved * table.square().sum(0) + l2[:, None].to(table.dtype)


def _solve_batch(known: Tensor, target: Tensor, diagonal: Tensor) -> Tensor:
    """(K'K + diag(diagonal))^-1 K' target of each row.

    Shapes: K (rows, cells, factors), target (rows, cells), diagonal (rows, factors) -> (rows, factors). With fewer
    cells than factors the equal D^-1 K' (K D^-1 K' + I)^-1 target is a smaller system, cells x cells.
    """
    if known.shape[1] < known.shape[2]:
        scaled = known / diagonal[:, None, :]
        system = scaled @ known.mT
        system.diagonal(dim1=1, dim2=2).add_(1)
        solved = torch.cholesky_solve(target[:, :, None], torch.linalg.cholesky(system))
        return (scaled.mT @ solved)[:, :, 0]
    system = known.mT @ known
    system.diagonal(dim1=1, dim2=2).add_(diagonal)
    return torch.cholesky_solve(known.mT @ target[:, :, None], torch.linalg.cholesky(system))[:, :, 0]


def _batches(matrix: csr_matrix, factors: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]]:
    """Rows of similar length: their numbers (rows,), their columns and values (rows, cells), padded with value 0.

    Rows without cells are left out. The padding depends on the row alone: a row gets the same result in any batch.
    """
    lengths = np.diff(matrix.indptr)
    padded = _round_up(lengths)
    for cells in np.unique(padded[lengths > 0]):
        alike = np.flatnonzero(padded == cells)
        numbers = cells * factors + min(cells, factors) ** 2
        for rows in np.array_split(alike, -(-len(alike) * numbers // _BATCH)):
            inside = np.arange(cells) < lengths[rows, None]
            place = np.where(inside, matrix.indptr[rows, None] + np.arange(cells), 0)
            yield rows, matrix.indices[place].astype(np.int64), np.where(inside, matrix.data[place], 0)


def _round_up(lengths: NDArray[Any]) -> NDArray[Any]:
    """To the next of 1 to 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, ...: a quarter more at most."""
    step = np.exp2(np.ceil(np.log2(np.maximum(lengths, 1))) - 3).clip(1).astype(np.int64)
    padded: NDArray[Any] = -(-lengths // step) * step
    return padded
