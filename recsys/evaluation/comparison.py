"""From fits of several models to a comparison: what each reached, where, at what cost, and which differences hold.

A model may be fitted several times: on each fold, and under several seeds. Its value for a user is the mean over seeds;
of folds each has users of its own, or, where cells are held out, cells of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from recsys.data.interactions import Vocabulary
from recsys.evaluation.averages import Average
from recsys.evaluation.evaluate import Evaluation, ListEvaluation
from recsys.evaluation.metrics import goodness
from recsys.evaluation.significance import Difference, differences
from recsys.evaluation.slices import user_slices
from recsys.models import Recommender
from recsys.splitting.holdout import Holdout
from recsys.training.context import Epoch
from recsys.types import Values

CUTOFFS = (1, 5, 10, 20, 50, 100)
CURVES = ("ndcg", "recall")  # drawn by cut-off
LIST = 10  # items of a list that people are shown


@dataclass(frozen=True)
class FittedResult:
    """One fit of one model under one seed, measured on a test part; recsys.tasks describes it.

    users: their ids; lengths: of their histories, (users,). by_items: the metric `sliced` over slices of held-out
    items. beyond: what else is measured. counts: of what was measured, besides users. calibration: its bins.
    """

    model: Recommender
    evaluation: Evaluation
    users: pa.Array
    lengths: NDArray[np.int64]
    sliced: str
    by_items: Mapping[str, Average]
    beyond: Mapping[str, float]
    counts: Mapping[str, int] = field(default_factory=dict)
    calibration: Sequence[Mapping[str, float]] = ()
    fit_seconds: float | None = None
    peak_megabytes: float | None = None
    seed: int = 0

    @property
    def megabytes(self) -> float:
        """Size of all that scoring needs, 1e6 bytes."""
        return sum(tensor.nbytes for tensor in self.model.get_state().values()) / 1e6


@dataclass(frozen=True)
class Result:
    """All fits of one model: `folds` has a list of fits a fold, one a seed."""

    folds: Sequence[Sequence[FittedResult]]
    tuning: Mapping[str, Any] | None = None

    @property
    def first(self) -> FittedResult:
        """The first seed on the first fold."""
        return self.folds[0][0]

    @property
    def fits(self) -> list[FittedResult]:
        """All of them."""
        return [fit for fits in self.folds for fit in fits]

    @property
    def name(self) -> str:
        """The model's."""
        return self.first.model.name

    @cached_property
    def _people(self) -> pa.DictionaryArray:
        """Who was measured, folds one after the other: one whose cells are in several folds stands there again."""
        return pa.chunked_array([fits[0].users for fits in self.folds]).combine_chunks().dictionary_encode()

    @property
    def users(self) -> pa.Array:
        """Ids of those measured, each once."""
        return self._people.dictionary

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Of their histories, (users,); the first one, of those with several."""
        _, first = np.unique(self._people.indices, return_index=True)
        return np.concatenate([fits[0].lengths for fits in self.folds])[first]

    def average(self, label: str) -> Average:
        """Of a metric over the users: what each has is the mean over seeds, and the sum over folds."""
        return self._over_folds([[fit.evaluation.averages[label] for fit in fits] for fits in self.folds])

    def values(self, label: str) -> Values:
        """Of a metric, (users,)."""
        return self.average(label).each

    def item_average(self, name: str) -> Average:
        """The same for a slice of items; folds without that slice have no say."""
        return self._over_folds([[_slice(fit, name) for fit in fits] for fits in self.folds])

    def _over_folds(self, folds: Sequence[Sequence[Average]]) -> Average:
        together = Average.joined([Average.over_seeds(seeds) for seeds in folds])
        return together.grouped(self._people.indices.to_numpy(), len(self.users))

    def spread(self, label: str) -> float | None:
        """Standard deviation of the metric's mean over seeds; None with a single one."""
        seeds = len(self.folds[0])
        if seeds < 2:
            return None
        means = [
            Average.joined([fits[seed].evaluation.averages[label] for fits in self.folds]).mean for seed in range(seeds)
        ]
        return float(np.std(means, ddof=1))

    def mean_beyond(self) -> dict[str, float]:
        """Variety of the lists, mean over fits."""
        return {key: float(np.mean([fit.beyond[key] for fit in self.fits])) for key in self.first.beyond}

    def counts(self) -> dict[str, int]:
        """What was measured, besides users, over all folds."""
        return {key: sum(fits[0].counts[key] for fits in self.folds) for key in self.first.counts}

    def costs(self) -> dict[str, Any]:
        """Of one fit, mean over fits: seconds, users a second, memory, size; and what the model cannot do.

        None for what nobody measured: a saved model does not know what its fit took.
        """
        seconds = [fit.fit_seconds for fit in self.fits if fit.fit_seconds is not None]
        peaks = [fit.peak_megabytes for fit in self.fits if fit.peak_megabytes is not None]
        return {
            "fit_seconds": float(np.mean(seconds)) if seconds else None,
            "users_per_second": float(np.mean([fit.evaluation.n_users / fit.evaluation.seconds for fit in self.fits])),
            "peak_megabytes": max(peaks, default=None),
            "megabytes": float(np.mean([fit.megabytes for fit in self.fits])),
            "takes_new_users": not self.first.model.needs_training_users,
        }


def _slice(fit: FittedResult, name: str) -> Average:
    nobody = np.zeros(len(fit.users))
    return fit.by_items.get(name, Average(nobody, nobody, fit.evaluation.averages[fit.sliced].root))


@dataclass(frozen=True)
class RankedResults:
    """The results, best first by `metric`, and every pair's difference."""

    results: Sequence[Result]
    metric: str
    metrics: Sequence[str]
    pairs: Sequence[Difference]
    seed: int = 0

    @property
    def rival(self) -> Result:
        """Whom all are measured against in words: the best matrix factorization, else the best of all."""
        factorizations = [result for result in self.results if result.first.model.family == "matrix factorization"]
        return [*factorizations, *self.results][0]

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


def rank(results: Sequence[Result], metric: str, metrics: Sequence[str], seed: int = 0) -> RankedResults:
    """Best first, with every pair compared."""
    ordered = sorted(results, key=lambda result: -goodness(metric, result.average(metric).mean))
    pairs = differences({result.name: result.average(metric) for result in ordered}, metric, seed)
    return RankedResults(ordered, metric, metrics, pairs, seed)


def leaderboard(standing: RankedResults) -> pd.DataFrame:
    """A row a model, best first: metrics with intervals, variety, costs, the difference to the rival."""
    rows = []
    for result in standing.results:
        row: dict[str, Any] = {"model": result.name, "family": result.first.model.family}
        for label in standing.metrics:
            interval = result.average(label).interval(standing.seed)
            row |= {label: interval.mean, f"{label}_low": interval.low, f"{label}_high": interval.high}
            row["users"] = interval.n_users
        row |= result.counts() | {
            "seeds": len(result.folds[0]),
            f"{standing.metric}_seed_spread": result.spread(standing.metric),
        }
        row |= {"coverage": result.first.evaluation.coverage} | result.mean_beyond() | result.costs()
        gap = standing.against_rival(result)
        if gap is not None:
            row |= {"rival": gap.second, "gap": gap.interval.mean, "gap_low": gap.interval.low}
            row |= {"gap_high": gap.interval.high, "gap_effect": gap.effect, "gap_p_adjusted": gap.adjusted}
        rows.append(row)
    return pd.DataFrame(rows)


def facts(standing: RankedResults) -> dict[str, Any]:
    """The comparison as plain JSON: what recsys.report draws. No ids of users or items are in it."""
    return {
        "task": standing.results[0].first.model.task,
        "metric": standing.metric,
        "metrics": list(standing.metrics),
        "users": len(standing.results[0].average(standing.metric)),
        "seeds": max(len(result.folds[0]) for result in standing.results),
        "folds": len(standing.results[0].folds),
        "sliced": standing.results[0].first.sliced,
        "rival": standing.rival.name,
        "models": [_model_facts(result, standing) for result in standing.results],
        "differences": [{**dataclasses.asdict(pair), "text": str(pair)} for pair in standing.pairs],
        "verdicts": standing.verdicts(),
    }


def _model_facts(result: Result, standing: RankedResults) -> dict[str, Any]:
    main = result.average(standing.metric)
    return {
        "name": result.name,
        "family": result.first.model.family,
        "settings": dataclasses.asdict(result.first.model.config),
        "tuning": result.tuning,
        "metrics": {
            label: _interval(result.average(label), standing.seed) for label in result.first.evaluation.averages
        },
        "spread": {label: result.spread(label) for label in standing.metrics},
        "counts": result.counts(),
        "beyond": result.mean_beyond(),
        "costs": result.costs(),
        "user_slices": {
            name: _interval(main.of_users(part), standing.seed) for name, part in user_slices(result.lengths).items()
        },
        "item_slices": {
            name: _interval(result.item_average(name), standing.seed)
            for name in result.first.by_items
            if result.item_average(name).n_users
        },
        "curve": [_epoch(epoch, standing.metric) for epoch in result.first.model.epochs],
        "calibration": list(result.first.calibration),
    }


def _interval(average: Average, seed: int) -> dict[str, Any]:
    return dataclasses.asdict(average.interval(seed))


def _epoch(epoch: Epoch, metric: str) -> dict[str, Any]:
    value = None if epoch.value is None else goodness(metric, epoch.value)
    return {"epoch": epoch.number, "loss": epoch.loss, "value": value, "best": epoch.best}


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
    """Users of a test part (the first fold's) with a short, a middle and a long history; none without lists.

    items, counts: their ids, and training users of each; names: titles by item id.
    """
    if not isinstance(results[0].first.evaluation, ListEvaluation):
        return []
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
        result.name: [(titles[item], item in wanted) for item in found.positions[user, :LIST].tolist() if item >= 0]
        for result in results
        if isinstance(found := result.first.evaluation, ListEvaluation)
    }
    return Example([titles[item] for item in told], len(history), int(test.relevant[user]), lists)
