"""Metrics of lists, one value per user, and errors of predicted ratings, one value per cell: functions of arrays.

Every metric in METRICS takes `hits`, bool (users, n): whether the item at each rank was held out, best rank first;
`relevant`, int (users,): how many items were held out; and the cut-off k, where ranks beyond n count as misses. It
returns float64 (users,) in 0..1, NaN where nothing was held out. Relevance is binary. In the formulas h_i is 1 for a
hit at rank i, and R is `relevant`.
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
    """Number of hits among the first k / R."""
    return _ratio(hits[:, :k].sum(axis=1), relevant, relevant)


def capped_recall(hits: NDArray[np.bool_], relevant: NDArray[Any], k: int) -> Values:
    """Number of hits among the first k / min(k, R): what the VAE papers (Liang et al. 2018) call recall."""
    return _ratio(hits[:, :k].sum(axis=1), np.minimum(relevant, k), relevant)


def precision(hits: NDArray[np.bool_], relevant: NDArray[Any], k: int) -> Values:
    """Number of hits among the first k / k."""
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
    deepest = min(k, max(hits.shape[1], int(np.max(relevant, initial=0))))  # k may be beyond the catalog
    discount = 1 / np.log2(np.arange(2, deepest + 2))
    ideal = np.concatenate([[0], np.cumsum(discount)])[np.minimum(relevant, k)]
    return _ratio(hits[:, :k] @ discount[: hits.shape[1]], ideal, relevant)


def _ratio(found: NDArray[Any], possible: NDArray[Any], relevant: NDArray[Any]) -> Values:
    undefined = np.asarray(relevant) == 0
    return np.where(undefined, np.nan, found / np.where(undefined, 1, possible))


SCOPES = {"cold": "cold items alone", "warm": "items with training users alone"}  # what a metric may rank

RECONSTRUCTION = "reconstruction"  # not one of lists: see recsys.evaluation.code_sizes

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
    """A metric of predicted ratings.

    Attributes
    ----------
    of_cell : callable
        What becomes of predicted - observed.
    root : bool
        Whether the root of the mean is taken.
    formula : str
        In words.
    """

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
    """Return a value with the sign under which higher is better; applied twice, the value itself."""
    return -value if lower_is_better(label) else value


def scope_of(label: str) -> str:
    """Return which part of the catalog a metric ranks: "cold" of cold_ndcg@100, an empty text for all of it."""
    scope = label.partition("_")[0]
    return scope if scope in SCOPES else ""


def parse_metric(label: str) -> tuple[str, int]:
    """Split a label such as "ndcg@100", or "cold_ndcg@100", into ("ndcg", 100).

    Raises
    ------
    ConfigError
        For an unknown name, or a cut-off that is not a number from 1 to 999,999,999.
    """
    name, _, cutoff = label.removeprefix(f"{scope_of(label)}_").partition("@")
    if name not in METRICS or not cutoff.isdecimal() or len(cutoff) > 9 or int(cutoff) < 1:
        raise ConfigError(f"Expected a metric such as ndcg@100, of {', '.join(METRICS)}; found {label!r}.")
    return name, int(cutoff)


def parse_error(label: str) -> str:
    """Return the label of an error of predicted ratings; ConfigError for an unknown one."""
    if label not in ERRORS:
        raise ConfigError(f"Expected a metric of predicted ratings, of {', '.join(ERRORS)}; found {label!r}.")
    return label


def find_hits(positions: NDArray[np.int32], held_out: csr_matrix) -> NDArray[np.bool_]:
    """Find which recommended items were held out.

    Parameters
    ----------
    positions : ndarray of int32, shape (users, n)
        Lists; -1 for no item.
    held_out : csr_matrix, shape (users, items)
        Stored cells count, zeros too.

    Returns
    -------
    ndarray of bool, shape (users, n)
    """
    items = held_out.shape[1]
    wanted = np.repeat(np.arange(held_out.shape[0], dtype=np.int64), np.diff(held_out.indptr)) * items
    wanted = np.sort(wanted + held_out.indices)
    offered = np.arange(len(positions), dtype=np.int64)[:, None] * items + positions
    if not len(wanted):
        return np.zeros(positions.shape, dtype=bool)
    place = np.minimum(np.searchsorted(wanted, offered), len(wanted) - 1)
    return np.asarray((wanted[place] == offered) & (positions >= 0))


def formula(label: str) -> str:
    """Return what a metric is, in one line."""
    if label in ERRORS:
        return ERRORS[label].formula
    if label == RECONSTRUCTION:
        return "Share of the n items of a history that are among the n highest scores of all items, seen ones included."
    name, _ = parse_metric(label)
    scope = scope_of(label)
    text = " ".join((METRICS[name].__doc__ or "").split())
    return f"{text} The list and what it must find are of {SCOPES[scope]}." if scope else text
