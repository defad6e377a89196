"""Ridge regression on the features of items, solved over items or over features, whichever are fewer.

With F (items, features), targets T (items, width) and features f (new items, features):

    map      C = F'(F F' + l2 I)^-1 T = (F'F + l2 I)^-1 F'T      predicted targets are f C
    shares   A = (F F' + l2 I)^-1 F f' = F (F'F + l2 I)^-1 f'    predicted targets are A'T
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.system.memory import require_memory


@dataclass(frozen=True)
class Ridge:
    """A regression on features, factorized once.

    Attributes
    ----------
    features : csr_matrix, float32 (items, features)
        F.
    lower : Tensor, float32
        Cholesky factor of F F' + l2 I, or of F'F + l2 I where there are fewer features than items.
    """

    features: csr_matrix
    lower: Tensor

    @classmethod
    def of(cls, features: csr_matrix, l2: float, device: torch.device, name: str, results: int = 0) -> Ridge:
        """Factorize the system of features.

        Parameters
        ----------
        features : csr_matrix, float32 (items, features)
        l2 : float
            Above 0.
        device : torch.device
        name : str
            Of the model, for an error about memory.
        results : int
            Numbers that the caller holds besides the system.

        Returns
        -------
        Ridge
        """
        size = 12 * (min(features.shape) ** 2 + results)
        require_memory(name, size, device, "fewer features (--feature-columns)")
        square = features @ features.T if features.shape[0] <= features.shape[1] else features.T @ features
        system = torch.as_tensor(square.toarray(), dtype=torch.float32, device=device)
        system.diagonal().add_(l2)
        return cls(features, torch.linalg.cholesky(system))

    def map(self, targets: Tensor) -> Tensor:
        """Return C (features, width) for targets (items, width)."""
        if self._is_over_items:
            return self._tensor(self.features.T @ torch.cholesky_solve(targets, self.lower).numpy(force=True))
        return torch.cholesky_solve(self._tensor(self.features.T @ targets.numpy(force=True)), self.lower)

    def shares(self, new: csr_matrix) -> Tensor:
        """Return A (items, new items) for features (new items, features)."""
        if self._is_over_items:
            return torch.cholesky_solve(self._tensor((self.features @ new.T).toarray()), self.lower)
        solved = torch.cholesky_solve(self._tensor(new.T.toarray()), self.lower)
        return self._tensor(self.features @ solved.numpy(force=True))

    @property
    def _is_over_items(self) -> bool:
        return bool(self.features.shape[0] <= self.features.shape[1])

    def _tensor(self, array: Any) -> Tensor:
        return torch.as_tensor(array, dtype=torch.float32, device=self.lower.device)
