"""Warm start: MovieLens-1M in the order of its sequences, 90 % of everybody's rows, then all of them.

    python benchmarks/warm_start.py [--only vae,recvae,ease,ials,als,sasrec] [--choose]

The data hold the order of each user's rows and no common time, so "the first 90 % of the interactions" are the first
90 % of every user's. A tenth of the users is validation and another tenth test, the same in both trainings, so that
no test user was trained on. Models of the order are validated and tested on the last but one and the last item of
everybody instead, which are not among the first 90 %. Three fits of each model:

earlier  on the first 90 %; cached
full     on all rows from random weights
warm     on all rows from the earlier model

Time is processor time of the fits, validation included. With --choose the schedules of a warm start are compared on
validation, and nothing is tested.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # for table.py

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_matrix, diags
from table import chosen, flag_parser, measured_on

import recsys
from recsys import splitting
from recsys.artifacts import load_model, save_model
from recsys.data.interactions import Interactions
from recsys.data.reading import read_interactions
from recsys.evaluation.averages import Average
from recsys.evaluation.evaluate import Validator, evaluate
from recsys.evaluation.fitting import validation_split
from recsys.evaluation.warm_fit import begin
from recsys.models import Recommender, create_model
from recsys.models.linear.ease import gram_matrix, update_gram
from recsys.models.trained import TrainedModel
from recsys.models.warm_start import Earlier
from recsys.splitting.holdout import Split
from recsys.training.context import TrainingContext

METRIC = "ndcg@100"
EARLIER = 0.9  # share of each user's rows
PATIENCE = 3
DAY = 86_400_000  # the other rows are a day later

# Settings from accuracy/ml1m_strong.toml, which were chosen on validation users; small
# batches and a high learning rate, so that few epochs do.
BRIEF = {"epochs": 40, "batch_size": 64, "learning_rate": 3e-3}
MODELS: dict[str, dict[str, Any]] = {
    "vae": {"hidden": 600, "latent": 200, "gamma": 0.002, "smoothing": 0.1, "average": 0.8, **BRIEF},
    "recvae": {"hidden": 200, "latent": 128, **BRIEF},
    "ials": {"factors": 128, "l2": 0.007, "unobserved": 0.3, "iterations": 8},
    "als": {},
    "ease": {},
    "sasrec": {"epochs": 40, "learning_rate": 3e-3},
}
# Settings of the warm fit where others than the model's own are better on validation (--choose): 64 epochs plan 8.
WARM: dict[str, dict[str, Any]] = {"sasrec": {"epochs": 64}}
RATES = (1.0, 2.0, 3.0)  # factors of the learning rate, compared with --choose


@dataclass(frozen=True)
class Fit:
    """A fitted model with its ids, and the processor seconds and epochs of its fit."""

    trained: TrainedModel

    @property
    def seconds(self) -> float:
        """Processor time, validation included."""
        return float(self.trained.about["seconds"])

    @property
    def epochs(self) -> str:
        """Epochs trained, and which was best on validation."""
        return str(self.trained.about["epochs"])

    def test(self, split: Split) -> Average:
        """NDCG@100 of the test users."""
        return evaluate(self.trained.model.score, split.test, (METRIC,)).averages[METRIC]


def read(folder: Path) -> tuple[Interactions, Interactions]:
    """The rows of the first 90 % of every user, and all rows."""
    rows = pd.read_csv(folder / "ml-1m" / "sequence" / "interactions.csv")
    count = rows.groupby("userId")["position"].transform("size")
    early = rows["position"] < np.floor(EARLIER * count)
    rows["timestamp"] = 1_000_000_000_000 + 1000 * rows["position"] + np.where(early, 0, DAY)
    rows = rows.drop(columns="position")
    return read_interactions(rows[early]), read_interactions(rows)


def divide(row: str, folder: Path) -> tuple[Split, Split, Interactions]:
    """Both divisions, whose users have the same roles, and all rows."""
    before, after = read(folder)
    if unfitted(row).uses_order:
        return splitting.leave_last_out(before), splitting.leave_last_out(after), after
    earlier, later = splitting.strong(before), splitting.strong(after)
    for name in ("validation", "test"):
        one, other = (set(getattr(split, name).users.to_pylist()) for split in (earlier, later))
        assert len(one ^ other) <= 5, f"other {name} users"
        assert not other & set(earlier.train.users.to_list()), "test users in the earlier training"
    return earlier, later, after


def fit(row: str, name: str, split: Split, flags: argparse.Namespace, earlier: Fit | None = None) -> Fit:
    """Fit on the training part, validated after each epoch; or take the fit of that name from the cache."""
    place, train = flags.cache / "warm_start" / f"{row}-{name}", split.train
    if (place / "model.json").is_file():
        return Fit(load_model(place))
    started = time.process_time()
    model = unfitted(row) if earlier is None else Earlier(earlier.trained).create(settings=WARM.get(row))
    start = None if earlier is None else Earlier(earlier.trained).start(model, train)
    seed = 0 if name == "earlier" else 1
    validate = Validator(split.validation, METRIC)
    context = TrainingContext(seed, validate=validate, patience=PATIENCE, start=start, keep_freed_memory=True)
    model.fit(train.matrix, context)
    best = max((epoch.number for epoch in model.epochs if epoch.best), default=0)
    epochs = f"{len(model.epochs)} (best {best})" if model.epochs else ""
    about = {"seconds": time.process_time() - started, "epochs": epochs}
    trained = TrainedModel(model, train.items, train.item_counts, None, about)
    save_model(place, trained)
    return Fit(trained)


def unfitted(row: str) -> Recommender:
    """The model of a row."""
    return create_model(row.partition("-")[0], MODELS[row])


def choose(row: str, flags: argparse.Namespace) -> None:
    """Print the validation value after each epoch of every schedule."""
    before, after, _ = divide(row, flags.data)
    earlier = Earlier(fit(row, "earlier", before, flags).trained)
    validate = Validator(after.validation, METRIC)
    for rate in RATES:
        own = {"learning_rate": rate * earlier.trained.model.config.learning_rate}
        model = earlier.create(settings={**WARM.get(row, {}), **own})
        start = replace(earlier.start(model, after.train), patience=None)
        model.fit(after.train.matrix, TrainingContext(validate=validate, start=start))
        values = " ".join(f"{epoch.value:.4f}" for epoch in model.epochs) or f"{validate(model.score):.4f}"
        print(f"{row}: learning rate x {rate}: {values}", flush=True)


def compare(row: str, flags: argparse.Namespace) -> str:
    """The line of a model."""
    before, after, _ = divide(row, flags.data)
    earlier = fit(row, "earlier", before, flags)
    full, warm = fit(row, "full", after, flags), fit(row, "warm", after, flags, earlier)
    of_full, of_warm = full.test(after), warm.test(after)
    gap = of_warm.difference(of_full)
    cells = [
        f"`{row}`",
        f"{of_full.mean:.4f}",
        f"{of_warm.mean:.4f}",
        f"{of_warm.mean / of_full.mean:.1%}",
        f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]",
        f"{full.seconds:.0f} s",
        f"{warm.seconds:.0f} s",
        f"{warm.seconds / full.seconds:.0%}",
        full.epochs,
        warm.epochs,
    ]
    return f"| {' | '.join(cells)} |"


def exact(flags: argparse.Namespace) -> None:
    """Fit `ease` on all rows, in full and from the Gram matrix of the first 90 %, and compare the weights."""
    before, after = read(flags.data)
    first = recsys.fit(before, "ease", refit=False, context=TrainingContext(keep_gram=True))
    train = validation_split(after, first.model, 0.1, 0).train
    started = [time.process_time()]
    beginning = begin(Earlier(first), first.model, train, after)
    started.append(time.process_time())
    warm = create_model("ease").fit(train.matrix, TrainingContext(start=beginning.start))
    started.append(time.process_time())
    full = create_model("ease").fit(train.matrix)
    started.append(time.process_time())
    gram = gram_matrix(train.matrix, torch.device("cpu"))
    started.append(time.process_time())
    few = diags((np.arange(train.matrix.shape[0]) % 100 > 0).astype(np.float32)) @ train.matrix
    base = gram_matrix(csr_matrix(few), torch.device("cpu"))
    started.append(time.process_time())
    assert torch.equal(update_gram(base, csr_matrix(few), train.matrix), gram)
    started.append(time.process_time())
    update, solve, whole, gram_seconds, _, of_few = np.diff(started)
    print(f"\nease: {beginning.text}")
    print(f"weights equal bit by bit: {torch.equal(warm.weights, full.weights)}")
    print(f"full fit {whole:.1f} s, of which Gram matrix {gram_seconds:.1f} s")
    print(f"warm fit {update + solve:.1f} s, of which finding and adding the new rows {update:.1f} s")
    print(f"adding the rows of one new user in a hundred to the Gram matrix: {of_few:.2f} s")


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
        if row != "ease":
            print(compare(row, flags), flush=True)
    if "ease" in rows:
        exact(flags)


if __name__ == "__main__":
    main()
