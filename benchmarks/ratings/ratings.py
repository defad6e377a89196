"""RMSE and MAE of predicted ratings over held-out cells, beside published figures, with paired intervals.

    python benchmarks/ratings/ratings.py ml100k [FOLDER] [--seeds 5] [--only biases,autorec] [--choose]

The table is a TOML file of this folder: which files are training and test (or how one file is split), settings,
published figures. Settings were chosen on validation cells inside the training part (`--choose` evaluates there). All
seeds are fitted on the first split, only the first seed on the others. Fits are cached in `cache/`, so that a stopped
run continues. What accuracy/ needs too is in ../table.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # for table.py

import numpy as np
from numpy.typing import NDArray
from table import Kept, Result, Row, Table, chosen, flag_parser, kept, make_rows, page, publish

from recsys import splitting
from recsys.data.matrix import UserItemMatrix
from recsys.data.reading import read_interactions
from recsys.evaluation.averages import Average
from recsys.evaluation.evaluate import error_average, evaluate_ratings
from recsys.splitting.holdout import Holdout
from recsys.training.context import TrainingContext

HERE = Path(__file__).parent
METRICS = ("RMSE", "MAE")


@dataclass(frozen=True, kw_only=True)
class RatingTable(Table):
    """divisions: pairs of a training and a test file, or one file of which a tenth of the cells is held out.

    together: rows for which the predictions of all seeds are also averaged, cell by cell, as an ensemble.
    """

    folder: str
    divisions: Sequence[Sequence[str]]
    together: Sequence[str] = ()
    metrics: Sequence[str] = METRICS


@dataclass(frozen=True)
class Division:
    """Training data and the cells to predict. name: of the folder of its fits in the cache."""

    name: str
    train: UserItemMatrix
    held: Holdout


def main() -> None:
    """Fit what is missing, measure, print, write results/NAME.md."""
    parser = flag_parser(__doc__, HERE)
    parser.add_argument("name", choices=sorted(file.stem for file in HERE.glob("*.toml")))
    parser.add_argument("folder", nargs="?", type=Path)
    flags = parser.parse_args()
    run(RatingTable.read(HERE / f"{flags.name}.toml"), flags)


def run(table: RatingTable, flags: argparse.Namespace) -> None:
    """Make the rows, print them, and write results/NAME.md."""
    divisions = divide(table, flags)
    names = chosen(table.models, flags.only)
    seeds = {row: len(table.seeds(row, flags.seeds)) for row in table.together if row in names}
    joined = {f"{row}, {count} seeds averaged": row for row, count in seeds.items()}

    def make_row(name: str) -> Row:
        make_it = make_joined if name in joined else make
        return make_it(table, joined.get(name, name), divisions, flags)

    rows = make_rows([*names, *joined], make_row, METRICS)
    several = [f"RMSE, mean of {len(divisions)} divisions"] if len(divisions) > 1 else []
    columns = [*METRICS, *several, "seeds", "minutes"]
    command = f"ratings.py {table.file.stem}"
    publish(table, page(table, rows, command, columns, METRICS[:1], describe(divisions[0])), flags)


def divide(table: RatingTable, flags: argparse.Namespace) -> list[Division]:
    """All splits; with --choose only the first, a tenth of whose training cells is predicted."""
    folder = flags.folder or flags.data / table.folder
    divisions = []
    for number, files in enumerate(table.divisions[:1] if flags.choose else table.divisions):
        train, *test = (read_interactions(folder / file) for file in files)
        if test:
            split = splitting.given(train, *test, share=0.1 if flags.choose else 0, ratings=True)
        else:
            split = splitting.cells(train, share=0.1, validation=0.1, ratings=True)
        held = split.validation if flags.choose else split.test
        assert held is not None
        divisions.append(Division("choose" if flags.choose else str(number), split.train, held))
    return divisions


def describe(division: Division) -> str:
    """The paragraph below the table."""
    users, items = division.train.matrix.shape
    return (
        f"Data: {users:,} users x {items:,} items, {division.train.matrix.nnz:,} training cells, "
        f"{division.held.held_out.nnz:,} test cells with a prediction, {len(division.held.unpredicted):,} without "
        "(item or user unknown; in no figure). ± is the standard deviation over seeds. Minutes of a fit, on a machine "
        "that others used at the same time."
    )


def make(table: RatingTable, row: str, divisions: Sequence[Division], flags: argparse.Namespace) -> Row:
    """Fit every seed on the first split; the mean over splits is that of the first seed."""

    def result(division: Division, seed: int) -> Result:
        fitted = fit(table, row, division, seed, flags)
        return Result(averages(predict(fitted, division), division), fitted.minutes)

    first, *others = divisions
    results = [result(first, seed) for seed in table.seeds(row, flags.seeds)]
    if not others:
        return Row(results)
    each = [results[0], *(result(division, 0) for division in others)]
    return Row(results, [f"{np.mean([found.averages['RMSE'].mean for found in each]):.4f}"])


def make_joined(table: RatingTable, row: str, divisions: Sequence[Division], flags: argparse.Namespace) -> Row:
    """The ensemble of the seeds of a row, on the first split."""
    first, *others = divisions
    fits = [fit(table, row, first, seed, flags) for seed in table.seeds(row, flags.seeds)]
    predicted = np.mean([predict(fitted, first) for fitted in fits], axis=0)
    return Row([Result(averages(predicted, first), sum(fitted.minutes for fitted in fits))], [""] if others else [])


def fit(table: RatingTable, row: str, division: Division, seed: int, flags: argparse.Namespace) -> Kept:
    """Fit the row's model on a split, or take it from the cache."""
    folder = table.place(flags.cache, row, seed) / division.name
    return kept(folder, table.unfitted(row), division.train, TrainingContext(seed, flags.device))


def predict(fitted: Kept, division: Division) -> NDArray[np.float32]:
    """Predictions for the held-out cells, (cells,)."""
    return evaluate_ratings(fitted.model.score, division.held).predicted


def averages(predicted: NDArray[np.float32], division: Division) -> dict[str, Average]:
    """Each metric of the predictions."""
    errors = predicted.astype(np.float64) - division.held.held_out.data
    return {label: error_average(errors, division.held, label.lower()) for label in METRICS}


if __name__ == "__main__":
    main()
