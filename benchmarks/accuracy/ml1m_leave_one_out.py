"""MovieLens-1M, the last item of each user against 99 listed others: HR@10 and NDCG@10 (Ferrari Dacrema et al. 2021).

    python benchmarks/accuracy/ml1m_leave_one_out.py [FOLDER]

FOLDER holds train.csv, test.csv and negatives.csv. Sampled negatives make every model look better: compare these
figures only with others on the same list. A tenth of every user's training rows is validation, then models are refitted
on all of train.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from accuracy import Division, Measure, parse, run
from numpy.typing import NDArray

from recsys import splitting
from recsys.data.matrix import UserItemMatrix
from recsys.data.reading import read_interactions
from recsys.evaluation.averages import Average
from recsys.models import Recommender

NAME = "ml1m_leave_one_out"
K = 10


def against_negatives(
    train: UserItemMatrix, users: NDArray[np.int64], items: NDArray[np.int64], negatives: NDArray[np.int64]
) -> Measure:
    """Rank one item among listed negatives; ties count against it.

    users, items: rows of train and the held-out item, shape (tests,); -1 for an item without training interactions,
    which cannot be found. negatives: shape (tests, listed), -1 for padding.
    """

    def measure(model: Recommender, metrics: Sequence[str]) -> Mapping[str, Average]:
        ranks = []
        for start in range(0, len(users), 512):
            part = slice(start, start + 512)
            known = {"users": users[part]} if model.needs_training_users else {}
            scores = model.score(train.matrix[users[part]], **known).cpu().numpy()
            rows = np.arange(len(scores))
            ours = np.where(items[part] >= 0, scores[rows, items[part]], -np.inf)
            theirs = np.where(negatives[part] >= 0, scores[rows[:, None], negatives[part]], -np.inf)
            above = (theirs >= ours[:, None]) & (negatives[part] >= 0)
            ranks.append(np.where(items[part] >= 0, above.sum(axis=1), K))
        rank = np.concatenate(ranks)  # from 0
        found = rank < K
        gain = np.where(found, 1 / np.log2(rank + 2), 0.0)
        return {f"hr@{K}": Average.of(found.astype(np.float64)), f"ndcg@{K}": Average.of(gain)}

    return measure


def read_negatives(file: Path) -> dict[str, list[str]]:
    """The listed item ids of each user id."""
    with file.open(newline="") as stream:
        return {row["userId"]: row["negatives"].split() for row in csv.DictReader(stream)}


def main() -> None:
    """Make the table."""
    flags = parse(__doc__.splitlines()[0], "ml-1m/leave-one-out")
    rows, test = (read_interactions(flags.folder / f"{part}.csv") for part in ("train", "test"))
    final = splitting.everybody(rows).train
    listed = read_negatives(flags.folder / "negatives.csv")
    ids = [str(user) for user in test.users.take(test.user).to_pylist()]
    users = final.users.positions(test.users.ids)[test.user].astype(np.int64)
    items = final.items.positions(test.items.ids)[test.item].astype(np.int64)
    # An item of the list that is the test item itself (there are 156) is no negative.
    names = [str(item) for item in test.items.take(test.item).to_pylist()]
    others = [[item for item in listed[user] if item != own] for user, own in zip(ids, names, strict=True)]
    negatives = np.full((len(ids), max(map(len, others))), -1, dtype=np.int64)
    for row, found in enumerate(others):
        negatives[row, : len(found)] = final.items.positions(found)
    choosing = splitting.weak(rows, test=False)
    run(NAME, Division(choosing, against_negatives(final, users, items, negatives), final), flags)


if __name__ == "__main__":
    main()
