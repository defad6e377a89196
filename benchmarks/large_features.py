"""Item features of a large catalog on a small machine: fit, score, new items, and the peak memory.

    python benchmarks/large_features.py      1,000,000 items with 10,000 features, at most 16 GB

Interactions and features are generated, and have nothing to do with each other: an item has 10 features, drawn with a
popularity tail, and half of the items have no interaction. Each model runs in a process of its own, which is stopped
where it holds more than --limit.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time

import numpy as np
from large import report, watch  # sets the environment, before torch is imported
from scipy.sparse import csr_matrix

from recsys.inference.topn import recommend
from recsys.models import create_model
from recsys.system.hardware import describe_machine
from recsys.training.context import TrainingContext

MODELS = {
    "content-knn": {"neighbors": None},
    "content-map": {"member": "als", "als.factors": 64, "als.iterations": 5},
}


def generated(users: int, items: int, features: int, per_user: int) -> tuple[csr_matrix, csr_matrix]:
    """Interactions, (users, items), and features, (items, features)."""
    generator = np.random.default_rng(0)
    tags = np.minimum((features * generator.random((items, 10)) ** 3).astype(np.int32), features - 1)
    cells = np.ones(tags.size, dtype=np.float32), (np.repeat(np.arange(items), 10), tags.ravel())
    table = csr_matrix(cells, shape=(items, features))
    table.data[:] = 1
    taste = generator.integers(0, items // 2, (users, 5))
    near = taste[np.arange(users)[:, None], generator.integers(0, 5, (users, per_user))]
    taken = (near + generator.integers(-50, 51, near.shape)) % (items // 2)
    rows = np.repeat(np.arange(users), per_user)
    matrix = csr_matrix((np.ones(rows.size, np.float32), (rows, taken.ravel())), shape=(users, items))
    matrix.data[:] = 1
    return matrix, table


def run(name: str, flags: argparse.Namespace) -> None:
    """Measure one model."""
    threading.Thread(target=watch, args=(flags.limit * 1e9,), daemon=True).start()
    matrix, table = generated(flags.users, flags.items, flags.features, flags.per_user)
    report(f"`{name}`: data", 0, f"{matrix.nnz:,} interactions")
    started = time.perf_counter()
    model = create_model(name, MODELS[name]).fit(matrix, TrainingContext(device="cpu", item_features=table))
    report(f"`{name}`: fit", time.perf_counter() - started, "")
    started = time.perf_counter()
    some = matrix[: flags.listed]
    new = sum(int((lists.positions >= flags.items // 2).sum()) for lists in recommend(model.score, some, 100))
    seconds = time.perf_counter() - started
    report(f"`{name}`: lists of 100", seconds, f"{flags.listed / seconds:.0f} users/s, {new:,} new items")
    started = time.perf_counter()
    grown = model.with_new_items(table[:10_000])
    report(f"`{name}`: 10,000 new items", time.perf_counter() - started, f"{grown.n_items:,} items")


def main() -> None:
    """Run each model in its own process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=10_000)
    parser.add_argument("--per-user", type=int, default=25)
    parser.add_argument("--listed", type=int, default=2_000)
    parser.add_argument("--limit", type=float, default=16, help="gigabytes")
    parser.add_argument("--model", choices=list(MODELS))
    flags = parser.parse_args()
    if flags.model:
        run(flags.model, flags)
        return
    machine = describe_machine()
    print(f"{machine['cores']} cores of {machine['cpu']}, {time.strftime('%Y-%m-%d')}\n")
    print("| step | seconds | GB | peak GB | |\n| --- | ---: | ---: | ---: | --- |", flush=True)
    for name in MODELS:
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--model", name], check=True)


if __name__ == "__main__":
    main()
