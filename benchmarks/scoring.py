"""Users per second and peak memory of `recsys score`, compared with its bare matrix products and with `implicit`.

    python benchmarks/scoring.py generated --users 1000000 --items 50000 --folder /tmp/scoring
    python benchmarks/scoring.py share --users 10000 --items 50000 --folder /tmp/scoring
    python benchmarks/scoring.py sides --ratings ml-1m/ratings.csv gowalla/train.csv
    python benchmarks/scoring.py public --ratings ml-1m/ratings.csv gowalla/train.csv

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
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the jobs are imported as `pipelines`, from this checkout

from pipelines.cli import main

main.set_environment()  # as the recsys command does, before torch is imported

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from scipy.sparse import csr_matrix
from training import UsualVAE, our_step

from pipelines.cli.settings import TrackingOptions
from pipelines.score import ScoreJob, run
from recsys.artifacts import load_model, save_model
from recsys.batch.output import open_output
from recsys.batch.plan import TILE, ScoringPlan
from recsys.batch.rules import ListRules
from recsys.batch.shards import ShardWriter, on_one_thread, one_thread_each
from recsys.batch.targets import make_targets
from recsys.data.interactions import Vocabulary
from recsys.data.matrix import UserItemMatrix
from recsys.data.reading import read_interactions
from recsys.evaluation.evaluate import evaluate
from recsys.inference.topn import BLOCK, top_n_of_blocks
from recsys.models import create_model
from recsys.models.autoencoders.network import NetworkRecommender
from recsys.models.trained import TrainedModel
from recsys.splitting.by_user import strong
from recsys.system.hardware import usable_cores
from recsys.training.context import TrainingContext
from recsys.training.precision import bf16_warning, is_native

ROOT = Path(__file__).parents[1]
HISTORY = 20  # items of a generated user
RANKERS: dict[str, dict[str, object]] = {
    "als": {"iterations": 1},
    "ials": {"iterations": 1},
    "bpr": {"iterations": 1},
    "bspm": {},
    "vae": {"epochs": 1},
    "ease": {},
}


def generate(folder: Path, users: int, items: int, seed: int, history: int = HISTORY) -> tuple[Path, Path]:
    """A prepared store of generated histories (popular items more often) and an untrained VAE's folder."""
    rng = np.random.default_rng(seed)
    model, store = folder / f"model-{items}", folder / f"store-{users}-{items}"
    names = Vocabulary.of(f"item-{i:07d}" for i in range(items))
    if not model.exists():
        vae = create_model("vae")
        torch.manual_seed(seed)
        vae.untrained(items)
        save_model(model, TrainedModel(vae, names, np.ones(items, dtype=np.int64)))
    if not store.exists():
        ratings = folder / "ratings.parquet"
        schema = pa.schema([("user_id", pa.string()), ("item_id", pa.string())])
        with pq.ParquetWriter(ratings, schema) as writer:
            for start in range(0, users, 100_000):
                count = min(100_000, users - start)
                user = np.repeat(np.arange(start, start + count), history)
                item = (items * rng.random(len(user)) ** 3).astype(np.int64)
                ids = pa.array([f"user-{u:08d}" for u in range(start, start + count)]).take(pa.array(user - start))
                writer.write_table(pa.table([ids, names.take(item)], schema=schema))
        recsys("prepare", ratings, "-o", store)
        ratings.unlink()
    return model, store


def recsys(*words: object) -> str:
    """Run a command of this checkout in a process of its own; what it printed."""
    command = [sys.executable, "-m", "pipelines.cli", *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout


@dataclass(frozen=True)
class Speed:
    """Users per second of wall-clock time, and per second of CPU time, which other load hardly changes."""

    clock: float
    processor: float


def measured(work: Callable[[], object], users: int) -> Speed:
    """Run the work and return its speed for that many users."""
    started, spent = time.perf_counter(), time.process_time()
    work()
    return Speed(users / (time.perf_counter() - started), users / (time.process_time() - spent))


def products(items: int, kind: torch.dtype = torch.float32) -> Callable[[int], None]:
    """The matrix products of the VAE alone (600-400, 200-600, 600-items) for one tile."""
    tile, shapes = TILE, ((600, 400), (200, 600), (600, items))
    pairs = [(torch.rand(tile, k).to(kind), torch.rand(n, k).to(kind)) for k, n in shapes]

    def one(_: int) -> None:
        for rows, weights in pairs:
            torch.nn.functional.linear(rows, weights)

    return one


def bare_products(items: int, threads: int, tiles: int = 24) -> Speed:
    """Speed of the products of some tiles on that many threads."""
    one = products(items)
    on_threads(one, range(threads), threads)
    return measured(lambda: on_threads(one, range(tiles), threads), tiles * TILE)


def on_threads(work: Callable[[int], object], numbers: range, threads: int) -> None:
    """Call the work for each number on a pool of threads."""
    with one_thread_each(), ThreadPoolExecutor(threads, initializer=on_one_thread) as pool:
        deque(pool.map(work, numbers), maxlen=0)


def writer_alone(n: int) -> float:
    """Users per second of building and writing Parquet tables from finished lists."""
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
    """Measure `recsys score` in a process of its own, and the bare products before and after it."""
    arguments.folder.mkdir(parents=True, exist_ok=True)
    model, store = generate(arguments.folder, arguments.users, arguments.items, arguments.seed)
    out, threads = arguments.folder / "lists", usable_cores()
    flags = ("-n", "100", "--max-memory", arguments.max_memory, "--overwrite", "--no-track")
    products, load = [bare_products(arguments.items, threads).clock], [os.getloadavg()[0]]
    done = json.loads(recsys("--json", "score", model, store, "-o", out, *flags))
    products.append(bare_products(arguments.items, threads).clock)
    load.append(os.getloadavg()[0])
    speed, bare = done["speed"]["users_per_second"], float(np.mean(products))
    memory = done["manifest"]["memory"]
    print(f"{arguments.users:,} users x {arguments.items:,} items, top-100, VAE 600-200, {memory['workers']} threads")
    print(f"recsys score           {speed:8,.0f} users/s   {done['speed']['seconds']:,.0f} s, files written")
    print(f"bare matrix products   {bare:8,.0f} users/s   ({products[0]:,.0f} before, {products[1]:,.0f} after)")
    print(f"share of them          {speed / bare:8.0%}")
    print(f"writer alone           {writer_alone(100):8,.0f} users/s")
    print(
        f"peak memory            {memory['peak_bytes'] / 1e9:8.2f} GB   (expected {memory['expected_bytes'] / 1e9:.2f})"
    )
    print(f"load average           {load[0]:.1f} before, {load[1]:.1f} after, on {threads} cores")


def share(arguments: argparse.Namespace) -> None:
    """Score and write a shard and compute the bare products, alternately."""
    arguments.folder.mkdir(parents=True, exist_ok=True)
    model, store = generate(arguments.folder, arguments.users, arguments.items, arguments.seed)
    saved = load_model(model, "cpu")
    data = UserItemMatrix.from_interactions(read_interactions(store), saved.items)
    targets = make_targets(data, saved)
    plan = ScoringPlan(saved.digest, "", len(targets), n=100, shard_users=len(targets))
    shares = []
    with tempfile.TemporaryDirectory() as folder:
        open_output(Path(folder), plan)
        writer = ShardWriter(Path(folder), plan, saved, ListRules(), usable_cores())
        for _ in range(arguments.rounds):
            bare = bare_products(arguments.items, usable_cores())
            ours = measured(lambda: writer((plan.shards[0], targets)), len(targets))
            shares.append((ours.clock / bare.clock, ours.processor / bare.processor, ours.clock, bare.clock))
    print(f"{arguments.users:,} users x {arguments.items:,} items, top-100, VAE 600-200; load {os.getloadavg()[0]:.1f}")
    names = ("share by the clock", "share by processor time", "ours, users/s", "bare products, users/s")
    for name, values in zip(names, zip(*shares, strict=True), strict=True):
        low, *_, high = sorted(values)
        print(f"  {name:24} {np.median(values):8.2f}   ({low:.2f} to {high:.2f})")


def sides(arguments: argparse.Namespace) -> None:
    """Lists of 100 in memory, every variant in turn; then evaluation compared with training."""
    clock = time.process_time if arguments.processor else time.perf_counter
    unit = "users a second of processor time" if arguments.processor else "users/s"
    for path in arguments.ratings:
        data = UserItemMatrix.from_interactions(read_interactions(path))
        history = data.matrix[: arguments.users]
        users, items = history.shape
        ways = {
            "floor fp32": floor(users, items, torch.float32),
            "floor bf16": floor(users, items, torch.bfloat16),
            "dense, `topk`, fp32": usual_lists(history),
            "implicit ALS 600, `recommend`": implicit_lists(data.matrix, users, 600),
            "recsys fp32": our_lists(history, "fp32"),
            "recsys bf16": our_lists(history, "bf16"),
            "recsys fp32: evaluation": evaluation(path, "fp32"),
            "recsys bf16: evaluation": evaluation(path, "bf16"),
            "recsys fp32: training": training_steps(data.matrix, bf16=False),
            "recsys bf16: training": training_steps(data.matrix, bf16=True),
        }
        if not is_native(torch.device("cpu")):
            ways = {name: way for name, way in ways.items() if "bf16" not in name}
            print(bf16_warning(torch.device("cpu")))
        turns: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(arguments.rounds + 1):  # the first warms up
            for name, way in ways.items():
                done = speed_of(way, clock)
                if turn:
                    turns[name].append(done)
        print(f"\n{path.parent.name}: {users:,} users x {items:,} items, load {os.getloadavg()[0]:.1f}\n")
        print(f"| | {unit} | times its floor | times dense | times implicit |\n| --- |" + " ---: |" * 4)
        for name, speeds in turns.items():
            bare = turns["floor bf16" if "bf16" in name else "floor fp32"]
            others = (bare, turns["dense, `topk`, fp32"], turns["implicit ALS 600, `recommend`"])
            cells = [spread([a / b for a, b in zip(speeds, other, strict=True)]) for other in others]
            print(f"| {name} | {np.median(speeds):,.0f} | {' | '.join(cells if ':' not in name else ['', '', ''])} |")


def spread(values: list[float]) -> str:
    """Median, minimum and maximum."""
    return f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def speed_of(way: Callable[[], int], clock: Callable[[], float]) -> float:
    """Users per second of work that returns the number of its users."""
    started = clock()
    users = way()
    return users / (clock() - started)


def floor(users: int, items: int, kind: torch.dtype) -> Callable[[], int]:
    """The products of as many tiles as the users fill."""
    one, tiles = products(items, kind), -(-users // TILE)

    def work() -> int:
        on_threads(one, range(tiles), usable_cores())
        return tiles * TILE

    return work


def usual_lists(history: csr_matrix) -> Callable[[], int]:
    """As most repositories score: dense rows, one forward pass, seen items set to -inf, topk."""
    network = UsualVAE(history.shape[1]).eval()

    @torch.no_grad()
    def work() -> int:
        for start in range(0, history.shape[0], 500):
            x = torch.from_numpy(history[start : start + 500].toarray())
            hidden = torch.tanh(network.encoder(torch.nn.functional.normalize(x)))
            mean = network.posterior(hidden).chunk(2, dim=1)[0]
            scores = network.decoder(torch.tanh(network.hidden(mean)))
            scores[x > 0] = -torch.inf
            scores.topk(100)
        return history.shape[0]

    return work


def implicit_lists(matrix: csr_matrix, users: int, factors: int) -> Callable[[], int]:
    """Lists of training users by implicit, on all cores."""
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(factors=factors, iterations=1, random_state=0)
        model.fit(matrix, show_progress=False)

    def work() -> int:
        with threadpool_limits(1, "blas"):
            model.recommend(np.arange(users), matrix[:users], N=100)
        return users

    return work


def untrained(items: int) -> NetworkRecommender:
    """A VAE 600-200 over so many items."""
    vae = create_model("vae")
    assert isinstance(vae, NetworkRecommender)
    vae.untrained(items)
    return vae


def our_lists(history: csr_matrix, precision: str) -> Callable[[], int]:
    """Lists as `recsys score` makes them, tile by tile on all cores, without the files."""
    vae, tile = untrained(history.shape[1]), TILE
    if precision == "bf16":
        vae.to_bf16()

    def one(start: int) -> object:
        rows = history[start : start + tile]
        return top_n_of_blocks(vae.score_blocks(rows, width=BLOCK), 100, rows)

    def work() -> int:
        on_threads(one, range(0, history.shape[0], tile), usable_cores())
        return history.shape[0]

    return work


def evaluation(path: Path, precision: str) -> Callable[[], int]:
    """`evaluate` on the users a strong split holds out."""
    split = strong(read_interactions(path))
    vae = untrained(split.train.matrix.shape[1])
    if precision == "bf16":
        vae.to_bf16()

    def work() -> int:
        assert split.test is not None
        return evaluate(vae.score, split.test).n_users

    return work


def training_steps(matrix: csr_matrix, bf16: bool) -> Callable[[], int]:
    """Three steps of 500 users."""
    step = our_step(matrix, 500, torch.device("cpu"), bf16=bf16)

    def work() -> int:
        for _ in range(3):
            step()
        return 3 * 500

    return work


def public(arguments: argparse.Namespace) -> None:
    """Top-100 of all training users: ours with files written, implicit's ALS.recommend in memory."""
    for path in arguments.ratings:
        interactions = read_interactions(path)
        data = UserItemMatrix.from_interactions(interactions)
        users = len(data.users)
        print(f"{path.parent.name}: {users:,} users x {len(data.items):,} items; load {os.getloadavg()[0]:.1f}")
        print(f"  implicit ALS.recommend   {users / implicit_seconds(data):8,.0f} users/s   known users, in memory")
        for name, settings in RANKERS.items():
            if name == "ease" and len(data.items) > 10_000:
                continue
            with tempfile.TemporaryDirectory() as folder:
                model = create_model(name, settings).fit(data.matrix, TrainingContext(device="cpu"))
                known = data.users if model.needs_training_users else None
                save_model(Path(folder) / "model", TrainedModel(model, data.items, data.item_counts, known))
                untracked = TrackingOptions(track=False)
                job = ScoreJob(Path(folder) / "model", (path,), Path(folder) / "lists", n=100, tracking=untracked)
                speed = sorted(run_again(job) for _ in range(3))
                print(f"  recsys score, {name:8}   {speed[1]:8,.0f} users/s   ({speed[0]:,.0f} to {speed[2]:,.0f})")


def run_again(job: ScoreJob) -> float:
    """Users per second of one run, files included."""
    return run(replace(job, overwrite=True)).speed["users_per_second"]


def implicit_seconds(data: UserItemMatrix) -> float:
    """Median of three runs."""
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
    parser.add_argument("what", choices=("generated", "share", "sides", "public"))
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processor", action="store_true", help="sides: measure CPU time, for a busy machine")
    parser.add_argument("--max-memory", default="2GB")
    parser.add_argument("--folder", type=Path, default=Path("scoring"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ratings", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    {"generated": generated, "share": share, "sides": sides, "public": public}[arguments.what](arguments)


if __name__ == "__main__":
    main()
