"""The search of a blend's weights: steps along one weight at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

# Step sizes of the search: first large, then small.
_STEPS = (0.2, 0.1, 0.05)


def search_weights(value: Callable[[Sequence[float]], float], members: int) -> list[float]:
    """Search weights by coordinate steps of decreasing size.

    A step changes one weight and scales the others so that the sum stays 1; steps shrink when none improves the value
    (see _STEPS). It is done from equal weights and from the best member alone, since such steps can end at a value that
    only two changes at once would improve.

    Parameters
    ----------
    value : callable
        The value of some weights, higher is better; called several dozen times.
    members : int

    Returns
    -------
    list of float
        Weights of sum 1: the better of both ends, the first of equals.
    """
    alone = max(np.eye(members).tolist(), key=value)
    found = [_climb(value, start) for start in ([1 / members] * members, alone)]
    return max(found, key=lambda pair: pair[0])[1]


def _climb(value: Callable[[Sequence[float]], float], start: list[float]) -> tuple[float, list[float]]:
    """The value and the weights where no step from `start` improves any more."""
    best, weights = value(start), start
    for step in _STEPS:
        improved = True
        while improved:
            improved = False
            for member, change in itertools.product(range(len(start)), (step, -step)):
                trial = _moved(weights, member, change)
                found = value(trial) if trial != weights else best
                if found > best:
                    best, weights, improved = found, trial, True
    return best, weights


def _moved(weights: Sequence[float], member: int, change: float) -> list[float]:
    """One weight changed, not below 0, and all divided by their sum; unchanged if the sum would be 0."""
    moved = list(weights)
    moved[member] = max(0.0, moved[member] + change)
    return [weight / sum(moved) for weight in moved] if sum(moved) > 0 else list(weights)
