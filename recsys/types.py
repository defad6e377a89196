"""Array and function types used everywhere."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

IntArray = NDArray[np.int32]

FloatArray = NDArray[np.float32]

# Scores (users, items), a fresh tensor, of histories; `Recommender.score` is one.
ScoreFunction = Callable[..., Tensor]

Values = NDArray[np.float64]
