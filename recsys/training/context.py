"""Settings of a training run: seed, device, precision, validation, progress callbacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, runtime_checkable

import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.errors import ConfigError
from recsys.training.checkpoint import NO_CHECKPOINTS, Checkpoints
from recsys.training.data_parallel import ALONE, Group
from recsys.training.parts import part_of
from recsys.types import ScoreFunction

# Rates a score function, higher is better; recsys.evaluation.evaluate.Validator is one.
Validate = Callable[[ScoreFunction], float]


@runtime_checkable
class SampledValidate(Protocol):
    """A validation function that can also be run on a sample of its users."""

    def __call__(self, score: ScoreFunction) -> float:
        """Return the validation value of a score function; higher is better."""

    def sample(self, users: int) -> Validate:
        """Return the same function over at most `users` users."""


@dataclass(frozen=True)
class Epoch:
    """The outcome of one epoch.

    Attributes
    ----------
    number : int
        Counted from 1.
    loss : float
        Mean training loss over the rows.
    value : float or None
        Validation value, higher is better; None without validation.
    train_seconds, validate_seconds : float
        Wall-clock time of each part.
    best : bool
        Whether the validation value is the best so far.
    """

    number: int
    loss: float
    value: float | None
    train_seconds: float
    validate_seconds: float
    best: bool


def describe_training(epochs: Sequence[Epoch], planned: int) -> str:
    """Say in one sentence where training ended and which weights were kept; nothing for no epochs."""
    if not epochs:
        return ""
    last = epochs[-1].number
    best = max((epoch.number for epoch in epochs if epoch.best), default=None)
    if best is None:
        return f"trained for {last} of {planned} epochs without validation; the weights of the last epoch are kept"
    if last < planned:
        return (
            f"stopped after epoch {last} of {planned}: no better validation value since epoch {best}, "
            "whose weights are kept"
        )
    return f"trained for all {planned} epochs; the weights of epoch {best}, the best on validation, are kept"


def _ignore_step(step: int, steps: int) -> None:
    """Do nothing."""


def _ignore_epoch(epoch: Epoch, epochs: int) -> None:
    """Do nothing."""


def _ignore_resume(epochs: Sequence[Epoch], planned: int) -> None:
    """Do nothing."""


def _ignore_phase(name: str, done: int, total: int) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class WarmStart:
    """What a fit begins with instead of random weights, and how it goes on from there.

    Annealing does not start over: it has ended. The learning rate begins as configured and falls to 0 in equal steps,
    which gives a network the quality of a full fit in few epochs; a constant one does not
    (`benchmarks/warm_start.py`).

    Parameters
    ----------
    state : mapping of str to Tensor
        What the model declares to begin with (`recsys.models.warm_start.carry_state`), over the columns of the matrix.
    share : float
        Share of the configured epochs or iterations that is planned, in (0, 1]; at least one is.
    patience : int, optional
        Largest patience; that of the context without it.
    """

    state: Mapping[str, Tensor]
    share: float = 0.125
    patience: int | None = 3

    def part(self, prefix: str) -> WarmStart | None:
        """Return the start of a part of the model: the tensors whose names begin with `prefix`; None for none."""
        own = part_of(self.state, prefix)
        return replace(self, state=own) if own else None


@dataclass(frozen=True)
class TrainingContext:
    """How a training run happens: everything that is not part of the model and never saved with it.

    Parameters
    ----------
    seed : int
        Seed of all random draws of the fit.
    device : str
        `auto` (the GPU if there is one), `cpu`, `cuda` or `cuda:0`.
    precision : {"fp32", "bf16", "auto"}
        Precision of the matrix products in training; `auto` is bf16 where the chip multiplies it natively and the model
        was measured to learn as well (see recsys.training.precision). Results then depend on the chip.
    validate : callable, optional
        Called with the score function after every epoch; higher is better. The weights of the best epoch are kept.
        Without it, all epochs run and the last weights are kept.
    patience : int
        Early stopping: number of epochs without a better validation value after which training stops.
    stop_after : int, optional
        Stop after this many epochs. Schedules (annealing, learning rate) still follow the configured number of epochs.
    group : Group
        The processes that train this model together. The main process validates for all of them.
    start : WarmStart, optional
        Go on from an earlier fit; without it the fit begins with random weights.
    keep_gram : bool
        Keep the Gram matrix of a model in closed form beside its weights, for later warm starts: twice the memory.
    checkpoints : Checkpoints
        Where the unfinished work of one fit is kept, and where it goes on from; nowhere by default.
    item_features : csr_matrix, shape (items, features), optional
        What is known of the items, in the order of the columns of the matrix, for models that use it. Items that no
        user has had may have features too: their columns are empty.
    keep_freed_memory : bool
        Change the allocator policy of the whole process while a network trains, so that freed memory is reused instead
        of returned to the system (glibc only, see `recsys.system.memory.keep_freed_memory`). Faster, but a decision of
        the application, not of a library: off by default.
    on_step : callable (step, steps)
        Called after each optimizer step of an epoch.
    on_epoch : callable (epoch, epochs)
        Called after each epoch with an `Epoch` and the planned number of epochs.
    on_resume : callable (epochs, planned)
        Called once where training goes on from a checkpoint, with the epochs that were done before and the planned
        number.
    on_phase : callable (name, done, total)
        Called by fits without epochs (closed forms, alternating least squares, neighbors, blends): with done = 0 when
        a named phase starts, then after each of its `total` parts.

    Raises
    ------
    ConfigError
        If patience or stop_after is below 1, or the precision is unknown.
    """

    seed: int = 0
    device: str = "auto"
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    validate: Validate | None = None
    patience: int = 10
    stop_after: int | None = None
    group: Group = ALONE
    start: WarmStart | None = None
    keep_gram: bool = False
    checkpoints: Checkpoints = NO_CHECKPOINTS
    item_features: csr_matrix | None = field(default=None, compare=False, repr=False)
    keep_freed_memory: bool = False
    on_step: Callable[[int, int], None] = field(default=_ignore_step)
    on_epoch: Callable[[Epoch, int], None] = field(default=_ignore_epoch)
    on_resume: Callable[[Sequence[Epoch], int], None] = field(default=_ignore_resume)
    on_phase: Callable[[str, int, int], None] = field(default=_ignore_phase)

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise ConfigError(f"Expected patience of at least 1 epoch, found {self.patience}.")
        if self.stop_after is not None and self.stop_after < 1:
            raise ConfigError(f"Expected stop_after of at least 1 epoch, found {self.stop_after}.")
        if self.precision not in ("fp32", "bf16", "auto"):
            raise ConfigError(f"Expected precision fp32 or bf16, or auto, found {self.precision!r}.")

    def planned(self, configured: int) -> int:
        """Return how many of the configured epochs or iterations are planned: a share of them in a warm start."""
        return configured if self.start is None else max(1, int(self.start.share * configured))

    def resolve_device(self) -> torch.device:
        """Return the torch device; `auto` is the GPU if there is one.

        Raises
        ------
        ConfigError
            If the device does not exist on this machine.
        """
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
