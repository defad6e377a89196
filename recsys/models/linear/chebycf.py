"""ChebyCF: a filter of the item graph given by its response to frequencies, as a Chebyshev polynomial.

With P the item graph, D the popularity of items and V the leading eigenvectors (see recsys.models.linear.graph_filter),

    scores = x D^-b (h(I - 2 P) + low_pass V V') D^b        b = item_power / 2

where h falls from 1 at the lowest frequency (-1: what all users share) to 0 at the highest (1), with a plateau of 1/2
between them, the wider the greater `flatness` is:

    h(f) = (1 - sign(f) |f|^flatness) / 2

h is replaced by the polynomial of degree `order` that has the values h(cos(j pi / order)) at the Chebyshev nodes
cos((j + 1/2) pi / (order + 1)), j = 0..order, so that the outermost nodes get exactly 1 and 0. A history is multiplied
by the sparse graph `order` times; nothing is trained.

Kim, Kim, Lee, Kang: Graph Spectral Filtering with Chebyshev Interpolation for Recommendation, SIGIR 2025,
arXiv:2505.00552.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from torch import Tensor

from recsys.models.config import require
from recsys.models.linear.graph_filter import GraphFilter, GraphFilterConfig
from recsys.models.search_space import Range, tunable
from recsys.models.state import StateSpec, TensorSpec


@dataclass(frozen=True)
class ChebyCFConfig(GraphFilterConfig):
    """Settings of the Chebyshev filter."""

    order: int = 8  # degree of the polynomial
    flatness: float = tunable(1.5, Range(1.0, 6.0))  # the greater, the more equal are the middle frequencies
    item_power: float = tunable(0.8, Range(0.0, 1.0))  # of the popularity by which items are divided before, not after

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.order >= 1, f"Expected order of at least 1, found {self.order}.")
        require(self.flatness > 0, f"Expected flatness above 0, found {self.flatness}.")
        require(0 <= self.item_power <= 1, f"Expected item_power from 0 to 1, found {self.item_power}.")

    def coefficients(self) -> NDArray[np.float64]:
        """Return the coefficients of the Chebyshev polynomials of I - 2 P, lowest degree first, (order + 1,)."""
        nodes = chebyshev.chebpts1(self.order + 1)
        stretched = chebyshev.chebpts2(self.order + 1)
        response = (1 - np.sign(stretched) * np.abs(stretched) ** self.flatness) / 2
        return np.asarray(chebyshev.chebfit(nodes, response, self.order))


class ChebyCF(GraphFilter[ChebyCFConfig]):
    """Graph filter by Chebyshev interpolation.

    It keeps the training matrix. Memory: 16 bytes per interaction and 8 x factors per item. For up to 6,000 items the
    filter is an items x items matrix, which scores many times as fast.
    """

    name = "chebycf"
    Config = ChebyCFConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "kim2025-gowalla": {"factors": 512, "low_pass": 0.2, "order": 8, "flatness": 1.5, "item_power": 0.8},
    }
    scale: Tensor  # D^-b, (items,)
    coefficients: list[float]

    def _power(self) -> float:
        return self.config.item_power

    def _scales(self, items: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        return {"scale": items}

    def _polynomial(self, columns: Tensor, low: Tensor) -> Tensor:
        scale = self.scale[:, None]
        last, scores = columns * scale, None
        first, *others = self.coefficients
        scores, before = last * first, None
        for coefficient in others:
            step = self._propagate(last).mul_(-2).add_(last)  # (I - 2 P) times the last polynomial
            last, before = step if before is None else step.mul_(2).sub_(before), last
            scores.add_(last, alpha=coefficient)
        filtered: Tensor = scores.div_(scale).add_(low)
        return filtered

    def _whole_polynomial(self, graph: Tensor, low: Tensor) -> Tensor:
        shifted = graph.mul_(-2)
        shifted.diagonal().add_(1)
        first, second, *others = self.coefficients
        found, last, before = shifted * second, shifted, None
        found.diagonal().add_(first)
        for coefficient in others:
            following = (shifted @ last).mul_(2)
            if before is None:
                following.diagonal().sub_(1)
            else:
                following.sub_(before)
            last, before = following, last
            found.add_(last, alpha=coefficient)
        scale = self.scale.double()
        filtered: Tensor = found.mul_(scale[:, None]).div_(scale).add_(low)
        return filtered

    def _get_state(self) -> dict[str, Tensor]:
        return {**super()._get_state(), "scale": self.scale}

    def _set_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        self.scale, self.coefficients = state["scale"].to(device), self.config.coefficients().tolist()
        super()._set_state(state, device)

    def _state_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        spec = super()._state_spec(n_items, state)
        return StateSpec({**spec.tensors, "scale": TensorSpec((n_items,))}, spec.matrices)
