"""Warm start: MovieLens-1M in the order of its sequences, 90 % of everybody's rows, then all of them.

    python benchmarks/warm_start.py [--only vae,recvae,ease,ials,als] [--choose]

The data hold the order of each user's rows and no common time, so "the first 90 % of the interactions" are the first
90 % of every user's. A tenth of the users is validation and another tenth test, the same in both trainings, so that
nobody who is tested was trained on. Three fits of each model:

earlier  on the first 90 %; cached
full     on all rows from random weights, with a patience of 10
warm     on all rows from the earlier model

Time is processor time of the fits, validation included. With --choose the schedules of a warm start are compared on
validation, and nothing is tested.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # for table.py

import numpy as np
import pandas as pd
from table import chosen, flag_parser, kept, measured_on

from recsys import splitting
from recsys.data.interactions import Interactions
from recsys.data.reading import read_interactions
from recsys.evaluation.averages import Average
from recsys.evaluation.evaluate import Validator, evaluate
from recsys.models import Recommender, create_model
from recsys.models.trained import TrainedModel
from recsys.models.warm_start import Earlier
from recsys.splitting.holdout import Split
from recsys.training.context import TrainingContext, WarmStart

METRIC = "ndcg@100"
EARLIER = 0.9  # share of each user's rows
DAY = 86_400_000  # the other rows are a day later

# Settings from accuracy/ml1m_strong.toml, which were chosen on validation users.
MODELS: dict[str, dict[str, Any]] = {
    "vae": {"latent": 200, "gamma": 0.002, "anneal": 0, "smoothing": 0.1, "average": 0.8, "learning_rate": 2e-3},
    "vae-annealed": {"beta": 0.2, "anneal": 0.5},
    "recvae": {},
    "ials": {"factors": 128, "l2": 0.007, "unobserved": 0.3, "iterations": 8},
    "als": {},
}
# learning rate, share of the planned epochs: compared with --choose
SCHEDULES = ((1.0, 0.25), (0.5, 0.25), (0.25, 0.25))


@dataclass(frozen=True)
class Fit:
    """A fitted model, its processor seconds, and the NDCG@100 of test users."""

    model: Recommender
    seconds: float
    average: Average

    @property
    def epochs(self) -> str:
        """Epochs trained, and which was best on validation."""
        best = max((epoch.number for epoch in self.model.epochs if epoch.best), default=0)
        return f"{len(self.model.epochs)} (best {best})" if self.model.epochs else ""


def read(folder: Path) -> tuple[Interactions, Interactions]:
    """The rows of the first 90 % of every user, and all rows."""
    rows = pd.read_csv(folder / "ml-1m" / "sequence" / "interactions.csv")
    count = rows.groupby("userId")["position"].transform("size")
    early = rows["position"] < np.floor(EARLIER * count)
    rows["timestamp"] = 1_000_000_000_000 + 1000 * rows["position"] + np.where(early, 0, DAY)
    rows = rows.drop(columns="position")
    return read_interactions(rows[early]), read_interactions(rows)


def divide(folder: Path) -> tuple[Split, Split, Interactions]:
    """Both divisions, whose users have the same roles, and all rows."""
    before, after = read(folder)
    earlier, later = splitting.strong(before), splitting.strong(after)
    for name in ("validation", "test"):
        one, other = (set(getattr(split, name).users.to_pylist()) for split in (earlier, later))
        assert len(one ^ other) <= 5, f"other {name} users"
        assert not other & set(earlier.train.users.to_list()), "test users in the earlier training"
    return earlier, later, after


def fit(model: Recommender, split: Split, context: TrainingContext) -> Fit:
    """Fit on the training part, validated after each epoch, and test."""
    context = replace(context, validate=Validator(split.validation, METRIC), keep_freed_memory=True)
    started = time.process_time()
    model.fit(split.train.matrix, context)
    seconds = time.process_time() - started
    return Fit(model, seconds, evaluate(model.score, split.test, (METRIC,)).averages[METRIC])


def earlier_model(row: str, split: Split, flags: argparse.Namespace) -> TrainedModel:
    """The model of the first 90 %, from the cache or fitted now."""
    context = TrainingContext(validate=Validator(split.validation, METRIC), keep_freed_memory=True)
    train = split.train
    model = kept(flags.cache / "warm_start" / row, unfitted(row), train, context).model
    return TrainedModel(model, train.items, train.item_counts)


def unfitted(row: str) -> Recommender:
    """The model of a row."""
    return create_model(row.partition("-")[0], MODELS[row])


def choose(row: str, flags: argparse.Namespace) -> None:
    """Print the validation value after each epoch of every schedule."""
    before, after, _ = divide(flags.data)
    earlier = Earlier(earlier_model(row, before, flags))
    validate = Validator(after.validation, METRIC)
    for rate, share in SCHEDULES:
        start = earlier.start(unfitted(row), after.train)
        start = WarmStart(start.state, share, rate, patience=100)
        model = unfitted(row).fit(after.train.matrix, TrainingContext(validate=validate, start=start))
        values = " ".join(f"{epoch.value:.4f}" for epoch in model.epochs) or f"{validate(model.score):.4f}"
        print(f"{row}: learning rate x {rate}, {share:.0%} of the epochs: {values}", flush=True)


def compare(row: str, flags: argparse.Namespace) -> str:
    """The line of a model."""
    before, after, _ = divide(flags.data)
    earlier = Earlier(earlier_model(row, before, flags))
    full = fit(unfitted(row), after, TrainingContext(seed=1))
    started = time.process_time()
    start = earlier.start(unfitted(row), after.train)
    mapping = time.process_time() - started
    warm = fit(unfitted(row), after, TrainingContext(seed=1, start=start))
    return line(row, full, replace(warm, seconds=warm.seconds + mapping))


def line(row: str, full: Fit, warm: Fit) -> str:
    """A row of the table."""
    gap = warm.average.difference(full.average)
    cells = [
        f"`{row}`",
        f"{full.average.mean:.4f}",
        f"{warm.average.mean:.4f}",
        f"{warm.average.mean / full.average.mean:.1%}",
        f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]",
        f"{full.seconds:.0f} s",
        f"{warm.seconds:.0f} s",
        f"{warm.seconds / full.seconds:.0%}",
        full.epochs,
        warm.epochs,
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Choose schedules on validation, or print the table."""
    parser = flag_parser(__doc__, Path(__file__).parent / "accuracy")
    flags = parser.parse_args()
    rows = chosen(MODELS, flags.only)
    if flags.choose:
        for row in rows:
            choose(row, flags)
        return
    print(measured_on() + "\n")
    print("| model | full | warm | share | difference | full, time | warm, time | share | epochs | epochs, warm |")
    print("| --- |" + " ---: |" * 9)
    for row in rows:
        print(compare(row, flags), flush=True)


if __name__ == "__main__":
    main()
