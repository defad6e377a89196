"""Users a second and peak memory of `recsys score`, beside what the bare matrix products allow and beside `implicit`.

    python benchmarks/scoring.py generated --users 1000000 --items 50000 --folder /tmp/scoring
    python benchmarks/scoring.py share --users 10000 --items 50000 --folder /tmp/scoring
    python benchmarks/scoring.py public --data ../shared/data/ml-1m/ratings.csv ../shared/data/gowalla/train.csv

The generated VAE is not trained: the time does not depend on what the weights are.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipelines.score import ScoreJob, run
from pipelines.settings import TrackingOptions
from recsys.artifacts import load_model, save_model
from recsys.audience import Rules, make_audience
from recsys.batch import Plan, open_output
from recsys.interactions import UserItemMatrix, Vocabulary
from recsys.machine import usable_cores
from recsys.models import create_model
from recsys.reading import read_interactions
from recsys.shards import ShardWriter, one_thread_each
from recsys.training import TrainingContext

HISTORY = 20  # items a generated user


def generate(folder: Path, users: int, items: int, seed: int) -> tuple[Path, Path]:
    """A prepared store of generated histories (popular items more often) and an untrained VAE's folder."""
    rng = np.random.default_rng(seed)
    model, store = folder / f"model-{items}", folder / f"store-{users}-{items}"
    names = Vocabulary.of(f"item-{i:07d}" for i in range(items))
    if not model.exists():
        vae = create_model("vae")
        torch.manual_seed(seed)
        vae.items, vae.network = items, vae._build(items).eval()
        save_model(model, vae, names, np.ones(items, dtype=np.int64))
    if not store.exists():
        ratings = folder / "ratings.parquet"
        schema = pa.schema([("user_id", pa.string()), ("item_id", pa.string())])
        with pq.ParquetWriter(ratings, schema) as writer:
            for start in range(0, users, 100_000):
                count = min(100_000, users - start)
                user = np.repeat(np.arange(start, start + count), HISTORY)
                item = (items * rng.random(len(user)) ** 3).astype(np.int64)
                ids = pa.array([f"user-{u:08d}" for u in range(start, start + count)]).take(pa.array(user - start))
                writer.write_table(pa.table([ids, names.take(item)], schema=schema))
        subprocess.run([sys.executable, "-m", "pipelines.cli", "prepare", ratings, "-o", store], check=True)
        ratings.unlink()
    return model, store


@dataclass(frozen=True)
class Speed:
    """Users a second by the clock, and a second of processor time, which other people's load spares."""

    clock: float
    processor: float


def measured(work: Callable[[], object], users: int) -> Speed:
    """The speed of work done for so many users."""
    started, spent = time.perf_counter(), time.process_time()
    work()
    return Speed(users / (time.perf_counter() - started), users / (time.process_time() - spent))


def bare_products(items: int, threads: int, tiles: int = 24) -> Speed:
    """The VAE's products alone (600-400, 200-600, 600-items), tiles on as many threads."""
    rng = np.random.default_rng(0)
    tile, shapes = Plan.tile, ((600, 400), (200, 600), (600, items))
    pairs = [
        (torch.tensor(rng.random((tile, k), np.float32)), torch.tensor(rng.random((n, k), np.float32)))
        for k, n in shapes
    ]

    def one(_: int) -> None:
        for rows, weights in pairs:
            torch.nn.functional.linear(rows, weights)

    with one_thread_each(), ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(one, range(threads)))
        return measured(lambda: list(pool.map(one, range(tiles))), tiles * tile)


def writer_alone(n: int) -> float:
    """Users a second of making and writing Parquet from lists that are there."""
    users, rows = 5120, 5120 * n
    ids = pa.array([f"user-{u:08d}" for u in range(users)])
    items = pa.array([f"item-{i:07d}" for i in range(50_000)])
    rng = np.random.default_rng(0)
    place, scores = rng.integers(0, 50_000, rows), rng.random(rows, np.float32)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        for i in range(4):
            table = pa.table(
                {
                    "user_id": ids.take(pa.array(np.repeat(np.arange(users), n))),
                    "item_id": items.take(pa.array(place)),
                    "rank": pa.array(np.tile(np.arange(1, n + 1), users), pa.int32()),
                    "score": pa.array(scores),
                }
            )
            pq.write_table(table, Path(folder) / f"{i}.parquet", compression="zstd")
        return 4 * users / (time.perf_counter() - started)


def generated(arguments: argparse.Namespace) -> None:
    """`recsys score` as a process of its own, the bare products measured before and after it."""
    arguments.folder.mkdir(parents=True, exist_ok=True)
    model, store = generate(arguments.folder, arguments.users, arguments.items, arguments.seed)
    out, threads = arguments.folder / "lists", usable_cores()
    command = [sys.executable, "-m", "pipelines.cli", "--json", "score", model, store, "-o", out, "-n", "100"]
    command += ["--max-memory", arguments.max_memory, "--overwrite", "--no-track"]
    products, load = [bare_products(arguments.items, threads).clock], [os.getloadavg()[0]]
    done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    products.append(bare_products(arguments.items, threads).clock)
    load.append(os.getloadavg()[0])
    speed, bare = done["went"]["users_per_second"], float(np.mean(products))
    memory = done["manifest"]["memory"]
    print(f"{arguments.users:,} users x {arguments.items:,} items, top-100, VAE 600-200, {memory['workers']} threads")
    print(f"recsys score           {speed:8,.0f} users/s   {done['went']['seconds']:,.0f} s, files written")
    print(f"bare matrix products   {bare:8,.0f} users/s   ({products[0]:,.0f} before, {products[1]:,.0f} after)")
    print(f"share of them          {speed / bare:8.0%}")
    print(f"writer alone           {writer_alone(100):8,.0f} users/s")
    print(
        f"peak memory            {memory['peak_bytes'] / 1e9:8.2f} GB   (expected {memory['expected_bytes'] / 1e9:.2f})"
    )
    print(f"load average           {load[0]:.1f} before, {load[1]:.1f} after, on {threads} cores")


def share(arguments: argparse.Namespace) -> None:
    """Shards scored and written, and the bare products, in turns."""
    arguments.folder.mkdir(parents=True, exist_ok=True)
    model, store = generate(arguments.folder, arguments.users, arguments.items, arguments.seed)
    saved = load_model(model, "cpu")
    data = UserItemMatrix.from_interactions(read_interactions(store), saved.items)
    audience = make_audience(data, saved)
    plan = Plan(saved.digest, "", len(audience), n=100, shard_users=len(audience))
    shares = []
    with tempfile.TemporaryDirectory() as folder:
        open_output(Path(folder), plan)
        writer = ShardWriter(Path(folder), plan, saved, Rules(), usable_cores())
        for _ in range(arguments.rounds):
            bare = bare_products(arguments.items, usable_cores())
            ours = measured(lambda: writer((plan.shards[0], audience)), len(audience))
            shares.append((ours.clock / bare.clock, ours.processor / bare.processor, ours.clock, bare.clock))
    print(f"{arguments.users:,} users x {arguments.items:,} items, top-100, VAE 600-200; load {os.getloadavg()[0]:.1f}")
    names = ("share by the clock", "share by processor time", "ours, users/s", "bare products, users/s")
    for name, values in zip(names, zip(*shares, strict=True), strict=True):
        low, *_, high = sorted(values)
        print(f"  {name:24} {np.median(values):8.2f}   ({low:.2f} to {high:.2f})")


def public(arguments: argparse.Namespace) -> None:
    """Top-100 for everybody: ours, files written, beside implicit's ALS.recommend into memory."""
    for path in arguments.data:
        interactions = read_interactions(path)
        data = UserItemMatrix.from_interactions(interactions)
        users = len(data.users)
        print(f"{path.parent.name}: {users:,} users x {len(data.items):,} items; load {os.getloadavg()[0]:.1f}")
        print(f"  implicit ALS.recommend   {users / implicit_seconds(data):8,.0f} users/s   known users, in memory")
        for name, settings in (("als", {"iterations": 1}), ("vae", {"epochs": 1}), ("ease", {})):
            if name == "ease" and len(data.items) > 10_000:
                continue
            with tempfile.TemporaryDirectory() as folder:
                model = create_model(name, settings).fit(data.matrix, TrainingContext(device="cpu"))
                save_model(Path(folder) / "model", model, data.items, data.item_counts)
                untracked = TrackingOptions(track=False)
                job = ScoreJob(Path(folder) / "model", (path,), Path(folder) / "lists", n=100, tracking=untracked)
                speed = sorted(run_again(job) for _ in range(3))
                print(f"  recsys score, {name:8}   {speed[1]:8,.0f} users/s   ({speed[0]:,.0f} to {speed[2]:,.0f})")


def run_again(job: ScoreJob) -> float:
    """Users a second of one run, files written."""
    return run(replace(job, overwrite=True)).went["users_per_second"]


def implicit_seconds(data: UserItemMatrix) -> float:
    """The middle of three runs."""
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(factors=128, iterations=1, random_state=0)
        model.fit(data.matrix, show_progress=False)
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            model.recommend(np.arange(len(data.users)), data.matrix, N=100, filter_already_liked_items=True)
            seconds.append(time.perf_counter() - started)
    return sorted(seconds)[1]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("generated", "share", "public"))
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-memory", default="2GB")
    parser.add_argument("--folder", type=Path, default=Path("scoring"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    {"generated": generated, "share": share, "public": public}[arguments.what](arguments)


if __name__ == "__main__":
    main()
