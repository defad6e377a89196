"""Settings of matrix factorization that scale with the data where they are not given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.models.base import ConfigT, Recommender
from recsys.models.state import TensorSpec


def scaled_weights(user_items: csr_matrix, alpha: float | None = None) -> tuple[float, float]:
    """Scale the two weights of ALS with the data.

        alpha = 11 (density / 1 %)^-0.3 / mean value         within 2..30 for values of 1
        l2    = alpha mean value 3.3 (n / 20)^0.4            n: interactions per item; the ratio within 0.5..16

    An observed cell must weigh more the rarer it is, and factors of items with many interactions need more
    regularization. The numbers were fitted to the validation users of eleven data sets (benchmarks/als_defaults.py).

    Parameters
    ----------
    user_items : csr_matrix, shape (users, items)
        The training matrix.
    alpha : float, optional
        Used instead of the scaled one.

    Returns
    -------
    alpha, l2 : float
    """
    n_users, n_items = user_items.shape
    value = max(float(user_items.data.mean(dtype=np.float64)), 1e-12)
    if alpha is None:
        alpha = float(np.clip(11 * (user_items.nnz / (n_users * n_items) / 0.01) ** -0.3, 2, 30)) / value
    ratio = float(np.clip(3.3 * (user_items.nnz / n_items / 20) ** 0.4, 0.5, 16))
    return alpha, alpha * value * ratio


class ScaledFactorization(Recommender[ConfigT]):
    """A model with settings that are scaled with the data: what it says of them, and how it keeps them.

    The values in use are attributes of the model, by the names of the settings.
    """

    scalable: ClassVar[tuple[str, ...]]  # settings that may be None

    @property
    def _scaled(self) -> list[str]:
        """Names of the settings that are scaled with the data."""
        return [name for name in self.scalable if getattr(self.config, name) is None]

    def summary(self) -> str:
        """Return the settings that were scaled with the data."""
        if self.n_items is None or not self._scaled:
            return ""
        return ", ".join(f"{name} {getattr(self, name):.3g}" for name in self._scaled) + " (scaled with the data)"

    def _scaled_state(self) -> dict[str, Tensor]:
        return {name: torch.tensor(getattr(self, name), dtype=torch.float64) for name in self._scaled}

    def _set_scaled(self, state: Mapping[str, Tensor]) -> None:
        for name in self.scalable:
            given = getattr(self.config, name)
            setattr(self, name, float(state[name]) if given is None else given)

    def _scaled_spec(self) -> dict[str, TensorSpec]:
        return {name: TensorSpec((), torch.float64, low=0) for name in self._scaled}
