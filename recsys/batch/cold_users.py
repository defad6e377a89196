"""Users without a history, by what is known of them besides: age, region, how they came."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack

from recsys.errors import ConfigError

L2 = 300.0  # in users: a value that 300 users have counts half
MOST_CELLS = 1_000_000_000  # of the weights: 4 GB


@dataclass(frozen=True)
class TasteByAttributes:
    """What users take, by ridge regression on their attributes.

        weights = (A'A + l2 I)^-1 A'X     A: a column of ones and the attributes, X: what the users took

    The column of ones is not penalized: a strong ridge gives everybody the share of users who took an item, which is
    popularity. Of users without attributes it knows nothing: they get popularity itself.

    Attributes
    ----------
    weights : ndarray of float32, shape (1 + attributes, items)
    """

    weights: NDArray[np.float32]

    @classmethod
    def fit(cls, attributes: csr_matrix, histories: csr_matrix, l2: float = L2) -> Self:
        """Learn from users with a history.

        Parameters
        ----------
        attributes : csr_matrix, shape (users, attributes)
        histories : csr_matrix, shape (users, items)
            Every stored cell is an item taken; users without one are left out.
        l2 : float
            Strength of the ridge.

        Returns
        -------
        TasteByAttributes

        Raises
        ------
        ConfigError
            If there are too many attributes for so many items.
        """
        if (1 + attributes.shape[1]) * histories.shape[1] > MOST_CELLS:
            raise ConfigError(
                f"Expected at most {MOST_CELLS // histories.shape[1]:,} attributes of users for {histories.shape[1]:,} "
                f"items, found {attributes.shape[1]:,}: leave out the columns with the most values."
            )
        rows = np.flatnonzero(np.diff(histories.indptr))
        known = _with_ones(attributes[rows])
        taken = csr_matrix(histories[rows], dtype=np.float32, copy=True)
        taken.data[:] = 1
        gram = np.asarray((known.T @ known).toarray(), dtype=np.float64)
        penalty = np.full(len(gram), l2)
        penalty[0] = 1e-9 * max(1, len(rows))
        weights = np.linalg.solve(gram + np.diag(penalty), (known.T @ taken).toarray())
        return cls(np.asarray(weights, dtype=np.float32))

    def scores(self, attributes: csr_matrix, columns: slice = slice(None)) -> NDArray[np.float32]:
        """Return the expected share of takers of each item, float32 (users, items of `columns`)."""
        return np.asarray(_with_ones(attributes) @ self.weights[:, columns], dtype=np.float32)


def _with_ones(attributes: csr_matrix) -> csr_matrix:
    """The attributes after a column of ones."""
    ones = csr_matrix(np.ones((attributes.shape[0], 1), dtype=np.float32))
    return csr_matrix(hstack([ones, attributes], format="csr"))
