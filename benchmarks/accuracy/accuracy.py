"""What the scripts of this folder share: ranking metrics over users, and a blend of some of the models.

The number of epochs and the weights of the blend are chosen on validation data, separately for each seed. What ratings/
needs too is in ../table.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.append(str(Path(__file__).parents[1]))  # for table.py

import numpy as np
from table import Kept, Result, Row, Table, chosen, flag_parser, kept, make_rows, page, publish

from recsys.data.matrix import UserItemMatrix
from recsys.evaluation.averages import Average
from recsys.evaluation.evaluate import Validator, evaluate
from recsys.models import Recommender
from recsys.models.blend import Blend
from recsys.splitting.holdout import Holdout, Split
from recsys.training.context import TrainingContext

HERE = Path(__file__).parent
VALIDATED = ("ndcg@10", "ndcg@100")  # shown while choosing, beside the metric chosen by
Measure = Callable[[Recommender, Sequence[str]], Mapping[str, Average]]


@dataclass(frozen=True)
class Division:
    """A split of the data: `choosing` has training and validation; `measure` evaluates on the test part.

    final: training and validation rows together, where the protocol refits the chosen model on them; else None.
    note: what else is to be said of the data.
    """

    choosing: Split
    measure: Measure
    final: UserItemMatrix | None = None
    note: str = ""

    @property
    def validation(self) -> Holdout:
        """The held-out part on which epochs and weights are chosen."""
        assert self.choosing.validation is not None
        return self.choosing.validation


@dataclass(frozen=True, kw_only=True)
class RankingTable(Table):
    """validation: the metric by which settings, epochs and weights are chosen. blend: the rows to blend.

    weights: of the blend, where they are stated and not chosen on validation.
    """

    validation: str
    blend: Sequence[str] = ()
    weights: Sequence[float] = ()
    patience: int = 10
    precision: Literal["fp32", "bf16"] = "fp32"


def parse(what: str, data: str) -> argparse.Namespace:
    """Parse the options of a script; `folder` becomes the location of its data."""
    parser = flag_parser(what, HERE)
    parser.add_argument("folder", nargs="?", type=Path, help=f"the files of the split; {data} in --data if not given")
    flags = parser.parse_args()
    flags.folder = flags.folder or flags.data / data
    return flags


def ranked(holdout: Holdout | None) -> Measure:
    """Evaluate on a held-out part, all items ranked."""
    assert holdout is not None
    return lambda model, metrics: (
        evaluate(model.score, holdout, metrics, with_users=model.needs_training_users).averages
    )


def run(name: str, division: Division, flags: argparse.Namespace, command: str = "") -> None:
    """Make the rows of NAME.toml, print them, and write results/NAME.md. command: if it is not NAME.py."""
    table = RankingTable.read(HERE / f"{name}.toml")
    if flags.choose:
        metrics = tuple(dict.fromkeys((table.validation, *VALIDATED)))
        table = dataclasses.replace(table, metrics=metrics, published=())
        division = Division(division.choosing, ranked(division.validation))
    names = chosen([*table.models, *(["blend"] if table.blend else [])], flags.only)
    rows = make_rows(
        names,
        lambda row: make_blend(table, division, flags) if row == "blend" else make(table, row, division, flags),
        table.metrics,
    )
    facts = ", ".join(f"{key.replace('_', ' ')} {count:,}" for key, count in division.choosing.facts.items())
    data = (
        f"Data: {facts}. {division.note}Means over users; ± is the standard deviation over seeds. Minutes: fitting and "
        "choosing, on a machine that others used at the same time."
    )
    columns = [*table.metrics, "seeds", "minutes a fit"]
    publish(table, page(table, rows, command or f"{name}.py", columns, table.metrics, data), flags)


def make(table: RankingTable, row: str, division: Division, flags: argparse.Namespace) -> Row:
    """Fit one model under every seed and measure it."""
    results = []
    for seed in table.seeds(row, flags.seeds):
        fitted = final_fit(table, row, division, seed, flags)
        results.append(Result(division.measure(fitted.model, table.metrics), fitted.minutes))
    return Row(results)


def make_blend(table: RankingTable, division: Division, flags: argparse.Namespace) -> Row:
    """Blend the models of each seed that were fitted for the rows of the members."""
    results, weights = [], []
    final = division.choosing.train.matrix if division.final is None else division.final.matrix
    for seed in max((table.seeds(row, flags.seeds) for row in table.blend), key=len):  # one where nothing is random
        seeds = {row: seed if seed in table.seeds(row, flags.seeds) else 0 for row in table.blend}
        found, minutes = (table.weights, 0.0) if table.weights else search_weights(table, division, seeds, flags)
        weights.append(found)
        members = [final_fit(table, row, division, seeds[row], flags) for row in table.blend]
        blend = Blend.of([member.model for member in members], final, weights[-1])
        minutes += sum(member.minutes for member in members)
        results.append(Result(division.measure(blend, table.metrics), minutes))
    sums = np.sum(weights, axis=0)
    each = ", ".join(f"{row} {share:.2f}" for row, share in zip(table.blend, sums / sums.sum(), strict=True))
    return Row(results, note=f"Weights of the blend: {each}.")


def search_weights(
    table: RankingTable, division: Division, seeds: Mapping[str, int], flags: argparse.Namespace
) -> tuple[Sequence[float], float]:
    """The weights of the blend that are best on validation, and the minutes of the search."""
    members = [fit(table, row, division, seeds[row], flags).model for row in table.blend]
    started = time.perf_counter()
    validate = Validator(division.validation, table.validation)
    blend = Blend.of(members, division.choosing.train.matrix, validate)
    return blend.weights.tolist(), (time.perf_counter() - started) / 60


def fit(table: RankingTable, row: str, division: Division, seed: int, flags: argparse.Namespace) -> Kept:
    """Fit the row's model on `choosing`, with early stopping on validation; or take it from the cache."""
    validate = Validator(division.validation, table.validation)
    context = TrainingContext(seed, flags.device, table.precision, validate, table.patience)
    return kept(place(table, row, seed, flags), table.unfitted(row), division.choosing.train, context)


def final_fit(table: RankingTable, row: str, division: Division, seed: int, flags: argparse.Namespace) -> Kept:
    """The same, refitted on `final` where the split has it; the minutes are those of both fits."""
    first = fit(table, row, division, seed, flags)
    if division.final is None:
        return first
    context = TrainingContext(seed, flags.device, table.precision, stop_after=first.best_epoch)
    again = kept(place(table, row, seed, flags) / "final", table.unfitted(row), division.final, context)
    return dataclasses.replace(again, minutes=first.minutes + again.minutes)


def place(table: RankingTable, row: str, seed: int, flags: argparse.Namespace) -> Path:
    """The cache folder of a fit; the rule that chooses the epochs is part of its name."""
    return table.place(flags.cache, row, seed, table.validation, table.patience, table.precision)
