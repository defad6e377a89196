"""How good are the lists: per-user metrics of a score function on held-out items, and differences one can trust.

Every model passes through the same functions: same histories, same mask, same cut, same metrics.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recsys.beyond import coverage
from recsys.errors import DataError
from recsys.metrics import METRICS, Values, find_hits, parse_metric
from recsys.splitting import Holdout
from recsys.topn import ScoreFunction, recommend
from recsys.training import Validate

DEFAULT_METRICS = ("ndcg@10", "ndcg@100", "recall@20", "recall@50", "capped_recall@20", "capped_recall@50")


@dataclass(frozen=True)
class Interval:
    """A mean over users with its 95 % bootstrap interval, and how many users are behind it."""

    mean: float
    low: float
    high: float
    users: int

    @property
    def excludes_zero(self) -> bool:
        """Whether chance alone is an unlikely reason for a mean this far from 0."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True)
class Evaluation:
    """Values of each metric, float64 (users,), in the order of the holdout's users, and how long the lists took.

    positions: the lists, int32 (users, longest cut-off), -1 where one ran short. items: in the catalogue.
    """

    values: Mapping[str, Values]
    seconds: float
    positions: NDArray[np.int32]
    items: int

    @property
    def coverage(self) -> float:
        """Share of the catalogue that stands in at least one of the lists."""
        return coverage(self.positions, self.items, self.positions.shape[1])

    @property
    def users(self) -> int:
        """Users measured."""
        return len(next(iter(self.values.values())))

    def only(self, metrics: Sequence[str]) -> Evaluation:
        """What measuring these of its metrics alone would have given."""
        longest = max(parse_metric(label)[1] for label in metrics)
        values = {label: self.values[label] for label in metrics}
        return replace(self, values=values, positions=self.positions[:, :longest])

    def means(self) -> dict[str, float]:
        """Mean of each metric over users with something held out."""
        return {label: float(np.nanmean(values)) for label, values in self.values.items()}

    def intervals(self, seed: int = 0) -> dict[str, Interval]:
        """Mean and interval of each metric."""
        return {label: bootstrap(values, seed) for label, values in self.values.items()}


def evaluate(
    score: ScoreFunction,
    holdout: Holdout,
    metrics: Sequence[str] = DEFAULT_METRICS,
    batch_size: int = 512,
    with_users: bool = False,
) -> Evaluation:
    """Lists for all users of the holdout, seen items masked, measured. `with_users`: pass their training rows too.

    Raises ConfigError for an unknown metric, before any work.
    """
    wanted = {label: parse_metric(label) for label in metrics}
    n = min(max(k for _, k in wanted.values()), holdout.history.shape[1])
    users = holdout.train_rows if with_users else None
    started = time.perf_counter()
    positions = np.concatenate(
        [batch.positions for batch in recommend(score, holdout.history, n, batch_size, users=users)]
    )
    seconds = time.perf_counter() - started
    hits, relevant = find_hits(positions, holdout.held_out), holdout.relevant
    values = {label: METRICS[name](hits, relevant, k) for label, (name, k) in wanted.items()}
    return Evaluation(values, seconds, positions, holdout.history.shape[1])


def validator(holdout: Holdout, metric: str, with_users: bool = False) -> Validate:
    """A function for TrainingContext.validate: mean of one metric over the holdout."""
    return lambda score: evaluate(score, holdout, (metric,), with_users=with_users).means()[metric]


def bootstrap(values: Values, seed: int = 0, resamples: int = 2000) -> Interval:
    """Mean and percentile bootstrap interval over users; NaN values are left out.

    Efron, Tibshirani 1993, chapter 13. Raises DataError when no value is left.
    """
    known = values[~np.isnan(values)]
    if not len(known):
        raise DataError("Expected at least one user with held-out items, found none.")
    rng = np.random.default_rng(seed)
    # About a hundred thousand draws at a time stay in the cache, and memory small whatever the number of users.
    chunk = max(1, 100_000 // len(known))
    means = [
        known[rng.integers(0, len(known), (min(chunk, resamples - start), len(known)), dtype=np.int32)].mean(axis=1)
        for start in range(0, resamples, chunk)
    ]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return Interval(float(known.mean()), float(low), float(high), len(known))


def paired_difference(ours: Values, theirs: Values, seed: int = 0) -> Interval:
    """Mean of (ours - theirs) over the same users, with its bootstrap interval: users are resampled in pairs."""
    if len(ours) != len(theirs):
        raise DataError(f"Expected the same users on both sides, found {len(ours)} and {len(theirs)}.")
    return bootstrap(ours - theirs, seed)
