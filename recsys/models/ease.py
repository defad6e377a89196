"""EASE: a linear autoencoder with zero diagonal, in closed form.

Steck: Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019, arXiv:1905.03375.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.errors import ConfigError
from recsys.models.base import Recommender, require
from recsys.models.layers import weighted_sum
from recsys.search_space import Range, tunable
from recsys.training import SparseRows, TrainingContext


@dataclass(frozen=True)
class EASEConfig:
    """One number."""

    # added to the diagonal of the Gram matrix; 100 to 1000 for most data
    l2: float = tunable(500.0, Range(10.0, 10_000.0, log=True))

    def __post_init__(self) -> None:
        require(self.l2 > 0, f"Expected l2 above 0, found {self.l2}.")


class EASE(Recommender):
    """B = I - P diag(P)^-1 with P = (X'X + l2 I)^-1; scores = history @ B. Memory: about 3 x items^2 x 4 bytes."""

    name = "ease"
    family = "linear autoencoder"
    Config = EASEConfig
    is_random = False

    def _fit(self, matrix: csr_matrix, context: TrainingContext) -> None:
        gram = torch.as_tensor((matrix.T @ matrix).toarray(), device=context.resolve_device())
        gram.diagonal().add_(self.config.l2)
        try:
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            raise ConfigError(
                f"Expected an l2 that keeps the matrix solvable, found {self.config.l2}: raise it."
            ) from error
        self.weights = (inverse / -inverse.diagonal()).contiguous()  # row by row, as scoring reads it
        self.weights.fill_diagonal_(0)

    def _score(self, history: csr_matrix, users: NDArray[Any] | None) -> Tensor:
        return weighted_sum(SparseRows(history, self.weights.device).everything(), self.weights)

    def item_codes(self) -> Tensor:
        """Rows of B: what an item says about all others, (items, items)."""
        return self.weights

    def _get_state(self) -> dict[str, Tensor]:
        return {"weights": self.weights}

    def _set_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        self.weights = state["weights"].to(device)
