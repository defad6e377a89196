"""The flags of commands that make lists by rules."""

from __future__ import annotations

from dataclasses import dataclass

from recsys.errors import ConfigError
from recsys.inference.rules import RuleSet
from recsys.models.trained import TrainedModel
from recsys.system.storage import Location

from .options import setting


@dataclass(frozen=True)
class RuleFlags:
    """Rules of lists, and how much the items of a list differ."""

    rules: Location | None = setting(None, "TOML file of rules: exclude, only, boost, promote, cap; and variety.")
    diversity: float | None = setting(None, "How much the items of a list differ, from 0 to below 1, such as 0.3.")

    def __post_init__(self) -> None:
        if self.diversity is not None and not 0 <= self.diversity < 1:
            raise ConfigError(f"Expected diversity from 0 to below 1, found {self.diversity}.")

    def read(self, saved: TrainedModel) -> RuleSet | None:
        """The rules for the items of a model; None where neither flag was given."""
        if self.rules is None and self.diversity is None:
            return None
        return saved.read_rules(self.rules, self.diversity)
