"""Averages over users with confidence intervals: users are resampled, whatever an average is made of.

A metric of lists is the mean of one value per user. An error of predictions is summed over cells, of which one user has
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
    """An average over users with its 95 % confidence interval (bootstrap over users).

    Attributes
    ----------
    mean, low, high : float
        The average and the ends of the interval.
    n_users : int
        Users behind it.
    """

    mean: float
    low: float
    high: float
    n_users: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.low > 0 or self.high < 0

    def negated(self) -> Interval:
        """The interval of the average with the other sign."""
        return replace(self, mean=-self.mean, low=-self.high, high=-self.low)

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True)
class Average:
    """sum of `totals` / sum of `weights`, and the root of that if `root`.

    ```
    recall     totals .5  1      weights  1  1         (.5 + 1) / 2
    RMSE       totals  8  1      weights  2  1     root((8 + 1) / 3)     squared errors and cells of each user
    ```

    Attributes
    ----------
    totals, weights : ndarray of float64, shape (users,)
        A user with weight 0 does not count.
    root : bool
        Whether to take the square root.
    """

    totals: Values
    weights: Values
    root: bool = False

    @classmethod
    def of(cls, values: Values) -> Self:
        """Make the mean of one value per user, (users,); NaN are left out."""
        known = ~np.isnan(values)
        return cls(np.where(known, values, 0.0), known.astype(np.float64))

    @classmethod
    def joined(cls, parts: Sequence[Average]) -> Self:
        """Make the average over the users of all parts, one part after the other."""
        totals, weights = (np.concatenate([getattr(part, name) for part in parts]) for name in ("totals", "weights"))
        return cls(totals, weights, parts[0].root)

    @classmethod
    def over_seeds(cls, parts: Sequence[Average]) -> Self:
        """Make the average over the same users measured several times: each user has the mean of the parts."""
        totals, weights = (np.mean([getattr(part, name) for part in parts], axis=0) for name in ("totals", "weights"))
        return cls(totals, weights, parts[0].root)

    def __len__(self) -> int:
        return len(self.totals)

    @property
    def n_users(self) -> int:
        """Number of users with a weight above 0."""
        return int((self.weights > 0).sum())

    @property
    def mean(self) -> float:
        """The average; NaN if no user has a weight."""
        return float(self._finish(self.totals.sum(), self.weights.sum())) if self.n_users else float("nan")

    @property
    def each(self) -> Values:
        """The average of every user alone, (users,); NaN for users of weight 0."""
        known = self.weights > 0
        values: Values = np.where(known, self._finish(self.totals, np.where(known, self.weights, 1)), np.nan)
        return values

    def of_users(self, chosen: NDArray[Any]) -> Average:
        """Average over some users only.

        Parameters
        ----------
        chosen : ndarray of bool, shape (users,), or of int
            A mask, or row numbers.
        """
        return replace(self, totals=self.totals[chosen], weights=self.weights[chosen])

    def grouped(self, group: NDArray[Any], groups: int) -> Average:
        """Sum rows that belong to the same user.

        Parameters
        ----------
        group : ndarray of int, shape (users,)
            To which of the `groups` users each row belongs.
        groups : int
            Number of users of the result.
        """
        totals, weights = (np.bincount(group, part, groups) for part in (self.totals, self.weights))
        return replace(self, totals=totals.astype(np.float64), weights=weights.astype(np.float64))

    def interval(self, seed: int = 0) -> Interval:
        """Compute the percentile bootstrap interval over users.

        Raises
        ------
        DataError
            If no user has a weight above 0.

        References
        ----------
        Efron, Tibshirani: An Introduction to the Bootstrap, 1993, chapter 13.
        """
        known = self.of_users(self.weights > 0)
        ends = _bootstrap(len(known), known._of_resamples, seed)
        return Interval(known.mean, *ends, len(known))

    def difference(self, other: Average, seed: int = 0) -> Interval:
        """Compute the interval of this average minus `other` over the same users, resampled in pairs.

        Parameters
        ----------
        other : Average
            Over the same users in the same order; users without a weight on either side are left out.
        seed : int
            Of the bootstrap.

        Raises
        ------
        DataError
            If the numbers of users differ.
        """
        if len(self) != len(other):
            raise DataError(f"Expected the same users on both sides, found {len(self)} and {len(other)}.")
        both = (self.weights > 0) & (other.weights > 0)
        ours, theirs = self.of_users(both), other.of_users(both)
        ends = _bootstrap(len(ours), lambda rows: ours._of_resamples(rows) - theirs._of_resamples(rows), seed)
        return Interval(ours.mean - theirs.mean, *ends, len(ours))

    def differences(self, other: Average) -> Values:
        """Return what each user adds to the difference, (users,): totals minus those of `other`; NaN without a value.

        Two roots, or means, of the same cells differ exactly when their totals do: testing these tests the averages.
        """
        both = (self.weights > 0) & (other.weights > 0)
        return np.where(both, self.totals - other.totals, np.nan)

    def _of_resamples(self, rows: NDArray[np.int32]) -> Values:
        """The average of each resample, (resamples,), from row numbers (resamples, users)."""
        all_one = bool((self.weights == 1).all())  # true for lists, and saves half of the gathering
        weights = rows.shape[1] if all_one else self.weights[rows].sum(axis=1)
        averages: Values = self._finish(self.totals[rows].sum(axis=1), weights)
        return averages

    def _finish(self, totals: Any, weights: Any) -> Any:
        return np.sqrt(totals / weights) if self.root else totals / weights


def _bootstrap(users: int, average: Callable[[NDArray[np.int32]], Values], seed: int) -> tuple[float, float]:
    """Ends of the 95 % interval of an average of resampled users."""
    if not users:
        raise DataError("Expected at least one user with held-out items, found none.")
    low, high = np.quantile(np.concatenate([average(rows) for rows in _resamples(users, seed)]), [0.025, 0.975])
    return float(low), float(high)


def _resamples(users: int, seed: int) -> Iterator[NDArray[np.int32]]:
    """Row numbers drawn with replacement, (some resamples, users) at a time."""
    rng = np.random.default_rng(seed)
    # About a hundred thousand rows at a time stay in the cache, and memory small whatever the number of users.
    chunk = max(1, 100_000 // users)
    for start in range(0, _RESAMPLES, chunk):
        yield rng.integers(0, users, (min(chunk, _RESAMPLES - start), users), dtype=np.int32)
