"""EASE and EDLAE over users x users and over items x items: seconds of the fit and of scoring, and the same lists?

    python benchmarks/dual_form.py --data FOLDER [--sets ml-latest-small,lastfm-hetrec2011]

Every interaction trains; lists of 100 of all users. Data sets that do not exist are left out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from als_defaults import data_sets

from recsys.data.matrix import UserItemMatrix
from recsys.inference.topn import recommend
from recsys.models import create_model
from recsys.models.linear import dual
from recsys.system.hardware import describe_machine
from recsys.training.context import TrainingContext


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return what the work returns, and its seconds."""
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def measure(name: str, matrix: Any, over_users: bool) -> tuple[Any, float, float]:
    """Fit and score in one of the forms: the items of all lists, seconds of the fit, users per second."""
    kept, dual._FEW_ITEMS = dual._FEW_ITEMS, 0 if over_users else matrix.shape[1]
    try:
        model, fit = timed(lambda: create_model(name).fit(matrix, TrainingContext(device="cpu")))
    finally:
        dual._FEW_ITEMS = kept
    parts, scoring = timed(lambda: [part.positions for part in recommend(model.score, matrix, 100)])
    return np.vstack(parts), fit, matrix.shape[0] / scoring


def main() -> None:
    """Print a row for each data set and model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with one folder per data set")
    parser.add_argument("--sets", default="ml-latest-small,lastfm-hetrec2011")
    chosen = parser.parse_args()
    machine = describe_machine()
    print(f"{date.today()}, {machine['cpu']}, {machine['cores']} cores\n")
    columns = (
        "data",
        "users x items",
        "model",
        "fit, users",
        "fit, items",
        "users/s, users",
        "users/s, items",
        "equal",
    )
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for name, interactions in data_sets(chosen.data, chosen.sets.split(",")):
        matrix = UserItemMatrix.from_interactions(interactions).matrix
        if not matrix.shape[0] < matrix.shape[1]:
            continue
        for model in ("ease", "edlae"):
            ours, theirs = measure(model, matrix, True), measure(model, matrix, False)
            cells = (
                name,
                f"{matrix.shape[0]:,} x {matrix.shape[1]:,}",
                model,
                f"{ours[1]:.2f} s",
                f"{theirs[1]:.2f} s",
                f"{ours[2]:,.0f}",
                f"{theirs[2]:,.0f}",
                f"{(ours[0] == theirs[0]).mean():.3%}",
            )
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
