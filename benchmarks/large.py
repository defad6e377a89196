"""A large catalog on a small machine: train with a sampled softmax, score, and print the peak memory.

    python benchmarks/large.py      1,000,000 items, 200,000 users, at most 16 GB

Data are generated with a popularity tail; one epoch, validated, so that a copy of the best weights is kept; then lists
of 100 for some users, each of whom takes the same memory. A process that holds more than --limit is stopped.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections import deque
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the jobs are imported as `pipelines`, from this checkout

from pipelines.cli import main

main.set_environment()  # as the recsys command does, before torch is imported

import torch
from training import generated

from recsys.inference.topn import recommend
from recsys.models import create_model
from recsys.models.autoencoders.network import NetworkRecommender
from recsys.system.hardware import describe_machine
from recsys.system.memory import now_and_peak, peak_memory
from recsys.training.context import Epoch, TrainingContext
from recsys.types import ScoreFunction


def watch(limit: float) -> None:
    """Stop the process when it holds more than `limit` bytes; checked four times a second."""
    while True:
        held = (now_and_peak() or (0, 0))[0]
        if held > limit:
            print(f"stopped: {held / 1e9:.1f} GB held, {limit / 1e9:.1f} GB allowed", file=sys.stderr)
            os._exit(1)
        time.sleep(0.25)


def report(what: str, seconds: float, note: str) -> None:
    """Print a row of the table."""
    now, peak = now_and_peak() or (0, 0)
    print(f"| {what} | {seconds:.0f} | {now / 1e9:.1f} | {peak / 1e9:.1f} | {note} |", flush=True)


def main() -> None:
    """Generate, train, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--interactions", type=int, default=4_000_000)
    parser.add_argument("--listed", type=int, default=2_000, help="users who get a list")
    parser.add_argument("--limit", type=float, default=16, help="GB")
    asked = parser.parse_args()
    threading.Thread(target=watch, args=(asked.limit * 1e9,), daemon=True).start()
    machine = describe_machine()
    print(f"{date.today()}, {machine['cpu']}, {machine['cores']} cores, load {os.getloadavg()[0]:.1f}")
    matrix = generated(asked.users, asked.items, asked.interactions)
    print(f"{asked.users:,} users x {asked.items:,} items, {matrix.nnz:,} interactions; VAE 600-200-600, bf16")
    model = create_model("vae", {"softmax": "sampled", "epochs": 1})
    assert isinstance(model, NetworkRecommender)
    print(f"expected in training: {model.training_memory(asked.items)}\n")
    print("| what | s | GB after | GB at most | |\n| --- | ---: | ---: | ---: | --- |")
    epochs: list[Epoch] = []

    def validate(score: ScoreFunction) -> float:
        """Do the work of validation except the metric: lists of some users. Any value keeps the weights."""
        deque(recommend(score, matrix[:500], 100), maxlen=0)
        return 0.0

    with peak_memory():
        started = time.perf_counter()
        context = TrainingContext(precision="bf16", validate=validate, on_epoch=lambda epoch, _: epochs.append(epoch))
        model.fit(matrix, context)
        steps = -(-asked.users // 500)
        a_step = epochs[0].train_seconds / steps * 1000
        report("training", time.perf_counter() - started, f"{steps} steps of {a_step:.0f} ms")
    with peak_memory():
        started, listed = time.perf_counter(), matrix[: asked.listed]
        model.to_bf16()
        deque(recommend(model.score, listed, 100), maxlen=0)
        seconds = time.perf_counter() - started
        report("lists of 100", seconds, f"{listed.shape[0]:,} users, {listed.shape[0] / seconds:,.0f} a second")
    print(f"\ntorch {torch.__version__.split('+')[0]}, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
