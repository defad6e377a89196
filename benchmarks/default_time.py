"""Estimated and measured time of the model that is trained if none is named, and its validation value.

Each data set is read, and fitted as by `recsys train` without -m: the choice, its estimate, seconds by the clock and of
the processor, divided by the cores (the time on an idle machine if all work ran in parallel), and NDCG@100 on
validation users, beside its members alone. Data sets that do not exist are left out. `few` is generated in the shape of
a set of which it is known that it took twelve minutes: 5,551 users with 10 items each, of 11,949.

    python benchmarks/default_time.py --data FOLDER [--sets NAME,NAME] [--time-budget 10m]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from als_defaults import SETS, data_sets

from recsys.data.interactions import Interactions
from recsys.data.reading import read_interactions
from recsys.evaluation.evaluate import Validator
from recsys.models import create_model
from recsys.models.blend import Blend
from recsys.models.cost import Size
from recsys.models.default import choose_model
from recsys.splitting.by_user import strong
from recsys.splitting.holdout import Split
from recsys.system.hardware import describe_machine, usable_cores
from recsys.system.text import seconds_of
from recsys.training.context import TrainingContext

METRIC = "ndcg@100"


def few(users: int = 5_551, items: int = 11_949, history: int = 10) -> Interactions:
    """Generated interactions: users of one of 50 tastes, each with popular and rare items."""
    rng = np.random.default_rng(0)
    taste, order = rng.integers(0, 50, users), np.stack([rng.permutation(items) for _ in range(50)])
    place = (items * rng.random((users, 4 * history)) ** 3).astype(np.int64)
    drawn = order[taste[:, None], place]
    user = np.repeat(np.arange(users), drawn.shape[1])
    table = pd.DataFrame({"user_id": user, "item_id": drawn.ravel()}).drop_duplicates()
    return read_interactions(table.groupby("user_id").head(history))


def context_of(split: Split) -> TrainingContext:
    """The context of a fit as by `recsys train`, on the CPU."""
    assert split.validation is not None
    validate = Validator(split.validation, METRIC)
    return TrainingContext(device="cpu", precision="auto", validate=validate, keep_freed_memory=True)


def all_sets(folder: Path | None, names: list[str]) -> Iterator[tuple[str, Interactions]]:
    """Yield what is asked for and exists."""
    if "few" in names:
        yield "few", few()
    for name, interactions in data_sets(folder, [name for name in names if name in SETS]):
        if name in names:
            yield name, interactions


def main() -> None:
    """Print a row for each data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with one folder per data set")
    parser.add_argument("--sets", default=f"sample,few,{','.join(SETS)}")
    parser.add_argument("--time-budget", default="10m")
    chosen = parser.parse_args()
    machine = describe_machine()
    print(f"{date.today()}, {machine['cpu']}, {machine['cores']} cores, load {os.getloadavg()[0]:.1f}\n")
    columns = (
        "data",
        "users x items x rows",
        "choice",
        "estimate",
        "clock",
        "processor / cores",
        METRIC,
        "members alone",
    )
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}", flush=True)
    for name, interactions in all_sets(chosen.data, chosen.sets.split(",")):
        size = Size.of(interactions.user, interactions.item)
        choice = choose_model(size, True, torch.device("cpu"), budget=seconds_of(chosen.time_budget))
        split = strong(interactions, test=False)
        context = context_of(split)
        validate = context.validate
        assert validate is not None
        clock, spent = time.perf_counter(), time.process_time()
        model = create_model(choice.model, choice.settings).fit(split.train.matrix, context)
        clock, spent = time.perf_counter() - clock, time.process_time() - spent
        members = model.members if isinstance(model, Blend) else []
        cells = (
            name,
            f"{size.users:,} x {size.items:,} x {size.interactions:,}",
            choice.settings.get("members", choice.model),
            "" if choice.seconds is None else f"{choice.seconds:.1f} s",
            f"{clock:.1f} s",
            f"{spent / usable_cores():.1f} s",
            f"{validate(model.score):.4f}",
            ", ".join(f"{member.name} {validate(member.score):.4f}" for member in members),
        )
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
