"""Users of two tastes: the smallest data on which a personalized model can beat popularity."""

import numpy as np

from recsys.data.interactions import Interactions, Vocabulary


def two_tastes(users=40, items=12, seed=0):
    """Interactions: users with even numbers have most of the first half of the items, the others of the second."""
    rng = np.random.default_rng(seed)
    taste = np.arange(users)[:, None] % 2 == np.arange(items)[None, :] * 2 // items
    user, item = np.nonzero(taste & (rng.random((users, items)) < 0.9))
    return Interactions(
        Vocabulary.of([f"u{i}" for i in range(users)]),
        Vocabulary.of([f"i{i}" for i in range(items)]),
        user.astype(np.int32),
        item.astype(np.int32),
    )


def write_csv(path, interactions):
    """Write interactions to a CSV file."""
    users, items = interactions.users.to_list(), interactions.items.to_list()
    rows = [f"{users[user]},{items[item]}" for user, item in zip(interactions.user, interactions.item, strict=True)]
    path.write_text("\n".join(["user_id,item_id", *rows]) + "\n", encoding="utf-8")
    return path
