"""Several models ranked by one metric, with every pairwise difference, as a table and as the facts of a report."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import pandas as pd

from recsys.evaluation.averages import Average, Interval
from recsys.evaluation.calibration import CalibrationBin
from recsys.evaluation.code_sizes import best_sizes, size_of
from recsys.evaluation.metrics import SCOPES, goodness, scope_of
from recsys.evaluation.probe import Probe, describe_probes
from recsys.evaluation.results import Costs, ModelResult, TuningFacts
from recsys.evaluation.significance import Difference, differences
from recsys.evaluation.slices import user_slices
from recsys.system.atomic import new_directory, write_json
from recsys.system.packages import versions
from recsys.training.context import Epoch


class IntervalFacts(TypedDict):
    """A mean over users with its 95 % confidence interval (bootstrap over users)."""

    mean: float
    low: float
    high: float
    n_users: int


class EpochFacts(TypedDict):
    """One epoch of the fit that was validated."""

    epoch: int
    loss: float
    value: float | None  # validation metric
    best: bool


class DifferenceFacts(TypedDict):
    """A pair of models; see `Difference`."""

    first: str
    second: str
    metric: str
    interval: IntervalFacts
    effect: float
    p: float
    adjusted: float
    n_pairs: int
    text: str


class ModelFacts(TypedDict):
    """What a report shows of one model."""

    name: str
    model: str  # its name among MODELS
    family: str
    code_size: int | None  # None for a model without a code
    validation: float | None  # the main metric on the validation part, where sizes of the code are compared
    settings: dict[str, Any]
    tuning: TuningFacts | None
    metrics: dict[str, IntervalFacts]
    spread: dict[str, float | None]
    counts: dict[str, int]
    beyond_accuracy: dict[str, float]
    costs: Costs
    user_slices: dict[str, IntervalFacts]
    item_slices: dict[str, IntervalFacts]
    curve: list[EpochFacts]
    calibration: list[CalibrationBin]


class RankingFacts(TypedDict):
    """Ranked results as plain JSON without any id of a user or an item."""

    task: str
    metric: str
    metrics: list[str]
    users: int
    seeds: int
    folds: int
    slice_metric: str
    reference: str
    models: list[ModelFacts]
    differences: list[DifferenceFacts]
    conclusions: list[str]


class ComparisonFacts(RankingFacts):
    """A whole comparison as plain JSON: what a report shows, besides `data`, the facts of the interactions."""

    protocol: str
    split: dict[str, int]
    refused: dict[str, str]  # why models were left out
    note: str  # where the settings come from
    best_sizes: dict[str, str]  # rows of models compared at several sizes of the code, chosen on the validation part
    versions: dict[str, str]


MARK = "leaderboard.csv"  # shows that a folder holds a comparison


@dataclass(frozen=True)
class RankedResults:
    """Results of several models on the same test part.

    Attributes
    ----------
    results : sequence of ModelResult
        Best first by `metric`.
    metric : str
        The metric they are ranked by.
    metrics : sequence of str
        All metrics to show, `metric` among them.
    pairs : sequence of Difference
        Of every pair of models.
    seed : int
        Of the bootstrap.
    """

    results: Sequence[ModelResult]
    metric: str
    metrics: Sequence[str]
    pairs: Sequence[Difference]
    seed: int = 0

    @property
    def reference(self) -> ModelResult:
        """The model all others are compared with: the best matrix factorization, or the best model without one."""
        factorizations = [result for result in self.results if result.first.model.family == "matrix factorization"]
        return [*factorizations, *self.results][0]

    def against_reference(self, result: ModelResult) -> Difference | None:
        """Return `result` minus the reference; None for the reference itself."""
        for pair in self.pairs:
            if {pair.first, pair.second} == {result.name, self.reference.name}:
                return pair if pair.first == result.name else pair.reversed()
        return None

    def conclusions(self) -> list[str]:
        """Say in one sentence for each other model how it differs from the reference; on cold and warm items too."""
        found = [self.against_reference(result) for result in self.results]
        return [*(str(pair) for pair in found if pair is not None), *self.on_cold_and_warm()]

    def on_cold_and_warm(self) -> list[str]:
        """Say for each other model what it gains on cold items and loses on warm ones, where both were measured."""
        whole = self.metric.removeprefix(f"{scope_of(self.metric)}_")
        labels = [f"{scope}_{whole}" for scope in SCOPES]
        if not set(labels) <= set(self.metrics):
            return []
        reference, lines = self.reference, []
        for result in self.results:
            if result is not reference:
                pairs = [(label, result.average(label), reference.average(label)) for label in labels]
                gains = [(label, own.difference(other, self.seed)) for label, own, other in pairs]
                texts = [
                    f"{label} {_signed(gain.mean)} [{_signed(gain.low)}, {_signed(gain.high)}]" for label, gain in gains
                ]
                lines.append(f"{result.name} against {reference.name}: {', '.join(texts)}")
        return lines


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes
    ----------
    ranked : RankedResults
        The results, best first, and their differences.
    protocol : str
        How the data were split.
    split : mapping of str to int
        Users and rows of each part, of the first fold.
    left_out : int
        Users who could not be tested: without a history, or without anything to find.
    refused : mapping of str to str
        Why models were left out.
    probes : sequence of Probe
        What a few random settings of untuned models gave.
    """

    ranked: RankedResults
    protocol: str
    split: Mapping[str, int]
    left_out: int
    refused: Mapping[str, str]
    probes: Sequence[Probe] = ()

    @cached_property
    def leaderboard(self) -> pd.DataFrame:
        """One row per model, best first; see `recsys.evaluation.comparison.leaderboard`."""
        return leaderboard(self.ranked)

    @property
    def conclusions(self) -> list[str]:
        """One sentence for each model on how it differs from the reference."""
        return self.ranked.conclusions()

    @property
    def note(self) -> str:
        """Where the settings come from, and which model would gain most from tuning: to be read first."""
        tuned = [result for result in self.ranked.results if result.tuning is not None]
        if len(tuned) == len(self.ranked.results):
            return "The settings of every model were chosen on the validation part, with the same budget for each."
        return describe_probes(self.probes, self.ranked.metric)

    @property
    def best_sizes(self) -> dict[str, str]:
        """The row of each model that was compared at several sizes of its code, by its best size in validation."""
        return best_sizes(self.ranked.results)

    def facts(self) -> ComparisonFacts:
        """Collect what a report shows, as plain JSON without ids of users or items."""
        return {
            **facts(self.ranked),
            "protocol": self.protocol,
            "split": dict(self.split),
            "refused": dict(self.refused),
            "note": self.note,
            "best_sizes": self.best_sizes,
            "versions": versions(),
        }

    def write(self, folder: Path, more: Mapping[str, Any] | None = None) -> None:
        """Write leaderboard.csv, comparison.json and per_user.parquet into an existing folder.

        Parameters
        ----------
        folder : Path
        more : mapping, optional
            Further facts for comparison.json.
        """
        self.leaderboard.to_csv(folder / MARK, index=False)
        write_json(folder / "comparison.json", {**self.facts(), **(more or {})})
        per_user(self.ranked).to_parquet(folder / "per_user.parquet", index=False)

    def save(self, directory: str | Path, overwrite: bool = False) -> None:
        """Write the same files into a new folder, which appears whole or not at all.

        Parameters
        ----------
        directory : str or Path
        overwrite : bool
            Replace an earlier comparison.

        Raises
        ------
        ArtifactError
            If the folder holds something else, or a comparison without `overwrite`.
        """
        with new_directory(Path(directory), MARK, overwrite) as folder:
            self.write(folder)


def rank(results: Sequence[ModelResult], metric: str, metrics: Sequence[str], seed: int = 0) -> RankedResults:
    """Sort results by a metric and test every pairwise difference.

    Parameters
    ----------
    results : sequence of ModelResult
        Measured on the same users.
    metric : str
        The metric to rank by; of errors, lower is better.
    metrics : sequence of str
        All metrics to show.
    seed : int
        Of the bootstrap and of the permutation tests.

    Returns
    -------
    RankedResults
        Best first; equal means keep the order given.
    """
    ordered = sorted(results, key=lambda result: -goodness(metric, result.average(metric).mean))
    pairs = differences({result.name: result.average(metric) for result in ordered}, metric, seed)
    return RankedResults(ordered, metric, metrics, pairs, seed)


def leaderboard(ranked: RankedResults) -> pd.DataFrame:
    """Make a table with one row per model, best first.

    Columns: `model`, `family`; every metric with `_low` and `_high`, the ends of its 95 % interval; `users`; counts;
    `seeds` and the spread over them; coverage and other properties of the lists; costs; and, against the `reference`
    model, the `difference` of the main metric with its interval, effect size and adjusted p-value.
    """
    rows = []
    for result in ranked.results:
        row: dict[str, Any] = {"model": result.name, "family": result.first.model.family}
        for label in ranked.metrics:
            interval = result.average(label).interval(ranked.seed)
            row |= {label: interval.mean, f"{label}_low": interval.low, f"{label}_high": interval.high}
            if label == ranked.metric:  # cold items may be to be found by fewer users
                row["users"] = interval.n_users
        row |= result.counts() | {
            "seeds": len(result.folds[0]),
            f"{ranked.metric}_seed_spread": result.seed_spread(ranked.metric),
        }
        row |= {"coverage": result.first.evaluation.coverage, **result.beyond_accuracy(), **result.costs()}
        pair = ranked.against_reference(result)
        if pair is not None:
            found = pair.interval
            row |= {"reference": pair.second, "difference": found.mean, "difference_low": found.low}
            row |= {"difference_high": found.high, "difference_effect": pair.effect}
            row["difference_p_adjusted"] = pair.adjusted
        rows.append(row)
    return pd.DataFrame(rows)


def facts(ranked: RankedResults) -> RankingFacts:
    """Collect what a report shows, as plain JSON without ids of users or items."""
    first = ranked.results[0]
    return {
        "task": first.first.model.task,
        "metric": ranked.metric,
        "metrics": list(ranked.metrics),
        "users": len(first.average(ranked.metric)),
        "seeds": max(len(result.folds[0]) for result in ranked.results),
        "folds": len(first.folds),
        "slice_metric": first.first.slice_metric,
        "reference": ranked.reference.name,
        "models": [_model_facts(result, ranked) for result in ranked.results],
        "differences": [_difference_facts(pair) for pair in ranked.pairs],
        "conclusions": ranked.conclusions(),
    }


def per_user(ranked: RankedResults) -> pd.DataFrame:
    """Make a table of every metric of every user: columns `model`, `user_id`, the metrics and, for ratings, `cells`."""
    frames = [
        pd.DataFrame(
            {"model": result.name, "user_id": result.users.to_pylist()}
            | {label: result.values(label) for label in ranked.metrics}
            | ({"cells": result.average(ranked.metric).weights.astype(int)} if result.counts() else {})
        )
        for result in ranked.results
    ]
    return pd.concat(frames, ignore_index=True)


def _signed(value: float) -> str:
    return f"{value:+z.4f}"


def _difference_facts(pair: Difference) -> DifferenceFacts:
    return {
        "first": pair.first,
        "second": pair.second,
        "metric": pair.metric,
        "interval": _interval_facts(pair.interval),
        "effect": pair.effect,
        "p": pair.p,
        "adjusted": pair.adjusted,
        "n_pairs": pair.n_pairs,
        "text": str(pair),
    }


def _model_facts(result: ModelResult, ranked: RankedResults) -> ModelFacts:
    first, main = result.first, result.average(ranked.metric)
    slices = {name: result.item_average(name) for name in first.item_slices}
    by_users = {name: main.of_users(part) for name, part in user_slices(result.history_lengths).items()}

    def intervals(averages: Mapping[str, Average]) -> dict[str, IntervalFacts]:
        return {name: _interval_facts(average.interval(ranked.seed)) for name, average in averages.items()}

    return {
        "name": result.name,
        "model": first.model.name,
        "family": first.model.family,
        "code_size": next(iter(size_of(first.model).values()), None),
        "validation": first.validation,
        "settings": dataclasses.asdict(first.model.config),
        "tuning": result.tuning,
        "metrics": intervals({label: result.average(label) for label in first.evaluation.averages}),
        "spread": {label: result.seed_spread(label) for label in ranked.metrics},
        "counts": result.counts(),
        "beyond_accuracy": result.beyond_accuracy(),
        "costs": result.costs(),
        "user_slices": intervals(by_users),
        "item_slices": intervals({name: average for name, average in slices.items() if average.n_users}),
        "curve": [_epoch_facts(epoch, ranked.metric) for epoch in first.epochs],
        "calibration": list(first.calibration),
    }


def _interval_facts(interval: Interval) -> IntervalFacts:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high, "n_users": interval.n_users}


def _epoch_facts(epoch: Epoch, metric: str) -> EpochFacts:
    value = None if epoch.value is None else goodness(metric, epoch.value)
    return {"epoch": epoch.number, "loss": epoch.loss, "value": value, "best": epoch.best}
