"""Embeddings and nearest neighbors: how good they are, how fast an index finds them, what int8 costs.

    python benchmarks/neighbors.py films          neighbors of five films, and the measure of neighbors, on MovieLens-1M
    python benchmarks/neighbors.py compression    bytes a user and NDCG kept with int8, on MovieLens-1M
    python benchmarks/neighbors.py index          the approximate index on a million generated vectors

MovieLens-1M: ratings of 4 and 5, protocol strong (a tenth of the users is validation, another tenth test), settings of
accuracy/ml1m_strong.toml, chosen on validation; the number of epochs too. --data names the folder of the data sets.
"""

from __future__ import annotations

import sys
import time
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from scipy.sparse import csr_matrix

sys.path.insert(0, str(Path(__file__).parents[1]))

from recsys.artifacts import load_model, save_model
from recsys.data.reading import ReadingOptions, read_interactions, read_titles
from recsys.evaluation.evaluate import evaluate_lists
from recsys.evaluation.neighbors import compare_neighbors
from recsys.models import create_model
from recsys.models.trained import TrainedModel
from recsys.splitting import strong
from recsys.splitting.holdout import Split
from recsys.system.hardware import describe_machine
from recsys.training.context import TrainingContext

DATA = Path(__file__).parents[2] / "shared" / "data"
SETTINGS = Path(__file__).parent / "accuracy" / "ml1m_strong.toml"
FILMS = ("1", "260", "858", "912", "2571")  # Toy Story, Star Wars, The Godfather, Casablanca, The Matrix
OTHERS: dict[str, dict[str, Any]] = {"als": {"factors": 128}, "svd": {"factors": 64}}


def split_of(data: Path) -> Split:
    """The split of the accuracy benchmark."""
    interactions = read_interactions(data / "ml-1m" / "ratings.csv", ReadingOptions(min_rating=4))
    return strong(interactions, seed=0)


def fitted(name: str, split: Split, cache: Path | None) -> TrainedModel:
    """A model fitted on the training part, from the cache where it is there."""
    place = None if cache is None else cache / name
    if place is not None and place.exists():
        return load_model(place, "cpu")
    settings = {**tomllib.loads(SETTINGS.read_text())["models"], **OTHERS}[name]
    validation = split.validation
    assert validation is not None

    def validate(score: Any) -> float:
        return evaluate_lists(score, validation, ("ndcg@100",)).means()["ndcg@100"]

    started = time.perf_counter()
    model = create_model(name, settings).fit(split.train.matrix, TrainingContext(seed=0, validate=validate))
    click.echo(f"fitted {name} in {time.perf_counter() - started:.0f} s", err=True)
    counts = np.bincount(split.train.matrix.indices, minlength=split.train.matrix.shape[1])
    trained = TrainedModel(model, split.train.items, counts)
    if place is not None:
        save_model(place, trained)
    return trained


@click.group()
def main() -> None:
    """Measure embeddings and nearest neighbors."""
    torch.set_num_threads(1)
    click.echo(f"{date.today()}, one thread, {describe_machine()['cpu']}\n")


@main.command()
@click.option("--data", type=click.Path(path_type=Path), default=DATA)
@click.option("--cache", type=click.Path(path_type=Path), help="Folder for fitted models.")
def films(data: Path, cache: Path | None) -> None:
    """Print neighbors of five films, and how well neighbors predict, by model."""
    split = split_of(data)
    assert split.test is not None
    titles = read_titles(data / "ml-1m" / "movies.dat")
    found = {}
    for name in ("vae", "edlae", "als", "svd"):
        trained = fitted(name, split, cache)
        for film in FILMS:
            near = trained.similar_items(film, 5)
            names = "; ".join(f"{titles[item]} {score:.2f}" for item, score in zip(near.item_id, near.score, strict=True))
            click.echo(f"{name:6} {titles[film]}: {names}")
        for way, neighbors in compare_neighbors(trained.model, split.train.matrix, split.test).items():
            found[way] = neighbors
    click.echo("\n| neighbors by | NDCG@100 | rare recall@100 |\n| --- | --- | --- |")
    for way, neighbors in found.items():
        cells = (
            f"{interval.mean:.4f} [{interval.low:.4f}, {interval.high:.4f}]"
            for interval in neighbors.intervals().values()
        )
        click.echo(f"| {way} | {' | '.join(cells)} |")
    co_occurrence = found["co-occurrence"].averages
    click.echo("\nless co-occurrence, paired:")
    for way, neighbors in found.items():
        differences = {label: each.difference(co_occurrence[label]) for label, each in neighbors.averages.items()}
        click.echo(f"{way}: " + ", ".join(f"{label} {difference}" for label, difference in differences.items()))


if __name__ == "__main__":
    main()
