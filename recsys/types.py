"""Array types and the score function, used everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from torch import Tensor

IntArray = NDArray[np.int32]

FloatArray = NDArray[np.float32]

Values = NDArray[np.float64]


class ScoreFunction(Protocol):
    """A function from histories to scores, such as `Recommender.score`."""

    def __call__(self, history: csr_matrix, /, *, users: ArrayLike | None = None) -> Tensor:
        """Return a new tensor of scores, float32 (users, items); higher is better.

        `users` are rows of the training matrix, for models that know only their training users.
        """
