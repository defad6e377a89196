"""Everything to measure on a machine with a GPU, in one call.

    python benchmarks/gpu.py                                  data of MovieLens-20M's shape, generated
    python benchmarks/gpu.py --ratings ml-1m/ratings.csv      and the accuracy on GPU and CPU, on these ratings
    python benchmarks/gpu.py --tiny                           the same steps at a toy size, on any machine

Training users per second at batches of 500 and 24,576, compared with the bare matrix products of the same shapes; whole
epochs of the `large-batch` preset; a profile of one step; `ease` on the device; lists of 100 for all users, files
included. Without a GPU it says so and stops.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the jobs are imported as `pipelines`, from this checkout

from pipelines.cli import main

main.set_environment()  # as the recsys command does, before torch is imported

import torch
from quality import fit_ours
from scipy.sparse import csr_matrix
from scoring import generate
from training import floor_step, generated, measure, our_step, profile_step, report, wait

from pipelines.cli.settings import TrackingOptions
from pipelines.score import ScoreJob, run
from recsys.data.reading import ReadingOptions, read_interactions
from recsys.evaluation.evaluate import evaluate
from recsys.models import create_model
from recsys.splitting.by_user import strong
from recsys.system.hardware import describe_machine
from recsys.training.context import Epoch, TrainingContext


@contextlib.contextmanager
def tf32(enabled: bool) -> Iterator[None]:
    """Use TensorFloat-32 for float32 matrix products inside the block."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if enabled else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def steps(matrix: csr_matrix, batch: int, device: torch.device) -> None:
    """Print the table of training users per second."""
    items = matrix.shape[1]
    ways = {
        "floor fp32": floor_step(items, batch, device, torch.float32),
        "floor bf16": floor_step(items, batch, device, torch.bfloat16),
        "recsys fp32": our_step(matrix, batch, device),
        "recsys bf16": our_step(matrix, batch, device, bf16=True),
    }
    print(f"\n## Batches of {batch:,}\n\nfloat32 as it is:\n")
    print(report(measure(ways, 3, 10, device), matrix.shape[0], batch))
    if device.type == "cuda":
        with tf32(True):
            print("\nfloat32 as TensorFloat-32:\n")
            print(
                report(measure({k: w for k, w in ways.items() if "fp32" in k}, 3, 10, device), matrix.shape[0], batch)
            )
    profile_step(ways["recsys bf16"], device)


def epochs(matrix: csr_matrix, device: torch.device, count: int) -> None:
    """Time whole epochs of the preset, with everything that training does between them."""
    found: list[Epoch] = []
    model = create_model("vae", {"preset": "large-batch"})
    context = TrainingContext(
        device=str(device), precision="bf16", stop_after=count, on_epoch=lambda epoch, _: found.append(epoch)
    )
    model.fit(matrix, context)
    wait(device)
    best = min(epoch.train_seconds for epoch in found)
    print(f"\n## Epochs\n\nvae, preset large-batch, bf16: {best:.3f} s an epoch, {matrix.shape[0] / best:,.0f} users/s")
    if device.type == "cuda":
        print(f"GPU memory at most {torch.cuda.max_memory_allocated() / 1e9:.1f} GB")


def closed_form(matrix: csr_matrix, device: torch.device) -> None:
    """Time EASE on the device."""
    started = time.perf_counter()
    create_model("ease").fit(matrix, TrainingContext(device=str(device)))
    wait(device)
    print(f"\nease over {matrix.shape[1]:,} items: {time.perf_counter() - started:.1f} s")


def lists(users: int, items: int, history: int, device: torch.device) -> None:
    """Time `recsys score` for all users in both precisions, from reading to files; the second run counts."""
    print("\n## Lists of 100 for everybody, files written\n\n| | s end to end | s scoring and writing | users/s |")
    print("| --- |" + " ---: |" * 3)
    with tempfile.TemporaryDirectory() as folder:
        model, store = generate(Path(folder), users, items, 0, history)
        job = {"n": 100, "overwrite": True, "device": str(device), "tracking": TrackingOptions(track=False)}
        for precision in ("fp32", "bf16"):
            for turn in range(2):  # the first starts the device
                started = time.perf_counter()
                done = run(ScoreJob(model, (store,), Path(folder) / "lists", precision=precision, **job))
                seconds = time.perf_counter() - started
                if turn:
                    speed = done.speed
                    print(
                        f"| {precision} | {seconds:.1f} | {speed['seconds']:.1f} | {speed['users_per_second']:,.0f} |",
                        flush=True,
                    )


def quality(ratings: str, min_rating: float | None, count: int, device: torch.device) -> None:
    """Print NDCG@100 of the same training on CPU and GPU."""
    split = strong(read_interactions(ratings, ReadingOptions(min_rating=min_rating)))
    assert split.test is not None
    print(f"\n## Quality, {count} epochs of 500 a batch\n\n| | ndcg@100 |\n| --- | ---: |")
    for kind in dict.fromkeys(("cpu", device.type)):
        for way in ("recsys fp32", "recsys bf16"):
            score = fit_ours(way, split.train.matrix, count, 0, kind)
            print(
                f"| {way} on {kind} | {evaluate(score, split.test, ('ndcg@100',)).means()['ndcg@100']:.4f} |",
                flush=True,
            )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratings", help="ratings file for the comparison of accuracy")
    parser.add_argument("--min-rating", type=float)
    parser.add_argument("--epochs", type=int, default=40, help="epochs of the comparison of accuracy")
    parser.add_argument("--tiny", action="store_true", help="a toy size, on whatever device there is")
    asked = parser.parse_args()
    if not torch.cuda.is_available() and not asked.tiny:
        print("No GPU here: nothing measured. On a machine with one:  python benchmarks/gpu.py")
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    machine = describe_machine()
    name = ", ".join(card["name"] for card in machine["gpus"]) or "no GPU"
    print(f"{date.today()}, {name}; {machine['cpu']}, {machine['cores']} cores; torch {torch.__version__}")
    users, items, interactions = (300, 200, 3_000) if asked.tiny else (116_677, 20_108, 9_990_000)
    matrix = generated(users, items, interactions)
    print(f"{users:,} users x {items:,} items, {matrix.nnz:,} interactions; VAE 600-200-600")
    for batch in (50, 300) if asked.tiny else (500, 24_576):
        steps(matrix, batch, device)
    epochs(matrix, device, 2 if asked.tiny else 5)
    closed_form(matrix, device)
    lists(users, items, interactions // users, device)
    if asked.ratings:
        quality(asked.ratings, asked.min_rating, 1 if asked.tiny else asked.epochs, device)


if __name__ == "__main__":
    main()
