"""The search of a blend's weights: steps along one weight at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

_Weights = tuple[float, ...]

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

    @cache
    def known(weights: _Weights) -> float:
        return value(weights)

    singles: list[_Weights] = [tuple(row) for row in np.eye(members).tolist()]
    alone = max(singles, key=known)
    ends: list[_Weights] = [_climb(known, start) for start in ((1 / members,) * members, alone)]
    best: _Weights = max(ends, key=known)
    return list(best)


def _climb(value: Callable[[_Weights], float], weights: _Weights) -> _Weights:
    """The weights where no step from those given improves the value any more."""
    for step in _STEPS:
        improved = True
        while improved:
            improved = False
            for member, change in itertools.product(range(len(weights)), (step, -step)):
                trial = _moved(weights, member, change)
                if value(trial) > value(weights):
                    weights, improved = trial, True
    return weights


def _moved(weights: _Weights, member: int, change: float) -> _Weights:
    """One weight changed, not below 0, and all divided by their sum; unchanged if the sum would be 0."""
    moved = list(weights)
    moved[member] = max(0.0, moved[member] + change)
    return tuple(weight / sum(moved) for weight in moved) if sum(moved) > 0 else weights
