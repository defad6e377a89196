"""Can shared accounts be told from single ones by more than their length? Three attempts, on planted ones.

    python benchmarks/shared_accounts.py [--ratings ../shared/data/ml-100k/u.data] [--accounts 40] [--seeds 2]

Accounts are planted as in audit.py. Areas under the ROC curve, real users against shared accounts, of

length      the number of items, which is the baseline
contrast    the `two_blocks` of an audit: two halves related within and not across
held out    the same on items that took no part in finding the halves, each given to the nearer half
learned     logistic regression and boosted trees on all of these and the strength of relations, trained to tell users
            from pairs of users that are merged for the training, cross-fitted over users
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from audit import FIRST_SEED, auc, plant
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from table import measured_on

from recsys.data.reading import read_interactions
from recsys.explain.shared_accounts import FEWEST, Relations
from recsys.models import create_model

FOLDS, LONGEST = 3, 200
Items = NDArray[np.int32]
Features = NDArray[np.float64]


def mean_strength(relations: Relations, items: Items, others: Items | None = None) -> float:
    """How related items are with each other, or with others, in the mean over pairs."""
    strength = relations.strength[np.ix_(items, items if others is None else others)]
    pairs = strength.size - (len(items) if others is None else 0)
    return float(strength.sum() / max(pairs, 1))


def held_out(relations: Relations, items: Items, rng: np.random.Generator) -> float:
    """The contrast of items that took no part in finding the halves."""
    seen, unseen = np.array_split(rng.permutation(items), 2)
    one, two = relations.blocks(seen)
    nearer = relations.strength[np.ix_(unseen, one)].mean(axis=1) - relations.strength[np.ix_(unseen, two)].mean(axis=1)
    order = unseen[np.argsort(-nearer, kind="stable")]
    first, second = np.array_split(order, 2)
    within = (mean_strength(relations, first) + mean_strength(relations, second)) / 2
    return (within - mean_strength(relations, first, second)) / max(abs(within), 0.1)


def features(relations: Relations, items: Items, rng: np.random.Generator) -> list[float]:
    """What is known of a history: length, contrast, held-out contrast, strength of relations and its spread."""
    some = rng.permutation(items)[:LONGEST]
    spread = relations.strength[np.ix_(some, some)].mean(axis=1).std()
    return [
        np.log(len(items)),
        relations.contrast(items),
        held_out(relations, some, rng),
        mean_strength(relations, some),
        float(spread),
    ]


def learned(make: type, users: Features, merged: Features, rng: np.random.Generator) -> Features:
    """How much each user is like merged ones, by a classifier that was not trained on that user."""
    fold, fold_of_merged = rng.integers(0, FOLDS, len(users)), rng.integers(0, FOLDS, len(merged))
    found = np.zeros(len(users))
    for each in range(FOLDS):
        known, planted = users[fold != each], merged[fold_of_merged != each]
        labels = np.repeat([0, 1], [len(known), len(planted)])
        classifier = make_pipeline(StandardScaler(), make()).fit(np.vstack([known, planted]), labels)
        found[fold == each] = classifier.predict_proba(users[fold == each])[:, 1]
    return found


@click.command()
@click.option("--ratings", type=click.Path(path_type=Path), default=Path("../shared/data/ml-100k/u.data"))
@click.option("--accounts", default=40, help="Shared accounts planted.")
@click.option("--seeds", default=2)
def main(ratings: Path, accounts: int, seeds: int) -> None:
    """Print a table of areas."""
    if not ratings.is_file():
        print(f"No {ratings} here: nothing to measure.")
        return
    matrix = read_interactions(ratings).to_matrix().matrix
    print(f"{measured_on()}\n\n| seed | length | contrast | held out | learned, logistic | learned, trees |")
    print("| --- |" + " --- |" * 5)
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        planted, rng = plant(matrix, "even", seed, accounts), np.random.default_rng(seed)
        whole = planted.data.matrix
        relations = Relations.of(create_model("edlae").fit(whole))
        rows = np.flatnonzero(~planted.made_up & (np.diff(whole.indptr) >= 2 * FEWEST))
        histories = [whole.indices[whole.indptr[row] : whole.indptr[row + 1]] for row in rows]
        users = np.array([features(relations, items, rng) for items in histories])
        pairs = rng.permutation(len(rows))[: len(rows) // 2 * 2].reshape(-1, 2)
        merged = [np.union1d(histories[one], histories[two]).astype(np.int32) for one, two in pairs]
        known = np.array([features(relations, items, rng) for items in merged])
        ways = [*users.T[:3]]
        ways += [learned(make, users, known, rng) for make in (LogisticRegression, HistGradientBoostingClassifier)]
        print(f"| {seed} | {' | '.join(str(auc(way, planted.shared[rows])) for way in ways)} |", flush=True)


if __name__ == "__main__":
    main()
