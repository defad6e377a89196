"""Figures over users, with an interval: users are what is drawn, whatever a figure is made of.

A metric of lists is the mean of a value a user. An error of predictions is summed over cells, of which one user has
ten and another a thousand: it is the sum of all errors / the number of all cells, and for RMSE the root of that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from recsys.errors import DataError
from recsys.types import Values

_RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A figure over users with its 95 % bootstrap interval, and how many users are behind it."""

    mean: float
    low: float
    high: float
    n_users: int

    @property
    def excludes_zero(self) -> bool:
        """Whether chance alone is an unlikely reason for a figure this far from 0."""
        return self.low > 0 or self.high < 0

    def turned(self) -> Interval:
        """That of the figure with the other sign."""
        return replace(self, mean=-self.mean, low=-self.high, high=-self.low)

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True)
class Average:
    """sum of `totals` / sum of `weights`, its root if `root`. totals, weights: float64 (users,); weight 0: no say.

    ```
    recall     totals .5  1      weights  1  1         (.5 + 1) / 2
    RMSE       totals  8  1      weights  2  1     root((8 + 1) / 3)     squared errors and cells of each user
    ```
    """

    totals: Values
    weights: Values
    root: bool = False

    @classmethod
    def of(cls, values: Values) -> Self:
        """The mean of a value a user; NaN are left out."""
        known = ~np.isnan(values)
        return cls(np.where(known, values, 0.0), known.astype(np.float64))

    @classmethod
    def joined(cls, parts: Sequence[Average]) -> Self:
        """Over the users of all parts, one part after the other."""
        totals, weights = (np.concatenate([getattr(part, name) for part in parts]) for name in ("totals", "weights"))
        return cls(totals, weights, parts[0].root)

    @classmethod
    def over_seeds(cls, parts: Sequence[Average]) -> Self:
        """Over the same users measured several times: what each has is the mean of that."""
        totals, weights = (np.mean([getattr(part, name) for part in parts], axis=0) for name in ("totals", "weights"))
        return cls(totals, weights, parts[0].root)

    def __len__(self) -> int:
        return len(self.totals)

    @property
    def n_users(self) -> int:
        """How many users have a say."""
        return int((self.weights > 0).sum())

    @property
    def mean(self) -> float:
        """The figure; NaN where nobody has a say."""
        return float(self._finish(self.totals.sum(), self.weights.sum())) if self.n_users else float("nan")

    @property
    def each(self) -> Values:
        """The figure of every user alone, (users,); NaN for those without a say."""
        known = self.weights > 0
        values: Values = np.where(known, self._finish(self.totals, np.where(known, self.weights, 1)), np.nan)
        return values

    def of_users(self, chosen: NDArray[Any]) -> Average:
        """Over some of the users: bool (users,), or their numbers."""
        return replace(self, totals=self.totals[chosen], weights=self.weights[chosen])

    def grouped(self, place: NDArray[Any], users: int) -> Average:
        """The same with all that belongs to one user as one: `place`, int (users before,), says to which of `users`."""
        totals, weights = (np.bincount(place, part, users) for part in (self.totals, self.weights))
        return replace(self, totals=totals.astype(np.float64), weights=weights.astype(np.float64))

    def interval(self, seed: int = 0) -> Interval:
        """The figure and its percentile bootstrap interval (Efron, Tibshirani 1993, chapter 13)."""
        known = self.of_users(self.weights > 0)
        drawn = _bootstrap(len(known), lambda rows: known._drawn(rows), seed)
        return Interval(known.mean, *drawn, len(known))

    def difference(self, other: Average, seed: int = 0) -> Interval:
        """The figure minus that of `other` over the same users, who are drawn in pairs. Both sides need a value."""
        if len(self) != len(other):
            raise DataError(f"Expected the same users on both sides, found {len(self)} and {len(other)}.")
        both = (self.weights > 0) & (other.weights > 0)
        ours, theirs = self.of_users(both), other.of_users(both)
        drawn = _bootstrap(len(ours), lambda rows: ours._drawn(rows) - theirs._drawn(rows), seed)
        return Interval(ours.mean - theirs.mean, *drawn, len(ours))

    def gaps(self, other: Average) -> Values:
        """What each user adds to the difference, (users,): totals minus those of `other`; NaN without a value.

        Two roots, or means, of the same cells differ as their totals do: a test of these is one of the figures.
        """
        both = (self.weights > 0) & (other.weights > 0)
        return np.where(both, self.totals - other.totals, np.nan)

    def _drawn(self, rows: NDArray[np.int32]) -> Values:
        """The figure of each draw of users, (draws,), from their numbers (draws, users)."""
        alike = bool((self.weights == 1).all())  # as of lists: half of the gathering is spared
        weights = rows.shape[1] if alike else self.weights[rows].sum(axis=1)
        figures: Values = self._finish(self.totals[rows].sum(axis=1), weights)
        return figures

    def _finish(self, totals: Any, weights: Any) -> Any:
        return np.sqrt(totals / weights) if self.root else totals / weights


def _bootstrap(users: int, figure: Callable[[NDArray[np.int32]], Values], seed: int) -> tuple[float, float]:
    """Ends of the 95 % interval of a figure of drawn users."""
    if not users:
        raise DataError("Expected at least one user with held-out items, found none.")
    low, high = np.quantile(np.concatenate([figure(rows) for rows in _draws(users, seed)]), [0.025, 0.975])
    return float(low), float(high)


def _draws(users: int, seed: int) -> Iterator[NDArray[np.int32]]:
    """Users drawn with replacement, (some draws, users) at a time."""
    rng = np.random.default_rng(seed)
    # About a hundred thousand draws at a time stay in the cache, and memory small whatever the number of users.
    chunk = max(1, 100_000 // users)
    for start in range(0, _RESAMPLES, chunk):
        yield rng.integers(0, users, (min(chunk, _RESAMPLES - start), users), dtype=np.int32)
