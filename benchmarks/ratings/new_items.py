"""New items without retraining: RMSE on the ratings of items that training never saw, folded in with half of them.

    python benchmarks/ratings/new_items.py [--data DIR] [--draws 3] [--items 100]

Random items are taken out of u1.base of MovieLens-100K before training; a random half of their ratings folds them in,
the other half is predicted. For comparison, the same model trained with the first half from the start. Settings are
those of ml100k.toml.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from ratings import HERE, RatingTable
from scipy.sparse import csr_matrix, hstack
from table import DATA, Table, measured_on

from recsys.data.matrix import UserItemMatrix, sparse_rows
from recsys.data.reading import read_interactions
from recsys.models.ratings.base import RatingRecommender
from recsys.training.context import TrainingContext

MODELS = ("biases", "biased-mf", "autorec")
Parts = tuple[csr_matrix, csr_matrix, csr_matrix]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets, with ml-100k/u1.base")
    parser.add_argument("--draws", type=int, default=3, help="random sets of items")
    parser.add_argument("--items", type=int, default=100, help="taken out of training")
    asked = parser.parse_args()
    matrix = UserItemMatrix.from_interactions(
        read_interactions(asked.data / "ml-100k" / "u1.base"), ratings=True
    ).matrix
    table = RatingTable.read(HERE / "ml100k.toml")
    draws = [divide(matrix, asked.items, np.random.default_rng([draw, asked.items])) for draw in range(asked.draws)]
    cells = sum(held.nnz for _, _, held in draws)
    print(f"{measured_on()}; {asked.draws} draws of {asked.items} items, {cells:,} held-out ratings\n")
    print("| model | folded in | biases folded in | trained with them |\n| --- | ---: | ---: | ---: |")
    for name in MODELS:
        errors = [measure(table, name, parts) for parts in draws]
        each = (np.sqrt(np.mean(np.concatenate(column) ** 2)) for column in zip(*errors, strict=True))
        print(f"| `{name}` | {' | '.join(f'{rmse:.4f}' for rmse in each)} |", flush=True)


def divide(matrix: csr_matrix, count: int, rng: np.random.Generator) -> Parts:
    """Ratings of known items, ratings that fold new ones in, and held-out ratings of those, (users, items) each."""
    rated_twice = np.flatnonzero(np.bincount(matrix.indices, minlength=matrix.shape[1]) > 1)
    new = rng.choice(rated_twice, count, replace=False)
    cells = matrix[:, new].tocoo()
    first = rng.random(cells.nnz) < 0.5
    given, held = (
        sparse_rows(cells.row[part], cells.col[part], cells.data[part], cells.shape) for part in (first, ~first)
    )
    rated = np.bincount(given.indices, minlength=count) > 0
    return matrix[:, np.setdiff1d(np.arange(matrix.shape[1]), new)], given[:, rated], held[:, rated]


def measure(table: Table, name: str, parts: Parts) -> list[NDArray[np.float32]]:
    """Errors on held-out ratings: of the folded-in items, of biases alone, of the model trained with the ratings."""
    known, given, held = parts
    model = fitted(table, name, known).with_rated_items(known, given)
    biases = fitted(table, "biases", known).with_rated_items(known, given)
    whole = csr_matrix(hstack([known, given]))
    return [errors(found, whole, held) for found in (model, biases, fitted(table, name, whole))]


def fitted(table: Table, name: str, matrix: csr_matrix) -> RatingRecommender:
    """Fit the model of a row."""
    model = table.unfitted(name).fit(matrix, TrainingContext())
    assert isinstance(model, RatingRecommender)
    return model


def errors(model: RatingRecommender, histories: csr_matrix, held: csr_matrix) -> NDArray[np.float32]:
    """Predicted minus observed, shape (held-out cells,)."""
    cells = held.tocoo()
    predicted = model.score(histories)[:, -held.shape[1] :].cpu().numpy()
    found: NDArray[np.float32] = predicted[cells.row, cells.col] - cells.data
    return found


if __name__ == "__main__":
    main()
