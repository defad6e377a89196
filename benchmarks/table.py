"""What the tables of accuracy/ and ratings/ share: settings from TOML, cached fits, rows, the page of results.

Settings were chosen on validation data. The test part is read once for each row, at the end.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Self

sys.path.insert(0, str(Path(__file__).parents[1]))  # the jobs are imported as `pipelines`, from this checkout

from pipelines.cli import main

main.set_environment()  # as the recsys command does, before torch is imported

import numpy as np

from pipelines.cli.options import refuse_unknown
from recsys.artifacts import load_model, save_model
from recsys.data.matrix import UserItemMatrix
from recsys.evaluation.averages import Average
from recsys.models import Recommender, create_model
from recsys.models.trained import TrainedModel
from recsys.system.hardware import describe_machine
from recsys.training.context import TrainingContext

DATA = Path(__file__).parents[2] / "shared" / "data"  # where --data looks if it is not given


@dataclass(frozen=True, kw_only=True)
class Table:
    """What a TOML file of either folder says. Results and fits lie beside the file.

    models: settings by row; `model` in them names the model where the row's name is another. metrics: columns of the
    page and keys of what others published. pairs: rows whose difference is given with an interval.
    """

    file: Path
    title: str
    models: Mapping[str, Mapping[str, Any]]
    metrics: Sequence[str]
    pairs: Sequence[Sequence[str]] = ()
    published: Sequence[Mapping[str, Any]] = ()
    note: str = ""

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read the table of a file. An unknown key raises ConfigError."""
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        refuse_unknown(content, {field.name for field in dataclasses.fields(cls)} - {"file"}, f"in {file}")
        table = cls(file=file, **content)
        for entry in table.published:
            refuse_unknown(entry, {"name", "source", *table.metrics}, f"in [[published]] of {file}")
        return table

    def unfitted(self, row: str) -> Recommender:
        """The row's model with its settings."""
        settings = dict(self.models[row])
        return create_model(settings.pop("model", row), settings)

    def seeds(self, row: str, count: int) -> range:
        """The seeds to fit the row under; one where the model is deterministic."""
        return range(count if self.unfitted(row).is_random else 1)

    def place(self, cache: Path, row: str, seed: int, *how: Any) -> Path:
        """The cache folder of a fit. It depends on the settings of the model and of the training (`how`)."""
        model = self.unfitted(row)
        about = json.dumps([model.name, dataclasses.asdict(model.config), *how], sort_keys=True)
        return cache / self.file.stem / f"{row}-{seed}-{hashlib.sha256(about.encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class Kept:
    """A fitted model, the minutes its fit took (in an earlier run, if cached), and its best epoch, if it has epochs."""

    model: Recommender
    minutes: float
    best_epoch: int | None


@dataclass(frozen=True)
class Result:
    """The metrics of a model under one seed, averaged over users, and the minutes of its fit."""

    averages: Mapping[str, Average]
    minutes: float


@dataclass(frozen=True)
class Row:
    """A line of the table. more: cells after the metrics; note: a sentence below the table."""

    results: Sequence[Result]
    more: Sequence[str] = ()
    note: str = ""

    def line(self, name: str, metrics: Sequence[str]) -> str:
        """The metrics, the number of seeds, and the minutes of a fit, averaged over seeds."""
        minutes = np.mean([result.minutes for result in self.results])
        cells = [*(self.cell(label) for label in metrics), *self.more, str(len(self.results)), f"{minutes:.1f}"]
        return f"| `{name}` | {' | '.join(cells)} |"

    def cell(self, label: str) -> str:
        """Mean over users and seeds, with the standard deviation over seeds."""
        means = [result.averages[label].mean for result in self.results]
        return f"{np.mean(means):.4f}" + (f" ± {np.std(means, ddof=1):.4f}" if len(means) > 1 else "")

    def over_seeds(self, label: str) -> Average:
        """The average over users of each user's mean over seeds."""
        return Average.over_seeds([result.averages[label] for result in self.results])


def flag_parser(what: str, folder: Path) -> argparse.ArgumentParser:
    """Make the parser with the options that every script has."""
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds of each model that is random")
    parser.add_argument("--only", default="", help="rows to make, separated by commas; all if not given")
    parser.add_argument("--cache", type=Path, default=folder / "cache", help="fitted models are kept here")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets, such as ml-1m/")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--choose", action="store_true", help="measure on the validation part: to choose settings by")
    return parser


def chosen(rows: Iterable[str], only: str) -> list[str]:
    """Select the rows that --only names. An unknown name raises ConfigError."""
    known = list(rows)
    asked = only.split(",") if only else known
    refuse_unknown(dict.fromkeys(asked), set(known), "in --only")
    return [row for row in known if row in asked]


def kept(folder: Path, model: Recommender, train: UserItemMatrix, context: TrainingContext) -> Kept:
    """Return the model fitted on `train`: from the cache in `folder`, or fitted now and saved there."""
    place = folder / "model"
    if (place / "model.json").is_file():
        saved = load_model(place)
        return Kept(saved.model, saved.about["minutes"], saved.about["best_epoch"])
    started = time.perf_counter()
    model.fit(train.matrix, context)
    minutes = (time.perf_counter() - started) / 60
    best = max((epoch.number for epoch in model.epochs if epoch.best), default=None)
    about = {"minutes": minutes, "best_epoch": best}
    save_model(place, TrainedModel(model, train.items, train.item_counts, train.users, about))
    return Kept(model, minutes, best)


def make_rows(names: Iterable[str], make: Callable[[str], Row], metrics: Sequence[str]) -> dict[str, Row]:
    """Make the rows and print each as soon as it is there."""
    rows = {}
    for name in names:
        rows[name] = make(name)
        print(rows[name].line(name, metrics), flush=True)
    return rows


def page(
    table: Table, rows: Mapping[str, Row], command: str, columns: Sequence[str], compared: Sequence[str], data: str
) -> str:
    """The whole page. columns: headers after the model's; compared: metrics of the differences; data: facts."""
    folder, name = table.file.parent.name, table.file.stem
    sources = "; ".join(dict.fromkeys(entry["source"] for entry in table.published))
    parts = [
        f"# {table.title}",
        f"`python benchmarks/{folder}/{command}`, settings in [{name}.toml](../{name}.toml), {measured_on()}. "
        f"{table.note}".rstrip(),
        main_table(table, rows, columns),
        *(row.note for row in rows.values()),
        difference_table(table, rows, compared),
        data,
        f"Published rows: {sources}." if sources else "",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def publish(table: Table, text: str, flags: argparse.Namespace) -> None:
    """Print the page; write it to results/ if it has all rows, measured on the test part."""
    print(text)
    if not (flags.only or flags.choose):
        folder = table.file.parent / "results"
        folder.mkdir(exist_ok=True)
        (folder / f"{table.file.stem}.md").write_text(text, encoding="utf-8")


def measured_on() -> str:
    """Date and machine."""
    machine = describe_machine()
    torch = machine["packages"]["torch"].split("+")[0]
    return f"{date.today()}, {machine['cpu']}, {machine['cores']} cores, torch {torch}"


def main_table(table: Table, rows: Mapping[str, Row], columns: Sequence[str]) -> str:
    """The measured rows, and below them the published ones."""
    blank = " |" * (len(columns) - len(table.metrics))
    published = [
        f"| {entry['name']} | {' | '.join(str(entry.get(label, '')) for label in table.metrics)} |{blank}"
        for entry in table.published
    ]
    lines = [
        f"| model | {' | '.join(columns)} |",
        f"| ---{' | ---:' * len(columns)} |",
        *(row.line(name, table.metrics) for name, row in rows.items()),
        *([f"| *published* |{' |' * len(columns)}"] if published else []),
        *published,
    ]
    return "\n".join(lines)


def difference_table(table: Table, rows: Mapping[str, Row], metrics: Sequence[str]) -> str:
    """The paired differences with 95 % confidence intervals over users; a single metric becomes the column's header."""
    one = len(metrics) == 1
    lines = []
    for first, second in table.pairs:
        for label in metrics if first in rows and second in rows else ():
            gap = rows[first].over_seeds(label).difference(rows[second].over_seeds(label))
            what = f"{first} - {second}" if one else f"{first} - {second} | {label}"
            lines.append(f"| {what} | {gap.mean:+.4f} | [{gap.low:+.4f}, {gap.high:+.4f}] |")
    head = f"| paired difference | {metrics[0] if one else 'metric | mean'} | 95 % interval |"
    return "\n".join([head, f"| --- |{'' if one else ' --- |'} ---: | --- |", *lines]) if lines else ""
