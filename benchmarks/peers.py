"""Time to fit and accuracy: our VAE beside cornac's VAECF and implicit's ALS, on one split, in one run.

    pip install cornac implicit        recsys needs neither; a missing one is named and left out
    python benchmarks/peers.py --ratings ml-1m/ratings.csv --epochs 20

Rows of every user are held out (`weak`), since cornac's model scores the users it was trained on. Same network
(600 - 200), batch, rate and epochs for both autoencoders, defaults for the rest. All lists are made and measured by our
code from each model's scores; seen items are masked for all.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the jobs are imported as `pipelines`, from this checkout

from pipelines.cli import main

main.set_environment()  # as the recsys command does, before torch is imported

import numpy as np
import torch
from scipy.sparse import csr_matrix

from recsys.data.reading import ReadingOptions, read_interactions
from recsys.evaluation.evaluate import evaluate
from recsys.models import create_model
from recsys.splitting.by_row import weak
from recsys.splitting.holdout import Split
from recsys.system.hardware import describe_machine
from recsys.training.context import TrainingContext

METRICS = ("ndcg@100", "recall@20")
Scores = Callable[..., torch.Tensor]


def ours(name: str, settings: dict[str, Any], precision: Any = "fp32") -> Callable[[Split], Scores]:
    """A model of this package."""

    def fit(split: Split) -> Scores:
        model = create_model(name, settings).fit(split.train.matrix, TrainingContext(device="cpu", precision=precision))
        return lambda history, users: model.score(history)

    return fit


def cornac_vae(epochs: int, batch: int) -> Callable[[Split], Scores]:
    """cornac's VAECF with the same network; its scores come user by user."""

    def fit(split: Split) -> Scores:
        from cornac.data import Dataset
        from cornac.models import VAECF

        cells = split.train.matrix.tocoo()
        data = Dataset.from_uir(list(zip(cells.row.tolist(), cells.col.tolist(), cells.data.tolist(), strict=True)))
        model = VAECF(k=200, autoencoder_structure=[600], likelihood="mult", n_epochs=epochs, batch_size=batch, seed=0)
        model.fit(data)
        items = np.array([data.iid_map.get(i, -1) for i in range(cells.shape[1])])  # -1: in no training row

        def score(history: csr_matrix, users: Any) -> torch.Tensor:
            found = np.stack([model.score(data.uid_map[int(user)]) for user in users]).astype(np.float32)
            found = np.where(items >= 0, found[:, items], np.float32(-1e30))
            return torch.as_tensor(found)

        return score

    return fit


def rows(split: Split, ways: dict[str, Callable[[Split], Scores]]) -> Iterator[str]:
    """One row of the table for each model whose package is installed."""
    for name, fit in ways.items():
        started, worked = time.perf_counter(), time.process_time()
        try:
            score = fit(split)
        except ImportError as missing:
            yield f"| {name} | not installed: pip install {missing.name} | | | | |"
            continue
        seconds, cpu = time.perf_counter() - started, time.process_time() - worked
        assert split.test is not None
        found = evaluate(score, split.test, METRICS, with_users=True)
        means = found.means()
        speed = split.test.history.shape[0] / found.seconds
        yield (
            f"| {name} | {seconds:.1f} | {cpu:.1f} | {speed:,.0f} | "
            + " | ".join(f"{means[metric]:.4f}" for metric in METRICS)
            + " |"
        )


def main() -> None:
    """Fit, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratings", required=True)
    parser.add_argument("--min-rating", type=float, help="keep rows with at least this rating")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=500)
    asked = parser.parse_args()
    split = weak(read_interactions(asked.ratings, ReadingOptions(min_rating=asked.min_rating)), share=0.1)
    network = {"epochs": asked.epochs, "batch_size": asked.batch}
    ways = {
        "recsys vae": ours("vae", network),
        "recsys vae, bf16": ours("vae", network, "bf16"),
        "cornac VAECF": cornac_vae(asked.epochs, asked.batch),
        "implicit ALS": ours("als", {}),
    }
    machine, versions = (
        describe_machine(),
        [
            f"{name} {metadata.version(name).split('+')[0]}"
            for name in ("torch", "cornac", "implicit")
            if _installed(name)
        ],
    )
    users, items = split.train.matrix.shape
    print(f"{date.today()}, {machine['cpu']}, {machine['cores']} cores, {', '.join(versions)}")
    print(
        f"{users:,} users x {items:,} items, {split.train.matrix.nnz:,} interactions; {asked.epochs} epochs, ", end=""
    )
    print(f"batch {asked.batch}; load {os.getloadavg()[0]:.1f}\n")
    print("| | s to fit | CPU s to fit | users/s scored | " + " | ".join(METRICS) + " |")
    print("| --- |" + " ---: |" * 5)
    for row in rows(split, ways):
        print(row, flush=True)
    print(f"\nload {os.getloadavg()[0]:.1f}")


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()
