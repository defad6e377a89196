"""The words of a report: names and meanings of what is shown, and a summary in sentences."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, TypedDict

from recsys.evaluation.comparison import ComparisonFacts, ModelFacts
from recsys.evaluation.metrics import lower_is_better
from recsys.system.text import plural

SIGNIFICANCE_LEVEL = 0.05

MEANINGS = {
    "coverage": "share of the catalog that is recommended to at least one user",
    "gini": "inequality of how often items are recommended: 0 if all are equal, 1 if one item has all places",
    "novelty": "mean self-information of a recommended item in bits: 0 for an item that every training user has had",
    "popularity_share": "share of the recommendations from the few items that have half of all training interactions",
    "diversity": "1 − mean cosine similarity of two items of a list: 1 if no training user has had both",
    "predicted_share": "share of the held-out ratings that can be predicted: the item is known, the user has a history",
    "mean_error": "mean of predicted − observed rating: above 0 where predictions are too high",
    "rmse_of_all_cells": "RMSE over all held-out ratings; where there is no prediction, the training mean is used",
}

# Protocols by the name in the facts: what the test consists of.
PROTOCOLS = {
    "strong": "new users: no model saw any of their interactions in training",
    "k-fold": "every user once, tested by models that saw none of the user's interactions in training",
    "weak": "known users: their other items are in the training data",
    "leave-one-out": "known users: the last item of each is to be found",
    "cells": "a random share of all ratings",
    "k-fold-cells": "every rating once, predicted by models that did not see it in training",
    "temporal": "known users: their later items are to be found",
    "cold-items": "known users: items that are in no training row, and other items of theirs, are to be found",
    "given": "the users of a published split",
    "validation": "users held out from the training; they may have decided settings and the number of epochs",
    "bucket": "users whose ids, by a hash, keep them out of every training; a random share of their items was hidden",
    "test file": "the users of a test file",
    "hidden": "users of whom a random share of the items was hidden from the model",
}


class TaskTexts(TypedDict):
    """Sentences that differ between lists and predicted ratings; `{}` is filled in by the page."""

    single: str
    figures: str
    figures_single: str
    read_once: str
    item_slices: str
    cost: str
    speed: str
    metrics: str


TASKS: dict[str, TaskTexts] = {
    "ranking": {
        "single": "Evaluation of {}",
        "figures": "Mean over test users with a 95 % confidence interval (bootstrap over users). All models saw the "
        "same histories, recommend no item that the user has had, and were measured by the same function",
        "figures_single": "Mean over test users; {} with a 95 % confidence interval (bootstrap over users). The model "
        "saw a history of each user and recommends no item that the user has had.",
        "read_once": "The test users were used once, at the end.",
        "item_slices": "{}, counting only the held-out items of each slice.",
        "cost": "Better models are further up, cheaper models further left.",
        "speed": "lists per second",
        "metrics": "Relevance is binary: h_i is 1 if the item at rank i was held out; R is the number of held-out "
        "items of the user. The value of a metric is the unweighted mean over {} users.",
    },
    "rating": {
        "single": "Rating predictions of {}",
        "figures": "Over all held-out ratings, lower is better, with a 95 % confidence interval (bootstrap over "
        "users). All models saw the same histories and were measured on the same ratings",
        "figures_single": "Over all held-out ratings, lower is better; {} with a 95 % confidence interval (bootstrap "
        "over users). The model saw the other ratings of each user.",
        "read_once": "The test ratings were used once, at the end.",
        "item_slices": "{} over the held-out ratings of each slice's items.",
        "cost": "Better models are further down, cheaper models further left.",
        "speed": "users per second",
        "metrics": "Errors are averaged over held-out ratings, so that of {} users those with many ratings count more. "
        "Differences are tested over users.",
    },
}


class PairFacts(TypedDict):
    """The difference of two models in a given direction."""

    mean: float
    low: float
    high: float
    is_significant: bool
    p: float


def summary(facts: ComparisonFacts) -> list[str]:
    """Describe the result of a comparison in sentences.

    Parameters
    ----------
    facts : ComparisonFacts
        The comparison; its models are sorted, best first.

    Returns
    -------
    list of str
        Which model is best, over which others significantly, by how much over the best matrix factorization, and which
        model is nearly as good at a fraction of the time.
    """
    best, *others = facts["models"]
    metric = facts["metric"]
    value = best["metrics"][metric]
    if others:
        opening = f"{best['name']} has the {'lowest' if lower_is_better(metric) else 'highest'} {metric}:"
    else:
        opening = f"{best['name']} reaches {metric}"
    users = plural(value["n_users"], "user")
    sentences = [
        f"{opening} {value['mean']:.4f} (95 % confidence interval {value['low']:.4f} to {value['high']:.4f}, {users})."
    ]
    if others:
        sentences.append(_significance(facts))
    return [*sentences, *_against_reference(facts), *_cheaper(facts)]


def difference(facts: ComparisonFacts, first: str, second: str) -> PairFacts:
    """Return the difference first - second of two models of a comparison."""
    for pair in facts["differences"]:
        sign = {(first, second): 1, (second, first): -1}.get((pair["first"], pair["second"]))
        if sign:
            interval = pair["interval"]
            low, high = sorted((sign * interval["low"], sign * interval["high"]))
            return {
                "mean": sign * interval["mean"],
                "low": low,
                "high": high,
                "is_significant": pair["adjusted"] <= SIGNIFICANCE_LEVEL,
                "p": pair["adjusted"],
            }
    raise KeyError((first, second))


def _significance(facts: ComparisonFacts) -> str:
    """Over which other models the best one is significantly better."""
    best, *others = [model["name"] for model in facts["models"]]
    tied = [name for name in others if not difference(facts, best, name)["is_significant"]]
    pairs = len(facts["differences"])
    correction = f", Holm's correction over {pairs} pairs" if pairs > 1 else ""
    test = f"(permutation test{correction}, 5 % level)"
    if not tied:
        every = "every other model" if len(others) > 1 else others[0]
        return f"It is significantly better than {every} {test}."
    if len(tied) == len(others):
        return f"It is not significantly different from {_listed(tied)} {test}."
    rest = len(others) - len(tied)
    better = f"the other {rest} models" if rest > 1 else "the other model"
    return f"It is not significantly different from {_listed(tied)}, and significantly better than {better} {test}."


def _against_reference(facts: ComparisonFacts) -> list[str]:
    """The best model against the best matrix factorization, if that is another one."""
    best, reference = facts["models"][0]["name"], facts["reference"]
    if reference == best:
        return []
    pair = difference(facts, best, reference)
    [level] = [model["metrics"][facts["metric"]]["mean"] for model in facts["models"] if model["name"] == reference]
    share = f", {pair['mean'] / level:+.1%}" if level else ""
    return [
        f"The difference to {reference}, the best matrix factorization, is {signed(pair['mean'])} "
        f"[{signed(pair['low'])}, {signed(pair['high'])}]{share}."
    ]


def _cheaper(facts: ComparisonFacts) -> list[str]:
    """A model nearly as good for a fraction of the time, if there is one."""
    best, *others = facts["models"]
    metric = facts["metric"]
    is_error = lower_is_better(metric)  # of which a difference of 1 % is as much as one of 5 % in a list's metric

    def relative(model: ModelFacts) -> float:
        value, top = (float(one["metrics"][metric]["mean"]) for one in (model, best))
        below, above = (top, value) if is_error else (value, top)
        return below / above if above else 1.0  # nothing found, or no error at all: as good as the best

    def seconds(model: ModelFacts) -> float:
        return float(model["costs"]["fit_seconds"] or 0)

    limit = 0.99 if is_error else 0.95
    near = [model for model in others if relative(model) > limit and seconds(model) < 0.2 * seconds(best)]
    if not near:
        return []
    cheap = min(near, key=seconds)
    how_near = f"is {1 / relative(cheap) - 1:.1%} higher" if is_error else f"is {relative(cheap):.0%} of that value"
    return [
        f"The {metric} of {cheap['name']} {how_near}, with a fit of {rounded(seconds(cheap))} s instead of "
        f"{rounded(seconds(best))} s."
    ]


def meanings_of(labels: Collection[str]) -> dict[str, str]:
    """Return the meaning of each shown figure beyond accuracy, by name without its cut-off."""
    names = {label.partition("@")[0] for label in labels}
    return {name: meaning for name, meaning in MEANINGS.items() if name in names}


def figure(value: Any, digits: int = 4) -> str:
    """Format a value for people: 0.4213, 12.3, 1,234, yes, or a dash for None.

    Parameters
    ----------
    value : object
        A number, a truth value, a text or None.
    digits : int
        Significant digits of a fraction.
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value:
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def rounded(value: float | None) -> str:
    """Format a cost for people: 1,234, 56, 7.8, < 0.1, or a dash for None."""
    if value is None:
        return "–"
    return "< 0.1" if value < 0.05 else f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def signed(value: float) -> str:
    """Format a difference with its sign, without a sign where it rounds to zero."""
    text = f"{value:+.4f}"
    return "0.0000" if float(text) == 0 else text


def _listed(names: Sequence[str]) -> str:
    """Names as an enumeration."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
