"""The search space of a setting: written beside its default, read by recsys.tuning.

```
@dataclass(frozen=True)
class EASEConfig:
    l2: float = tunable(500.0, Range(10.0, 10_000.0, log=True))
```
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included; integers if both are. `log`: sampled evenly on a logarithmic scale."""

    low: float
    high: float
    log: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether the range is one of integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)


@dataclass(frozen=True)
class Categorical:
    """One of the given options."""

    options: tuple[Any, ...]


Space = Range | Categorical


def tunable(default: Any, space: Space, *, with_features: bool = False) -> Any:
    """Return a field of a Config with a default and a search space; `with_features`: of fits with item features."""
    return dataclasses.field(default=default, metadata={"search": space, "with_features": with_features})


def search_space(config: type[Any], with_features: bool = True) -> dict[str, Space]:
    """Return the search spaces of a Config by setting; settings without one are not searched.

    Without features, neither are those of fits with item features.
    """
    searched = [item for item in dataclasses.fields(config) if "search" in item.metadata]
    return {
        item.name: item.metadata["search"] for item in searched if with_features or not item.metadata["with_features"]
    }
