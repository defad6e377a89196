"""Splits as drawings.

In a drawing a row is a user (1, 2, ...), a column an item (a, b, ...). x training, v validation, o test,
h a history outside training, . nothing.
"""

from dataclasses import replace

import numpy as np

from recsys import splitting
from recsys.data.interactions import Interactions, Vocabulary


def table(pairs, times=None):
    """Interactions of (user, item) pairs in the order given."""
    users, items = (list(dict.fromkeys(side)) for side in zip(*pairs, strict=True))
    user = np.array([users.index(user) for user, _ in pairs], dtype=np.int32)
    item = np.array([items.index(item) for _, item in pairs], dtype=np.int32)
    when = None if times is None else np.array(times, dtype=np.int64)
    return Interactions(Vocabulary.of(users), Vocabulary.of(items), user, item, timestamp=when)


def full(users, items):
    """Interactions of everybody with everything."""
    return table([(user, item) for user in range(users) for item in range(items)])


def from_drawing(drawing, marks="xvo"):
    """Interactions of the cells that bear one of the marks."""
    rows = [(str(number), row.split()) for number, row in enumerate(drawing, start=1)]
    return table([(user, "abcdefgh"[place]) for user, row in rows for place, mark in enumerate(row) if mark in marks])


# Trains on every item: its last two, g and h, are nobody else's.
COLLECTOR = [("9", item) for item in "abcdefgh"]


def from_files(drawing, marks):
    """The given protocol with one file a mark."""
    return splitting.given(*(from_drawing(drawing, mark) for mark in marks))


def pairs_of(interactions):
    users, items = interactions.users.to_list(), interactions.items.to_list()
    return [(users[user], items[item]) for user, item in zip(interactions.user, interactions.item, strict=True)]


def cells(matrix, users, items):
    """The stored cells of a matrix as (user, item) ids."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return {(users[row], items[item]) for row, item in zip(rows, matrix.indices, strict=True)}


def train_cells(split):
    return cells(split.train.matrix, split.train.users.to_list(), split.train.items.to_list())


def history(part, items):
    return cells(part.history, part.users.to_pylist(), items.to_list())


def held_out(part, items):
    return cells(part.held_out, part.users.to_pylist(), items.to_list())


def marks(split):
    """The mark of every (user, item) pair that has one; no pair may have two."""
    places, seen = {"x": train_cells(split)}, set()
    for mark, part in (("v", split.validation), ("o", split.test)):
        if part is not None:
            places[mark] = held_out(part, split.train.items)
            seen |= history(part, split.train.items)
    places["h"] = seen - places["x"] - places.get("v", set())
    found = {pair: mark for mark, pairs in places.items() for pair in pairs}
    assert len(found) == sum(map(len, places.values())), "a pair stands in two places"
    return found


def draw(split, interactions):
    found, items = marks(split), sorted(interactions.items.to_list())
    return [" ".join(found.get((user, item), ".") for item in items) for user in sorted(interactions.users.to_list())]


def people_of(part):
    return part.users.to_pylist()


def rated(interactions):
    """The same with the ratings 0, 1, 2, ... in the order of the rows."""
    return replace(interactions, rating=np.arange(len(interactions), dtype=np.float32))


def same(left, right):
    return marks(left) == marks(right) and left.facts == right.facts
