"""A comparison, or one model alone, as one HTML file that opens offline: nothing is fetched, no script runs.

`render` takes the facts of recsys.comparing as plain JSON, so that a report can be made again from comparison.json.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from recsys.evaluation.comparison import CURVES, CUTOFFS, Example
from recsys.evaluation.metrics import formula, goodness, lower_is_better
from recsys.reporting import svg
from recsys.reporting.svg import Series
from recsys.system.packages import missing_package

SLOTS = 8  # colors of the palette; a ninth model begins again

MEANINGS = {
    "coverage": "share of the catalog that stands in at least one list",
    "gini": "how unequally places are shared out among items: 0 all alike, 1 one item has all",
    "novelty": "mean surprise of an item, in bits: 0 for what everybody took",
    "popularity_share": "share of the lists from the few items that hold half of all training rows",
    "diversity": "1 − mean cosine of the pairs of a list: 1 if nobody took two of its items",
    "predicted_share": "share of the held-out ratings that have a prediction: the item known, the user with a history",
    "mean_error": "mean of predicted − observed: above 0 where too much is promised",
    "rmse_of_all_cells": "RMSE over all held-out ratings, those without a prediction being given the training mean",
}

# What is said of lists and of predicted ratings in other words, by task.
WORDS = {
    "ranking": {
        "alone": "What {} finds",
        "figures": "Mean over test users with its 95 % bootstrap interval. Every model saw the same histories, never "
        "recommends what stands in them, and was measured by the same function",
        "figures_alone": "Mean over test users; of {} with its 95 % bootstrap interval. The model saw a history of "
        "each and never recommends what stands in it.",
        "once": "The test users were read once.",
        "on_items": "{} of the items of each slice alone.",
        "cheap": "Up and to the left is better.",
        "speed": "lists a second",
        "reading": "Relevance is yes or no; h_i is 1 if the item at rank i was held out, R the number of items held "
        "out of the user. A metric’s value is the unweighted mean over {} users.",
    },
    "rating": {
        "alone": "How well {} predicts ratings",
        "figures": "Over all held-out ratings, lower is better, with the 95 % bootstrap interval that comes of drawing "
        "users. Every model saw the same histories and was measured on the same ratings",
        "figures_alone": "Over all held-out ratings, lower is better; of {} with its 95 % bootstrap interval. The "
        "model saw the other ratings of each user.",
        "once": "The test ratings were read once.",
        "on_items": "{} of the ratings of each slice’s items.",
        "cheap": "Down and to the left is better.",
        "speed": "users a second",
        "reading": "An error is summed over held-out ratings, whoever they are from: of {} users, those with many "
        "count for more. Differences are tested over users.",
    },
}

PROTOCOLS = {
    "strong": "people the models never saw",
    "k-fold": "everybody once, by models that never saw them",
    "weak": "people whose other items are in training",
    "leave-one-out": "people whose last item is to be found",
    "cells": "a random share of all rows",
    "k-fold-cells": "every row once, by models that never saw it",
    "temporal": "people whose later items are to be found",
    "given": "people of a published division",
    "validation": "people held out from its training, who may have chosen its settings and epochs",
    "test file": "people of a test file",
    "hidden": "people a share of whose items was hidden",
}


def render(facts: Mapping[str, Any], examples: Sequence[Example] = ()) -> str:
    """The whole page. Raises MissingPackageError without Jinja2."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ModuleNotFoundError as error:
        raise missing_package("jinja2", "report") from error
    environment = Environment(
        loader=PackageLoader("recsys.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": figure, "rough": rough, "count": lambda number: f"{number:,}"}
    slots = {model["name"]: place % SLOTS for place, model in enumerate(facts["models"])}
    return environment.get_template("report.html").render(
        **facts,
        slots=slots,
        examples=examples,
        drawn=_charts(facts, slots),
        bars=_bars(facts, slots),
        matrix=_matrix(facts),
        summary=summary(facts),
        formulas={label: formula(label) for label in [*facts["metrics"], facts["sliced"]]},
        words=WORDS[facts.get("task", "ranking")],
        counts=facts["models"][0].get("counts", {}),
        meanings=_meanings(facts["models"][0]["beyond"]),
        protocols=PROTOCOLS,
    )


def summary(facts: Mapping[str, Any]) -> list[str]:
    """What came out, in plain words."""
    best, *others = facts["models"]
    metric = facts["metric"]
    found = best["metrics"][metric]
    sentences = [
        f"{best['name']} {'is on top with' if others else 'reaches'} {metric} {found['mean']:.4f} "
        f"(95 % interval {found['low']:.4f} to {found['high']:.4f}, {found['n_users']:,} users)."
    ]
    if others:
        sentences.append(_lead(facts, best["name"], [model["name"] for model in others]))
    return [*sentences, *_against_rival(facts), *_cheaper(facts)]


def _against_rival(facts: Mapping[str, Any]) -> list[str]:
    """The best model against the best matrix factorization, if that is another one."""
    best, rival = facts["models"][0]["name"], facts["rival"]
    if rival == best:
        return []
    pair = _pair(facts, best, rival)
    [level] = [model["metrics"][facts["metric"]]["mean"] for model in facts["models"] if model["name"] == rival]
    share = f", {pair['mean'] / level:+.1%}" if level else ""
    return [
        f"Against {rival}, the best matrix factorization, the difference is {pair['mean']:+.4f} "
        f"[{pair['low']:+.4f}, {pair['high']:+.4f}]{share}."
    ]


def _cheaper(facts: Mapping[str, Any]) -> list[str]:
    """A model nearly as good for a fraction of the time, if there is one."""
    best, *others = facts["models"]
    metric = facts["metric"]
    is_error = lower_is_better(metric)  # of which a difference of 1 % is as much as one of 5 % in a list's metric

    def reached(model: Mapping[str, Any]) -> float:
        value, top = (float(one["metrics"][metric]["mean"]) for one in (model, best))
        below, above = (top, value) if is_error else (value, top)
        return below / above if above else 1.0  # nothing found, or no error at all: as good as the best

    def seconds(model: Mapping[str, Any]) -> float:
        return float(model["costs"]["fit_seconds"])

    limit = 0.99 if is_error else 0.95
    near = [model for model in others if reached(model) > limit and seconds(model) < 0.2 * seconds(best)]
    if not near:
        return []
    cheap = min(near, key=seconds)
    how_near = f"is {1 / reached(cheap) - 1:.1%} above" if is_error else f"reaches {reached(cheap):.0%} of"
    return [
        f"{cheap['name']} {how_near} that after {rough(seconds(cheap))} s of fitting; "
        f"{best['name']} takes {rough(seconds(best))} s."
    ]


def _lead(facts: Mapping[str, Any], best: str, others: Sequence[str]) -> str:
    tied = [name for name in others if not _pair(facts, best, name)["claimed"]]
    if not tied:
        return "It beats every other model here; none of these differences is likely to be chance."
    beaten = len(others) - len(tied)
    told = f"No difference can be claimed between it and {_and(tied)}"
    return f"{told}; it beats the other {beaten}." if beaten else f"{told}."


def _pair(facts: Mapping[str, Any], first: str, second: str) -> dict[str, Any]:
    """The difference first - second."""
    for pair in facts["differences"]:
        sign = {(first, second): 1, (second, first): -1}.get((pair["first"], pair["second"]))
        if sign:
            interval = pair["interval"]
            ends = sorted((sign * interval["low"], sign * interval["high"]))
            return {
                "mean": sign * interval["mean"],
                "low": ends[0],
                "high": ends[1],
                "claimed": pair["adjusted"] <= 0.05,
                "p": pair["adjusted"],
            }
    raise KeyError((first, second))


def _matrix(facts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Row model minus column model, of every pair, and whether that is better."""
    names = [model["name"] for model in facts["models"]]

    def pair(row: str, column: str) -> dict[str, Any] | None:
        if row == column:
            return None
        found = _pair(facts, row, column)
        return found | {"better": goodness(facts["metric"], found["mean"]) > 0}

    return {row: {column: pair(row, column) for column in names} for row in names}


def _bars(facts: Mapping[str, Any], slots: Mapping[str, int]) -> dict[str, str]:
    from markupsafe import Markup

    found = {model["name"]: model["metrics"][facts["metric"]] for model in facts["models"]}
    scale = (min(one["low"] for one in found.values()), max(one["high"] for one in found.values()))
    return {
        name: Markup(svg.interval_bar(one["mean"], one["low"], one["high"], scale, slots[name]))
        for name, one in found.items()
    }


def _charts(facts: Mapping[str, Any], slots: Mapping[str, int]) -> dict[str, str]:
    """All charts of the page by name; one without data is absent."""
    from markupsafe import Markup

    models, metric = facts["models"], facts["metric"]
    drawn = _curves_by_cutoff(models, slots) | _calibration(models, slots)
    drawn["by_users"] = _strips(models, slots, "user_slices", metric)
    if models[0]["item_slices"]:
        drawn["by_items"] = _strips(models, slots, "item_slices", facts["sliced"])
    drawn |= _training_curves(models, slots) | _search_curves(models, slots, metric)
    if len(models) > 1:
        drawn |= _trade_offs(models, slots, metric)
    return {name: Markup(svg) for name, svg in drawn.items()}  # of our own making, names escaped


def _trade_offs(models: Sequence[Mapping[str, Any]], slots: Mapping[str, int], metric: str) -> dict[str, str]:
    """Accuracy against what it costs and against how much is shown: of several models, since one alone has no rank."""

    def accuracy_against(value: str, points: Sequence[float], log: bool = False) -> str:
        series = [
            Series(model["name"], slots[model["name"]], [(x, model["metrics"][metric]["mean"])])
            for model, x in zip(models, points, strict=True)
        ]
        return svg.scatter(series, value, metric, log, f"{metric} against {value}")

    seconds = [max(0.001, model["costs"]["fit_seconds"]) for model in models]
    drawn = {"cost": accuracy_against("seconds to fit, by powers of ten", seconds, log=True)}
    coverage = next((key for key in models[0]["beyond"] if key.startswith("coverage@")), None)
    if coverage is not None:
        drawn["coverage"] = accuracy_against(coverage, [model["beyond"][coverage] for model in models])
    return drawn


def _curves_by_cutoff(models: Sequence[Mapping[str, Any]], slots: Mapping[str, int]) -> dict[str, str]:
    """Metrics of lists by their length, where they were measured."""
    drawn = {}
    for name in CURVES:
        labels = {k: f"{name}@{k}" for k in CUTOFFS if f"{name}@{k}" in models[0]["metrics"]}
        if not labels:
            continue
        series = [
            Series(model["name"], slots[model["name"]], [(k, model["metrics"][labels[k]]["mean"]) for k in labels])
            for model in models
        ]
        drawn[f"by_cutoff_{name}"] = svg.lines(series, "cut-off k", CUTOFFS, log=True, title=f"{name} by cut-off")
    return drawn


def _calibration(models: Sequence[Mapping[str, Any]], slots: Mapping[str, int]) -> dict[str, str]:
    """Observed against predicted ratings, where there are some."""
    series = [
        Series(model["name"], slots[model["name"]], [(each["predicted"], each["observed"]) for each in bins])
        for model in models
        if (bins := model.get("calibration"))
    ]
    title = "observed by predicted rating"
    return {"calibration": svg.lines(series, "mean predicted", diagonal=True, title=title)} if series else {}


def _strips(models: Sequence[Mapping[str, Any]], slots: Mapping[str, int], kind: str, metric: str) -> str:
    rows = {
        f"{name} · {models[0][kind][name]['n_users']:,} users": [
            (model["name"], slots[model["name"]], *(model[kind][name][key] for key in ("mean", "low", "high")))
            for model in models
        ]
        for name in models[0][kind]
    }
    # What matters is how far errors are from one another, and all are far from 0.
    return svg.strips(rows, metric, f"{metric} by {kind}", from_zero=not lower_is_better(metric))


def _training_curves(models: Sequence[Mapping[str, Any]], slots: Mapping[str, int]) -> dict[str, str]:
    series = [
        Series(
            model["name"],
            slots[model["name"]],
            [(epoch["epoch"], epoch["value"]) for epoch in model["curve"] if epoch["value"] is not None],
        )
        for model in models
    ]
    series = [one for one in series if one.points]
    return {"training": svg.lines(series, "epoch", title="validation metric by epoch")} if series else {}


def _search_curves(models: Sequence[Mapping[str, Any]], slots: Mapping[str, int], metric: str) -> dict[str, str]:
    """The best value up to each trial, of models that had more than one."""
    series = []
    for model in models:
        values = model["tuning"]["values"] if model["tuning"] else []
        found = (-math.inf if value is None else goodness(metric, value) for value in values)
        bests = enumerate(itertools.accumulate(found, max), start=1)
        points = [(number, goodness(metric, best)) for number, best in bests if math.isfinite(best)]
        if len(points) > 1:
            series.append(Series(model["name"], slots[model["name"]], points))
    return {"search": svg.lines(series, "trial", title="best validation metric by trial")} if series else {}


def _meanings(shown: Collection[str]) -> dict[str, str]:
    """What the figures beyond accuracy mean, of those that are shown."""
    names = {label.partition("@")[0] for label in shown}
    return {name: meaning for name, meaning in MEANINGS.items() if name in names}


def figure(value: Any, digits: int = 4) -> str:
    """A number for people: 0.4213, 12.3, 1,234, or a dash for None."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value:
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def rough(value: float | None) -> str:
    """A cost for people: 1,234, 56, 7.8, < 0.1, or a dash for None."""
    if value is None:
        return "–"
    return "< 0.1" if value < 0.05 else f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
