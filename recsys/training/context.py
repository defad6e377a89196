"""How a training run happens: seed, device, precision, validation, progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch

from recsys.errors import ConfigError
from recsys.training.data_parallel import ALONE, Group
from recsys.types import ScoreFunction

# A function of a score function that says how good it is, higher is better; recsys.evaluation makes one.
Validate = Callable[[ScoreFunction], float]


@runtime_checkable
class SampledValidate(Protocol):
    """A Validate that can make do with some of its users."""

    def __call__(self, score: ScoreFunction) -> float:
        """How good the score function is."""

    def sample(self, users: int) -> Validate:
        """The same over so many users at most."""


@dataclass(frozen=True)
class Epoch:
    """What one epoch brought: mean training loss, validation value (None without one), seconds of each."""

    number: int  # from 1
    loss: float
    value: float | None
    train_seconds: float
    validate_seconds: float
    best: bool  # the best so far


def _ignore_step(step: int, steps: int) -> None:
    """Nothing."""


def _ignore_epoch(epoch: Epoch, epochs: int) -> None:
    """Nothing."""


@dataclass(frozen=True)
class TrainingContext:
    """How this run happens; never saved with the model.

    validate: called after every epoch with the score function; without it all epochs run and the last weights stay.
    patience: epochs without a better value before the loop stops. stop_after: stop after so many epochs in any case,
    schedules being those of all of them. on_step and on_epoch are told the progress. group: the processes that train
    this model together; the main one validates for all.
    """

    seed: int = 0
    device: str = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    validate: Validate | None = None
    patience: int = 10
    stop_after: int | None = None
    group: Group = ALONE
    on_step: Callable[[int, int], None] = field(default=_ignore_step)
    on_epoch: Callable[[Epoch, int], None] = field(default=_ignore_epoch)

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise ConfigError(f"Expected patience of at least 1 epoch, found {self.patience}.")
        if self.stop_after is not None and self.stop_after < 1:
            raise ConfigError(f"Expected stop_after of at least 1 epoch, found {self.stop_after}.")
        if self.precision not in ("fp32", "bf16"):
            raise ConfigError(f"Expected precision fp32 or bf16, found {self.precision!r}.")

    def resolve_device(self) -> torch.device:
        """The device asked for; `auto` is the GPU when there is one. Raises ConfigError where it cannot be had."""
        name = self.device if self.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cuda" and self.group.size > 1:
            name = f"cuda:{self.group.local_rank}"
        try:
            torch.empty(0, device=name)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(
                f"Expected a device such as auto, cpu or cuda:0; {name!r} cannot be used here."
            ) from error
        return torch.device(name)
