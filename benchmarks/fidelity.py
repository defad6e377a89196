"""Are explanations true? POS, NEG, insertion and deletion curves of each model's own, beside simple rivals.

    python benchmarks/fidelity.py [--data FOLDER] [--users 50] [--only ml-1m] [--models edlae,als,vae,recvae]

Ratings of 4 and 5; models are fitted on 80 % of the users (the training part of the protocol strong), with the settings
below, whose epochs were chosen by validation or cut for time. The first recommendation of users drawn from all is
explained, and their histories are taken apart in ten steps (recsys/explain/fidelity.py). Rivals: leaving items out
where that is not the model's own way, cosine, popularity, random order.

Then the processor time of explanations: of one item, of each item of a list of ten, and what reasons add to lists.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from table import DATA, kept, measured_on

from recsys.artifacts import load_model
from recsys.batch.shards import one_thread_each
from recsys.data.interactions import Interactions
from recsys.data.reading import ReadingOptions, read_interactions
from recsys.evaluation.averages import Average
from recsys.explain.explainers import Explainer, by_contributions, by_leave_one_out, rivals
from recsys.explain.fidelity import CURVES, Fidelity, choose_users, join_users, measure_fidelity
from recsys.explain.reasons import reasons_of_lists
from recsys.inference.topn import top_n
from recsys.models import Recommender, create_model
from recsys.models.trained import TrainedModel
from recsys.splitting.by_user import strong
from recsys.training.context import TrainingContext

Settings = Mapping[str, Mapping[str, Any]]

# Of benchmarks/accuracy/ml1m_strong.toml; recvae with 20 of its 50 epochs, to save time.
ML1M: Settings = {
    "edlae": {"l2": 300, "dropout": 0.6, "user_power": 0.7, "diagonal": 0.3, "damping": 0.15},
    "als": {},
    "vae": {
        "hidden": 600,
        "gamma": 0.002,
        "anneal": 0,
        "smoothing": 0.1,
        "average": 0.8,
        "learning_rate": 2e-3,
        "epochs": 40,
    },
    "recvae": {"epochs": 20},
}
# Defaults; of `vae` the epochs that were best on the validation users, of `recvae` few, to save time.
INSTRUMENTS: Settings = {"edlae": {}, "als": {}, "vae": {"epochs": 23}, "recvae": {"epochs": 8}}
SETS = {
    "ml-1m": ("MovieLens-1M", "ml-1m/ratings.csv", ML1M, 200),
    "amazon-musical-instruments": (
        "Amazon Musical Instruments",
        "amazon-musical-instruments/ratings.csv",
        INSTRUMENTS,
        2000,
    ),
}
OWN = "contributions"
TIMED = 100  # users whose lists are timed


def main() -> None:
    """Fit or load, measure, print."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--data", type=Path, default=DATA)
    flags.add_argument("--cache", type=Path, default=Path(__file__).parent / "accuracy" / "cache" / "fidelity")
    flags.add_argument("--users", type=int, help="of each set, instead of 200 and all")
    flags.add_argument("--only", default=",".join(SETS))
    flags.add_argument("--models", default="edlae,als,vae,recvae")
    asked = flags.parse_args()
    torch.set_num_threads(1)
    print(f"{measured_on()}; one thread\n")
    for name in asked.only.split(","):
        title, file, settings, users = SETS[name]
        interactions = read_interactions(asked.data / file, ReadingOptions(min_rating=4))
        for model in asked.models.split(","):
            saved = fitted(asked.cache / name / model, interactions, model, settings[model])
            with one_thread_each():
                print("\n".join(report(title, saved, interactions, asked.users or users)), flush=True)


def fitted(folder: Path, interactions: Interactions, name: str, settings: Mapping[str, Any]) -> TrainedModel:
    """The model with the ids of its items, from the cache or fitted now."""
    kept(folder, create_model(name, settings), strong(interactions).train, TrainingContext(seed=0))
    return load_model(folder / "model")


def report(title: str, saved: TrainedModel, interactions: Interactions, count: int) -> Iterator[str]:
    """Lines on one model: curves, differences of POS, times."""
    model, data = saved.model, saved.to_matrix(interactions)
    rows = choose_users(data.matrix, count)
    explainers = {OWN: by_contributions(model), **further(model), **rivals(data.matrix)}
    seen = None if data.seen is None else data.seen[rows]
    found = join_users(measure_fidelity(model, data.matrix[rows], explainers, seen))
    lengths = np.diff(data.matrix[rows].indptr)
    yield (
        f"\n## `{model.name}` on {title} ({model.explained_by})\n\n{len(rows)} users, histories of "
        f"{lengths.mean():.0f} items in the mean, {data.matrix.shape[1]:,} items\n"
    )
    gaps = " | ".join(f"own minus its, {curve}" for curve in CURVES)
    yield f"| explainer | {' | '.join(CURVES)} | ms | {gaps} |\n| --- |{' ---: |' * (2 * len(CURVES) + 1)}"
    yield from (line(name, one, found[OWN]) for name, one in found.items())
    yield "\n" + times(model, data.matrix[rows[:TIMED]])


def line(name: str, one: Fidelity, own: Fidelity) -> str:
    """A row of the table; differences are paired over users, with their 95 % intervals."""
    means = {curve: Average.of(one.means(curve)) for curve in CURVES}
    differences = [""] * len(CURVES)
    if name != OWN:
        gaps = [Average.of(own.means(curve)).difference(mean) for curve, mean in means.items()]
        differences = [f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]" for gap in gaps]
    cells = [f"{mean.mean:.4f}" for mean in means.values()] + [f"{1000 * one.seconds:.2f}"]
    return f"| {' | '.join([name, *cells, *differences])} |"


def times(model: Recommender, histories: csr_matrix) -> str:
    """Milliseconds of an explanation, and what reasons add to lists of ten."""
    started = time.process_time()
    positions, _ = top_n(model.score(histories), 10, histories)
    lists = time.process_time() - started
    started = time.process_time()
    for row in range(histories.shape[0]):
        model.contributions(histories[row], positions[row, :1])
    one = time.process_time() - started
    started = time.process_time()
    reasons_of_lists(model, histories, positions, 3)
    ten = time.process_time() - started
    users = histories.shape[0]
    return (
        f"One item: {1000 * one / users:.2f} ms. Of a list of ten: {100 * ten / users:.2f} ms an item. Lists of ten "
        f"take {1000 * lists / users:.2f} ms a user, their reasons {1000 * ten / users:.2f} ms more."
    )


def further(model: Recommender) -> dict[str, Explainer]:
    """Leaving items out, where the model's own way is another and not exact."""
    return {} if model.explained_by in ("exact", "leave-one-out") else {"leave-one-out": by_leave_one_out(model)}


if __name__ == "__main__":
    main()
