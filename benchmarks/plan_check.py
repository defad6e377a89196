"""How accurate `recsys plan` is: predicted and measured seconds and memory of short training and scoring runs.

    python benchmarks/plan_check.py

Each point runs in a process of its own on generated data with a popularity tail. The fastest epoch after the first
counts; memory is the peak of the process. No size is one at which the constants were measured. On a busy machine
wall-clock seconds say little: `CPU s` are the CPU seconds of the process divided by the cores, the time on an idle
machine if all work ran in parallel.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import deque
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the jobs are imported as `pipelines`, from this checkout

from pipelines.cli import main

main.set_environment()  # as the recsys command does, before torch is imported

import torch
from training import generated

from recsys.capacity import Workload, closed_form, full_softmax, lists_seconds, read_speed, sampled_softmax
from recsys.inference.topn import recommend
from recsys.models import create_model
from recsys.system.hardware import usable_cores
from recsys.system.memory import now_and_peak, peak_memory
from recsys.training.context import TrainingContext

Times = tuple[float, float]

SMALL = {"hidden": 200, "latent": 50}
POINTS: dict[str, tuple[str, Workload]] = {
    "vae 200-50": ("full", Workload(8_000, 5_000, 400_000, **SMALL)),
    "vae 600-200": ("full", Workload(4_000, 15_000, 300_000)),
    "vae 600-200, large catalog": ("full", Workload(2_000, 100_000, 100_000)),
    "vae 600-200, batch 2000": ("full", Workload(8_000, 10_000, 400_000, batch_size=2_000)),
    "vae 600-200, bf16": ("full", Workload(4_000, 40_000, 300_000, precision="bf16")),
    "vae 600-200, sampled": ("sampled", Workload(5_000, 100_000, 150_000)),
    "vae 200-50, sampled": ("sampled", Workload(10_000, 500_000, 300_000, **SMALL)),
    "ease": ("ease", Workload(10_000, 5_000, 400_000)),
    "lists, vae 600-200": ("lists", Workload(4_000, 15_000, 120_000)),
    "lists, vae 200-50": ("lists", Workload(2_000, 100_000, 60_000, **SMALL)),
}


def predict(kind: str, work: Workload) -> tuple[float, float | None]:
    """(seconds, bytes); bytes is None where the plan gives none."""
    speed = read_speed("cpu")
    if kind == "lists":
        return lists_seconds(work, speed), None
    need = {"full": full_softmax, "sampled": sampled_softmax, "ease": closed_form}[kind](work, speed)
    return need.seconds, need.bytes


class Clock:
    """Wall-clock seconds, and CPU seconds divided by the cores, between ticks."""

    def __init__(self) -> None:
        self.marks = [(time.perf_counter(), time.process_time())]

    def tick(self) -> None:
        """Record the end of a piece of work."""
        self.marks.append((time.perf_counter(), time.process_time()))

    def best(self, skip: int = 0) -> Times:
        """The minimum of each, without the first `skip` pieces."""
        both = [(b[0] - a[0], (b[1] - a[1]) / usable_cores()) for a, b in pairwise(self.marks[skip:])]
        return min(wall for wall, _ in both), min(cpu for _, cpu in both)


def measure(kind: str, work: Workload) -> dict[str, Any]:
    """Measured seconds and bytes, and the number of interactions in the generated data."""
    matrix = generated(int(work.users), int(work.items), int(work.interactions))
    with peak_memory():
        seconds, cpu = {"ease": ease, "lists": lists}.get(kind, epoch)(kind, work, matrix)
        memory = now_and_peak()
    return {"seconds": seconds, "cpu": cpu, "bytes": memory[1] if memory else None, "interactions": int(matrix.nnz)}


def epoch(kind: str, work: Workload, matrix: Any) -> Times:
    """Time the faster of two epochs after the first."""
    settings = {"hidden": work.hidden, "latent": work.latent, "batch_size": work.batch_size, "epochs": 3}
    clock = Clock()
    context = TrainingContext(
        device="cpu", precision=work.precision, validate=lambda score: 0.0, on_epoch=lambda epoch, epochs: clock.tick()
    )
    create_model("vae", {**settings, "softmax": kind}).fit(matrix, context)
    return clock.best(skip=1)


def ease(kind: str, work: Workload, matrix: Any) -> Times:
    """Time the faster of two whole fits."""
    clock = Clock()
    for _ in range(2):
        create_model("ease").fit(matrix, TrainingContext(device="cpu"))
        clock.tick()
    return clock.best()


def lists(kind: str, work: Workload, matrix: Any) -> Times:
    """Time the lists of all users in memory, the faster of two runs."""
    vae: Any = create_model("vae", {"hidden": work.hidden, "latent": work.latent})
    vae.untrained(matrix.shape[1])
    clock = Clock()
    for _ in range(2):
        deque(recommend(vae.score, matrix, work.n, batch_size=256), maxlen=0)
        clock.tick()
    return clock.best()


def main() -> None:
    """Measure every point and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--point", choices=POINTS, help="measure this one and print JSON")
    point = parser.parse_args().point
    if point:
        print(json.dumps(measure(*POINTS[point])))
        return
    speed = read_speed("cpu")
    print(f"constants: {speed.machine}, {speed.date}, load {speed.load}; torch {torch.__version__.split('+')[0]}\n")
    times = "s predicted | s measured | ratio | CPU s | ratio"
    print(f"| what | users x items, interactions | {times} | GB predicted | GB measured | ratio |")
    print("| --- | --- |" + " ---: |" * 8)
    for name, (kind, work) in POINTS.items():
        done = subprocess.run([sys.executable, __file__, "--point", name], check=True, capture_output=True, text=True)
        found = json.loads(done.stdout)
        print(line(name, replace(work, interactions=found["interactions"]), kind, found), flush=True)
    print(f"\nload {os.getloadavg()[0]:.1f}")


def line(name: str, work: Workload, kind: str, found: dict[str, Any]) -> str:
    """A row of the table."""
    seconds, memory = predict(kind, work)
    cells = [
        name,
        f"{work.users:,} x {work.items:,}, {work.interactions:,}",
        f"{seconds:.2f}",
        f"{found['seconds']:.2f}",
        f"{seconds / found['seconds']:.2f}",
        f"{found['cpu']:.2f}",
        f"{seconds / found['cpu']:.2f}",
    ]
    if memory is None or found["bytes"] is None:
        cells += ["", "", ""]
    else:
        cells += [f"{memory / 1e9:.2f}", f"{found['bytes'] / 1e9:.2f}", f"{memory / found['bytes']:.2f}"]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
