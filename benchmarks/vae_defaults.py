"""Which settings does a VAE need to be as good as a denoising autoencoder, on small and on large data?

Every data set is divided as by `recsys compare --protocol strong`, several times, and only validation users are looked
at: the mean NDCG@100 of `vae` with its defaults, of variants that differ by one or two settings, and of `dae`, with
early stopping. Data sets that do not exist are left out.

    python benchmarks/vae_defaults.py --data FOLDER [--sets NAME,NAME] [--ways NAME,NAME] [--seeds 2] [--epochs 100]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from als_defaults import SETS, data_sets

from recsys.evaluation.evaluate import Validator
from recsys.models import create_model
from recsys.models.autoencoders.network import NetworkRecommender
from recsys.splitting.by_user import strong
from recsys.splitting.holdout import Split
from recsys.system.hardware import describe_machine
from recsys.training.context import TrainingContext

METRIC = "ndcg@100"
MOST_USERS = 1000  # validation users of a division
DEEP = {"hidden": 600, "deviation": 1.0, "l2": 0.0, "beta": 0.2}  # the defaults of version 0.1
FLAT = {"hidden": 0, "deviation": 0.1, "l2": 4e-5, "beta": 0.05}
WAYS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "dae": ("dae", {}),
    "default": ("vae", {}),
    "deep": ("vae", DEEP),
    "deep, anneal 0": ("vae", DEEP | {"anneal": 0.0}),
    "deep, anneal 0.1": ("vae", DEEP | {"anneal": 0.1}),
    "deep, beta 0.05": ("vae", DEEP | {"beta": 0.05}),
    "deep, beta 0.5": ("vae", DEEP | {"beta": 0.5}),
    "deep, beta 1": ("vae", DEEP | {"beta": 1.0}),
    "deep, gamma 0.005": ("vae", DEEP | {"gamma": 0.005}),
    "deep, deviation 0.1": ("vae", DEEP | {"deviation": 0.1}),
    "deep, deviation 0.1, anneal 0": ("vae", DEEP | {"deviation": 0.1, "anneal": 0.0}),
    "deep, l2 4e-5": ("vae", DEEP | {"l2": 4e-5}),
    "deep, learning rate 3e-4": ("vae", DEEP | {"learning_rate": 3e-4}),
    "deep, learning rate 3e-3": ("vae", DEEP | {"learning_rate": 3e-3}),
    "deep, batches of 128": ("vae", DEEP | {"batch_size": 128}),
    "deep, dropout 0.7": ("vae", DEEP | {"dropout": 0.7}),
    "deep, hidden 200, latent 64": ("vae", DEEP | {"hidden": 200, "latent": 64}),
    "flat": ("vae", FLAT),
    "flat, deviation 1": ("vae", FLAT | {"deviation": 1.0}),
    "flat, l2 0": ("vae", FLAT | {"l2": 0.0}),
    "flat, l2 1e-4": ("vae", FLAT | {"l2": 1e-4}),
    "flat, anneal 0": ("vae", FLAT | {"anneal": 0.0}),
    "flat, beta 0.02": ("vae", FLAT | {"beta": 0.02}),
    "flat, beta 0.1": ("vae", FLAT | {"beta": 0.1}),
    "flat, beta 0.2": ("vae", FLAT | {"beta": 0.2}),
    "flat, beta 0.5": ("vae", FLAT | {"beta": 0.5}),
    "flat, gamma 0.003": ("vae", FLAT | {"gamma": 0.003}),
    "flat, latent 400": ("vae", FLAT | {"latent": 400}),
    "flat, learning rate 2e-3": ("vae", FLAT | {"learning_rate": 2e-3}),
}


@dataclass(frozen=True)
class Fit:
    """What a fit reached on the validation users, at which epoch of how many, and its seconds."""

    value: float
    best: int
    epochs: int
    seconds: float


def fit(split: Split, model: str, settings: Mapping[str, Any], seed: int, precision: Any) -> Fit:
    """Fit a model with early stopping."""
    assert split.validation is not None
    started = time.perf_counter()
    validate = Validator(split.validation, METRIC)
    network = create_model(model, settings)
    assert isinstance(network, NetworkRecommender)
    context = TrainingContext(seed, "cpu", precision, validate=validate, keep_freed_memory=True)
    network.fit(split.train.matrix, context)
    best = max(network.epochs, key=lambda epoch: epoch.value or 0.0)
    return Fit(best.value or 0.0, best.number, len(network.epochs), time.perf_counter() - started)


def row(name: str, fits: Sequence[Fit], beside: Sequence[Fit]) -> str:
    """A row of the table; `beside` are the fits of the first way on the same divisions."""
    values = [found.value for found in fits]
    gaps = [found.value - other.value for found, other in zip(fits, beside, strict=True)]
    cells = (
        name,
        f"{np.mean(values):.4f}",
        f"{np.mean(gaps):+.4f}",
        ", ".join(f"{gap:+.4f}" for gap in gaps),
        ", ".join(f"{found.best} of {found.epochs}" for found in fits),
        f"{np.mean([found.seconds for found in fits]):.0f}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print a table for each data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with one folder per data set")
    parser.add_argument("--sets", default="ml-100k,ml-latest-small,filmtrust,lastfm-hetrec2011,ml-1m")
    parser.add_argument("--ways", default=";".join(WAYS), help="names of variants, separated by semicolons")
    parser.add_argument("--seeds", type=int, default=2, help="divisions of each data set")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    chosen = parser.parse_args()
    ways, machine = chosen.ways.split(";"), describe_machine()
    print(f"{METRIC} on validation users, {date.today()}, {machine['cpu']}, {machine['cores']} cores")
    for name, interactions in data_sets(chosen.data, [name for name in chosen.sets.split(",") if name in SETS]):
        if name == "sample" and "sample" not in chosen.sets.split(","):
            continue
        splits = [strong(interactions, at_most=MOST_USERS, seed=seed) for seed in range(chosen.seeds)]
        users, items = splits[0].train.matrix.shape
        print(f"\n{name}: {users:,} users x {items:,} items, {splits[0].train.matrix.nnz:,} cells\n")
        print(f"| way | {METRIC} | minus {ways[0]} | each division | best epoch | s a fit |")
        print("| --- | ---: | ---: | --- | --- | ---: |", flush=True)
        first: list[Fit] = []
        for way in ways:
            model, settings = WAYS[way]
            planned = {**settings, "epochs": chosen.epochs}
            fits = [fit(split, model, planned, seed, chosen.precision) for seed, split in enumerate(splits)]
            first = first or fits
            print(row(way, fits, first), flush=True)


if __name__ == "__main__":
    main()
