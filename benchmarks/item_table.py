"""Item features at scale: seconds and memory of reading a table of items, and of making features of it.

    python benchmarks/item_table.py [--items 1000000]

The table has a column of each kind: one category of 1,000, up to four of 10,000, a price, a date, and a text of 12
words out of 50,000. It is written to a temporary folder as CSV and as Parquet; each is read in a process of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from recsys.data.item_features.encoder import FeatureEncoder
from recsys.data.item_features.reading import read_item_table
from recsys.system.hardware import describe_machine
from recsys.system.memory import now_and_peak


def make_table(items: int) -> pd.DataFrame:
    """Return a generated table of items; rare categories and words are rarer, as in real ones."""
    rng = np.random.default_rng(0)

    def drawn(names: int, size: tuple[int, ...]) -> np.ndarray:
        return (names * rng.random(size) ** 3).astype(np.int64)

    tags, words = drawn(10_000, (items, 4)), drawn(50_000, (items, 12))
    counts = rng.integers(1, 5, items)
    return pd.DataFrame(
        {
            "item_id": np.arange(items),
            "brand": [f"brand {code}" for code in drawn(1000, (items,))],
            "tags": ["|".join(f"tag {code}" for code in row[:n]) for row, n in zip(tags, counts, strict=True)],
            "price": np.round(np.exp(rng.normal(3, 1, items)), 2),
            "since": np.datetime64("2026-01-01") - rng.integers(0, 3650, items).astype("timedelta64[D]"),
            "text": [" ".join(f"word{code}" for code in row) for row in words],
        }
    )


def measure(file: Path) -> None:
    """Print a row: seconds of reading and of making features, their number, the most memory of this process."""
    before = (now_and_peak() or (0, 0))[0]
    started = time.perf_counter()
    table = read_item_table(file)
    read = time.perf_counter() - started
    encoder = FeatureEncoder.fit(table)
    fitted = time.perf_counter() - started - read
    matrix = encoder.transform(table)
    seconds = time.perf_counter() - started - read - fitted
    peak = (now_and_peak() or (0, 0))[1] - before
    size = (matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes) / 1e9
    kinds = ", ".join(f"{name}: {column.kind}" for name, column in table.columns.items())
    times = f"{read:.0f} | {fitted:.0f} | {seconds:.0f}"
    print(f"| {file.suffix} | {times} | {matrix.shape[1]:,} | {size:.1f} | {peak / 1e9:.1f} |", flush=True)
    print(f"{kinds}; {table.ledger.line()}", file=sys.stderr)


def main() -> None:
    """Write the table and measure each form of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--measure", type=Path, help="read this file, and no other (for the processes of this script)")
    chosen = parser.parse_args()
    if chosen.measure is not None:
        measure(chosen.measure)
        return
    machine = describe_machine()
    print(f"{date.today()}, {machine['cpu']}, {machine['cores']} cores; {chosen.items:,} items\n")
    print("| file | read, s | find features, s | make them, s | features | matrix, GB | peak, GB |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        table = make_table(chosen.items)
        table.to_csv(Path(folder) / "items.csv", index=False)
        table.to_parquet(Path(folder) / "items.parquet", index=False)
        del table
        for name in ("items.csv", "items.parquet"):
            subprocess.run([sys.executable, __file__, "--measure", str(Path(folder) / name)], check=True)


if __name__ == "__main__":
    main()
