"""Pre-training on an implicit log, then few labels: with and without, at 1, 10 and 100 % of the labels.

    python benchmarks/pretraining.py ratings [--choose] [--seeds 3]
    python benchmarks/pretraining.py labels [--seeds 3]

ratings: MovieLens-100K. The log is who rated what in the training cells, without values; a share of these cells has its
    rating. `rating-vae` by users begins with the encoder of a `vae` fitted on the log, or with random weights.
labels: MovieLens-1M, women and men, and people of 35 or more. The embedding of the `vae` that warm_start.py fitted,
    beside singular vectors of equal size and the raw rows; logistic regression, its l2 chosen by cross-validation on
    the labels. Tested on users whom neither the embedding nor the regression has seen.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for table.py

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from table import flag_parser, measured_on
from warm_start import divide

from recsys import splitting
from recsys.artifacts import load_model
from recsys.data.matrix import UserItemMatrix
from recsys.data.reading import read_interactions
from recsys.models import create_model
from recsys.models.pretraining import PretrainedEncoder
from recsys.models.trained import TrainedModel
from recsys.splitting.holdout import Holdout
from recsys.training.context import TrainingContext

SHARES = (0.01, 0.1, 1.0)
ENCODER = {"hidden": 100, "latent": 50, "epochs": 30}
# of rating-vae by users, chosen with --choose; of both variants alike
SETTINGS = {"side": "user", "hidden": 100, "latent": 50, "beta": 1, "input_l2": 2, "l2": 100}
EPOCHS = {0.01: 30, 0.1: 30, 1.0: 60}  # of both variants, by the share of the ratings
L2 = 10.0 ** np.arange(0, 5)


def ratings(flags: argparse.Namespace) -> None:
    """RMSE with and without pre-training, with intervals of the paired difference over users."""
    split = splitting.cells(read_interactions(flags.data / "ml-100k" / "u.data"), ratings=True)
    train, held = split.train, split.validation if flags.choose else split.test
    log = train.matrix.copy()
    log.data[:] = 1
    encoder = create_model("vae", ENCODER).fit(log)
    origin = PretrainedEncoder(TrainedModel(encoder, train.items, train.item_counts))
    if flags.choose:
        for share in SHARES[2:]:  # with few ratings the number of epochs hardly matters
            for kind in ("without", "with"):
                for epochs in (30, 60):
                    errors = squares(rated(train, share, 0), held, origin if kind == "with" else None, epochs, 0)
                    print(
                        f"{share:.0%} of the ratings, {kind}, {epochs} epochs: {np.sqrt(errors.mean()):.4f}", flush=True
                    )
        return
    print("| ratings | `biases` | without | with the encoder | difference | 95 % interval |")
    print("| ---: | ---: | ---: | ---: | ---: | --- |")
    for share in SHARES:
        print(rating_row(train, held, share, origin, flags.seeds), flush=True)


def rating_row(train: UserItemMatrix, held: Holdout, share: float, origin: PretrainedEncoder, seeds: int) -> str:
    """A line: mean RMSE over seeds (which choose the rated cells, too) and the difference over users."""
    found: dict[str, list[NDArray[np.float64]]] = {"biases": [], "without": [], "with": []}
    for seed in range(seeds):
        part = rated(train, share, seed)
        found["biases"].append(squares(part, held, None, 0, seed))
        for kind in ("without", "with"):
            given = origin if kind == "with" else None
            found[kind].append(squares(part, held, given, EPOCHS[share], seed))
    rmse = {kind: np.sqrt([errors.mean() for errors in each]) for kind, each in found.items()}
    low, high = interval(found["with"], found["without"], held)
    cells = [f"{share:.0%}"]
    cells += [f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}" for values in rmse.values()]
    cells += [f"{np.mean(rmse['with'] - rmse['without']):+.4f}", f"[{low:+.4f}, {high:+.4f}]"]
    return f"| {' | '.join(cells)} |"


def rated(train: UserItemMatrix, share: float, seed: int) -> UserItemMatrix:
    """The same users and items, with a random share of the cells."""
    cells = train.matrix.tocoo()
    kept = np.random.default_rng(seed).random(cells.nnz) < share
    matrix = csr_matrix((cells.data[kept], (cells.row[kept], cells.col[kept])), shape=cells.shape)
    return UserItemMatrix(matrix, train.users, train.items)


def squares(
    train: UserItemMatrix, held: Holdout, origin: PretrainedEncoder | None, epochs: int, seed: int
) -> NDArray[np.float64]:
    """Squared errors of the held-out cells, (cells,); of `biases` for 0 epochs. Users are folded in on `train`."""
    settings = SETTINGS | {"epochs": epochs}
    model = create_model("rating-vae", settings) if epochs else create_model("biases")
    start = None if origin is None else origin.start(model, train)
    model.fit(train.matrix, TrainingContext(seed, start=start))
    cells = held.held_out.tocoo()
    predicted = model.score(csr_matrix(train.matrix[held.train_rows])).numpy()[cells.row, cells.col]
    return (predicted.astype(np.float64) - cells.data) ** 2


def interval(
    ours: list[NDArray[np.float64]], theirs: list[NDArray[np.float64]], held: Holdout, draws: int = 1000
) -> NDArray[np.float64]:
    """95 % interval of the difference of RMSEs, users drawn again and again; errors are means over seeds."""
    user, rng = held.held_out.tocoo().row, np.random.default_rng(0)
    sums = [np.bincount(user, np.mean(errors, axis=0), len(held)) for errors in (ours, theirs)]
    counts = np.bincount(user, minlength=len(held))
    gaps = []
    for _ in range(draws):
        drawn = rng.integers(0, len(held), len(held))
        one, other = (np.sqrt(each[drawn].sum() / counts[drawn].sum()) for each in sums)
        gaps.append(one - other)
    return np.quantile(gaps, [0.025, 0.975])


def labels(flags: argparse.Namespace) -> None:
    """Area under the ROC curve of labels predicted from embeddings, singular vectors and raw rows."""
    _, split, rows = divide(flags.data)
    saved = load_model(flags.cache / "warm_start" / "vae-full", device="cpu")
    everybody = UserItemMatrix.from_interactions(rows, saved.items)
    size = saved.model.config.latent
    svd = create_model("svd", {"factors": size, "item_power": 0.5, "user_power": 0.5}).fit(split.train.matrix)
    features = {
        f"`vae`, {size}": saved.model.embed_users(everybody.matrix).mean.numpy(),
        f"`svd`, {size}": svd.embed_users(everybody.matrix).mean.numpy(),
        "raw rows": everybody.matrix.toarray().astype(np.float64),
    }
    known = np.isin(everybody.users.ids.to_numpy(), split.train.users.ids.to_numpy())
    about = pd.read_csv(
        flags.data / "ml-1m" / "users.dat", sep="::", engine="python", header=None, encoding="latin-1", index_col=0
    ).loc[everybody.users.ids.to_numpy()]
    print(f"{known.sum():,} users may be labeled, {(~known).sum():,} are tested\n")
    print("| label | share | labels | " + " | ".join(features) + " |")
    print("| --- | ---: | ---: |" + " ---: |" * len(features))
    for name, target in {"woman": about[1] == "F", "35 or older": about[2] >= 35}.items():
        for share in SHARES:
            print(label_row(name, target.to_numpy(), share, features, known, flags.seeds), flush=True)


def label_row(
    name: str, target: NDArray[np.bool_], share: float, features: dict[str, NDArray], known: NDArray, seeds: int
) -> str:
    """A line: the mean area over draws of the labeled users, and its 95 % interval over draws and tested users."""
    count = max(10, round(share * known.sum()))
    cells = []
    for table in features.values():
        centered = table - table[known].mean(0)
        scales = np.maximum(table[known].std(0), 1e-6), np.full(table.shape[1], table[known].std())
        areas, lows, highs = [], [], []
        for seed in range(seeds if share < 1 else 1):
            labeled = balanced(np.flatnonzero(known), target, count, seed)
            fits = [logistic_cv(centered[labeled] / scale, target[labeled]) for scale in scales]
            best = int(np.argmin([loss for loss, _ in fits]))  # each column scaled, or the whole
            scores = centered[~known] / scales[best] @ fits[best][1]
            area, low, high = auc_interval(scores, target[~known])
            areas.append(area), lows.append(low), highs.append(high)
        cells.append(f"{np.mean(areas):.3f} [{np.mean(lows):.3f}, {np.mean(highs):.3f}]")
    return f"| {name} | {share:.0%} | {count:,} | {' | '.join(cells)} |"


def balanced(users: NDArray, target: NDArray[np.bool_], count: int, seed: int) -> NDArray:
    """Users to label at random, with both labels among them at least three times."""
    rng = np.random.default_rng(seed)
    while True:
        drawn = rng.permutation(users)[:count]
        if 3 <= target[drawn].sum() <= count - 3:
            return drawn


def logistic_cv(table: NDArray, target: NDArray[np.bool_], folds: int = 3) -> tuple[float, NDArray]:
    """Weights of a logistic regression whose l2 has the best likelihood in cross-validation, and that loss."""
    part = np.empty(len(target), dtype=int)
    for value in (False, True):  # both labels in every fold
        part[target == value] = np.arange((target == value).sum()) % folds
    losses = np.zeros(len(L2))
    for fold in range(folds):
        basis, back = reduced(table[part != fold])
        for place, l2 in enumerate(L2):
            weights, shift = logistic(basis, target[part != fold], l2)
            losses[place] += log_loss(table[part == fold] @ (back @ weights) + shift, target[part == fold])
    basis, back = reduced(table)
    return float(losses.min()), back @ logistic(basis, target, L2[int(np.argmin(losses))])[0]


def reduced(table: NDArray) -> tuple[NDArray, NDArray]:
    """The same rows in fewer columns, if there are fewer rows than columns, and the map back of their weights."""
    if len(table) >= table.shape[1]:
        return table, np.eye(table.shape[1])
    values, left = np.linalg.eigh(table @ table.T)
    kept = values > values[-1] * 1e-10
    roots = np.sqrt(values[kept])
    return left[:, kept] * roots, table.T @ (left[:, kept] / roots)


def log_loss(logits: NDArray, target: NDArray[np.bool_]) -> float:
    """Mean negative log-likelihood."""
    return float(np.logaddexp(0, np.where(target, -logits, logits)).mean())


def logistic(basis: NDArray, target: NDArray[np.bool_], l2: float) -> tuple[NDArray, float]:
    """Weights and shift of a ridge logistic regression."""
    sign = np.where(target, 1.0, -1.0)

    def loss(given: NDArray) -> tuple[float, NDArray]:
        margin = sign * (basis @ given[:-1] + given[-1])
        slope = -sign / (1 + np.exp(np.clip(margin, -500, 500)))
        value = np.logaddexp(0, -margin).sum() + l2 / 2 * given[:-1] @ given[:-1]
        return value, np.append(basis.T @ slope + l2 * given[:-1], slope.sum())

    found = minimize(loss, np.zeros(basis.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 100}).x
    return found[:-1], found[-1]


def auc_interval(scores: NDArray, target: NDArray[np.bool_], draws: int = 200) -> tuple[float, float, float]:
    """Area under the ROC curve and its 95 % interval over users."""
    rng = np.random.default_rng(0)
    areas = [auc(scores, target)]
    for _ in range(draws):
        drawn = rng.integers(0, len(target), len(target))
        areas.append(auc(scores[drawn], target[drawn]))
    return areas[0], *np.quantile(areas[1:], [0.025, 0.975])


def auc(scores: NDArray, target: NDArray[np.bool_]) -> float:
    """Probability that a positive one is scored above a negative one."""
    ranks = pd.Series(scores).rank().to_numpy()
    positive = target.sum()
    return float((ranks[target].sum() - positive * (positive + 1) / 2) / (positive * (len(target) - positive)))


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {"ratings": ratings, "labels": labels}


def main() -> None:
    """Print one of the tables."""
    parser = flag_parser(__doc__, Path(__file__).parent / "accuracy")
    parser.add_argument("part", choices=list(PARTS))
    parser.set_defaults(seeds=3)
    flags = parser.parse_args()
    torch.set_num_threads(1)
    print(measured_on() + "\n")
    PARTS[flags.part](flags)


if __name__ == "__main__":
    main()
