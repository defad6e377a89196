"""From fits of several models to a comparison: what each reached, where, at what cost, and which differences hold.

A model may be fitted several times: on each fold, and under several seeds. Its value for a user is the mean over seeds;
folds follow one another, since each has users of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys import beyond
from recsys.evaluation import Evaluation, Interval, bootstrap
from recsys.interactions import Vocabulary
from recsys.metrics import Values
from recsys.models import Recommender
from recsys.significance import Difference, differences
from recsys.slices import item_slices, on_items, user_slices
from recsys.splitting import Holdout, Split
from recsys.training import Epoch

CUTOFFS = (1, 5, 10, 20, 50, 100)
CURVES = ("ndcg", "recall")  # drawn by cut-off
SLICED = "recall@50"  # for slices of items: what share of them is found at all
LIST = 10  # items in the lists whose variety is measured


def all_labels(metrics: Sequence[str]) -> tuple[str, ...]:
    """The metrics asked for and those a comparison draws."""
    return tuple(dict.fromkeys((*metrics, SLICED, *(f"{name}@{k}" for name in CURVES for k in CUTOFFS))))


@dataclass(frozen=True)
class Fit:
    """One fit of one model on one split under one seed, measured on the split's test part."""

    model: Recommender
    evaluation: Evaluation
    by_items: Mapping[str, Values]  # SLICED over slices of held-out items, (users,) each
    beyond: Mapping[str, float]
    lengths: NDArray[np.int64]  # of the histories, (users,)
    fit_seconds: float | None = None
    peak_megabytes: float | None = None
    seed: int = 0

    @property
    def megabytes(self) -> float:
        """Size of all that scoring needs, 1e6 bytes."""
        return sum(tensor.nbytes for tensor in self.model.get_state().values()) / 1e6


def describe_fit(
    model: Recommender,
    evaluation: Evaluation,
    split: Split,
    fit_seconds: float,
    peak_megabytes: float | None,
    seed: int,
) -> Fit:
    """What can be said of a fitted model beside its metrics: slices, variety of its lists, costs."""
    assert split.test is not None
    found = describe_saved(model, evaluation, split.test, split.train.item_counts)
    return dataclasses.replace(
        found,
        beyond={**found.beyond, **_variety_in(split.train.matrix, split.train.item_counts, evaluation.positions)},
        fit_seconds=fit_seconds,
        peak_megabytes=peak_megabytes,
        seed=seed,
    )


def describe_saved(model: Recommender, evaluation: Evaluation, holdout: Holdout, counts: NDArray[np.int64]) -> Fit:
    """The part of it that needs no training rows and no clock; counts: training users of each item, (items,)."""
    by_items = {
        name: on_items(evaluation.positions, holdout, items, SLICED) for name, items in item_slices(counts).items()
    }
    lengths = np.diff(holdout.history.indptr).astype(np.int64)
    return Fit(model, evaluation, by_items, _variety(evaluation, counts), lengths)


def _variety(evaluation: Evaluation, counts: NDArray[np.int64]) -> dict[str, float]:
    """Coverage, Gini and share of the head of the lists of LIST items."""
    lists = evaluation.positions
    k = min(LIST, lists.shape[1])
    return {
        f"coverage@{k}": beyond.coverage(lists, evaluation.items, k),
        f"gini@{k}": beyond.gini(lists, evaluation.items, k),
        f"popularity_share@{k}": float(np.nanmean(beyond.popularity_share(lists, counts, k))),
    }


def _variety_in(train: csr_matrix, counts: NDArray[np.int64], lists: NDArray[np.int32]) -> dict[str, float]:
    """Novelty (bits) and diversity of the same lists."""
    k = min(LIST, lists.shape[1])
    return {
        f"novelty@{k}": float(np.nanmean(beyond.novelty(lists, counts, train.shape[0], k))),
        f"diversity@{k}": float(np.nanmean(beyond.diversity(lists, train, k))),
    }


@dataclass(frozen=True)
class Result:
    """All fits of one model: `folds` has a list of fits a fold, one a seed."""

    folds: Sequence[Sequence[Fit]]
    tuning: Mapping[str, Any] | None = None

    @property
    def first(self) -> Fit:
        """The first seed on the first fold."""
        return self.folds[0][0]

    @property
    def fits(self) -> list[Fit]:
        """All of them."""
        return [fit for fits in self.folds for fit in fits]

    @property
    def name(self) -> str:
        """The model's."""
        return self.first.model.name

    def values(self, label: str) -> Values:
        """Of a metric, (users,): mean over seeds, folds one after the other."""
        return np.concatenate([np.mean([fit.evaluation.values[label] for fit in fits], axis=0) for fits in self.folds])

    def item_values(self, name: str) -> Values:
        """The same for a slice of items; NaN for folds without that slice."""
        return np.concatenate([np.mean([_slice(fit, name) for fit in fits], axis=0) for fits in self.folds])

    def spread(self, label: str) -> float | None:
        """Standard deviation of the metric's mean over seeds; None with a single one."""
        seeds = len(self.folds[0])
        if seeds < 2:
            return None
        means = [
            np.nanmean(np.concatenate([fits[seed].evaluation.values[label] for fits in self.folds]))
            for seed in range(seeds)
        ]
        return float(np.std(means, ddof=1))

    def mean_beyond(self) -> dict[str, float]:
        """Variety of the lists, mean over fits."""
        return {key: float(np.mean([fit.beyond[key] for fit in self.fits])) for key in self.first.beyond}

    def costs(self) -> dict[str, Any]:
        """Of one fit, mean over fits: seconds, users a second, memory, size; and what the model cannot do.

        None for what nobody measured: a saved model does not know what its fit took.
        """
        seconds = [fit.fit_seconds for fit in self.fits if fit.fit_seconds is not None]
        peaks = [fit.peak_megabytes for fit in self.fits if fit.peak_megabytes is not None]
        return {
            "fit_seconds": float(np.mean(seconds)) if seconds else None,
            "users_per_second": float(np.mean([fit.evaluation.users / fit.evaluation.seconds for fit in self.fits])),
            "peak_megabytes": max(peaks, default=None),
            "megabytes": float(np.mean([fit.megabytes for fit in self.fits])),
            "takes_new_users": not self.first.model.needs_training_users,
        }


def _slice(fit: Fit, name: str) -> Values:
    return fit.by_items.get(name, np.full(fit.evaluation.users, np.nan))


@dataclass(frozen=True)
class Standing:
    """The results, best first by `metric`, and every pair's difference."""

    results: Sequence[Result]
    metric: str
    metrics: Sequence[str]
    pairs: Sequence[Difference]
    seed: int = 0

    @property
    def rival(self) -> Result:
        """Whom all are measured against in words: the best matrix factorisation, else the best of all."""
        factorisations = [result for result in self.results if result.first.model.family == "matrix factorisation"]
        return [*factorisations, *self.results][0]

    def against_rival(self, result: Result) -> Difference | None:
        """`result` minus the rival; None for the rival itself."""
        for pair in self.pairs:
            if {pair.first, pair.second} == {result.name, self.rival.name}:
                return pair if pair.first == result.name else pair.turned()
        return None

    def verdicts(self) -> list[str]:
        """In words, for every model but the rival."""
        found = [self.against_rival(result) for result in self.results]
        return [str(pair) for pair in found if pair is not None]


def rank(results: Sequence[Result], metric: str, metrics: Sequence[str], seed: int = 0) -> Standing:
    """Best first, with every pair compared."""
    ordered = sorted(results, key=lambda result: -float(np.nanmean(result.values(metric))))
    pairs = differences({result.name: result.values(metric) for result in ordered}, metric, seed)
    return Standing(ordered, metric, metrics, pairs, seed)


def leaderboard(standing: Standing) -> pd.DataFrame:
    """A row a model, best first: metrics with intervals, variety, costs, the difference to the rival."""
    rows = []
    for result in standing.results:
        row: dict[str, Any] = {"model": result.name, "family": result.first.model.family}
        for label in standing.metrics:
            interval = bootstrap(result.values(label), standing.seed)
            row |= {label: interval.mean, f"{label}_low": interval.low, f"{label}_high": interval.high}
            row["users"] = interval.users
        row |= {"seeds": len(result.folds[0]), f"{standing.metric}_seed_spread": result.spread(standing.metric)}
        row |= {"coverage": result.first.evaluation.coverage} | result.mean_beyond() | result.costs()
        gap = standing.against_rival(result)
        if gap is not None:
            row |= {"rival": gap.second, "gap": gap.interval.mean, "gap_low": gap.interval.low}
            row |= {"gap_high": gap.interval.high, "gap_effect": gap.effect, "gap_p_adjusted": gap.adjusted}
        rows.append(row)
    return pd.DataFrame(rows)


def facts(standing: Standing) -> dict[str, Any]:
    """The comparison as plain JSON: what recsys.report draws. No ids of users or items are in it."""
    return {
        "metric": standing.metric,
        "metrics": list(standing.metrics),
        "users": len(standing.results[0].values(standing.metric)),
        "seeds": max(len(result.folds[0]) for result in standing.results),
        "folds": len(standing.results[0].folds),
        "sliced": SLICED,
        "rival": standing.rival.name,
        "models": [_model_facts(result, standing) for result in standing.results],
        "differences": [{**dataclasses.asdict(pair), "text": str(pair)} for pair in standing.pairs],
        "verdicts": standing.verdicts(),
    }


def _model_facts(result: Result, standing: Standing) -> dict[str, Any]:
    lengths = np.concatenate([fits[0].lengths for fits in result.folds])
    main = result.values(standing.metric)
    labels = all_labels(standing.metrics)
    return {
        "name": result.name,
        "family": result.first.model.family,
        "settings": dataclasses.asdict(result.first.model.config),
        "tuning": result.tuning,
        "metrics": {label: _interval(result.values(label), standing.seed) for label in labels},
        "spread": {label: result.spread(label) for label in standing.metrics},
        "beyond": result.mean_beyond(),
        "costs": result.costs(),
        "user_slices": {name: _interval(main[part], standing.seed) for name, part in user_slices(lengths).items()},
        "item_slices": {
            name: _interval(result.item_values(name), standing.seed)
            for name in result.first.by_items
            if not np.isnan(result.item_values(name)).all()
        },
        "curve": [_epoch(epoch) for epoch in result.first.model.history],
    }


def _interval(values: Values, seed: int) -> dict[str, Any]:
    interval: Interval = bootstrap(values, seed)
    return dataclasses.asdict(interval)


def _epoch(epoch: Epoch) -> dict[str, Any]:
    return {"epoch": epoch.number, "loss": epoch.loss, "value": epoch.value, "best": epoch.best}


@dataclass(frozen=True)
class Example:
    """A test user for people to look at: the latest part of the history, what was to be found, and the lists."""

    history: list[str]
    history_length: int
    to_find: int
    lists: Mapping[str, list[tuple[str, bool]]] = field(default_factory=dict)  # model -> (title, was it held out)


def examples(
    results: Sequence[Result],
    test: Holdout,
    items: Vocabulary,
    counts: NDArray[np.int64],
    names: Mapping[str, str],
    count: int = 3,
) -> list[Example]:
    """Users of a test part (the first fold's) with a short, a middle and a long history.

    items, counts: their ids, and training users of each; names: titles by item id.
    """
    order = np.argsort(np.diff(test.history.indptr), kind="stable")
    chosen = [order[int(len(order) * (place + 0.5) / count)] for place in range(min(count, len(order)))]
    titles = [names.get(str(item), str(item)) for item in items.to_list()]
    return [_example(int(user), results, test, counts, titles) for user in chosen]


def _example(
    user: int, results: Sequence[Result], test: Holdout, counts: NDArray[np.int64], titles: list[str]
) -> Example:
    history = test.history[[user]].indices
    wanted = set(test.held_out[[user]].indices.tolist())
    # The rarest say most about a person.
    told = sorted(history.tolist(), key=lambda item: int(counts[item]))[:8]
    lists = {
        result.name: [
            (titles[item], item in wanted)
            for item in result.first.evaluation.positions[user, :LIST].tolist()
            if item >= 0
        ]
        for result in results
    }
    return Example([titles[item] for item in told], len(history), int(test.relevant[user]), lists)
