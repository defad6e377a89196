"""How likely it is that an interaction has nothing to do with its user's taste: a two-groups model of percentiles.

Percentiles of unrelated interactions are uniform (see `recsys.explain.plausibility`); those of the others lean to 1:

    density of all = share * uniform + (1 - share) * density of the related,   in every group of items

So the probability that an interaction is unrelated is share * 1 / density of all: the density is estimated, and no
assumption about the related is needed. The share itself cannot be read off the data: people take things that no model
expects. It is assumed, and the data give a limit: the density is nowhere below share * 1 (up to chance). Half of the
unrelated interactions are assumed to fall on items evenly, as those of a script do, half by popularity, as slips do.

Efron: Large-Scale Inference, 2010, chapters 2 and 5 (two groups, local false discovery rate).
Storey: A direct approach to false discovery rates, JRSS B 64, 2002 (the limit of a share, from one end).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from recsys.errors import ConfigError
from recsys.types import Values

_END = 0.05  # percentiles below are "the least plausible end"
_FEW = 400  # cells of a group of items that can contradict a share
_MOST_BINS = 40
_LEAST_RELATED = 0.05  # share of the density that related interactions have at least, wherever they are
_ROUNDS = 30
_PRIOR_CELLS = 10.0


@dataclass(frozen=True)
class TwoGroups:
    """The estimate for some interactions.

    Attributes
    ----------
    share : float
        Assumed share of the unrelated among all, in (0, 1].
    limit : float
        The largest share that no group of items contradicts, in (0, 1], however it is divided between those that fall
        evenly and those that fall by popularity; `share` is not above it.
    density : ndarray of float64, shape (cells,)
        Density of all percentiles at the cell, within its group of items; 1 is uniform.
    evenness : ndarray of float64, shape (cells,)
        How many unrelated interactions fall on the cell's group of items, relative to those of a fall by popularity.
    """

    share: float
    limit: float
    density: Values
    evenness: Values

    @property
    def ratio(self) -> Values:
        """What suspicion is ordered by: expected unrelated interactions / all there are, not cut at 1; (cells,)."""
        return self.share * self.evenness / self.density

    @property
    def suspicion(self) -> Values:
        """Probability that each interaction is unrelated to its user's taste, (cells,)."""
        return np.minimum(1.0, self.ratio)

    def share_within(self, group: NDArray[np.int64], groups: int) -> Values:
        """Estimate the share of the unrelated among the interactions of each user, or of each item.

        It is the most likely one given the percentiles, drawn towards `share` as by ten more interactions.

        Parameters
        ----------
        group : ndarray of int, shape (cells,)
            Whose each interaction is.
        groups : int

        Returns
        -------
        ndarray of float64, shape (groups,)
            `share` for who has none.
        """
        unrelated = self.evenness
        rest = np.maximum(self.density - self.share * unrelated, _LEAST_RELATED * self.density) / (
            1 - self.share + 1e-9
        )
        size = np.bincount(group, minlength=groups)
        share = np.full(groups, self.share)
        for _ in range(_ROUNDS):  # expectation maximization
            own = share[group]
            likely = own * unrelated / (own * unrelated + (1 - own) * rest)
            share = (np.bincount(group, likely, groups) + _PRIOR_CELLS * self.share) / (size + _PRIOR_CELLS)
        return share


def estimate_two_groups(
    value: Values, stratum: NDArray[np.int64], strata: int, share: float, even_share: float = 0.5
) -> TwoGroups:
    """Estimate the two groups from percentiles.

    Parameters
    ----------
    value : ndarray of float64, shape (cells,)
        Percentiles in (0, 1); no NaN.
    stratum : ndarray of int, shape (cells,)
        Group of items of each, 0..strata - 1.
    strata : int
        Number of groups, with as many items in each.
    share : float
        Assumed share of the unrelated among all, above 0 and below 1; the limit where that is less.
    even_share : float
        Share of the unrelated interactions that fall on items evenly, the others by popularity; 0 for ratings.

    Returns
    -------
    TwoGroups

    Raises
    ------
    ConfigError
        If `share` is out of its range.
    """
    if not 0 < share < 1:
        raise ConfigError(f"Expected noise above 0 and below 1, found {share}.")
    cells = np.bincount(stratum, minlength=strata)
    density = np.empty(len(value))
    at_end = np.full(strata, np.inf)  # density where nothing else is expected
    for number in np.flatnonzero(cells):
        chosen = stratum == number
        density[chosen] = rising_density(value[chosen])
        if cells[number] >= min(_FEW, cells.max()):
            few = int((value[chosen] < _END).sum())
            at_end[number] = (few + 2 * np.sqrt(few) + 1) / (_END * cells[number])  # up to chance
    even = len(value) / (strata * np.maximum(cells, 1))  # of what falls evenly, relative to what falls by popularity
    divided = np.linspace(0, float(even_share > 0), 11)
    limit = max(min(1.0, float((at_end / (1 - part + part * even)).min())) for part in divided)
    return TwoGroups(min(share, limit), limit, density, (1 - even_share + even_share * even)[stratum])


def rising_density(value: Values) -> Values:
    """Estimate the density of values on (0, 1) at each of them, as a function that never falls.

    The maximum likelihood estimate over bins that are narrow at 0 (Grenander 1956), interpolated; each bin begins with
    the count that one uniform value has.

    Parameters
    ----------
    value : ndarray of float64, shape (values,)

    Returns
    -------
    ndarray of float64, shape (values,)
        Above 0.
    """
    bins = int(np.clip(np.sqrt(len(value)) / 2, 2, _MOST_BINS))
    edges = (np.arange(bins + 1) / bins) ** 2
    widths = np.diff(edges)
    counts = np.histogram(value, edges)[0] + widths
    rising = isotonic_regression(counts / widths / counts.sum(), weights=widths).x
    found: Values = np.interp(value, (edges[1:] + edges[:-1]) / 2, rising)
    return found
