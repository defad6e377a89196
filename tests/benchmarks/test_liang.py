"""The division of Liang et al. 2018 against a slow reference in pandas that says what the protocol says."""

import importlib.util
import sys

import numpy as np
import pandas as pd
import pytest
from paths import ROOT

from recsys.data.reading import read_interactions
from recsys.errors import DataError

SCRIPT = ROOT / "benchmarks" / "accuracy" / "liang.py"


@pytest.fixture(scope="module")
def liang():
    before = list(sys.path)
    spec = importlib.util.spec_from_file_location("liang", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["liang"] = module  # its dataclasses look for it there
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = before
    del sys.modules["liang"]


def generated(users, items, rows, seed, user_name=int):
    """Rows in no order, users of very different activity."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {"userId": (users * rng.random(rows) ** 2).astype(int), "movieId": (items * rng.random(rows) ** 2).astype(int)}
    ).drop_duplicates()
    table["userId"] = table["userId"].map(user_name)
    return table.sample(frac=1, random_state=seed).reset_index(drop=True)


def reference(table, rules):
    """Sets of (user, item): training rows, and the input and targets of validation and of test."""
    if rules.min_item_users:
        table = table[table.groupby("movieId")["userId"].transform("size") >= rules.min_item_users]
    table = table[table.groupby("userId")["movieId"].transform("size") >= rules.min_user_items]
    users = table.groupby("userId").size().index  # sorted
    np.random.seed(98765)  # noqa: NPY002 - the published stream
    users = users[np.random.permutation(users.size)]  # noqa: NPY002
    held = rules.held_out
    train = table[table["userId"].isin(users[: len(users) - 2 * held])]
    known = set(train["movieId"])
    found = [pairs(train)]
    for chosen in (users[len(users) - 2 * held : len(users) - held], users[len(users) - held :]):
        part = table[table["userId"].isin(chosen) & table["movieId"].isin(known)]
        np.random.seed(98765)  # noqa: NPY002
        history, target = [], []
        for _, rows in part.groupby("userId"):
            mask = np.zeros(len(rows), dtype=bool)
            if len(rows) >= 5:
                mask[np.random.choice(len(rows), size=int(0.2 * len(rows)), replace=False)] = True  # noqa: NPY002
                history.append(rows[~mask])
                target.append(rows[mask])
        found += [pairs(pd.concat(history)), pairs(pd.concat(target))]
    return found


def pairs(table):
    return {(str(user), str(item)) for user, item in zip(table["userId"], table["movieId"], strict=True)}


def pairs_of(matrix, users, items):
    row, column = matrix.nonzero()
    return {(str(users[r]), str(items[c])) for r, c in zip(row, column, strict=True)}


CASES = {
    "users of few rows": (300, 60, 3000, 0, int, (0, 5, 40)),
    "ids that are sorted as numbers": (120, 200, 2500, 1, lambda user: user * 7, (0, 5, 15)),
    "ids that are sorted as text": (150, 80, 2500, 2, lambda user: f"u{user}", (0, 5, 20)),
    "rare items first, then users": (200, 300, 4000, 3, lambda user: f"u{user}", (10, 12, 15)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_division_is_the_references_to_the_last_pair(case, liang, tmp_path):
    users, items, rows, seed, name, numbers = CASES[case]
    rules = liang.Rules(None, *numbers)
    table = generated(users, items, rows, seed, name)
    table.to_csv(tmp_path / "ratings.csv", index=False)
    split = liang.divide(read_interactions(tmp_path / "ratings.csv"), rules)
    known = split.train.items.to_list()
    found = [pairs_of(split.train.matrix, split.train.users.to_list(), known)]
    for part in (split.validation, split.test):
        ids = part.users.to_pylist()
        found += [pairs_of(part.history, ids, known), pairs_of(part.held_out, ids, known)]
        assert len(part) + part.left_out == rules.held_out
    expected = reference(table, rules)
    assert [len(side) for side in found] == [len(side) for side in expected]
    assert found == expected


def test_too_few_users_are_refused(liang, tmp_path):
    generated(50, 30, 1000, 0).to_csv(tmp_path / "ratings.csv", index=False)
    with pytest.raises(DataError, match="more than 20,000 users after the filters"):
        liang.divide(read_interactions(tmp_path / "ratings.csv"), liang.RULES["ml-20m"])
