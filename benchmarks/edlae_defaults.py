"""Constants for the defaults of `edlae`: NDCG@100 of validation users (strong) by l2 and dropout, on each data set.

    python benchmarks/edlae_defaults.py --data FOLDER [--sets NAME,NAME]

The last row is the mean share of the best of the row, by which the defaults were chosen.
"""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path

import numpy as np
from als_defaults import METRIC, SETS, data_sets, validation_value

from recsys.splitting.by_user import strong
from recsys.system.hardware import describe_machine

PAIRS = [(l2, dropout) for l2 in (30.0, 100.0, 300.0) for dropout in (0.5, 0.65, 0.8)]
LARGE = ("citeulike-a", "amazon-beauty")  # minutes for each fit: only where they are asked for


def main() -> None:
    """Print a table, a row for each data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with one folder per data set")
    parser.add_argument("--sets", default=",".join(name for name in SETS if name not in LARGE))
    chosen = parser.parse_args()
    machine = describe_machine()
    print(f"{METRIC} on validation users, {date.today()}, {machine['cpu']}, {machine['cores']} cores\n")
    print("| data | users x items | " + " | ".join(f"{l2:g}, {dropout:g}" for l2, dropout in PAIRS) + " |")
    print("| --- | --- |" + " ---: |" * len(PAIRS))
    shares = []
    for name, interactions in data_sets(chosen.data, chosen.sets.split(",")):
        split = strong(interactions, test=False)
        values = [validation_value(split, "edlae", {"l2": l2, "dropout": dropout}) for l2, dropout in PAIRS]
        shares.append(np.array(values) / max(values))
        users, items = split.train.matrix.shape
        print(
            f"| {name} | {users:,} x {items:,} | " + " | ".join(f"{value:.4f}" for value in values) + " |", flush=True
        )
    print("| mean share of the best | | " + " | ".join(f"{share:.1%}" for share in np.mean(shares, axis=0)) + " |")


if __name__ == "__main__":
    main()
