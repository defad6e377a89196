"""Do the faster implementations learn as well? Test NDCG@100 of Mult-VAE 600-200-600 after the same number of epochs.

    python benchmarks/quality.py RATINGS [--min-rating 4] [--epochs 50] [--seeds 3]

dense: the usual implementation (see benchmarks/training.py) on the same split with the same annealing; recsys: this
package. No early stopping: the weights after the last epoch are evaluated.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).parents[1]))  # the jobs are imported as `pipelines`, from this checkout

from pipelines.cli import main

main.set_environment()  # as the recsys command does, before torch is imported

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_matrix
from training import UsualVAE

from recsys.data.reading import ReadingOptions, read_interactions
from recsys.evaluation.evaluate import evaluate
from recsys.models import create_model
from recsys.splitting.by_user import strong
from recsys.splitting.holdout import Split
from recsys.system.hardware import describe_machine, has_bf16
from recsys.training.context import TrainingContext
from recsys.training.loop import steps_per_epoch
from recsys.types import ScoreFunction

BETA, ANNEAL, BATCH = 0.2, 0.5, 500
WAYS = ("dense fp32", "recsys fp32", "recsys bf16", "recsys sampled fp32", "recsys sampled bf16")


def fit_dense(matrix: csr_matrix, epochs: int, seed: int) -> ScoreFunction:
    """Train the usual Mult-VAE and return its score function."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = UsualVAE(matrix.shape[1])
    for layer in (network.encoder, network.posterior, network.hidden, network.decoder):
        torch.nn.init.xavier_uniform_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    planned, done = epochs * steps_per_epoch(matrix.shape[0], BATCH), 0
    for _ in range(epochs):
        order = rng.permutation(matrix.shape[0])
        for start in range(0, len(order), BATCH):
            x = torch.from_numpy(matrix[order[start : start + BATCH]].toarray())
            optimizer.zero_grad()
            network.loss(x, BETA * min(1.0, done / planned / ANNEAL)).backward()
            optimizer.step()
            done += 1

    def score(history: csr_matrix) -> torch.Tensor:
        x = torch.from_numpy(history.toarray())
        with torch.no_grad():
            mean = network.posterior(torch.tanh(network.encoder(F.normalize(x)))).chunk(2, dim=1)[0]
            return network.decoder(torch.tanh(network.hidden(mean)))

    return score


def fit_ours(way: str, matrix: csr_matrix, epochs: int, seed: int, device: str = "auto") -> ScoreFunction:
    """Train our Mult-VAE and return its score function."""
    softmax = "sampled" if "sampled" in way else "full"
    model = create_model("vae", {"hidden": 600, "epochs": epochs, "batch_size": BATCH, "softmax": softmax})
    precision: Literal["fp32", "bf16"] = "bf16" if "bf16" in way else "fp32"
    return model.fit(matrix, TrainingContext(seed=seed, device=device, precision=precision)).score


def fitter(way: str) -> Callable[[csr_matrix, int, int], ScoreFunction]:
    """The function that fits this variant."""
    return fit_dense if "dense" in way else partial(fit_ours, way)


def row(way: str, split: Split, epochs: int, seeds: int) -> str:
    """A row of the table."""
    assert split.test is not None
    found, started = [], time.perf_counter()
    for seed in range(seeds):
        score = fitter(way)(split.train.matrix, epochs, seed)
        means = evaluate(score, split.test, ("ndcg@100", "recall@20")).means()
        found.append((means["ndcg@100"], means["recall@20"]))
    ndcg, recall = np.mean(found, axis=0)
    spread = f"{np.std([value for value, _ in found], ddof=1):.4f}" if seeds > 1 else ""
    return f"| {way} | {ndcg:.4f} | {spread} | {recall:.4f} | {(time.perf_counter() - started) / seeds:.0f} |"


def main() -> None:
    """Fit, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ratings")
    parser.add_argument("--min-rating", type=float)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ways", default=",".join(WAYS))
    asked = parser.parse_args()
    split = strong(read_interactions(asked.ratings, ReadingOptions(min_rating=asked.min_rating)))
    machine = describe_machine()
    users, items = split.train.matrix.shape
    print(f"{date.today()}, {machine['cpu']}, {machine['cores']} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{users:,} users x {items:,} items in training, {asked.epochs} epochs, {asked.seeds} seeds\n")
    print("| | NDCG@100 | spread over seeds | recall@20 | s a fit |\n| --- |" + " ---: |" * 4)
    for way in asked.ways.split(","):
        if "bf16" in way and not has_bf16():
            print(f"| {way} | this processor has no bf16 | | | |", flush=True)
            continue
        print(row(way, split, asked.epochs, asked.seeds), flush=True)


if __name__ == "__main__":
    main()
