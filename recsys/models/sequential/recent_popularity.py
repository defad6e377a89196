"""What is popular of late, the same for all users: a baseline that beats many models where tastes change.

```
time ->    a a a | b b c        the last days (or the last items of each user): b twice, c once
```
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_matrix

from recsys.data.matrix import OrderedMatrix
from recsys.errors import DataError
from recsys.models.config import require
from recsys.models.popularity import CountedItems
from recsys.models.sequential.rows import in_order
from recsys.training.context import TrainingContext


@dataclass(frozen=True)
class RecentPopularityConfig:
    """What counts as recent."""

    days: float | None = None  # before the newest interaction of all; None: `last` decides
    last: int = 10  # items of each user, where days are not given

    def __post_init__(self) -> None:
        require(self.days is None or self.days > 0, f"Expected days above 0, found {self.days}.")
        require(self.last >= 1, f"Expected last of at least 1, found {self.last}.")


class RecentPopularity(CountedItems[RecentPopularityConfig]):
    """Scores an item by its number of recent interactions, the same for all users."""

    name = "recent-popularity"
    Config = RecentPopularityConfig

    @property
    def uses_order(self) -> bool:
        """True: what is recent depends on it."""
        return True

    def _fit(self, matrix: csr_matrix, context: TrainingContext) -> None:
        if self.config.days is None:
            recent = in_order(matrix, self.config.last).indices
        else:
            days = matrix.days if isinstance(matrix, OrderedMatrix) else None
            if days is None:
                raise DataError(
                    "Expected a matrix with times for recent-popularity with days, found none: name the column of the "
                    "times, or set last, the number of items of each user, instead of days."
                )
            recent = matrix.indices[days > days.max() - self.config.days]
        counts = np.bincount(recent, minlength=matrix.shape[1])
        self.counts = torch.as_tensor(counts, dtype=torch.float32, device=context.resolve_device())
