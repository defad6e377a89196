"""The closed form of EASE and EDLAE with fewer users than items: a users x users matrix instead of items x items.

With Y = W^1/2 X (users, items) and R = diag(r), the Woodbury identity turns the inverse in `recsys.models.linear.ease`
into

    P = (Y'Y + R)^-1 = R^-1 - R^-1 Y' M Y R^-1,   M = (I + Y R^-1 Y')^-1   (users, users)

so that, for B = I - P diag(c) and off its diagonal, B_ij = (Y' M Y)_ij c_j / (r_i r_j). The scores of a history are a
sparse product, one with M and another sparse product: the items x items matrix is never formed. The diagonal of B, 1 -
P_ii c_i, is set apart: it is not left to rounding. M is computed in float64, in place; with its float32 copy it takes
12 users^2 bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.models.state import CsrSpec, StateSpec, TensorSpec, csr_from_state, csr_state
from recsys.training.context import TrainingContext

# Users x users and items x items matrices below this size take no time either way.
_FEW_ITEMS = 2000
_BLOCK = 1024  # items at once
_PREFIX = "rows."


def suits_dual(matrix: csr_matrix) -> bool:
    """Return whether solving over users is cheaper, and the other way long enough to matter."""
    return over_users(*matrix.shape)


def over_users(users: int, items: int) -> bool:
    """Return the same, given the numbers."""
    return bool(2 * users <= items and items > _FEW_ITEMS)


def dual_bytes(users: int) -> int:
    """Return the bytes that fitting takes: a float64 matrix of users x users, solved in place, and a float32 copy."""
    return 12 * users**2


class DualWeights:
    """Weights diag(entry) B diag(exit) with B of the module's text, in parts, on the CPU.

    Parameters
    ----------
    rows : csr_matrix, float32 (users, items)
        Y R^-1.
    inverse : Tensor, float32 (users, users)
        M.
    entry, exit : Tensor, float32 (items,)
        What an item's row and column are multiplied by; c is part of the latter.
    diagonal : Tensor, float32 (items,)
        The diagonal of the weights.
    """

    def __init__(self, rows: csr_matrix, inverse: Tensor, entry: Tensor, exit: Tensor, diagonal: Tensor):
        self.rows, self.inverse, self.entry, self.exit, self.diagonal = rows, inverse, entry, exit, diagonal
        self._columns = rows.T.tocsr()
        self._dense: Tensor | None = None
        self._own = torch.as_tensor(_quadratic(self._columns, inverse.numpy())) * entry * exit  # off by rounding

    @classmethod
    def solve(
        cls,
        weighted: csr_matrix,
        ridge: NDArray[np.float64],
        diagonal: float,
        damping: NDArray[np.float64],
        context: TrainingContext,
    ) -> DualWeights:
        """Solve for the weights.

        Parameters
        ----------
        weighted : csr_matrix, shape (users, items)
            Y.
        ridge : ndarray of float64, shape (items,)
            r.
        diagonal : float
            Upper bound of the diagonal of B; 0 for a diagonal of zeros.
        damping : ndarray of float64, shape (items,)
            The rows of B are multiplied by it, the columns divided.
        context : TrainingContext
            Its `on_phase` is called.

        Returns
        -------
        DualWeights

        Raises
        ------
        LinAlgError
            Of torch, if the ridge is too small for the matrix to be inverted.
        """
        rows = weighted.astype(np.float64)
        rows.sort_indices()
        scaled = csr_matrix((rows.data / ridge[rows.indices], rows.indices, rows.indptr), rows.shape)
        context.on_phase("matrix of users", 0, 2)
        system = torch.as_tensor((scaled @ rows.T).toarray())
        system.diagonal().add_(1)
        context.on_phase("matrix of users", 1, 2)
        columns = system.mT  # column-major as LAPACK wants it: no copy
        torch.linalg.cholesky(columns, out=columns)
        torch.cholesky_inverse(columns, out=columns)
        context.on_phase("matrix of users", 2, 2)
        own = 1 / ridge - _quadratic(scaled.T.tocsr(), system.numpy())  # the diagonal of P
        scale = np.maximum(ridge, (1 - diagonal) / own)
        kept = 1 - own * scale if diagonal else np.zeros(len(own))
        parts = (torch.as_tensor(part.astype(np.float32)) for part in (damping, scale / damping, kept))
        return cls(csr_matrix(scaled, dtype=np.float32), system.float(), *parts)

    def scores(self, history: csr_matrix) -> Tensor:
        """Return the sums of the weights of histories, float32 (users, items)."""
        reached = torch.as_tensor((self._entered(history) @ self._columns).toarray()) @ self.inverse
        found = torch.as_tensor(np.ascontiguousarray((self._columns @ reached.numpy().T).T)).mul_(self.exit)
        row = torch.as_tensor(np.repeat(np.arange(history.shape[0]), np.diff(history.indptr)))
        values, items = torch.as_tensor(history.data), torch.as_tensor(history.indices).long()
        found[row, items] += values * (self.diagonal - self._own)[items]
        return found

    def _entered(self, history: csr_matrix) -> csr_matrix:
        return csr_matrix(
            (history.data * self.entry.numpy()[history.indices], history.indices, history.indptr), history.shape
        )

    def cells(self, known: NDArray[np.int64], wanted: NDArray[np.int64]) -> Tensor:
        """Return the weights of some items on others, float32 (known, wanted)."""
        reached = self._columns[known] @ self.inverse.numpy()
        found = torch.as_tensor((self._columns[wanted] @ reached.T).T.copy())
        found.mul_(self.exit[wanted]).mul_(self.entry[known][:, None])
        same = torch.as_tensor(known[:, None] == wanted)
        return torch.where(same, self.diagonal[wanted], found)

    def dense(self) -> Tensor:
        """Return all weights, float32 (items, items), for what needs vectors of items; they are kept."""
        if self._dense is None:
            every = np.arange(len(self.diagonal))
            self._dense = torch.cat([self.cells(every[block], every) for block in _blocks(len(every))])
        return self._dense

    def get_state(self) -> dict[str, Tensor]:
        """Return the parts by name."""
        own = {"inverse": self.inverse, "entry": self.entry, "exit": self.exit, "diagonal": self.diagonal}
        return own | csr_state(self.rows, _PREFIX)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], items: int) -> DualWeights:
        """Return the weights of a checked state."""
        parts = (state[name].cpu() for name in ("inverse", "entry", "exit", "diagonal"))
        return cls(csr_from_state(state, items, _PREFIX), *parts)

    @staticmethod
    def spec(items: int) -> StateSpec:
        """Return what a state must be."""
        vectors = {name: TensorSpec((items,)) for name in ("entry", "exit", "diagonal")}
        return StateSpec({"inverse": TensorSpec(("rows", "rows")), **vectors}, {_PREFIX: CsrSpec("rows", items)})


def _quadratic(columns: csr_matrix, inverse: NDArray[Any]) -> NDArray[Any]:
    """y' M y of each row y of a matrix (items, users), (items,)."""
    found = np.empty(columns.shape[0], dtype=inverse.dtype)
    for block in _blocks(columns.shape[0]):
        some = columns[block]
        product = some @ inverse
        cell = np.repeat(np.arange(some.shape[0]), np.diff(some.indptr))
        found[block] = np.bincount(cell, some.data * product[cell, some.indices], some.shape[0])
    return found


def _blocks(items: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK) for start in range(0, items, _BLOCK))
