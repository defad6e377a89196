"""The same split as if the rows of the input had stood in another order."""

from dataclasses import replace

import numpy as np
import pyarrow as pa

from recsys.data.interactions import Vocabulary
from recsys.data.matrix import UserItemMatrix


def reorder(split, seed=0):
    """Users and items get positions at random; ids, histories and held-out items stay theirs."""
    rng = np.random.default_rng(seed)
    train = split.train
    items, users = rng.permutation(len(train.items)), rng.permutation(len(train.users))
    matrix = train.matrix[users][:, items].tocsr()
    matrix.sort_indices()
    known = [Vocabulary(ids.ids.take(pa.array(order))) for ids, order in ((train.users, users), (train.items, items))]
    parts = {
        name: None if part is None else _reorder_part(part, items, np.argsort(users), rng, known[1])
        for name, part in (("validation", split.validation), ("test", split.test))
    }
    return replace(split, train=UserItemMatrix(matrix, *known), **parts, rows=None)


def _reorder_part(part, items, new_row, rng, vocabulary):
    order = rng.permutation(len(part))

    def moved(matrix):
        found = matrix[order][:, items].tocsr()
        found.sort_indices()
        return found

    trained = part.train_rows[order]
    return replace(
        part,
        history=moved(part.history),
        held_out=moved(part.held_out),
        users=part.users.take(pa.array(order)),
        unknown=part.unknown[order],
        train_rows=np.where(trained >= 0, new_row[trained], -1),
        seen=None if part.seen is None else moved(part.seen),
        items=vocabulary,
    )
