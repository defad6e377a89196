"""The normal posterior of a code, N(mean, exp(log_variance)): draws from it, and how far it is from N(0, 1)."""

from __future__ import annotations

import torch
from torch import Tensor


def draw(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Draw a code from the posterior, with gradients to both (the reparameterization trick); the shape of `mean`."""
    return mean + torch.randn_like(mean) * (0.5 * log_variance).exp()


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Compute KL(N(mean, exp(log_variance)) || N(0, 1)) of each element, in nats; the shape of `mean`."""
    return 0.5 * (log_variance.exp() + mean.square() - 1 - log_variance)


def annealed(progress: float, share: float) -> float:
    """Return the part of a KL weight that counts: it rises from 0 to 1 over the first `share` of all updates."""
    return min(1.0, progress / share) if share else 1.0
