"""Integrated gradients: what each item of a history contributes to the scores of a network.

The contribution of item j to score i is x_j times the mean of the derivative of score i by x_j along the line from the
empty history to x, the input as the first layer gets it. Contributions add up to the score less that of the empty
history. The integral is by Gauss-Legendre quadrature on a few points.

Sundararajan, Taly, Yan: Axiomatic Attribution for Deep Networks, ICML 2017, arXiv:1703.01365.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from recsys.models.autoencoders.layers import ScaledBatch, SparseInput
from recsys.training.batches import SparseBatch

if TYPE_CHECKING:
    from recsys.models.autoencoders.network import Network

POINTS = 8  # on MovieLens-1M contributions add up within 1e-5, and 4 or 20 points are as faithful
_CELLS = 1_000_000  # cells of the batch that is differentiated at once


def integrated_gradients(network: Network, layer: SparseInput, history: SparseBatch, items: Tensor) -> Tensor:
    """Find the contributions of one history's items to some scores.

    Parameters
    ----------
    network : Network
        In evaluation mode.
    layer : SparseInput
        Its first layer.
    history : SparseBatch, shape (1, items)
        Of n items.
    items : Tensor of int64, shape (m,)
        Positions of the items whose scores are explained.

    Returns
    -------
    Tensor, shape (n, m)
    """
    size = max(1, _CELLS // (POINTS * max(1, len(history.items))))
    parts = [_contributions(network, layer, history, part) for part in torch.split(items, size)]
    return torch.cat(parts, dim=1) if parts else history.values[:, None][:, :0]


def _contributions(network: Network, layer: SparseInput, history: SparseBatch, items: Tensor) -> Tensor:
    """The contributions to as many scores as fit into a batch: a row for each item and each point of the line."""
    with torch.inference_mode(False), torch.enable_grad():  # gradients also for a caller who wants none
        known = SparseBatch(*(part.clone() for part in vars(history).values()))
        nodes, shares = (torch.as_tensor(part).to(known.values) for part in np.polynomial.legendre.leggauss(POINTS))
        scaled = layer.corrupt(known).values.detach()
        line = (nodes[:, None, None] + 1) / 2 * scaled  # (points, 1, n)
        values = line.repeat(1, len(items), 1).requires_grad_()
        rows = POINTS * len(items)
        offsets = len(scaled) * torch.arange(rows + 1, device=scaled.device)
        last = network.last(ScaledBatch(known.items.repeat(rows), values.reshape(-1), offsets))
        weight = network.output()[0][items.clone()]
        (slopes,) = torch.autograd.grad((last.reshape(POINTS, len(items), -1) * weight).sum(), values)
        return (shares[:, None, None] / 2 * slopes * scaled).sum(0).T
