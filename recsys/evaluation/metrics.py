"""Metrics of lists, one value a user, and errors of predicted ratings, one value a cell: arrays in, arrays out.

Every metric of METRICS takes `hits`, bool (users, n): whether the item at each rank was held out, best rank first;
`relevant`, int (users,): how many items were held out; and the cut-off k <= n. It returns float64 (users,) in 0..1,
NaN where nothing was held out. Relevance is binary. h_i below is 1 for a hit at rank i, R is `relevant`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.errors import ConfigError
from recsys.types import Values

Metric = Callable[[NDArray[np.bool_], NDArray[Any], int], Values]


def recall(hits: NDArray[np.bool_], relevant: NDArray[Any], k: int) -> Values:
    """Hits among the first k / R."""
    return _ratio(hits[:, :k].sum(axis=1), relevant, relevant)


def capped_recall(hits: NDArray[np.bool_], relevant: NDArray[Any], k: int) -> Values:
    """Hits among the first k / min(k, R): what the VAE papers (Liang et al. 2018) call recall."""
    return _ratio(hits[:, :k].sum(axis=1), np.minimum(relevant, k), relevant)


def precision(hits: NDArray[np.bool_], relevant: NDArray[Any], k: int) -> Values:
    """Hits among the first k / k."""
    return _ratio(hits[:, :k].sum(axis=1), np.full(len(hits), k), relevant)


def hit_rate(hits: NDArray[np.bool_], relevant: NDArray[Any], k: int) -> Values:
    """1 if any of the first k is a hit."""
    return _ratio(hits[:, :k].max(axis=1, initial=False), np.ones(len(hits)), relevant)


def mrr(hits: NDArray[np.bool_], relevant: NDArray[Any], k: int) -> Values:
    """1 / rank of the first hit among the first k, 0 without one."""
    first = np.argmax(hits[:, :k], axis=1) + 1 if hits.shape[1] else np.ones(len(hits))
    return _ratio(hits[:, :k].max(axis=1, initial=False), first, relevant)


def average_precision(hits: NDArray[np.bool_], relevant: NDArray[Any], k: int) -> Values:
    """Sum over i <= k of h_i (hits up to i) / i, divided by R, as trec_eval's map_cut does."""
    found = np.cumsum(hits[:, :k], axis=1)
    gains = (found * hits[:, :k] / np.arange(1, found.shape[1] + 1)).sum(axis=1)
    return _ratio(gains, relevant, relevant)


def ndcg(hits: NDArray[np.bool_], relevant: NDArray[Any], k: int) -> Values:
    """DCG / ideal DCG with DCG = sum over i <= k of h_i / log2(i + 1); the ideal list has min(k, R) hits on top."""
    discount = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0], np.cumsum(discount)])[np.minimum(relevant, k)]
    return _ratio(hits[:, :k] @ discount[: hits.shape[1]], ideal, relevant)


def _ratio(found: NDArray[Any], possible: NDArray[Any], relevant: NDArray[Any]) -> Values:
    undefined = np.asarray(relevant) == 0
    return np.where(undefined, np.nan, found / np.where(undefined, 1, possible))


METRICS: dict[str, Metric] = {
    "ndcg": ndcg,
    "recall": recall,
    "capped_recall": capped_recall,
    "precision": precision,
    "hit_rate": hit_rate,
    "map": average_precision,
    "mrr": mrr,
}


@dataclass(frozen=True)
class Error:
    """A metric of predicted ratings: what becomes of predicted - observed, and whether the mean's root is taken."""

    of_cell: Callable[[Values], Values]
    root: bool
    formula: str


ERRORS = {
    "rmse": Error(np.square, True, "Root of the mean of (predicted - observed)² over cells."),
    "mae": Error(np.abs, False, "Mean of |predicted - observed| over cells."),
}


def lower_is_better(label: str) -> bool:
    """Whether a metric is an error."""
    return label in ERRORS


def goodness(label: str, value: float) -> float:
    """The same figure with the sign under which higher is better; of goodness, the figure again."""
    return -value if lower_is_better(label) else value


def parse_metric(label: str) -> tuple[str, int]:
    """`"ndcg@100"` -> `("ndcg", 100)`. Raises ConfigError for an unknown name or a cut-off that is not above 0."""
    name, _, cutoff = label.partition("@")
    if name not in METRICS or not cutoff.isdecimal() or int(cutoff) < 1:
        raise ConfigError(f"Expected a metric such as ndcg@100, of {', '.join(METRICS)}; found {label!r}.")
    return name, int(cutoff)


def parse_error(label: str) -> str:
    """The label of an error of predicted ratings. Raises ConfigError for an unknown one."""
    if label not in ERRORS:
        raise ConfigError(f"Expected a metric of predicted ratings, of {', '.join(ERRORS)}; found {label!r}.")
    return label


def find_hits(positions: NDArray[np.int32], held_out: csr_matrix) -> NDArray[np.bool_]:
    """Which of the recommended positions (users, n), -1 for none, are stored in the same row of `held_out`."""
    items = held_out.shape[1]
    wanted = np.repeat(np.arange(held_out.shape[0], dtype=np.int64), np.diff(held_out.indptr)) * items
    wanted = np.sort(wanted + held_out.indices)
    offered = np.arange(len(positions), dtype=np.int64)[:, None] * items + positions
    if not len(wanted):
        return np.zeros(positions.shape, dtype=bool)
    place = np.minimum(np.searchsorted(wanted, offered), len(wanted) - 1)
    return np.asarray((wanted[place] == offered) & (positions >= 0))


def formula(label: str) -> str:
    """What a metric is, in a line."""
    if label in ERRORS:
        return ERRORS[label].formula
    name, _ = parse_metric(label)
    return " ".join((METRICS[name].__doc__ or "").split())
