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
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import torch
from scipy.sparse import csr_matrix

sys.path.insert(0, str(Path(__file__).parents[1]))

from recsys.artifacts import load_model, save_model
from recsys.data.reading import ReadingOptions, read_interactions, read_titles
from recsys.evaluation.evaluate import evaluate_lists
from recsys.evaluation.neighbors import Neighbors, compare_neighbors
from recsys.latent.compression import from_int8, to_int8
from recsys.latent.index import VectorIndex, exact_nearest, unit_vectors
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
    found: dict[str, Neighbors] = {}
    for name in ("vae", "edlae", "als", "svd"):
        trained = fitted(name, split, cache)
        for film in FILMS:
            near = trained.similar_items(film, 5)
            names = "; ".join(
                f"{titles[item]} {score:.2f}" for item, score in zip(near.item_id, near.score, strict=True)
            )
            click.echo(f"{name:6} {titles[film]}: {names}")
        found.update(compare_neighbors(trained.model, split.train.matrix, split.test))
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


@main.command()
@click.option("--data", type=click.Path(path_type=Path), default=DATA)
@click.option("--cache", type=click.Path(path_type=Path), help="Folder for fitted models.")
def compression(data: Path, cache: Path | None) -> None:
    """Print bytes a user and NDCG kept by vectors of one byte an element."""
    split = split_of(data)
    test = split.test
    assert test is not None
    click.echo("| vectors | size | bytes, float32 | bytes, int8 | NDCG@100 | int8 less float32 |")
    click.echo("| --- | --- | --- | --- | --- | --- |")
    for name in ("vae", "als", "svd"):
        model = fitted(name, split, cache).model
        plain = evaluate_lists(model.score, test, ("ndcg@100",)).averages["ndcg@100"]
        for what, score, size in _from_bytes(model):
            found = evaluate_lists(score, test, ("ndcg@100",)).averages["ndcg@100"]
            cells = (f"{size}", f"{4 * size:,}", f"{size + 4:,}", f"{plain.mean:.4f}", f"{found.difference(plain)}")
            click.echo(f"| {name}, {what} | {' | '.join(cells)} |")


def _from_bytes(model: Any) -> Iterator[tuple[str, Callable[..., torch.Tensor], int]]:
    """Score functions by vectors that went through int8: what they are, the function, elements of a vector."""

    def restored(vectors: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(from_int8(*to_int8(vectors.numpy(force=True))))

    def by_vectors(history: csr_matrix, users: Any = None) -> torch.Tensor:
        return restored(model.user_scoring_vectors(history)) @ restored(model.item_scoring_vectors()).T

    def by_codes(history: csr_matrix, users: Any = None) -> torch.Tensor:
        codes = restored(model.embed_users(history).mean)
        with torch.no_grad():
            return torch.nn.functional.linear(model.network.from_code(codes), *model.network.output())

    yield "vectors of scores, of users and items", by_vectors, model.item_scoring_vectors().shape[1]
    if hasattr(model, "network"):
        yield "embeddings of users, decoded", by_codes, model.embed_users(csr_matrix((1, model.n_items))).mean.shape[1]


def generated(count: int, size: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Vectors with the structure of learned codes: clusters, and a spectrum that falls slowly.

    center of one of 1,000 clusters + own part, both normal with standard deviations j^-0.4 of element j; that is how
    the singular values of the items of vae, als and svd on MovieLens-1M fall (exponents .33 to .43).
    """
    rng = np.random.default_rng(seed)
    spread = (np.arange(1, size + 1) ** -0.4).astype(np.float32)
    centers = rng.standard_normal((1000, size), dtype=np.float32) * spread
    vectors = np.empty((count, size), dtype=np.float32)
    for start in range(0, count, 100_000):
        rows = slice(start, min(start + 100_000, count))
        own = rng.standard_normal((rows.stop - start, size), dtype=np.float32) * spread
        vectors[rows] = centers[rng.integers(0, 1000, len(own))] + own
    return vectors


@main.command()
@click.option("--count", default=1_000_000, show_default=True)
@click.option("--size", default=200, show_default=True)
def index(count: int, size: int) -> None:
    """Print how an approximate index compares with exact search on generated vectors."""
    vectors = generated(count, size)
    started = time.perf_counter()
    built = VectorIndex.build(vectors)
    click.echo(f"{count:,} vectors of {size}: built in {time.perf_counter() - started:.0f} s")
    click.echo(f"all queries at once: {built.compare(vectors)}")
    exact, approximate, vectors = [], [], unit_vectors(vectors)
    for vector in vectors[:20, None]:
        started = time.perf_counter()
        exact_nearest(vectors, vector, 100)
        between = time.perf_counter()
        built.search(vector, 100, threads=1)
        exact.append(between - started)
        approximate.append(time.perf_counter() - between)
    click.echo(f"one at a time: {1000 * median(approximate):.1f} ms a search, {1000 * median(exact):.1f} ms exact")


if __name__ == "__main__":
    main()
