"""Where to look for a setting's best value: written beside its default, read by recsys.tuning.

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
    """Numbers from low to high, both included; whole ones where both ends are. `log`: every decade gets its share."""

    low: float
    high: float
    log: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)


@dataclass(frozen=True)
class Choice:
    """One of a few."""

    options: tuple[Any, ...]


Space = Range | Choice


def tunable(default: Any, space: Space) -> Any:
    """A field of a Config with its default and where to search."""
    return dataclasses.field(default=default, metadata={"search": space})


def search_space(config: type[Any]) -> dict[str, Space]:
    """What can be searched of a Config, by setting; the others keep their defaults."""
    return {item.name: item.metadata["search"] for item in dataclasses.fields(config) if "search" in item.metadata}
