"""New items by their features: how much of what users took among items without any interaction is found.

    python benchmarks/cold_items.py [citeulike,ml-1m,beauty] [--data ../shared/data] [--only content-knn,...]

MovieLens-1M (ratings of 4 and 5) and Amazon Beauty: a random fifth of the items is cold in the test, and half as many
in validation (protocol cold-items). CiteULike: the items of DropoutNet's test, and a fifth of the others in validation.
Features are all columns of the file. Settings are chosen by recall@100 among cold items in validation; then each model
is fitted on all rows of both parts, and tested once. `warm` ranks the items that were trained on alone.

`aligned` is a closed form of a publication, for comparison; it is not in the package: columns that predict, from what
users took, what their cosines with the new item predict (after MARec, 2024).
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_matrix
from table import measured_on
from torch import Tensor

from recsys.data.interactions import Interactions
from recsys.data.item_features.features import read_item_features, with_features
from recsys.data.reading import ReadingOptions, read_interactions
from recsys.evaluation.averages import Average
from recsys.evaluation.evaluate import evaluate
from recsys.models import create_model
from recsys.splitting import cold_items
from recsys.splitting._building import TEST, TRAIN, VALIDATION, split_rows
from recsys.splitting.by_row import train_on_validation
from recsys.splitting.holdout import Split
from recsys.training.context import TrainingContext

CHOSEN_BY = "cold_recall@100"
METRICS = (CHOSEN_BY, "cold_ndcg@100", "warm_ndcg@100", "ndcg@100")
Settings = Mapping[str, Any]
Score = Callable[..., Tensor]


def map_of(member: str, *ridges: float, **settings: Any) -> list[Settings]:
    """Settings of a content map over a member."""
    more = {f"{member}.{name}": value for name, value in settings.items()}
    return [{"model": "content-map", "member": member, "l2": ridge, **more} for ridge in ridges]


def linear(**grid: tuple[Any, ...]) -> list[Settings]:
    """All settings of a grid."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


RIDGES = 0.3, 1.0, 3.0, 10.0
ROWS: dict[str, list[Settings]] = {
    "edlae": [{}],
    "content-knn": [*linear(neighbors=(20, 50, 100, 300)), {"neighbors": None}],
    "ease with features": linear(model=("ease",), feature_weight=(30.0,), feature_l2=RIDGES),
    "edlae with features": linear(model=("edlae",), feature_weight=(30.0,), feature_l2=RIDGES, l2=(300.0, 500.0)),
    "content-dae": linear(feature_l2=(0.01, 0.03)),
    "aligned": linear(neighbors=(50, 100, 300), l2=(10.0, 100.0)),
    "map of vae": map_of("vae", *RIDGES, epochs=40),
    "map of ials": map_of("ials", *RIDGES, factors=64),
    "map of als": map_of("als", *RIDGES, factors=64),
    "map of svd": map_of("svd", *RIDGES, factors=64, item_power=0.8),
}


@dataclass(frozen=True)
class Found:
    """A row: its values of every user, its settings, and its value in validation."""

    averages: Mapping[str, Average]
    settings: Settings
    validation: float
    seconds: float


def read(name: str, data: Path) -> Split:
    """The split of a data set, with features."""
    if name == "citeulike":
        folder = data / "citeulike-a-cold"
        parts = [pd.read_csv(folder / f"{part}.csv").assign(part=part) for part in ("train", "test")]
        rows = pd.concat(parts, ignore_index=True)
        return of_citeulike(rows, described(read_interactions(rows[["user", "item"]]), folder / "item_tags.csv"))
    if name == "ml-1m":
        interactions = read_interactions(data / "ml-1m" / "ratings.csv", ReadingOptions(min_rating=4))
        return cold_items(described(interactions, data / "ml-1m" / "item_features.csv"))
    interactions = read_interactions(data / "amazon-beauty" / "sequences.csv")
    return cold_items(described(interactions, data / "amazon-beauty" / "attributes.csv"))


def described(interactions: Interactions, features: Path) -> Interactions:
    """The same with features of its items."""
    return with_features(interactions, read_item_features(features))


def of_citeulike(rows: pd.DataFrame, interactions: Interactions) -> Split:
    """Cold in the test are the items of the test file, in validation a fifth of the others."""
    items = interactions.items.positions([str(item) for item in rows.loc[rows["part"] == "test", "item"].unique()])
    part_of = np.full(len(interactions.items), TRAIN)
    part_of[items] = TEST
    others = np.flatnonzero(part_of == TRAIN)
    part_of[np.random.default_rng(0).choice(others, len(others) // 5, replace=False)] = VALIDATION
    return split_rows("cold-items", interactions, part_of[interactions.item], item_part=part_of)


def fit(row: str, settings: Settings, split: Split) -> Score:
    """The scores of a model fitted on the training part."""
    given, matrix, features = dict(settings), split.train.matrix, split.train.features
    assert features is not None
    if row == "aligned":
        weights = aligned(csr_matrix(matrix), features, **given)
        return lambda history, users=None: torch.as_tensor(history @ weights)
    model = create_model(given.pop("model", row), given)
    return model.fit(matrix, TrainingContext(item_features=features, keep_freed_memory=True)).score


def aligned(matrix: csr_matrix, features: csr_matrix, neighbors: int, l2: float) -> Any:
    """Columns (X'X + l2 I)^-1 X'X S, where S are the cosines of items with their neighbors."""
    model = create_model("content-knn", {"neighbors": neighbors})
    similarity = model.fit(matrix, TrainingContext(item_features=features)).item_weights()
    gram = torch.as_tensor((matrix.T @ matrix).toarray(), dtype=torch.float32)
    targets = torch.as_tensor((matrix.T @ (matrix @ similarity)).toarray(), dtype=torch.float32)
    gram.diagonal().add_(l2)
    return torch.cholesky_solve(targets, torch.linalg.cholesky(gram)).numpy()


def make(row: str, choices: list[Settings], split: Split) -> Found:
    """Choose settings in validation, fit on both parts, and test."""
    assert split.validation is not None and split.test is not None
    started, best, chosen = time.perf_counter(), -1.0, choices[0]
    for settings in choices if len(choices) > 1 else ():
        value = evaluate(fit(row, settings, split), split.validation, (CHOSEN_BY,)).means()[CHOSEN_BY]
        if value > best:
            best, chosen = value, settings
    whole = train_on_validation(split)
    assert whole.test is not None
    metrics = METRICS if row != "edlae" else METRICS[2:]  # it knows nothing of cold items
    found = evaluate(fit(row, chosen, whole), whole.test, available(metrics, whole)).averages
    return Found(found, chosen, best, time.perf_counter() - started)


def available(metrics: tuple[str, ...], split: Split) -> tuple[str, ...]:
    """Metrics that can be had: on CiteULike no interaction with a warm item is held out."""
    assert split.test is not None
    held = split.test.held_out.indices
    has_warm = np.isin(held, np.flatnonzero(split.test.scopes["warm"])).any()
    return metrics if has_warm else tuple(name for name in metrics if name.startswith("cold"))


def times(one: Average, other: Average) -> str:
    """How many times as high a mean is, with a 95 % interval over users (bootstrap)."""
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, len(one.totals), len(one.totals)) for _ in range(1000)]
    ratios = [one.totals[rows].sum() / other.totals[rows].sum() for rows in drawn]
    low, high = np.quantile(ratios, (0.025, 0.975))
    return f"{one.mean / other.mean:.2f} [{low:.2f}, {high:.2f}]"


def line(row: str, found: Found, rows: Mapping[str, Found]) -> str:
    """A line of the table."""
    cells = [f"`{row}`"]
    cells += [f"{found.averages[metric].mean:.4f}" if metric in found.averages else "" for metric in METRICS]
    base = rows.get("content-knn")
    is_compared = base is not None and row != "content-knn" and CHOSEN_BY in found.averages
    cells.append(times(found.averages[CHOSEN_BY], base.averages[CHOSEN_BY]) if is_compared and base else "")
    cells.append(
        ", ".join(f"{name.split('.')[-1]} {value}" for name, value in found.settings.items() if name != "model")
    )
    return f"| {' | '.join([*cells, f'{found.seconds:.0f} s'])} |"


def main() -> None:
    """Make the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="?", default="citeulike,ml-1m,beauty")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--only", default="", help="rows, separated by commas; all if not given")
    asked = parser.parse_args()
    print(measured_on())
    for name in asked.sets.split(","):
        split = read(name, asked.data)
        print(f"\n## {name}\n\n{ {fact: count for fact, count in split.facts.items() if count} }\n")
        print(f"| model | {' | '.join(METRICS)} | times content-knn | chosen | time |")
        print(f"| --- |{' ---: |' * 5} --- | ---: |")
        rows: dict[str, Found] = {}
        warm = available(METRICS, split) == METRICS
        for row in asked.only.split(",") if asked.only else ROWS:
            if row == "edlae" and not warm:
                continue  # it knows nothing of cold items
            rows[row] = make(row, ROWS[row], split)
            print(line(row, rows[row], rows), flush=True)


if __name__ == "__main__":
    main()
