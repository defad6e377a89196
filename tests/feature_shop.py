"""A shop whose users like items by a feature of theirs."""

import numpy as np
from scipy.sparse import csr_matrix

NEW = 4  # the last items have no interactions


def shop(users=40, items=20, features=6):
    """Return interactions (users, items), features (items, features) and the feature that each user likes."""
    rng = np.random.default_rng(0)
    table = rng.random((items, features)) < 0.4
    tastes = rng.integers(0, features, users)
    matrix = table[:, tastes].T & (rng.random((users, items)) < 0.7)
    matrix[:, -NEW:] = False
    return csr_matrix(matrix.astype(np.float32)), csr_matrix(table.astype(np.float32)), tastes
