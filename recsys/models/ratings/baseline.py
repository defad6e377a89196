"""The baseline of ratings: mean + bias of the item + bias of the user, within the scale.

Koren: Factorization Meets the Neighborhood, KDD 2008, section 2.1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.models.state import StateSpec, TensorSpec
from recsys.training.batches import SparseBatch, SparseRows

_ROUNDS = 10  # alternating updates of the biases; they change by less than .001 after that
_EDGE = 0.002  # share of the scale at each end onto which predictions beyond it are mapped


@dataclass(frozen=True)
class Baseline:
    """A rating without personal taste: mean + bias of the item + bias of the user.

    The bias of a user is computed from a history, so that new users have one too.

    Attributes
    ----------
    mean : Tensor
        Mean of all ratings, a scalar.
    items : Tensor, shape (items,)
        Biases of the items.
    lowest, highest : Tensor
        Ends of the rating scale, scalars.
    user_shrinkage : Tensor
        Shrinkage of users' biases, a scalar; infinity for none.
    """

    mean: Tensor
    items: Tensor
    lowest: Tensor
    highest: Tensor
    user_shrinkage: Tensor

    @classmethod
    def fit(cls, matrix: csr_matrix, user_shrinkage: float, item_shrinkage: float, device: torch.device) -> Baseline:
        """Fit biases by alternating updates.

        Parameters
        ----------
        matrix : csr_matrix, shape (users, items)
            Ratings.
        user_shrinkage, item_shrinkage : float
            A bias is a sum of residuals over their number plus this.
        device : torch.device

        Returns
        -------
        Baseline
        """
        rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
        mean = matrix.data.mean(dtype=np.float64)
        rest = matrix.data - mean
        users, items = np.zeros(matrix.shape[0]), np.zeros(matrix.shape[1])
        for _ in range(_ROUNDS):
            users = _shrunken_means(rest - items[matrix.indices], rows, len(users), user_shrinkage)
            items = _shrunken_means(rest - users[rows], matrix.indices, len(items), item_shrinkage)
        numbers = (mean, items, matrix.data.min(), matrix.data.max(), user_shrinkage)
        return cls(*(torch.as_tensor(number, dtype=torch.float32, device=device) for number in numbers))

    @staticmethod
    def state_spec(n_items: int) -> StateSpec:
        """Declare the tensors of a baseline."""
        scalars = {name: TensorSpec(()) for name in ("mean", "lowest", "highest")}
        shrinkage = {"user_shrinkage": TensorSpec((), low=0, infinite=True)}
        return StateSpec(scalars | shrinkage | {"items": TensorSpec((n_items,))})

    def split(self, ratings: SparseBatch) -> tuple[SparseBatch, Tensor]:
        """Subtract the baseline.

        Parameters
        ----------
        ratings : SparseBatch, shape (rows, items)

        Returns
        -------
        residuals : SparseBatch, shape (rows, items)
            The same cells.
        users : Tensor, shape (rows,)
            Biases of the users.
        """
        rest = ratings.values - self.mean - self.items[ratings.items]
        users = ratings.row_sums(rest) / (ratings.lengths + self.user_shrinkage).clamp_min(1e-12)
        rest = rest - users.repeat_interleave(ratings.lengths, output_size=len(rest))
        return SparseBatch(ratings.items, rest, ratings.offsets), users

    def split_matrix(self, matrix: csr_matrix) -> csr_matrix:
        """Return the residuals of a matrix of ratings (users, items), the same cells stored."""
        residuals, _ = self.split(SparseRows(matrix, self.mean.device).everything())
        return csr_matrix((residuals.values.cpu().numpy(), matrix.indices, matrix.indptr), shape=matrix.shape)

    def residual_rows(self, matrix: csr_matrix, transposed: bool) -> SparseRows:
        """Return the residuals on the device; rows are users, or items if transposed."""
        rest = self.split_matrix(matrix)
        return SparseRows(csr_matrix(rest.T) if transposed else rest, self.mean.device)

    def with_items(self, rest: SparseBatch, shrinkage: float) -> tuple[Baseline, SparseBatch]:
        """Add biases of new items.

        Parameters
        ----------
        rest : SparseBatch, shape (new items, users)
            Their ratings minus mean and bias of the user.
        shrinkage : float
            A bias is a sum of these over their number plus the shrinkage.

        Returns
        -------
        baseline : Baseline
            Of (items + new items,).
        residuals : SparseBatch, shape (new items, users)
            Without the new biases.
        """
        biases = rest.row_sums(rest.values) / (rest.lengths + shrinkage).clamp_min(1e-12)
        left = rest.values - biases.repeat_interleave(rest.lengths, output_size=len(rest.values))
        return replace(self, items=torch.cat([self.items, biases])), SparseBatch(rest.items, left, rest.offsets)

    def join(self, taste: Tensor, users: Tensor) -> Tensor:
        """Return ratings within the scale from taste (rows, items) and biases of users (rows,)."""
        return self.within(taste + (self.mean + self.items) + users[:, None])

    def within(self, ratings: Tensor) -> Tensor:
        """Clip ratings softly to the scale, preserving their order.

        A hard clip would make all items equal that a generous user is expected to like. Instead, values beyond an end
        are mapped into the last _EDGE of the scale: with m the width of that edge and x the distance beyond its start,
        the result is m x / (m + x) beyond the start.
        """
        edge = (self.highest - self.lowest) * _EDGE
        low, high = self.lowest + edge, self.highest - edge
        above, below = (ratings - high).clamp_min_(0), (low - ratings).clamp_min_(0)
        return ratings.clamp(low, high).add_(_soft(above, edge)).sub_(_soft(below, edge))


def _soft(distance: Tensor, edge: Tensor) -> Tensor:
    return distance.mul_(edge / (distance + edge).clamp_min_(1e-12))


def _shrunken_means(values: NDArray[np.float64], groups: NDArray[Any], count: int, more: float) -> NDArray[np.float64]:
    sums, sizes = np.bincount(groups, values, count), np.bincount(groups, minlength=count)
    means: NDArray[np.float64] = sums / np.maximum(sizes + more, 1e-12)
    return means
