"""Leave-last-out on sequences: models of the order beside models of sets, all items ranked, in one table.

    python benchmarks/sequences.py beauty              Amazon Beauty, the division of S3-Rec
    python benchmarks/sequences.py ml-1m               MovieLens-1M, the order of SASRec
    python benchmarks/sequences.py beauty --minutes 9  stop after 9 minutes; the same command goes on from there
    python benchmarks/sequences.py ml-1m --device cuda --seeds 3   all of it on a GPU, in one call

Models learn from all but the last two items of a user; epochs are chosen by ndcg@10 on the last but one; the last is
read once for each row. Items of the history are left out of the lists. Fits and results lie in --work.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the jobs are imported as `pipelines`, from this checkout

from pipelines.cli import main

main.set_environment()  # as the recsys command does, before torch is imported

import numpy as np
import torch

from recsys.data.reading import read_interactions
from recsys.evaluation.averages import Average
from recsys.evaluation.evaluate import Validator, evaluate
from recsys.evaluation.significance import differences
from recsys.models import Recommender, create_model
from recsys.splitting import leave_last_out
from recsys.splitting.holdout import Split
from recsys.system.hardware import describe_machine
from recsys.training.checkpoint import Checkpoints
from recsys.training.context import Epoch, TrainingContext

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
METRICS = ("recall@10", "ndcg@10")
USERS = 5000  # of the validation part, taken evenly, that settings and epochs are chosen on
FILES = {"beauty": "amazon-beauty/sequences.csv", "ml-1m": "ml-1m/sequence/interactions.csv"}
PUBLISHED = {
    "beauty": {"S3-Rec": (0.0647, 0.0327), "SASRec + sampled softmax": (0.0921, 0.0531), "eSASRec": (0.0928, 0.0523)},
    "ml-1m": {
        "SASRec, its own loss": (0.1993, 0.1078),
        "BERT4Rec": (0.2921, 0.1618),
        "gSASRec": (0.3003, 0.1726),
        "SASRec + softmax": (0.3058, 0.1779),
        "eSASRec": (0.3133, 0.1772),
    },
}
Settings = Mapping[str, Any]

# By row: the settings to choose from on validation. `model` names the model where the row's name is another.
LINEAR = [{"l2": l2, "dropout": dropout} for l2 in (30.0, 100.0, 300.0) for dropout in (0.3, 0.6)]
ROWS: dict[str, dict[str, list[Settings]]] = {
    "beauty": {
        "popularity": [{}],
        "recent-popularity": [{"last": last} for last in (1, 2, 3, 5)],
        "last-item": [{"smoothing": smoothing} for smoothing in (0.1, 1.0, 10.0)],
        "als": [{"factors": factors, "l2": 0.1} for factors in (64, 128)],
        "edlae": LINEAR,
        "vae": [{"epochs": 60}],
        "sasrec": [{"layers": 1, "dropout": 0.5, "epochs": 100}],
    },
    "ml-1m": {
        "popularity": [{}],
        "recent-popularity": [{"last": last} for last in (1, 5, 10, 20)],
        "last-item": [{"smoothing": smoothing} for smoothing in (0.1, 1.0, 10.0)],
        "als": [{"factors": factors, "l2": 0.1} for factors in (64, 128)],
        "edlae": LINEAR,
        "vae": [{"epochs": 60}],
        "sasrec": [{"layers": 2, "dropout": 0.1, "length": 200, "gate": True, "epochs": 100}],
    },
}


class PauseError(Exception):
    """The time of this run is over; the next one goes on from the last checkpoint."""


def main_() -> None:
    """Fit what is not fitted yet, and print the table of what is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=list(FILES))
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "cache" / "sequences")
    parser.add_argument("--rows", default="", help="rows, separated by commas; all by default")
    parser.add_argument("--minutes", type=float, default=1e9, help="of this run; then it pauses")
    parser.add_argument("--seeds", type=int, default=1, help="fits of each random model")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    asked = parser.parse_args()
    rows = ROWS[asked.table]
    rows = {name: rows[name] for name in asked.rows.split(",")} if asked.rows else rows
    split = leave_last_out(read_interactions(asked.data / FILES[asked.table]), order="rows")
    print({name: count for name, count in split.facts.items() if count}, flush=True)
    ends = time.monotonic() + 60 * asked.minutes
    for name, choices in rows.items():
        try:
            measure(name, choices, split, asked, ends)
        except PauseError:
            print(f"{name}: paused", flush=True)
            break
    print(page(asked.table, rows, asked))


def measure(name: str, choices: list[Settings], split: Split, asked: argparse.Namespace, ends: float) -> None:
    """Fit a row under each seed, with the settings that are best on validation, and keep its values of every user."""
    seeds = range(asked.seeds if create_model(choices[0].get("model", name)).is_random else 1)
    for seed in seeds:
        folder = asked.work / asked.table / f"{name}-{seed}"
        if (folder / "result.json").exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        fits = [
            fit(name, choice, split, folder / str(place), seed, asked, ends) for place, choice in enumerate(choices)
        ]
        value, model, minutes = max(fits, key=lambda found: found[0])
        found = evaluate(model, split.test, METRICS)
        np.savez(folder / "values.npz", **{metric.replace("@", "_"): found.values[metric] for metric in METRICS})
        best = next((epoch.number for epoch in model.epochs if epoch.best and epoch.value == value), None)
        facts = {
            "settings": asdict(model.config),
            "validation": value,
            "test": found.means(),
            "minutes": minutes,
            "epochs": len(model.epochs),
            "best_epoch": best,
        }
        (folder / "result.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
        print(name, seed, facts, flush=True)


def fit(
    name: str, settings: Settings, split: Split, folder: Path, seed: int, asked: argparse.Namespace, ends: float
) -> tuple[float, Recommender, float]:
    """Fit one model, or go on with it; the value on validation, and the minutes of all runs."""
    given = dict(settings)
    model = create_model(given.pop("model", name), given)
    validate = Validator(split.validation, "ndcg@10").sample(USERS)
    checkpoints = Checkpoints(folder, every=20)

    def pause(step: int, steps: int) -> None:
        if time.monotonic() > ends:
            raise PauseError

    def say(epoch: Epoch, planned: int) -> None:
        seconds = f"{epoch.train_seconds:.0f} + {epoch.validate_seconds:.0f} s"
        print(f"{name} {epoch.number}/{planned} loss {epoch.loss:.4f} ndcg@10 {epoch.value:.4f} {seconds}", flush=True)

    context = TrainingContext(
        seed=seed,
        device=asked.device,
        precision=asked.precision,
        validate=validate,
        checkpoints=checkpoints,
        keep_freed_memory=True,
        on_step=pause,
        on_epoch=say,
    )
    if time.monotonic() > ends:
        raise PauseError
    started = time.perf_counter()
    model.fit(split.train.matrix, context)
    minutes = (time.perf_counter() - started + checkpoints.seconds) / 60
    value = max((epoch.value or 0 for epoch in model.epochs), default=0.0) or validate(model.score)
    return value, model, minutes


def page(table: str, rows: Mapping[str, Any], asked: argparse.Namespace) -> str:
    """The rows that are measured, best first, what others published, and the differences from the first."""
    found = dict(results(asked.work / table, rows))
    order = sorted(found, key=lambda name: -found[name][1]["ndcg@10"].mean)
    lines = ["| model | recall@10 | ndcg@10 [95 %] | minutes | epoch |", "| --- | --- | --- | --- | --- |"]
    for name in order:
        facts, averages = found[name]
        interval = averages["ndcg@10"].interval(0)
        low, high = f"{interval.low:.4f}", f"{interval.high:.4f}"
        lines.append(
            f"| {name} | {averages['recall@10'].mean:.4f} | {interval.mean:.4f} [{low}, {high}] "
            f"| {facts['minutes']:.1f} | {facts['best_epoch'] or ''} |"
        )
    lines += [
        f"| published: {name} | {recall:.4f} | {ndcg:.4f} | | |" for name, (recall, ndcg) in PUBLISHED[table].items()
    ]
    pairs = differences({name: found[name][1]["ndcg@10"] for name in order}, "ndcg@10") if len(order) > 1 else []
    lines += ["", *(f"- {pair}" for pair in pairs if pair.first == order[0])]
    threads = f"{torch.get_num_threads()} threads, {asked.precision}, {asked.seeds} seed(s)"
    machine = describe_machine()
    where = ", ".join(
        [f"{machine['cores']} cores of {machine['cpu']}", *map(str, machine["gpus"]), f"torch {torch.__version__}"]
    )
    return "\n".join([*lines, "", f"{where}; {threads}; {date.today()}"])


def results(folder: Path, rows: Mapping[str, Any]) -> Iterator[tuple[str, tuple[dict[str, Any], dict[str, Average]]]]:
    """Facts of the first seed and the values of every user, averaged over seeds, by row."""
    for name in rows:
        files = sorted(folder.glob(f"{name}-[0-9]*/result.json"))
        if not files:
            continue
        values = [np.load(file.with_name("values.npz"), allow_pickle=False) for file in files]
        averages = {
            metric: Average.of(np.mean([each[metric.replace("@", "_")] for each in values], axis=0))
            for metric in METRICS
        }
        yield name, (json.loads(files[0].read_text(encoding="utf-8")), averages)


if __name__ == "__main__":
    main_()
