"""What a search of settings is given and finds: budget, search space, trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from recsys.data.matrix import without_order
from recsys.errors import ConfigError
from recsys.evaluation.metrics import goodness
from recsys.models import create_model
from recsys.models.search_space import Space, search_space
from recsys.splitting.holdout import Split


@dataclass(frozen=True)
class Budget:
    """When a search ends; at least one trial is always made.

    Attributes
    ----------
    trials : int
        After so many trials, unless `minutes` is given.
    minutes : float, optional
        After so many minutes of trials, however many they are.
    """

    trials: int = 20
    minutes: float | None = None

    def __post_init__(self) -> None:
        if self.trials < 1 or (self.minutes is not None and self.minutes <= 0):
            raise ConfigError(f"Expected at least 1 trial and more than 0 minutes, found {self}.")

    def is_spent(self, trials: list[Trial]) -> bool:
        """Whether the budget is used up."""
        if self.minutes is None:
            return len(trials) >= self.trials
        return bool(trials) and sum(trial.seconds for trial in trials) >= 60 * self.minutes


@dataclass(frozen=True)
class Trial:
    """One proposal and its outcome.

    Attributes
    ----------
    number : int
        From 1.
    settings : mapping
        The settings that were proposed.
    value : float, optional
        Validation metric of the best epoch; None for a trial that failed.
    state : {"complete", "pruned", "failed"}
        Pruned: stopped early, being worse than half of the others at the same epoch.
    seconds : float
        Duration.
    reason : str
        Why it failed.
    """

    number: int
    settings: Mapping[str, Any]
    value: float | None
    state: Literal["complete", "pruned", "failed"]
    seconds: float
    reason: str = ""


@dataclass(frozen=True)
class Tuned:
    """All trials of a model.

    Attributes
    ----------
    model, metric : str
        What was searched, and by what it was judged.
    trials : list of Trial
        In order.
    """

    model: str
    metric: str
    trials: list[Trial]

    @property
    def leader(self) -> Trial | None:
        """The complete trial with the best value, the first of equals; None while there is none."""
        complete = [trial for trial in self.trials if trial.state == "complete" and trial.value is not None]
        return max(complete, key=lambda trial: (goodness(self.metric, trial.value or 0), -trial.number), default=None)

    @property
    def best(self) -> Trial:
        """The complete trial with the best value; ConfigError if there is none."""
        if self.leader is None:
            reasons = "; ".join(dict.fromkeys(trial.reason for trial in self.trials if trial.reason))
            raise ConfigError(f"Expected at least one completed trial of {self.model}, found none. {reasons}")
        return self.leader

    @property
    def seconds(self) -> float:
        """Total time of the trials."""
        return sum(trial.seconds for trial in self.trials)


@dataclass(frozen=True)
class Search:
    """What is searched.

    Attributes
    ----------
    model : str
        Name of the model.
    fixed : mapping
        Settings that are not searched.
    split : Split
        Training and validation parts; the test part is not used.
    metric : str
        Validation metric.
    seed : int
        Of the proposals and of the fits.
    fold : str
        Name of the fold; empty for a single split.
    label : str
        Tells searches of one model apart; the name of the model where empty.
    """

    model: str
    fixed: Mapping[str, Any]
    split: Split
    metric: str
    seed: int = 0
    fold: str = ""
    label: str = ""

    @property
    def name(self) -> str:
        """Name of the search: one per label and fold."""
        return " ".join(filter(None, (self.label or self.model, self.fold)))

    def space(self) -> dict[str, Space]:
        """Return the model's search space without the fixed settings."""
        model = create_model(self.model, self.fixed)
        found = search_space(type(model.config), model.uses_features)
        return {key: space for key, space in found.items() if key not in self.fixed}

    def defaults(self) -> dict[str, Any]:
        """The defaults of what is searched: the first trial, unless they lie outside of their own space."""
        config = create_model(self.model, self.fixed).scaled_config(without_order(self.split.train.matrix))
        return {key: getattr(config, key) for key in self.space()}
