"""What the scripts of this folder share: settings from TOML, fits kept on disk, rows measured once, a table written.

A table is a TOML file: how its models were set, which of them are blended, and what others published. Settings were
chosen on validation data; epochs and the weights of the blend are chosen on them here too, anew under each seed. The
test part is read once a row, at the end.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipelines.options import tomllib
from recsys.artifacts import load_model, save_model
from recsys.averages import Average
from recsys.evaluation import evaluate, validator
from recsys.interactions import UserItemMatrix
from recsys.machine import describe_machine
from recsys.metrics import Values
from recsys.models import Recommender, create_model
from recsys.models.blend import Blend
from recsys.splitting import Holdout, Split
from recsys.training import TrainingContext

HERE = Path(__file__).parent
DATA = HERE.parents[2] / "shared" / "data"
VALIDATED = ("ndcg@10", "ndcg@100")  # shown while choosing, beside the metric chosen by
Measured = Mapping[str, Values]


@dataclass(frozen=True)
class Division:
    """Data divided: `choosing` has the rows to learn on and the validation users; `measure` reads the test part.

    final: all rows to learn on, where the validation rows belong to them (a model chosen is then fitted again); None
    where models stay as they were chosen.
    """

    choosing: Split
    measure: Callable[[Recommender], Measured]
    final: UserItemMatrix | None = None

    @property
    def train(self) -> UserItemMatrix:
        """The rows of the models measured."""
        return self.choosing.train if self.final is None else self.final


@dataclass(frozen=True)
class Table:
    """A TOML file. models: settings by row; `model` in them names the model where the row's name is another."""

    title: str
    validation: str  # metric that settings, epochs and weights were chosen by
    metrics: tuple[str, ...]
    models: Mapping[str, Mapping[str, Any]]
    blend: Sequence[str] = ()
    pairs: Sequence[Sequence[str]] = ()
    published: Sequence[Mapping[str, Any]] = ()
    note: str = ""
    patience: int = 10
    precision: Literal["fp32", "bf16"] = "fp32"


@dataclass
class Row:
    """What one model reached: values by metric (seeds, users), minutes of a fit each."""

    values: dict[str, list[Values]] = field(default_factory=dict)
    minutes: list[float] = field(default_factory=list)
    weights: list[list[float]] = field(default_factory=list)

    def add(self, found: Measured, minutes: float) -> None:
        """One more seed."""
        for label, values in found.items():
            self.values.setdefault(label, []).append(values)
        self.minutes.append(minutes)

    def cell(self, label: str) -> str:
        """Mean over users and seeds, with the standard deviation over seeds."""
        means = [float(np.nanmean(values)) for values in self.values[label]]
        spread = f" ± {np.std(means, ddof=1):.4f}" if len(means) > 1 else ""
        return f"{np.mean(means):.4f}{spread}"


@dataclass(frozen=True)
class Kept:
    """A fitted model and the minutes it took, also if that was in an earlier run."""

    model: Recommender
    minutes: float


def read_table(file: Path) -> Table:
    """The table described by a TOML file."""
    content = tomllib.loads(file.read_text(encoding="utf-8"))
    return Table(**{**content, "metrics": tuple(content["metrics"])})


def flag_parser(what: str) -> argparse.ArgumentParser:
    """Flags of every script: --seeds, --only, --cache, --device, --choose."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--seeds", type=int, default=5, help="seeds of each model that draws at random")
    parser.add_argument("--only", default="", help="rows to make, separated by commas; all of them if not given")
    parser.add_argument("--cache", type=Path, default=HERE / "cache", help="fitted models are kept here")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--choose", action="store_true", help="measure on the validation part: to choose settings by")
    return parser


def parse(what: str, folder: Path) -> argparse.Namespace:
    """Those flags and the place of the data."""
    parser = flag_parser(what)
    parser.add_argument("folder", nargs="?", type=Path, default=folder, help="where the division lies")
    return parser.parse_args()


def run(name: str, division: Division, flags: argparse.Namespace) -> None:
    """Make the rows of NAME.toml, print them, and write results/NAME.md."""
    table = read_table(HERE / f"{name}.toml")
    if flags.choose:
        assert division.choosing.validation is not None
        table = dataclasses.replace(table, metrics=tuple(dict.fromkeys((table.validation, *VALIDATED))), published=())
        division = Division(division.choosing, ranked(division.choosing.validation, table.metrics))
    wanted = [row for row in [*table.models, "blend"] if not flags.only or row in flags.only.split(",")]
    rows: dict[str, Row] = {}
    for row in wanted:
        if row == "blend" and not table.blend:
            continue
        rows[row] = (
            make_blend(name, table, division, flags) if row == "blend" else make(name, table, row, division, flags)
        )
        print(line(row, rows[row], table), flush=True)
    text = report(name, table, rows, division)
    print(text)
    if not (flags.only or flags.choose):
        file = HERE / "results" / f"{name}.md"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")


def make(name: str, table: Table, row: str, division: Division, flags: argparse.Namespace) -> Row:
    """Fit one model under every seed and measure it."""
    found = Row()
    for seed in seeds_of(table, row, flags.seeds):
        kept = final_fit(name, table, row, division, seed, flags)
        found.add(division.measure(kept.model), kept.minutes)
    return found


def make_blend(name: str, table: Table, division: Division, flags: argparse.Namespace) -> Row:
    """Blend the members of each seed, as they were fitted for their own rows."""
    found = Row()
    assert division.choosing.validation is not None
    validate = validator(division.choosing.validation, table.validation)
    for seed in range(flags.seeds):
        seeds = {row: seed if is_random(table, row) else 0 for row in table.blend}
        members = [fit(name, table, row, division, seeds[row], flags) for row in table.blend]
        started = time.perf_counter()
        blend = Blend.of([kept.model for kept in members], division.choosing.train.matrix, validate)
        minutes = (time.perf_counter() - started) / 60
        weights = blend.weights.tolist()
        if division.final is not None:
            members = [final_fit(name, table, row, division, seeds[row], flags) for row in table.blend]
            blend = Blend.of([kept.model for kept in members], division.final.matrix, weights)
        found.add(division.measure(blend), minutes + sum(kept.minutes for kept in members))
        found.weights.append(weights)
    return found


def seeds_of(table: Table, row: str, seeds: int) -> range:
    """All seeds, of which a model without chance in it needs one."""
    return range(seeds if is_random(table, row) else 1)


def is_random(table: Table, row: str) -> bool:
    """Whether the row's model draws at random."""
    return unfitted(table, row).is_random


def unfitted(table: Table, row: str) -> Recommender:
    """The row's model with its settings."""
    settings = dict(table.models[row])
    return create_model(settings.pop("model", row), settings)


def fit(name: str, table: Table, row: str, division: Division, seed: int, flags: argparse.Namespace) -> Kept:
    """The row's model fitted on `choosing`, epochs chosen on validation; from the cache where it lies there."""
    assert division.choosing.validation is not None
    validate = validator(division.choosing.validation, table.validation)
    context = TrainingContext(seed, flags.device, table.precision, validate, table.patience)
    train = division.choosing.train
    return kept(
        place(flags.cache, name, table, row, seed), train, lambda: unfitted(table, row).fit(train.matrix, context)
    )


def final_fit(name: str, table: Table, row: str, division: Division, seed: int, flags: argparse.Namespace) -> Kept:
    """The same, fitted again on all rows where the division says so; minutes are those of both fits."""
    chosen = fit(name, table, row, division, seed, flags)
    if division.final is None:
        return chosen
    folder, final = place(flags.cache, name, table, row, seed), division.final
    context = TrainingContext(seed, flags.device, table.precision, stop_after=best_epoch(folder))
    again = kept(folder / "final", final, lambda: unfitted(table, row).fit(final.matrix, context))
    return Kept(again.model, chosen.minutes + again.minutes)


def place(cache: Path, name: str, table: Table, row: str, seed: int) -> Path:
    """Where a fit is kept: another setting is another place."""
    model = unfitted(table, row)
    about = [model.name, dataclasses.asdict(model.config), table.validation, table.patience, table.precision]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
    return cache / name / f"{row}-{seed}-{digest}"


def kept(folder: Path, train: UserItemMatrix, make_it: Callable[[], Recommender]) -> Kept:
    """The model in `folder`, made and written there where it is missing."""
    if (folder / "model" / "model.json").is_file():
        saved = load_model(folder / "model")
        return Kept(saved.model, saved.about["minutes"])
    started = time.perf_counter()
    model = make_it()
    minutes = (time.perf_counter() - started) / 60
    best = max((epoch.number for epoch in model.history if epoch.best), default=None)
    about = {"minutes": minutes, "best_epoch": best, "epochs": len(model.history)}
    save_model(folder / "model", model, train.items, train.item_counts, train.users, about)
    return Kept(model, minutes)


def best_epoch(folder: Path) -> int | None:
    """Of the fit kept there; None for a model without epochs."""
    found: int | None = load_model(folder / "model").about["best_epoch"]
    return found


def ranked(holdout: Holdout, metrics: Sequence[str]) -> Callable[[Recommender], Measured]:
    """All items ranked for the users of a test part."""
    return lambda model: evaluate(model.score, holdout, metrics, with_users=model.needs_training_users).values


def line(row: str, found: Row, table: Table) -> str:
    """A row of the table."""
    cells = [found.cell(label) for label in table.metrics]
    return f"| `{row}` | {' | '.join(cells)} | {len(found.minutes)} | {np.mean(found.minutes):.1f} |"


def report(name: str, table: Table, rows: Mapping[str, Row], division: Division) -> str:
    """The whole page."""
    machine = describe_machine()
    facts = ", ".join(f"{key.replace('_', ' ')} {count:,}" for key, count in division.choosing.facts.items())
    blank = " |" * (2 + len(table.metrics))
    published = [
        f"| {entry['name']} | {' | '.join(str(entry.get(label, '')) for label in table.metrics)} | | |"
        for entry in table.published
    ]
    parts = [
        f"# {table.title}",
        f"`python benchmarks/accuracy/{name}.py`, settings in [{name}.toml](../{name}.toml), {date.today()}, "
        f"{machine['cpu']}, {machine['cores']} cores, torch {machine['packages']['torch'].split('+')[0]}. "
        f"{table.note}".rstrip(),
        "\n".join(
            [
                f"| model | {' | '.join(table.metrics)} | seeds | minutes a fit |",
                f"| ---{' | ---:' * (2 + len(table.metrics))} |",
                *(line(row, found, table) for row, found in rows.items()),
                *([f"| *published* |{blank}"] if published else []),
                *published,
            ]
        ),
        *([f"Weights of the blend: {weights_text(table, rows['blend'])}."] if "blend" in rows else []),
        *pairs_text(table, rows),
        f"Data: {facts}. Means over users; ± is the standard deviation over seeds. Minutes: fitting and choosing, on a "
        "machine that others used at the same time.",
        *([sources] if (sources := sources_text(table)) else []),
    ]
    return "\n\n".join(parts) + "\n"


def weights_text(table: Table, blend: Row) -> str:
    """Mean over seeds of each member's weight."""
    return ", ".join(
        f"{row} {weight:.2f}" for row, weight in zip(table.blend, np.mean(blend.weights, axis=0), strict=True)
    )


def pairs_text(table: Table, rows: Mapping[str, Row]) -> list[str]:
    """Differences with their intervals; a model's value for a user is its mean over seeds."""
    lines = []
    for first, second in table.pairs:
        if first in rows and second in rows:
            for label in table.metrics:
                ours, theirs = (np.mean(rows[row].values[label], axis=0) for row in (first, second))
                gap = Average.of(ours).difference(Average.of(theirs))
                lines.append(f"| {first} - {second} | {label} | {gap.mean:+.4f} | [{gap.low:+.4f}, {gap.high:+.4f}] |")
    if not lines:
        return []
    return ["\n".join(["| paired difference | metric | mean | 95 % interval |", "| --- | --- | ---: | --- |", *lines])]


def sources_text(table: Table) -> str:
    """Where the published rows come from."""
    sources = dict.fromkeys(entry["source"] for entry in table.published)
    return f"Published rows: {'; '.join(sources)}." if sources else ""
