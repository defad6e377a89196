"""Time and memory of reading: CSV to matrix, and store to matrix, compared with a bare pyarrow read.

    python benchmarks/reading.py                 ML-20M's shape: 20,000,263 rows, about 500 MB; a few minutes
    python benchmarks/reading.py --rows 1000000  smaller

Each reading runs in a process of its own, the kinds alternately, on a file in the page cache. A ratio is of two
consecutive runs; CPU seconds vary less than seconds on a busy machine, and `load` says how busy it was. `private` is
anonymous memory (RssAnon) at the end: unlike memory-mapped pages it cannot be reclaimed when memory is short.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from recsys.data.matrix import UserItemMatrix
from recsys.data.reading import read_interactions
from recsys.data.store import write_store
from recsys.data.synthetic import write_shaped_ratings

KINDS = {"bare": "pyarrow.csv.read_csv", "csv": "CSV to matrix", "store": "store to matrix"}


def measure(kind: str, path: Path) -> dict[str, float]:
    """Seconds, peak memory and private memory (MB) and CPU seconds of one reading in this process."""
    started, worked = time.perf_counter(), time.process_time()
    kept = pyarrow.csv.read_csv(path) if kind == "bare" else UserItemMatrix.from_interactions(read_interactions(path))
    seconds, worked = time.perf_counter() - started, time.process_time() - worked
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak, private = (int(status[name].split()[0]) / 1024 for name in ("VmHWM", "RssAnon"))  # not ru_maxrss: inherited
    del kept
    return {"seconds": seconds, "cpu": worked, "peak": peak, "private": private}


def in_own_process(kind: str, path: Path) -> dict[str, float]:
    """The same, in a new process."""
    command = [sys.executable, __file__, "--measure", kind, "--path", str(path)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def compare(rows: int, users: int, items: int, rounds: int) -> str:
    """The table of all kinds over several rounds."""
    with tempfile.TemporaryDirectory() as folder:
        csv = write_shaped_ratings(Path(folder) / "ratings.csv", users, items, rows)
        store = write_store(read_interactions(csv), Path(folder) / "store")
        size = csv.stat().st_size / 1e6
        loads, runs = [], []
        for _ in range(rounds):
            loads.append(os.getloadavg()[0])
            runs.append({kind: in_own_process(kind, store if kind == "store" else csv) for kind in KINDS})
    lines = [
        f"{rows:,} rows, {users:,} users, {items:,} items, {size:,.0f} MB of CSV",
        f"{rounds} rounds: median (least, most); load {_spread(loads, '{:.1f}')}",
        f"{platform.processor() or platform.machine()}, {_cores()} cores, Python {platform.python_version()}, "
        f"pyarrow {pa.__version__}, numpy {np.__version__}; {date.today()}",
        "",
        "| what | seconds | times bare | CPU seconds | times bare | peak MB | private MB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for kind, name in KINDS.items():
        cells = [name]
        for what in ("seconds", "cpu"):
            cells.append(_spread([run[kind][what] for run in runs]))
            cells.append(_spread([run[kind][what] / run["bare"][what] for run in runs]))
        cells += [f"{statistics.median(run[kind][what] for run in runs):,.0f}" for what in ("peak", "private")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: list[float], form: str = "{:.2f}") -> str:
    return f"{form.format(statistics.median(values))} ({form.format(min(values))}, {form.format(max(values))})"


def _cores() -> int:
    return len(os.sched_getaffinity(0))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000_263)
    parser.add_argument("--users", type=int, default=138_493)
    parser.add_argument("--items", type=int, default=26_744)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", choices=list(KINDS))
    parser.add_argument("--path", type=Path)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(measure(asked.measure, asked.path)))
    else:
        print(compare(asked.rows, asked.users, asked.items, asked.rounds))
