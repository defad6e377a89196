"""RMSE and MAE of predicted ratings over held-out cells, beside published figures, with paired intervals.

    python benchmarks/ratings/ratings.py ml100k [FOLDER] [--seeds 5] [--only biases,autorec] [--choose]

The table is a TOML file of this folder: which files are training and test (or how one file is divided), settings, what
others published. Settings were chosen on validation cells inside the training part (`--choose` measures there); the
test part is read once a row. All seeds are fitted on the first division, the first seed on the others. Predictions are
kept in `cache/`: a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from pipelines import cli

cli.set_environment()  # as the recsys command does, before torch is imported

import numpy as np
from numpy.typing import NDArray

from pipelines.options import tomllib
from recsys import splitting
from recsys.averages import Average
from recsys.evaluation import error_average, evaluate_ratings
from recsys.machine import describe_machine
from recsys.models import Recommender, create_model
from recsys.reading import read_interactions
from recsys.splitting import Holdout, Split
from recsys.training import TrainingContext

HERE = Path(__file__).parent
DATA = HERE.parents[2] / "shared" / "data"
METRICS = ("rmse", "mae")


@dataclass(frozen=True)
class Table:
    """A TOML file.

    divisions: pairs of a training and a test file, or one file of which a tenth of the cells is held out. rows:
    settings of a model; `model` names it where the row's name is another. together: rows whose seeds are also averaged,
    as one prediction.
    """

    title: str
    folder: str
    divisions: Sequence[Sequence[str]]
    rows: Mapping[str, Mapping[str, Any]]
    together: Sequence[str] = ()
    pairs: Sequence[Sequence[str]] = ()
    published: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Fit:
    """What was predicted for the held-out cells, and minutes of the fit."""

    predicted: NDArray[np.float32]
    minutes: float


@dataclass(frozen=True)
class Row:
    """A line of the table. first: predictions of every seed on the first division; others: of one on each other."""

    first: Sequence[Fit]
    others: Sequence[Fit]

    @property
    def minutes(self) -> float:
        """Of a fit."""
        return float(np.mean([fit.minutes for fit in self.first]))

    def together(self) -> Row:
        """Seeds averaged cell by cell: one prediction, that took the time of all."""
        mean = np.mean([fit.predicted for fit in self.first], axis=0)
        return Row([Fit(mean, sum(fit.minutes for fit in self.first))], [])


def main() -> None:
    """Fit what is missing, measure, print, write results/NAME.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(file.stem for file in HERE.glob("*.toml")))
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--seeds", type=int, default=5, help="seeds of each model that draws at random")
    parser.add_argument("--only", default="", help="rows to fit, separated by commas; all of them if not given")
    parser.add_argument("--cache", type=Path, default=HERE / "cache")
    parser.add_argument("--choose", action="store_true", help="hold cells of the training part out instead, no test")
    asked = parser.parse_args()
    table = Table(**tomllib.loads((HERE / f"{asked.name}.toml").read_text(encoding="utf-8")))
    folder = asked.folder or DATA / table.folder
    divisions = table.divisions[:1] if asked.choose else table.divisions
    splits = [divide(folder, files, asked.choose) for files in divisions]
    parts = [split.validation if asked.choose else split.test for split in splits]
    holdouts = [part for part in parts if part is not None]
    rows = {}
    for name in [name for name in table.rows if not asked.only or name in asked.only.split(",")]:
        rows[name] = make(table, name, splits, holdouts, asked)
        print(line(name, rows[name], holdouts), flush=True)
    text = report(asked.name, table, rows, splits, holdouts)
    print(text)
    if not (asked.only or asked.choose):
        (HERE / "results" / f"{asked.name}.md").write_text(text, encoding="utf-8")


def divide(folder: Path, files: Sequence[str], choose: bool) -> Split:
    """The division of a row of `divisions`; with `choose`, a tenth of its training cells is validation."""
    found = [read_interactions(folder / file) for file in files]
    share = 0.1 if choose else 0.0
    if len(found) == 1:
        return splitting.cells(found[0], share=0.1, validation=0.1, ratings=True)
    return splitting.given(*found, share=share, ratings=True)


def make(table: Table, name: str, splits: list[Split], holdouts: list[Holdout], asked: argparse.Namespace) -> Row:
    """The fits of a row."""
    seeds = range(asked.seeds) if unfitted(table, name).is_random else range(1)
    place = asked.cache / (f"{asked.name}-choose" if asked.choose else asked.name)

    def one(division: int, seed: int) -> Fit:
        return kept(place, table, name, f"{division}-{seed}", seed, splits[division], holdouts[division])

    return Row([one(0, seed) for seed in seeds], [one(division, 0) for division in range(1, len(splits))])


def unfitted(table: Table, name: str) -> Recommender:
    """The row's model with its settings."""
    settings = dict(table.rows[name])
    return create_model(settings.pop("model", name), settings)


def kept(cache: Path, table: Table, name: str, what: str, seed: int, split: Split, holdout: Holdout) -> Fit:
    """Predictions from the cache, made and written there where they are missing. Another setting is another file."""
    model = unfitted(table, name)
    about = json.dumps([model.name, dataclasses.asdict(model.config)], sort_keys=True)
    file = cache / f"{name}-{what}-{hashlib.sha256(about.encode()).hexdigest()[:12]}.npy"
    if file.is_file():
        found = np.load(file, allow_pickle=False)
        return Fit(found[1:].astype(np.float32), float(found[0]))
    started = time.perf_counter()
    model.fit(split.train.matrix, TrainingContext(seed=seed))
    minutes = (time.perf_counter() - started) / 60
    fit = Fit(evaluate_ratings(model.score, holdout).predicted, minutes)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, np.concatenate([[minutes], fit.predicted]))
    return fit


def measure(fits: Sequence[Fit], holdout: Holdout, metric: str) -> list[Average]:
    """The metric of each fit, over the cells of the holdout."""
    observed = holdout.held_out.data
    return [error_average((fit.predicted - observed).astype(np.float64), holdout, metric) for fit in fits]


def line(name: str, row: Row, holdouts: Sequence[Holdout]) -> str:
    """RMSE and MAE on the first division, mean and deviation over seeds; mean RMSE over divisions; minutes."""
    cells = []
    for metric in METRICS:
        values = [found.mean for found in measure(row.first, holdouts[0], metric)]
        cells.append(f"{np.mean(values):.4f}" + (f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""))
    if len(holdouts) > 1:
        every = [row.first[0], *row.others]
        pairs = zip(every, holdouts, strict=False)
        whole = len(every) == len(holdouts)
        mean = np.mean([measure([fit], holdout, "rmse")[0].mean for fit, holdout in pairs])
        cells.append(f"{mean:.4f}" if whole else "")
    return f"| `{name}` | {' | '.join(cells)} | {len(row.first)} | {row.minutes:.1f} |"


def report(
    name: str, table: Table, rows: Mapping[str, Row], splits: Sequence[Split], holdouts: Sequence[Holdout]
) -> str:
    """The whole page."""
    machine, first = describe_machine(), holdouts[0]
    joined = {
        f"{row}, {len(rows[row].first)} seeds averaged": rows[row].together() for row in table.together if row in rows
    }
    several = len(holdouts) > 1
    head = [
        "model",
        "RMSE",
        "MAE",
        *([f"RMSE, mean of {len(holdouts)} divisions"] if several else []),
        "seeds",
        "minutes",
    ]
    published = [
        f"| {entry['name']} | {entry.get('rmse', '')} | {entry.get('mae', '')} |{' |' * (3 if several else 2)}"
        for entry in table.published
    ]
    sources = "; ".join(dict.fromkeys(entry["source"] for entry in table.published))
    users, items = splits[0].train.matrix.shape
    lines = [
        f"# {table.title}",
        "",
        f"`python benchmarks/ratings/ratings.py {name}`, settings in [{name}.toml](../{name}.toml), {date.today()}, "
        f"{machine['cpu']}, {machine['cores']} cores, torch {machine['packages']['torch'].split('+')[0]}.",
        "",
        f"| {' | '.join(head)} |",
        f"| ---{' | ---:' * (len(head) - 1)} |",
        *(line(row, found, holdouts) for row, found in (rows | joined).items()),
        *([f"| *published* |{' |' * (len(head) - 1)}"] if published else []),
        *published,
        "",
        *pair_lines(table, rows | joined, first),
        f"Data: {users:,} users x {items:,} items, {splits[0].train.matrix.nnz:,} training cells, "
        f"{first.held_out.nnz:,} test cells with a prediction, {len(first.unpredicted):,} without (item or user "
        "unknown; in no figure). ± is the standard deviation over seeds. Minutes of a fit, on a machine that others "
        "used at the same time.",
        *(["", f"Published rows: {sources}."] if sources else []),
    ]
    return "\n".join(lines) + "\n"


def pair_lines(table: Table, rows: Mapping[str, Row], holdout: Holdout) -> list[str]:
    """Differences of RMSE with intervals over users drawn; a user's errors are their mean over seeds."""
    found = []
    for first, second in table.pairs:
        if first not in rows or second not in rows:
            continue
        ours, theirs = (Average.over_seeds(measure(rows[row].first, holdout, "rmse")) for row in (first, second))
        gap = ours.difference(theirs)
        found.append(f"| {first} - {second} | {gap.mean:+.4f} | [{gap.low:+.4f}, {gap.high:+.4f}] |")
    return ["| paired difference | RMSE | 95 % interval |", "| --- | ---: | --- |", *found, ""] if found else []


if __name__ == "__main__":
    main()
