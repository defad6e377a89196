"""BSPM: histories blurred over the user-item graph, then sharpened.

With P the item graph, D the popularity of items and V the leading eigenvectors (see recsys.models.linear.graph_filter),
a history x is turned into

    blurred = x P + low_pass x D^-1/2 V V' D^1/2     linear filter plus ideal low-pass filter (equations 11 and 12)
    scores  = blurred - s blurred P + s^2 / 2! blurred P^2 - s^3 / 3! blurred P^3 + s^4 / 4! blurred P^4

which is one fourth-order Runge-Kutta step of length s = sharpening along dr/dt = -r P: it removes what all users share.

Choi et al.: Blurring-Sharpening Process Models for Collaborative Filtering, SIGIR 2023, arXiv:2211.09324. Without
sharpening it is GF-CF (Shen et al.: How Powerful is Graph Convolution for Recommendation?, CIKM 2021).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.models.config import require
from recsys.models.linear.graph_filter import GraphFilter, GraphFilterConfig
from recsys.models.search_space import Range, tunable


@dataclass(frozen=True)
class BSPMConfig(GraphFilterConfig):
    """Settings of the blurring-sharpening process."""

    sharpening: float = tunable(2.0, Range(0.0, 2.7))  # length of the sharpening step; beyond 2.7 it diverges

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.sharpening >= 0, f"Expected sharpening of 0 or more, found {self.sharpening}.")


class BSPM(GraphFilter[BSPMConfig]):
    """Blurring-sharpening process model.

    It keeps the training matrix. Memory: 16 bytes per interaction and 8 x factors per item. For up to 6,000 items the
    filter is an items x items matrix, which scores many times as fast.
    """

    name = "bspm"
    Config = BSPMConfig

    def _polynomial(self, columns: Tensor, low: Tensor) -> Tensor:
        blurred = self._propagate(columns).add_(low)
        scores = blurred
        for term in (4, 3, 2, 1) if self.config.sharpening else ():
            scores = torch.add(blurred, self._propagate(scores), alpha=-self.config.sharpening / term)
        return scores

    def _whole_polynomial(self, graph: Tensor, low: Tensor) -> Tensor:
        step, square = self.config.sharpening, graph @ graph
        sharpened = square @ (square * (step**4 / 24)).sub_(graph, alpha=step**3 / 6)
        sharpened.add_(square, alpha=step**2 / 2).sub_(graph, alpha=step)
        sharpened.diagonal().add_(1)
        return low.add_(graph) @ sharpened
