"""A comparison, or the evaluation of one model, as a single HTML file that opens offline.

Nothing is fetched and no script runs. `render` takes the facts of recsys.evaluation.comparison as plain JSON, so that a
report can be made again from comparison.json.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from recsys.evaluation.comparison import ComparisonFacts, IntervalFacts, ModelFacts
from recsys.evaluation.examples import Example
from recsys.evaluation.metrics import RECONSTRUCTION, formula, goodness, lower_is_better
from recsys.evaluation.ruled import RuledFacts
from recsys.evaluation.tasks import CURVES, CUTOFFS
from recsys.reporting import svg
from recsys.reporting.page import template, trusted
from recsys.reporting.svg import Series
from recsys.reporting.texts import (
    PROTOCOLS,
    TASKS,
    PairFacts,
    difference,
    meanings_of,
    summary,
)
from recsys.system.text import plural

COLORS = 8  # of the palette; a ninth model begins again


class MatrixCell(PairFacts):
    """One pair in the table of differences."""

    is_better: bool


def render(facts: ComparisonFacts, examples: Sequence[Example] = (), rules: Sequence[RuledFacts] = ()) -> str:
    """Make the page of a comparison.

    Parameters
    ----------
    facts : ComparisonFacts
        The comparison, perhaps read from comparison.json; one model is enough.
    examples : sequence of Example
        Test users to show with their lists.
    rules : sequence of RuledFacts
        What rules of lists and variety cost.

    Returns
    -------
    str
        HTML. Names and titles are escaped, control characters in them made visible.

    Raises
    ------
    MissingPackageError
        If Jinja2 is not installed.
    """
    best = set(facts.get("best_sizes", {}).values())
    colors = _colors(facts)
    shown = [model for model in facts["models"] if model["name"] in best or not _sizes(facts, model)]
    page: str = template("report.html").render(
        {"note": "", "best_sizes": {}, **facts},
        colors=colors,
        examples=[replace(one, lists={m["name"]: one.lists[m["name"]] for m in shown}) for one in examples],
        charts=_charts(facts, shown, colors) | _variety(rules, facts["metric"]),
        rules=rules,
        bars=_interval_bars(facts, colors),
        matrix=_matrix(facts, [model["name"] for model in shown]),
        summary=summary(facts),
        formulas={label: formula(label) for label in [*facts["metrics"], facts["slice_metric"]]},
        texts=TASKS[facts.get("task", "ranking")],
        counts=facts["models"][0].get("counts", {}),
        meanings=meanings_of(facts["models"][0]["beyond_accuracy"]),
        protocol_text=PROTOCOLS.get(facts["protocol"], facts["protocol"]),
    )
    return page


def _sizes(facts: ComparisonFacts, model: ModelFacts) -> list[ModelFacts]:
    """All rows of a model that was compared at several sizes of its code, smallest first; none for other models."""
    if model.get("model") not in facts.get("best_sizes", {}):
        return []
    return sorted((one for one in facts["models"] if one["model"] == model["model"]), key=_code_size)


def _code_size(model: ModelFacts) -> int:
    return model["code_size"] or 0


def _colors(facts: ComparisonFacts) -> dict[str, int]:
    """The color of each row; all sizes of one model have the same."""
    kinds = {model["name"]: model["model"] if _sizes(facts, model) else model["name"] for model in facts["models"]}
    numbers = {kind: number % COLORS for number, kind in enumerate(dict.fromkeys(kinds.values()))}
    return {name: numbers[kind] for name, kind in kinds.items()}


def _matrix(facts: ComparisonFacts, names: Sequence[str]) -> dict[str, dict[str, MatrixCell | None]]:
    """The difference of the row's model and the column's, of every pair; None for a model and itself."""

    def cell(row: str, column: str) -> MatrixCell | None:
        if row == column:
            return None
        pair = difference(facts, row, column)
        return {**pair, "is_better": goodness(facts["metric"], pair["mean"]) > 0}

    return {row: {column: cell(row, column) for column in names} for row in names}


# Charts


def _interval_bars(facts: ComparisonFacts, colors: Mapping[str, int]) -> dict[str, str]:
    """The interval of the main metric of each model, drawn on a common scale."""
    found = {model["name"]: model["metrics"][facts["metric"]] for model in facts["models"]}
    scale = min(one["low"] for one in found.values()), max(one["high"] for one in found.values())
    bars = {
        name: svg.interval_bar(one["mean"], one["low"], one["high"], scale, colors[name]) for name, one in found.items()
    }
    return trusted(bars)


def _charts(facts: ComparisonFacts, models: Sequence[ModelFacts], colors: Mapping[str, int]) -> dict[str, str]:
    """All charts of the page by name, of some of the models; a chart without data is absent."""
    metric = facts["metric"]
    charts = _curves_by_cutoff(models, colors) | _calibration(models, colors)
    for label in (metric, RECONSTRUCTION) if facts.get("best_sizes") else ():
        charts[f"by_size_{'metric' if label == metric else label}"] = _curve_by_size(facts, colors, label)
    charts["by_users"] = _slices(models, colors, "user_slices", metric)
    if models[0]["item_slices"]:
        charts["by_items"] = _slices(models, colors, "item_slices", facts["slice_metric"])
    charts |= _training_curves(models, colors) | _search_curves(models, colors, metric)
    if len(facts["models"]) > 1:
        charts |= _trade_offs(models, colors, metric)
    return trusted(charts)


def _trade_offs(models: Sequence[ModelFacts], colors: Mapping[str, int], metric: str) -> dict[str, str]:
    """The metric against the seconds of a fit and against the coverage of the catalog, a dot for each model."""

    def scatter(x_label: str, values: Sequence[float], log: bool = False) -> str:
        series = [
            Series(model["name"], colors[model["name"]], [(x, model["metrics"][metric]["mean"])])
            for model, x in zip(models, values, strict=True)
        ]
        return svg.scatter_chart(series, x_label, metric, log, f"{metric} against {x_label}")

    seconds = [max(0.001, model["costs"]["fit_seconds"] or 0) for model in models]
    charts = {"cost": scatter("seconds to fit (log scale)", seconds, log=True)}
    coverage = next((key for key in models[0]["beyond_accuracy"] if key.startswith("coverage@")), None)
    if coverage is not None:
        charts["coverage"] = scatter(coverage, [model["beyond_accuracy"][coverage] for model in models])
    return charts


def _variety(rules: Sequence[RuledFacts], metric: str) -> dict[str, str]:
    """The metric against the distance within lists, a dot for each weight of variety; none where there is one dot."""
    dots = [
        Series(one["name"].removeprefix("diversity "), 2 if one["is_chosen"] else 0, [(one["distance"], one["mean"])])
        for one in rules
        if one["distance"] is not None
    ]
    if len(dots) < 2:
        return {}
    chart = svg.scatter_chart(dots, "distance within lists", metric, title=f"{metric} against variety")
    return trusted({"variety": chart})


def _curves_by_cutoff(models: Sequence[ModelFacts], colors: Mapping[str, int]) -> dict[str, str]:
    """Metrics of lists by their length, where they were measured."""
    charts = {}
    for name in CURVES:
        labels = {k: f"{name}@{k}" for k in CUTOFFS if f"{name}@{k}" in models[0]["metrics"]}
        if not labels:
            continue
        series = [
            Series(model["name"], colors[model["name"]], [(k, model["metrics"][labels[k]]["mean"]) for k in labels])
            for model in models
        ]
        charts[f"by_cutoff_{name}"] = svg.line_chart(series, "cut-off k", CUTOFFS, log=True, title=f"{name} by cut-off")
    return charts


def _curve_by_size(facts: ComparisonFacts, colors: Mapping[str, int], label: str) -> str:
    """A metric by the size of the code with its intervals, of the models that were compared at several sizes."""
    series = []
    for kind, name in facts["best_sizes"].items():
        rows = _sizes(facts, next(model for model in facts["models"] if model["name"] == name))
        found = [row["metrics"][label] for row in rows]
        points = [(_code_size(row), one["mean"]) for row, one in zip(rows, found, strict=True)]
        series.append(Series(kind, colors[name], points, [(one["low"], one["high"]) for one in found]))
    ticks = sorted({x for one in series for x, _ in one.points})
    return svg.line_chart(series, "size of the code", ticks, log=True, title=f"{label} by size of the code")


def _calibration(models: Sequence[ModelFacts], colors: Mapping[str, int]) -> dict[str, str]:
    """Observed against predicted ratings, where there are some."""
    series = [
        Series(model["name"], colors[model["name"]], [(each["predicted"], each["observed"]) for each in bins])
        for model in models
        if (bins := model.get("calibration"))
    ]
    title = "observed against predicted rating"
    return {"calibration": svg.line_chart(series, "mean predicted", diagonal=True, title=title)} if series else {}


def _slices(
    models: Sequence[ModelFacts],
    colors: Mapping[str, int],
    kind: Literal["user_slices", "item_slices"],
    metric: str,
) -> str:
    """The interval of each model in each slice."""

    def row(model: ModelFacts, name: str) -> svg.Interval:
        found: IntervalFacts = model[kind][name]
        return svg.Interval(model["name"], colors[model["name"]], found["mean"], found["low"], found["high"])

    rows = {
        f"{name} · {plural(found['n_users'], 'user')}": [row(model, name) for model in models if name in model[kind]]
        for name, found in models[0][kind].items()
    }
    # Errors differ little from one another and are all far from 0.
    title = f"{metric} by {kind.replace('_', ' ')}"
    return svg.interval_chart(rows, metric, title, from_zero=not lower_is_better(metric))


def _training_curves(models: Sequence[ModelFacts], colors: Mapping[str, int]) -> dict[str, str]:
    """The validation metric by epoch, of models that have epochs."""
    series = [
        Series(
            model["name"],
            colors[model["name"]],
            [(epoch["epoch"], epoch["value"]) for epoch in model["curve"] if epoch["value"] is not None],
        )
        for model in models
    ]
    series = [one for one in series if one.points]
    return {"training": svg.line_chart(series, "epoch", title="validation metric by epoch")} if series else {}


def _search_curves(models: Sequence[ModelFacts], colors: Mapping[str, int], metric: str) -> dict[str, str]:
    """The best value up to each trial, of models that had more than one."""
    series = []
    for model in models:
        values = model["tuning"]["values"] if model["tuning"] else []
        found = (-math.inf if value is None else goodness(metric, value) for value in values)
        bests = enumerate(itertools.accumulate(found, max), start=1)
        points = [(number, goodness(metric, best)) for number, best in bests if math.isfinite(best)]
        if len(points) > 1:
            series.append(Series(model["name"], colors[model["name"]], points))
    return {"search": svg.line_chart(series, "trial", title="best validation metric by trial")} if series else {}
