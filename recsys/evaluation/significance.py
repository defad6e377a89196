"""Differences one can trust: paired over the same users, with effect size, interval and a p-value for the whole table.

The null hypothesis of a pair is that swapping the two models' values of any user would change nothing. Its p-value is
that of a sign-flip permutation test (Smucker, Allan, Carterette 2007); for RMSE, whose models share their cells, the
test of summed squared errors is the same test. Holm's correction (1979) keeps the chance of a single false claim in the
whole table at 5 %, while the interval of a pair is for that pair alone: so an interval can exclude zero where the
correction allows no claim.
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
    """The difference `first` minus `second` of a metric over the same users.

    Attributes
    ----------
    first, second : str
        Names of the models.
    metric : str
        What was measured.
    interval : Interval
        Of the metric's difference, 95 %, for this pair alone.
    effect : float
        Mean / standard deviation of what each user adds to the difference.
    p : float
        Of this pair alone.
    adjusted : float
        The p-value after Holm's correction over the table: a claim is judged by it.
    n_pairs : int
        How many pairs the table has.
    """

    first: str
    second: str
    metric: str
    interval: Interval
    effect: float
    p: float
    adjusted: float
    n_pairs: int = 1

    @property
    def is_claimed(self) -> bool:
        """Whether a difference is claimed at the 5 % level, after Holm's correction."""
        return self.adjusted <= LEVEL

    @property
    def gain(self) -> Interval:
        """By how much `first` is better: of an error, by how much it is lower."""
        return self.interval.negated() if lower_is_better(self.metric) else self.interval

    def reversed(self) -> Difference:
        """The same difference as `second` minus `first`."""
        return replace(
            self, first=self.second, second=self.first, interval=self.interval.negated(), effect=-self.effect
        )

    def __str__(self) -> str:
        """In words, the better model first."""
        gain = self.gain
        if gain.mean < 0:
            return str(self.reversed())
        size = f"{_signless(gain.mean)} {self.metric} [{_signless(gain.low)}, {_signless(gain.high)}]"
        users = f"{gain.n_users:,} {'user' if gain.n_users == 1 else 'users'}"
        evidence = f"p {format_p(self.adjusted)}{self._correction}, effect size {abs(self.effect):.2f}, {users}"
        if self.is_claimed:
            return f"{self.first} beats {self.second} by {size} ({evidence})"
        text = f"{self.first} and {self.second}: no significant difference, {size} ({evidence})"
        if self.interval.excludes_zero:
            judge = "the corrected p-value" if self.n_pairs > 1 else "the permutation test"
            text += f"; the interval, which is of this pair alone, excludes zero, but {judge} does not allow a claim"
        return text

    @property
    def _correction(self) -> str:
        """How the p-value was corrected, in words."""
        return f" with Holm's correction over {self.n_pairs} pairs" if self.n_pairs > 1 else ""


def differences(averages: Mapping[str, Average], metric: str, seed: int = 0) -> list[Difference]:
    """Compare every pair of models over the same users.

    Parameters
    ----------
    averages : mapping of str to Average
        Of one metric, by model; the same users in the same order behind each.
    metric : str
        Its name, which says whether lower is better.
    seed : int
        Of the bootstrap and of the permutation tests.

    Returns
    -------
    list of Difference
        In the order of `averages`, with p-values corrected over all of them.
    """
    pairs = list(combinations(averages, 2))
    per_user = [averages[first].differences(averages[second]) for first, second in pairs]
    raw = [sign_flip(difference, seed) for difference in per_user]
    return [
        Difference(
            first,
            second,
            metric,
            averages[first].difference(averages[second], seed),
            effect_size(difference),
            p,
            adjusted,
            len(pairs),
        )
        for (first, second), difference, p, adjusted in zip(pairs, per_user, raw, holm(raw), strict=True)
    ]


def sign_flip(difference: Values, seed: int = 0, resamples: int = 9_999) -> float:
    """Test whether the mean of paired differences is 0 by flipping their signs at random.

    Parameters
    ----------
    difference : ndarray of float64, shape (users,)
        Of each user; NaN are left out.
    seed : int
        Of the flips.
    resamples : int
        How many flips.

    Returns
    -------
    float
        p = (1 + flips at least as extreme) / (1 + resamples), in (0, 1].

    Raises
    ------
    DataError
        If no user has a value.

    References
    ----------
    Smucker, Allan, Carterette: A Comparison of Statistical Significance Tests for Information Retrieval Evaluation,
    CIKM 2007.
    """
    known = difference[~np.isnan(difference)]
    if not len(known):
        raise DataError("Expected at least one user with values on both sides, found none.")
    # A small tolerance, so that a sum of equal numbers in another order is not "less extreme".
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
    """Correct p-values for testing several hypotheses at once.

    The i-th smallest of m is multiplied by (m - i + 1); the results never fall and are at most 1.

    Parameters
    ----------
    p_values : sequence of float
        In any order.

    Returns
    -------
    list of float
        Adjusted p-values, in the order given.

    References
    ----------
    Holm: A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 6, 1979.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(np.asarray(p_values)[order] * factors))
    return [float(p) for p in adjusted]


def format_p(value: float) -> str:
    """A p-value in words: `= .042`, `= 1.000` or `< .001`."""
    return "< .001" if value < 0.001 else f"= {value:.3f}".replace("= 0.", "= .")


def _signless(value: float) -> str:
    """Four decimals, without the minus of a number that rounds to zero."""
    text = f"{value:.4f}"
    return text.lstrip("-") if float(text) == 0 else text
