"""Differences one can trust: paired over the same users, with effect size, interval and a p-value for the whole table.

The null hypothesis of a pair is that swapping the two models' values of any user would change nothing; its p-value is
that of a sign-flip permutation test (Smucker, Allan, Carterette 2007); for RMSE, whose models share their cells, the
test of summed squared errors is the same one. Holm (1979) keeps the chance of a single false
claim in the table at 5 %.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from recsys.errors import DataError
from recsys.evaluation.averages import Average, Interval
from recsys.evaluation.metrics import lower_is_better
from recsys.types import Values

LEVEL = 0.05


@dataclass(frozen=True)
class Difference:
    """`first` minus `second` on the same users.

    interval: of the metric's difference, 95 %, for this pair alone. effect: mean / standard deviation of what each user
    adds to it. p: of this pair alone; adjusted: with Holm's correction over the table, what a claim is judged by.
    """

    first: str
    second: str
    metric: str
    interval: Interval
    effect: float
    p: float
    adjusted: float

    @property
    def is_claimed(self) -> bool:
        """Whether a difference is claimed at the 5 % level."""
        return self.adjusted <= LEVEL

    @property
    def gain(self) -> Interval:
        """By how much `first` is better: of an error, by how much it is lower."""
        return self.interval.turned() if lower_is_better(self.metric) else self.interval

    def turned(self) -> Difference:
        """The same, as `second` minus `first`."""
        return replace(self, first=self.second, second=self.first, interval=self.interval.turned(), effect=-self.effect)

    def __str__(self) -> str:
        """In words, the better one first."""
        found = self.gain
        if found.mean < 0:
            return str(self.turned())
        figures = f"{found.mean:.4f} {self.metric} [{found.low:.4f}, {found.high:.4f}]"
        chance = f"p {_p(self.adjusted)}, effect {abs(self.effect):.2f}, {found.n_users:,} users"
        if self.is_claimed:
            return f"{self.first} beats {self.second} by {figures} ({chance})"
        return f"{self.first} and {self.second}: no difference can be claimed, {figures} ({chance})"


def differences(averages: Mapping[str, Average], metric: str, seed: int = 0) -> list[Difference]:
    """Every pair of models, in the order of `averages`, corrected over all of them; the same users behind each."""
    pairs = list(combinations(averages, 2))
    gaps = [averages[first].gaps(averages[second]) for first, second in pairs]
    raw = [sign_flip(gap, seed) for gap in gaps]
    return [
        Difference(
            first,
            second,
            metric,
            averages[first].difference(averages[second], seed),
            effect_size(gap),
            p,
            adjusted,
        )
        for (first, second), gap, p, adjusted in zip(pairs, gaps, raw, holm(raw), strict=True)
    ]


def sign_flip(difference: Values, seed: int = 0, resamples: int = 9_999) -> float:
    """Chance of a mean at least this far from 0 if the sign of each user's difference were a coin's: in (0, 1].

    p = (1 + flips as extreme) / (1 + resamples). NaN are left out; raises DataError when nothing is left.
    """
    known = difference[~np.isnan(difference)]
    if not len(known):
        raise DataError("Expected at least one user with values on both sides, found none.")
    # A hair, so that the sum of equal numbers in another order is not "less extreme".
    limit = abs(known.sum()) * (1 - 1e-9) - 1e-12
    extreme = sum(int((np.abs(signs @ known) >= limit).sum()) for signs in _signs(len(known), resamples, seed))
    return (1 + extreme) / (1 + resamples)


def _signs(users: int, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Random signs, float64 (some resamples, users), a few million at a time."""
    rng = np.random.default_rng(seed)
    chunk = max(1, 4_000_000 // users)
    for start in range(0, resamples, chunk):
        size = (min(chunk, resamples - start), users)
        yield 2 * rng.integers(0, 2, size).astype(np.float64) - 1


def effect_size(difference: Values) -> float:
    """Mean / standard deviation of the users' differences (Cohen's d of paired samples); 0 where all are 0."""
    known = difference[~np.isnan(difference)]
    spread = float(known.std(ddof=1)) if len(known) > 1 else 0.0
    return float(known.mean()) / spread if spread > 0 else 0.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the given order: the i-th smallest of m times (m - i + 1), never falling, at most 1."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(np.asarray(p_values)[order] * factors))
    return [float(p) for p in adjusted]


def _p(value: float) -> str:
    return "< .001" if value < 0.001 else f"= {value:.3f}".replace("0.", ".")
