"""How well an audit finds noise that was planted: random interactions, shared accounts, a shilling attack.

    python benchmarks/audit.py --seeds 3                            # MovieLens-1M, edlae beside item-knn and popularity
    python benchmarks/audit.py --models vae --settings epochs=20    # another model
    python benchmarks/audit.py --seen                               # models whose weights have seen what they judge
    python benchmarks/audit.py --cleaning                           # what removing the worst 2 % does to NDCG@100

Every seed plants all of it at once: 2 % random interactions (users by their activity; items evenly, or by popularity),
ten shared accounts (random pairs of users merged), and fifty made-up profiles with one target item that 20 to 50 users
have, as long as the median history: fillers drawn evenly (average attack), or the most popular items as a quarter and
the rest evenly (bandwagon attack). Figures are areas under the ROC curve with 95 % intervals: of random interactions
against all real ones, of accounts and profiles against all real users. Methods were developed on MovieLens-100K with
other seeds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack
from scipy.stats import rankdata

from recsys.data.interactions import Vocabulary
from recsys.data.matrix import UserItemMatrix
from recsys.data.reading import read_interactions
from recsys.evaluation.cleaning import measure_cleaning
from recsys.explain.audit import Audit, audit
from recsys.explain.plausibility import rows_of
from recsys.models import Recommender, create_model
from recsys.splitting import strong
from recsys.splitting.holdout import Split

FIRST_SEED = 1000
SHARE, ACCOUNTS, PROFILES = 0.02, 10, 50
KINDS = {"even": "average", "popular": "bandwagon"}  # how random items are drawn, and the attack planted beside it
TOPS = (1_000, 5_000, 20_000)


@dataclass(frozen=True)
class Planted:
    """A matrix with noise, and where it is."""

    data: UserItemMatrix
    random: NDArray[np.bool_]  # cells
    shared: NDArray[np.bool_]  # users
    made_up: NDArray[np.bool_]  # users
    target: int


def plant(matrix: csr_matrix, kind: str, seed: int, accounts: int = ACCOUNTS) -> Planted:
    """Merge users, add profiles, then add random interactions to the real users."""
    rng = np.random.default_rng(seed)
    counts = np.bincount(matrix.indices, minlength=matrix.shape[1])
    pairs = rng.permutation(matrix.shape[0])[: 2 * accounts].reshape(accounts, 2)
    others = np.setdiff1d(np.arange(matrix.shape[0]), pairs)
    profiles, target = shilling(matrix, counts, KINDS[kind], rng)
    whole = csr_matrix(vstack([matrix[others], matrix[pairs[:, 0]].maximum(matrix[pairs[:, 1]]), profiles]))
    whole.sort_indices()
    real = len(others) + accounts
    new = random_cells(whole, real, kind, counts, rng)
    keys = np.concatenate([rows_of(whole) * whole.shape[1] + whole.indices, new])
    order = np.argsort(keys)
    user, item = np.divmod(keys[order], whole.shape[1])
    planted = csr_matrix((np.ones(len(keys), dtype=np.float32), (user, item)), shape=whole.shape)
    place = np.arange(whole.shape[0])
    data = UserItemMatrix(planted, Vocabulary.of(place), Vocabulary.of(np.arange(whole.shape[1])))
    shared = (place >= len(others)) & (place < real)
    return Planted(data, order >= whole.nnz, shared, place >= real, target)


def shilling(
    matrix: csr_matrix, counts: NDArray[np.int64], attack: str, rng: np.random.Generator
) -> tuple[csr_matrix, int]:
    """Profiles of an attack, and the item that they push."""
    size = int(np.median(np.diff(matrix.indptr)))
    target = int(rng.choice(np.flatnonzero((counts >= 20) & (counts <= 50))))
    popular = np.argsort(-counts)[: size // 4 if attack == "bandwagon" else 0]
    profiles = np.zeros((PROFILES, matrix.shape[1]), dtype=np.float32)
    for profile in profiles:
        profile[rng.choice(matrix.shape[1], size - len(popular), replace=False)] = 1
        profile[[*popular, target]] = 1
    return csr_matrix(profiles), target


def random_cells(
    matrix: csr_matrix, users: int, kind: str, counts: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """New cells (user * items + item) of the first `users`, 2 % of all."""
    items, wanted = matrix.shape[1], int(SHARE * matrix.nnz)
    active = np.diff(matrix.indptr)[:users]
    chances = None if kind == "even" else counts / counts.sum()
    user = rng.choice(users, 3 * wanted, p=active / active.sum())
    drawn = np.unique(user * items + rng.choice(items, 3 * wanted, p=chances))
    return rng.permutation(np.setdiff1d(drawn, rows_of(matrix) * items + matrix.indices))[:wanted]


@dataclass(frozen=True)
class Area:
    """An area under the ROC curve, equal values counting half, with the half width of its 95 % interval."""

    value: float
    half: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.half:.3f}"


def auc(suspicion: NDArray[np.float64], positive: NDArray[np.bool_]) -> Area:
    """The area and its interval (DeLong, DeLong, Clarke-Pearson, Biometrics 44, 1988)."""
    whole, ones, zeros = rankdata(suspicion), rankdata(suspicion[positive]), rankdata(suspicion[~positive])
    above = (whole[positive] - ones) / len(zeros)  # share of the others below each positive one
    below = (whole[~positive] - zeros) / len(ones)
    variance = above.var(ddof=1) / len(ones) + below.var(ddof=1) / len(zeros)
    return Area(float(above.mean()), float(1.96 * np.sqrt(variance)))


def areas(planted: Planted, found: Audit) -> dict[str, Area]:
    """The three areas of an audit."""
    row = rows_of(planted.data.matrix)
    cells = found.judged[~planted.made_up[row[found.judged]]]
    ratio = np.zeros(planted.data.matrix.nnz)
    ratio[found.judged] = found.groups.ratio
    real = ~planted.made_up
    result = {
        "random": auc(ratio[cells], planted.random[cells]),
        "profiles": auc(found.user_shares[~planted.shared], planted.made_up[~planted.shared]),
    }
    if found.contrasts is not None:
        result["accounts"] = auc(np.nan_to_num(found.contrasts[real]), planted.shared[real])
    return result


def target_rank(planted: Planted, found: Audit) -> int:
    """The rank of the pushed item among those with ten users or more."""
    known = planted.data.item_counts >= 10
    return 1 + int((found.item_shares[known] > found.item_shares[planted.target]).sum())


def popularity_areas(planted: Planted) -> dict[str, Area]:
    """The same by popularity and activity alone: rare items, users of rare items, users of many items."""
    matrix, counts = planted.data.matrix, planted.data.item_counts
    row = rows_of(matrix)
    size = np.diff(matrix.indptr)
    mean = np.bincount(row, counts[matrix.indices]) / np.maximum(size, 1)
    real, cells = ~planted.made_up, ~planted.made_up[row]
    return {
        "random": auc(-counts[matrix.indices[cells]].astype(float), planted.random[cells]),
        "profiles": auc(-mean[~planted.shared], planted.made_up[~planted.shared]),
        "accounts": auc(size[real].astype(float), planted.shared[real]),
    }


def calibration(planted: Planted, found: Audit) -> str:
    """Among the first so many interactions: planted ones, and how many are expected if their share is known."""
    matrix = planted.data.matrix
    wrong = planted.random | planted.made_up[rows_of(matrix)]
    share = f"planted {wrong.mean():.1%}, the data allow {found.groups.limit:.1%}"
    tops = "; ".join(
        f"{n:,}: {wrong[found.order[:n]].mean():.0%} planted, {1 - found.false_alarms[n - 1]:.0%} expected"
        for n in TOPS
    )
    return f"{share}; {tops}"


def make(name: str, settings: tuple[str, ...], matrix: csr_matrix, seen: bool) -> Recommender:
    """A model; with `seen`, one that is fitted once, on everything, and only its histories lack what it judges."""
    model = create_model(name, dict(one.split("=") for one in settings))
    if seen:
        model.fit(matrix)
        model.refit = lambda *_: model  # type: ignore[method-assign]
    return model


def find(
    models: list[str],
    settings: tuple[str, ...],
    matrix: csr_matrix,
    seeds: int,
    folds: int,
    seen: bool,
    accounts: int,
) -> None:
    """Print the areas of every kind of noise, model and seed, then how many of the first are planted."""
    print(
        "| items drawn, attack | seed | by | random interactions | shared accounts | made-up profiles | target's rank |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    notes = []
    for kind, attack in KINDS.items():
        for seed in range(FIRST_SEED, FIRST_SEED + seeds):
            planted = plant(matrix, kind, seed, accounts)
            print_row(kind, attack, seed, "popularity", popularity_areas(planted))
            wrong = planted.random | planted.made_up[rows_of(planted.data.matrix)]
            for name in models:
                started = time.perf_counter()
                model = make(name, settings, planted.data.matrix, seen)
                found = audit(model, planted.data, folds, noise=float(wrong.mean()), seed=seed)
                print_row(kind, attack, seed, name, areas(planted, found), str(target_rank(planted, found)))
                seconds = time.perf_counter() - started
                notes.append(f"{kind}, seed {seed}, {name}: {seconds:.0f} s; {calibration(planted, found)}")
    print("", *notes, sep="\n")


def print_row(kind: str, attack: str, seed: int, name: str, found: dict[str, Area], rank: str = "") -> None:
    """A line of the table."""
    cells = [str(found.get(key, "")) for key in ("random", "accounts", "profiles")]
    print(f"| {kind}, {attack} | {seed} | {name} | {' | '.join(cells)} | {rank} |", flush=True)


def measure(name: str, settings: tuple[str, ...], ratings: Path, folds: int) -> None:
    """Print what cleaning does on held-out users, of the data as they are and with planted noise in training."""
    split = strong(read_interactions(ratings), share=0.1, seed=FIRST_SEED, test=False)
    noisy = {"2 % random, accounts, profiles": plant(split.train.matrix, "even", FIRST_SEED).data}
    print("| training data | removed | NDCG@100 before | after | difference |\n| --- | --- | --- | --- | --- |")
    for label, train in {"as they are": split.train, **noisy}.items():
        model, holdout = make(name, settings, train.matrix, seen=False), split.validation
        found = measure_cleaning(model, Split("strong", train, None, holdout), SHARE, folds, FIRST_SEED)
        claim = "significant" if found.difference.is_claimed else "not significant"
        print(
            f"| {label} | {found.removed:,} | {found.before} | {found.after} | {found.difference.interval}, {claim} |"
        )


@click.command()
@click.option("--ratings", type=click.Path(path_type=Path), default=Path("../shared/data/ml-1m/ratings.csv"))
@click.option("--models", default="edlae,item-knn", help="Names, separated by commas; none for popularity alone.")
@click.option("--settings", multiple=True, help="key=value, for every model.")
@click.option("--seeds", default=3)
@click.option("--folds", default=5)
@click.option("--accounts", default=ACCOUNTS, help="Shared accounts planted; more give a narrower interval.")
@click.option("--seen", is_flag=True, help="Fit each model once, on everything.")
@click.option("--cleaning", is_flag=True, help="Measure cleaning instead, with the first model.")
def main(
    ratings: Path,
    models: str,
    settings: tuple[str, ...],
    seeds: int,
    folds: int,
    accounts: int,
    seen: bool,
    cleaning: bool,
) -> None:
    """Print areas under the ROC curve, or the effect of cleaning."""
    if not ratings.is_file():
        print(f"No {ratings} here: nothing to measure.")
        return
    names = [name for name in models.split(",") if name]
    if cleaning:
        measure(names[0], settings, ratings, folds)
    else:
        find(names, settings, read_interactions(ratings).to_matrix().matrix, seeds, folds, seen, accounts)


if __name__ == "__main__":
    main()
