"""What rules of lists cost: the accuracy of lists by rules, at several weights of variety, beside those without."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.evaluation.averages import Average
from recsys.evaluation.beyond_accuracy import coverage, diversity, gini
from recsys.evaluation.evaluate import item_ids
from recsys.evaluation.metrics import METRICS, find_hits, parse_metric, scope_of
from recsys.inference.reranking import Request, recommend_by_rules
from recsys.inference.rules import RuleSet
from recsys.inference.ties import TieBreak
from recsys.models.base import Recommender
from recsys.splitting.holdout import Holdout
from recsys.types import ScoreFunction

WEIGHTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
BATCH = 256  # users at once
SEEN_FIRST = 10  # items of a list whose distance counts: what a person looks at


class RuledFacts(TypedDict):
    """Lists by some rules as plain JSON."""

    name: str
    mean: float
    low: float
    high: float
    distance: float | None
    coverage: float
    gini: float
    is_chosen: bool


@dataclass(frozen=True)
class RuledEvaluation:
    """Lists of the users of a holdout, by some rules.

    Attributes
    ----------
    name : str
        "no rules", "rules", "diversity 0.3" or "calibration 0.3".
    accuracy : Average
        Of the metric, over the users.
    distance : float, optional
        Mean distance (1 - cosine) between the first ten items of a list; None where nothing says which items are alike.
    coverage, gini : float
        Share of the catalog that is in some list; how unequally the places of the lists are distributed over items.
    is_chosen : bool
        Whether these are the rules that were given.
    """

    name: str
    accuracy: Average
    distance: float | None
    coverage: float
    gini: float
    is_chosen: bool


def facts_of(lists: RuledEvaluation, seed: int) -> RuledFacts:
    """Return what a report shows of lists by some rules, with a confidence interval by bootstrap over users."""
    interval = lists.accuracy.interval(seed)
    return {
        "name": lists.name,
        "mean": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "distance": lists.distance,
        "coverage": lists.coverage,
        "gini": lists.gini,
        "is_chosen": lists.is_chosen,
    }


def measure_rules(model: Recommender, holdout: Holdout, rules: RuleSet, metric: str) -> list[RuledEvaluation]:
    """Measure lists without rules, by the rules, and by the rules at several weights of variety.

    Parameters
    ----------
    model : Recommender
        Its scores make the lists.
    holdout : Holdout
        Histories and held-out items.
    rules : RuleSet
        For the items of the model.
    metric : str
        Such as ndcg@10: its cut-off is the length of the lists.

    Returns
    -------
    list of RuledEvaluation
        The lists without rules first.

    Raises
    ------
    ConfigError
        If the metric is unknown, not one of lists, or of a part of the items that the holdout does not have.
    """
    (name, n), scope = parse_metric(metric), scope_of(metric)
    part = holdout.within(scope)
    masked = holdout.history if holdout.seen is None else holdout.seen
    request = Request(holdout.users, holdout.history, n, masked, holdout.scopes.get(scope))
    score = _without_ties(model, holdout)
    found = []
    for title, some in _variants(rules):
        lists = recommend_by_rules(score, some, request, np.arange(len(holdout)), BATCH)
        positions = np.concatenate([batch.positions for batch in lists])
        accuracy = Average.of(METRICS[name](find_hits(positions, part.held_out), part.relevant, n))
        vectors = None if rules.variety is None else rules.variety.vectors
        items = holdout.history.shape[1]
        shown = coverage(positions, items, n), gini(positions, items, n)
        found.append(RuledEvaluation(title, accuracy, _distance(positions, vectors), *shown, some is rules))
    return found


def _without_ties(model: Recommender, holdout: Holdout) -> ScoreFunction:
    """The scores, with equal ones a little apart in the order of hashed ids, as in all evaluation."""
    tie_break = TieBreak.from_ids(item_ids(holdout), holdout.users)
    items = np.arange(holdout.history.shape[1])

    def score(history: csr_matrix, /, *, users: Any = None) -> Tensor:
        known = {"users": holdout.train_rows[users]} if model.needs_training_users else {}
        scores = torch.as_tensor(model.score(history, **known)).float()
        places = tie_break.places(np.asarray(users)[:, None], items)
        return torch.as_tensor(apart(scores.numpy(force=True), places)).to(scores)

    return score


def apart(scores: NDArray[np.float32], places: NDArray[np.int64]) -> NDArray[np.float32]:
    """Move equal scores of each row apart, by as little as possible: the order of unequal ones stays.

    Parameters
    ----------
    scores : ndarray of float32, shape (users, items)
        Finite.
    places : ndarray of int64, shape (users, items)
        Of equal scores, the one with the lowest place stays, and the others follow below it.

    Returns
    -------
    ndarray of float32, shape (users, items)
        Distinct in each row. A score that is in the way of those above it makes room, too.
    """
    order = np.lexsort((places, -scores), axis=1)
    bits = np.take_along_axis(scores + np.float32(0), order, axis=1).view(np.int32).astype(np.int64)  # -0 becomes 0
    steps = np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)  # whole numbers in the order of the scores, one a float32
    rank = np.arange(scores.shape[1])
    steps = np.minimum.accumulate(steps + rank, axis=1) - rank  # each at least one below the one before
    lowered = np.where(steps < 0, -steps | 0x80000000, steps).astype(np.uint32).view(np.float32)
    found = np.empty_like(scores)
    np.put_along_axis(found, order, lowered, axis=1)
    return found


def _variants(rules: RuleSet) -> list[tuple[str, RuleSet]]:
    """No rules; the rules without variety, if there are any; the rules with several weights of variety."""
    variants = [("no rules", RuleSet())]
    if rules.variety is None:
        return [*variants, ("rules", rules)]
    if rules.rules:
        variants.append(("rules", replace(rules, variety=None)))
    kind = "calibration" if rules.variety.calibrated else "diversity"
    for weight in sorted({*WEIGHTS, rules.variety.weight}):
        is_own = weight == rules.variety.weight
        other = rules if is_own else replace(rules, variety=replace(rules.variety, weight=weight))
        variants.append((f"{kind} {weight:g}", other))
    return variants


def _distance(positions: NDArray[np.int32], vectors: NDArray[np.float32] | None) -> float | None:
    """Mean over the lists with two items or more; None without vectors or such lists."""
    if vectors is None:
        return None
    distances = diversity(positions, csr_matrix(vectors.T), SEEN_FIRST)
    return None if np.isnan(distances).all() else float(np.nanmean(distances))
