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


def tunable(default: Any, space: Space) -> Any:
    """Return a field of a Config with a default and a search space."""
    return dataclasses.field(default=default, metadata={"search": space})


def search_space(config: type[Any]) -> dict[str, Space]:
    """Return the search spaces of a Config by setting; settings without one are not searched."""
    return {item.name: item.metadata["search"] for item in dataclasses.fields(config) if "search" in item.metadata}
