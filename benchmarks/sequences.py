"""Leave-last-out on sequences: models of the order beside models of sets, all items ranked, in one table.

    python benchmarks/sequences.py beauty              Amazon Beauty, the division of S3-Rec
    python benchmarks/sequences.py ml-1m               MovieLens-1M, the order of SASRec
    python benchmarks/sequences.py beauty --minutes 9  stop after 9 minutes; the same command goes on from there
    python benchmarks/sequences.py ml-1m --device cuda --seeds 3   all of it on a GPU, in one call
    python benchmarks/sequences.py beauty --speed      steps of sasrec beside padded batches and all logits

Models learn from all but the last two items of a user; epochs are chosen by ndcg@10 on the last but one; the last is
read once for each row. Items of the history are left out of the lists. Fits and results lie in --work.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the jobs are imported as `pipelines`, from this checkout

from pipelines.cli import main

main.set_environment()  # as the recsys command does, before torch is imported

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_matrix

from recsys.data.item_features.features import read_item_features
from recsys.data.reading import read_interactions
from recsys.evaluation.averages import Average
from recsys.evaluation.evaluate import Validator, evaluate
from recsys.evaluation.significance import differences
from recsys.models import Recommender, create_model
from recsys.models.autoencoders.network import with_autocast
from recsys.models.autoencoders.optimizers import make_optimizer
from recsys.models.blend import Blend
from recsys.models.sequential.rows import SequenceRows, padded
from recsys.models.sequential.sasrec import SASRec, SASRecNetwork
from recsys.splitting import leave_last_out
from recsys.splitting.holdout import Split
from recsys.system.hardware import describe_machine
from recsys.training.batches import SparseBatch
from recsys.training.checkpoint import Checkpoints
from recsys.training.context import Epoch, TrainingContext

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
METRICS = ("recall@10", "ndcg@10")
USERS = 5000  # of the validation part, taken evenly, that settings and epochs are chosen on
FILES = {"beauty": "amazon-beauty/sequences.csv", "ml-1m": "ml-1m/sequence/interactions.csv"}
FEATURES = {"beauty": "amazon-beauty/attributes.csv"}
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

# By row: the settings to choose from on validation. `model` names the model where the row's name is another; `of` names
# the rows whose models are blended as they are.
HALF_LIVES = (1.0, 2.0, 5.0, 10.0)  # chosen from for rows with a half_life
LINEAR = [{"l2": l2, "dropout": dropout} for l2 in (30.0, 100.0, 300.0) for dropout in (0.3, 0.6)]
ROWS: dict[str, dict[str, list[Settings]]] = {
    "beauty": {
        "popularity": [{}],
        "recent-popularity": [{"last": last} for last in (1, 2, 3, 5)],
        "last-item": [{"smoothing": smoothing} for smoothing in (0.1, 1.0, 10.0)],
        "als": [{"factors": factors, "l2": 0.1} for factors in (64, 128, 256)],
        "edlae": LINEAR,
        "edlae half life": [{"model": "edlae", "l2": 100.0, "dropout": 0.6, "half_life": 1.0}],
        "als half life": [{"model": "als", "factors": factors, "l2": 0.1, "half_life": 1.0} for factors in (128, 256)],
        "edlae attributes": [
            {"model": "edlae", "l2": 100.0, "dropout": 0.6, "half_life": 1.0, "feature_weight": weight}
            for weight in (1.0, 3.0, 6.0)
        ],
        "vae": [{"epochs": 60}],
        "blend": [{"model": "blend", "members": "edlae,last-item", "edlae.l2": 100.0, "edlae.half_life": 2.0}],
        "sasrec": [{"layers": 1, "dropout": 0.5, "epochs": 100}],
        "svae": [{"epochs": 100}],
        "blend with sasrec": [{"of": ["sasrec", "edlae half life", "last-item", "als"]}],
        "blend with attributes": [{"of": ["sasrec", "edlae attributes", "last-item", "als"]}],
    },
    "ml-1m": {
        "popularity": [{}],
        "recent-popularity": [{"last": last} for last in (1, 5, 10, 20)],
        "last-item": [{"smoothing": smoothing} for smoothing in (0.1, 1.0, 10.0)],
        "als": [{"factors": factors, "l2": 0.1} for factors in (64, 128, 256)],
        "edlae": LINEAR,
        "edlae half life": [{"model": "edlae", "l2": 100.0, "dropout": 0.3, "half_life": 1.0}],
        "als half life": [{"model": "als", "factors": factors, "l2": 0.1, "half_life": 1.0} for factors in (128, 256)],
        "vae": [{"epochs": 60}],
        "blend": [{"model": "blend", "members": "edlae,last-item", "edlae.dropout": 0.3, "edlae.half_life": 5.0}],
        "svae": [{"length": 200, "epochs": 100}],
        "sasrec": [{"layers": 2, "dropout": 0.1, "length": 200, "gate": True, "learning_rate": 3e-3, "epochs": 100}],
        "blend with sasrec": [{"of": ["sasrec", "edlae half life", "last-item", "als"]}],
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
    parser.add_argument("--speed", action="store_true", help="measure steps instead")
    parser.add_argument("--steps", type=int, default=12, help="with --speed; the first two warm up")
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
    if asked.speed:
        print(speed(rows["sasrec"][0], split, asked))
        return
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
    rows = choices[0].get("of", [name])
    is_random = any(create_model(ROWS[asked.table][row][0].get("model", row)).is_random for row in rows)
    seeds = range(asked.seeds if is_random else 1)
    for seed in seeds:
        folder = asked.work / asked.table / f"{name}-{seed}"
        if (folder / "result.json").exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        if rows == [name]:
            value, model, minutes = best_fit(name, choices, split, seed, asked, ends)
        else:
            value, model, minutes = blended(rows, split, seed, asked, ends)
        found = evaluate(model, split.test, METRICS)
        np.savez(folder / "values.npz", **{metric.replace("@", "_"): found.values[metric] for metric in METRICS})
        best = next((epoch.number for epoch in model.epochs if epoch.best and epoch.value == value), None)
        facts = {
            "settings": dataclasses.asdict(model.config),
            "validation": value,
            "test": found.means(),
            "minutes": minutes,
            "epochs": len(model.epochs),
            "best_epoch": best,
        }
        (folder / "result.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
        print(name, seed, facts, flush=True)


def best_fit(
    name: str, choices: list[Settings], split: Split, seed: int, asked: argparse.Namespace, ends: float
) -> tuple[float, Recommender, float]:
    """Fit a row with each of its settings, or go on with them; the best on validation."""
    folder = asked.work / asked.table / f"{name}-{seed}"
    fits = [fit(name, choice, split, folder / str(place), seed, asked, ends) for place, choice in enumerate(choices)]
    return max(fits, key=lambda found: found[0])


def blended(
    rows: list[str], split: Split, seed: int, asked: argparse.Namespace, ends: float
) -> tuple[float, Recommender, float]:
    """Blend the models of other rows, with the weights that are best on validation."""
    fits = [best_fit(row, ROWS[asked.table][row], split, seed, asked, ends) for row in rows]
    validate = Validator(split.validation, "ndcg@10").sample(USERS)
    model = Blend.of([model for _, model, _ in fits], split.train.matrix, validate)
    print(model.summary(), flush=True)
    return validate(model.score), model, sum(minutes for _, _, minutes in fits)


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
        item_features=features(split, asked) if model.uses_features else None,
        on_step=pause,
        on_epoch=say,
    )
    if time.monotonic() > ends:
        raise PauseError
    started = time.perf_counter()
    model.fit(split.train.matrix, context)
    minutes = (time.perf_counter() - started + checkpoints.seconds) / 60
    if "half_life" in given:
        model = max(with_half_lives(model), key=lambda one: validate(one.score))
    value = max((epoch.value or 0 for epoch in model.epochs), default=0.0) or validate(model.score)
    return value, model, minutes


def features(split: Split, asked: argparse.Namespace) -> csr_matrix | None:
    """Features of the items of the training part."""
    return read_item_features(asked.data / FEATURES[asked.table]).over(split.train.items)


def with_half_lives(model: Recommender) -> Iterator[Recommender]:
    """The fitted model with each half-life, which training does not depend on."""
    for half_life in HALF_LIVES:
        config = dataclasses.replace(model.config, half_life=half_life)
        yield type(model)(config).set_state(model.get_state(), model.n_items)


def speed(settings: Settings, split: Split, asked: argparse.Namespace) -> str:
    """Steps of sasrec, and of the usual way: rows padded to the whole length, logits of every place, cross-entropy.

    Both begin with the same weights and see the same rows; they take turns, so that both meet the same machine.
    """
    device = TrainingContext(device=asked.device).resolve_device()
    config = create_model("sasrec", {**settings, "dropout": 0.0}).config
    torch.manual_seed(0)
    ours = SASRec(config)._build(len(split.train.items)).to(device)
    usual = copy.deepcopy(ours)
    rows = SequenceRows(split.train.matrix, device, config.length + 1)
    batches = list(itertools.islice(rows.shuffled(config.batch_size), asked.steps))
    context = TrainingContext(device=asked.device, precision=asked.precision)
    steps_of = {
        "sasrec": (ours, with_autocast(context, lambda batch: ours.loss(batch, 0)), asked.precision == "bf16"),
        "usual": (usual, lambda batch: usual_loss(usual, batch, config.length), False),
    }
    optimizers = {
        name: make_optimizer(network, [], config.learning_rate, 0.0, mixed and device.type == "cpu")
        for name, (network, _, mixed) in steps_of.items()
    }
    seconds, losses = dict.fromkeys(steps_of, 0.0), dict.fromkeys(steps_of, 0.0)
    for number, batch in enumerate(batches):
        for name, (_, loss, _) in steps_of.items():
            started = time.perf_counter()
            optimizers[name].zero_grad()
            value = loss(batch)
            value.backward()
            optimizers[name].step()
            losses[name] += float(value.detach()) / len(batches)  # waits for a GPU
            seconds[name] += (time.perf_counter() - started) * (number > 1)
    lines = ["| steps | seconds | mean loss |", "| --- | --- | --- |"]
    lines += [f"| {name} | {seconds[name] / (len(batches) - 2):.3f} | {losses[name]:.4f} |" for name in steps_of]
    return "\n".join([*lines, "", f"{seconds['usual'] / seconds['sasrec']:.1f} times as fast; {where(asked)}"])


def usual_loss(network: SASRecNetwork, batch: SparseBatch, length: int) -> torch.Tensor:
    """The same loss from rows padded to `length`, with the logits of all places."""
    items, filled = padded(batch)
    missing = length + 1 - items.shape[1]
    items, filled = F.pad(items, (0, missing)), F.pad(filled, (0, missing))
    logits = network.decoder(network.hidden(items[:, :-1], (batch.lengths - 1).clamp_min(0)))
    target = items[:, 1:].masked_fill(~filled[:, 1:], -100)
    return F.cross_entropy(logits.flatten(0, 1), target.flatten())


def where(asked: argparse.Namespace) -> str:
    """The machine and the day."""
    machine = describe_machine()
    gpus = [str(gpu) for gpu in machine["gpus"]]
    parts = [f"{machine['cores']} cores of {machine['cpu']}", *gpus, f"torch {torch.__version__}", asked.precision]
    return f"{', '.join(parts)}; {date.today()}"


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
    return "\n".join([*lines, "", f"{where(asked)}; {asked.seeds} seed(s)"])


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
