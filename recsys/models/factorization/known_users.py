"""Factors of the training users, kept with a model that folds histories in: an unchanged history needs no solve.

A history is recognized by what is in it, not by the id of its user: by a 64-bit hash of its items and values. That of a
training user gets the factors that folding it in gave after the fit, bit by bit the same; every other history is folded
in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.models.state import StateSpec, TensorSpec

MOST_BYTES = 256_000_000  # of factors; with more training users none are kept
KNOWN = "known."  # in the names of the tensors
_HASHES, _FACTORS = f"{KNOWN}hashes", f"{KNOWN}factors"
_MIX = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # of splitmix64


class KnownUsers:
    """Factors by the hash of a history.

    Parameters
    ----------
    hashes : ndarray of int64, shape (kept,)
        Sorted and distinct.
    factors : Tensor, float32 (kept, factors)
    """

    def __init__(self, hashes: NDArray[np.int64], factors: Tensor):
        self.hashes, self.factors = hashes, factors

    @classmethod
    def of(cls, matrix: csr_matrix, fold_in: Callable[[csr_matrix], Tensor], width: int) -> KnownUsers:
        """Fold the training users in, and keep their factors unless they are too many.

        Parameters
        ----------
        matrix : csr_matrix, shape (users, items)
        fold_in : callable
            From histories to factors (users, width).
        width : int

        Returns
        -------
        KnownUsers
        """
        if not matrix.shape[0] or 4 * width * matrix.shape[0] > MOST_BYTES:
            return cls(np.empty(0, dtype=np.int64), torch.empty(0, width))
        hashes, rows = np.unique(hash_rows(matrix), return_index=True)
        return cls(hashes, fold_in(matrix[rows]))

    def factors_of(self, history: csr_matrix, fold_in: Callable[[csr_matrix], Tensor]) -> Tensor:
        """Return the factors of histories, (users, factors): those that are known, and the others folded in."""
        if not len(self.hashes):
            return fold_in(history)
        hashes = hash_rows(history)
        place = np.searchsorted(self.hashes, hashes).clip(max=len(self.hashes) - 1)
        known = self.hashes[place] == hashes
        found = self.factors[torch.as_tensor(place, device=self.factors.device)]
        if not known.all():
            rest = torch.as_tensor(~known, device=found.device)
            found[rest] = fold_in(history[~known]).to(found.dtype)
        return found

    def get_state(self) -> dict[str, Tensor]:
        """Return hashes and factors by name."""
        return {_HASHES: torch.as_tensor(self.hashes), _FACTORS: self.factors}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], width: int, device: torch.device) -> KnownUsers:
        """Return what a checked state holds; one of version 0.1 knows no users."""
        if _HASHES not in state:
            return cls(np.empty(0, dtype=np.int64), torch.empty(0, width, device=device))
        return cls(state[_HASHES].numpy(force=True), state[_FACTORS].to(device))

    @staticmethod
    def spec(state: Mapping[str, Tensor], width: int) -> StateSpec:
        """Return what the part of a state must be; nothing in one of version 0.1."""
        if _HASHES not in state and _FACTORS not in state:
            return StateSpec()
        return StateSpec({_HASHES: TensorSpec(("kept",), torch.int64), _FACTORS: TensorSpec(("kept", width))})


def hash_rows(matrix: csr_matrix) -> NDArray[np.int64]:
    """Return a hash of the cells of each row, whatever their order; different rows differ almost surely.

    Parameters
    ----------
    matrix : csr_matrix, float32 (rows, columns)

    Returns
    -------
    ndarray of int64, shape (rows,)
    """
    values = np.ascontiguousarray(matrix.data, dtype=np.float32).view(np.uint32).astype(np.uint64)
    cells = _mixed((matrix.indices.astype(np.uint64) << np.uint64(32)) | values)
    sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(cells, dtype=np.uint64)])  # modulo 2^64
    found: NDArray[Any] = _mixed(sums[matrix.indptr[1:]] - sums[matrix.indptr[:-1]])
    return found.view(np.int64)


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014)."""
    add, first, second = map(np.uint64, _MIX)
    numbers = numbers + add
    numbers = (numbers ^ (numbers >> np.uint64(30))) * first
    numbers = (numbers ^ (numbers >> np.uint64(27))) * second
    return numbers ^ (numbers >> np.uint64(31))
