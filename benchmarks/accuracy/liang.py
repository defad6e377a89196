"""MovieLens-20M, Netflix and MSD by the protocol of Liang et al. 2018: their filters, their seed, their held-out users.

    python benchmarks/accuracy/liang.py ml-20m ml-20m/ratings.csv
    python benchmarks/accuracy/liang.py netflix ratings.csv
    python benchmarks/accuracy/liang.py msd train_triplets.txt --no-header

Reproduced to the user: sets with NumPy's old generator and seed 98765, as published. Popularity has no setting and no
chance in it: where it gives the published figure, the preparation is right. Nothing of these data is in the repository.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))  # also where this file is loaded by its path

from accuracy import HERE, Division, ranked, run
from table import flag_parser

from recsys.data.interactions import Interactions, Vocabulary
from recsys.data.matrix import UserItemMatrix, sparse_rows
from recsys.data.reading import ReadingOptions, read_interactions
from recsys.errors import DataError
from recsys.splitting.holdout import Holdout, Split

SEED = 98765
TARGETS = 0.2  # share of a held-out user's rows that are to be found
FEWEST = 5  # rows a held-out user needs for having any


@dataclass(frozen=True)
class Rules:
    """What is kept, items first, then users, once each; and how many users are held out for each part."""

    min_rating: float | None
    min_item_users: int
    min_user_items: int
    held_out: int


RULES = {
    "ml-20m": Rules(4.0, 0, 5, 10_000),  # the paper's "above 3.5", on a scale of halves
    "netflix": Rules(4.0, 0, 5, 40_000),
    "msd": Rules(None, 200, 20, 50_000),
}


def divide(interactions: Interactions, rules: Rules) -> Split:
    """The published division of these rows, ratings filtered already.

    Users stand in the order of their ids (numbers as numbers), a user's rows in that of the file: the draws depend on
    both. Items are those of the training users; rows of held-out users on others are dropped before their targets are
    drawn. Users left without targets are left out, and counted.
    """
    order = np.arange(len(interactions)) if interactions.row is None else np.argsort(interactions.row, kind="stable")
    user, item = _id_ranks(interactions.users)[interactions.user[order]], interactions.item[order]
    keep = (np.bincount(item, minlength=len(interactions.items)) >= rules.min_item_users)[item]
    user, item = user[keep], item[keep]
    keep = (np.bincount(user, minlength=len(interactions.users)) >= rules.min_user_items)[user]
    user, item = user[keep], item[keep]
    if len(np.unique(user)) <= 2 * rules.held_out:
        raise DataError(
            f"Expected more than {2 * rules.held_out:,} users after the filters, found {len(np.unique(user)):,}."
        )
    ids = interactions.users.take(np.argsort(_id_ranks(interactions.users)))
    drawn = np.random.RandomState(SEED).permutation(np.unique(user))
    train_users, *held = np.split(drawn, [len(drawn) - 2 * rules.held_out, len(drawn) - rules.held_out])
    trained = np.isin(user, train_users)
    columns = np.unique(item[trained])
    column = np.searchsorted(columns, item).clip(max=len(columns) - 1)
    column = np.where(columns[column] == item, column, -1)
    rows = np.unique(user[trained])
    matrix = sparse_rows(
        np.searchsorted(rows, user[trained]),
        column[trained],
        np.ones(int(trained.sum()), dtype=np.float32),
        (len(rows), len(columns)),
    )
    train = UserItemMatrix(matrix, Vocabulary(ids.take(rows)), Vocabulary(interactions.items.take(columns)))
    known = column >= 0
    validation, test = (
        _fold_in(user[known], column[known], np.sort(users), len(columns), Vocabulary(ids)) for users in held
    )
    facts = {
        "users": len(drawn),
        "interactions": len(user),
        "train_users": len(rows),
        "train_items": len(columns),
        "train_interactions": matrix.nnz,
        "validation_users": len(validation),
        "test_users": len(test),
    }
    return Split("liang 2018", train, validation, test, facts)


def _id_ranks(users: Vocabulary) -> NDArray[np.int64]:
    """Location of each user in the order of the ids, numbers as numbers where all of them are."""
    ids = users.to_list()
    if all(str(identity).isdecimal() for identity in ids):
        ids = [int(identity) for identity in ids]
    ranks = np.empty(len(ids), dtype=np.int64)
    ranks[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids))
    return ranks


def _fold_in(
    user: NDArray[np.int64], column: NDArray[np.int64], users: NDArray[np.int64], items: int, ids: Vocabulary
) -> Holdout:
    """Targets of each user in turn, int(0.2 n) of the n rows in file order, from one stream of draws."""
    random = np.random.RandomState(SEED)
    mine = np.isin(user, users)
    order = np.argsort(user[mine], kind="stable")
    row, column = np.searchsorted(users, user[mine][order]), column[mine][order]
    target = np.zeros(len(row), dtype=bool)
    ends = np.cumsum(np.bincount(row, minlength=len(users)))
    for start, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
        if end - start >= FEWEST:
            target[start + random.choice(end - start, size=int(TARGETS * (end - start)), replace=False)] = True
    shape = (len(users), items)
    history, held_out = (sparse_rows(row[side], column[side], np.ones(side.sum()), shape) for side in (~target, target))
    found = np.flatnonzero(np.diff(held_out.indptr))
    strangers = np.full(len(users), -1, dtype=np.int64)
    whole = Holdout(history, held_out, ids.take(users), np.zeros(len(users), dtype=np.int64), strangers)
    taken = whole.take(found)
    return Holdout(taken.history, taken.held_out, taken.users, taken.unknown, taken.train_rows, len(users) - len(found))


def main() -> None:
    """Make the table of one data set."""
    parser = flag_parser(__doc__.splitlines()[0], HERE)
    parser.add_argument("name", choices=RULES)
    parser.add_argument("ratings", type=Path)
    parser.add_argument("--no-header", action="store_true")
    flags = parser.parse_args()
    rules = RULES[flags.name]
    options = ReadingOptions(min_rating=rules.min_rating, header=False if flags.no_header else None)
    split = divide(read_interactions(flags.ratings, options), rules)
    run(f"liang_{flags.name.replace('-', '')}", Division(split, ranked(split.test)), flags, f"liang.py {flags.name}")


if __name__ == "__main__":
    main()
