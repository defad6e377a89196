"""Checkpoints of a fit: after a kill it goes on as if nothing had happened, with the same weights bit for bit on a CPU.

What a fit changes while it runs are its *parts*: weights, states of optimizers, counters, the record of epochs. They
are registered once (`keep`), restored if there is a checkpoint (`restore`), and offered where the fit could go on from
(`offer`): after every step of an epoch, every epoch, every iteration. Most offers are declined: by default checkpoints
take about one percent of the time. The generators of torch are always a part; nothing here draws from others.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recsys.errors import ArtifactError, DataError, StorageError
from recsys.training.checkpoint_files import newest_checkpoint, remove_checkpoints, write_checkpoint
from recsys.training.data_parallel import ALONE, Group
from recsys.training.parts import EpochPosition, Part, State, Weights

logger = logging.getLogger(__name__)

_SHARE = 0.01  # of the time is taken by checkpoints
_FIRST_COST = 0.05  # seconds: what the first one takes at least, as long as none was measured
_SPEED = 250e6  # bytes a second, likewise
_TOLD = 5  # differences that are named
_GENERATORS = "generators"
_TRAINING, _FINISHED = "training", "finished"


@dataclass
class _Clock:
    """When the next checkpoint is due; shared by the fits of one training."""

    every: float | None = None
    started: float = field(default_factory=lambda: time.monotonic())
    last: float = field(default_factory=lambda: time.monotonic())
    spent: float = 0.0
    cost: float = _FIRST_COST
    has_written: bool = False
    has_failed: bool = False

    def is_due(self) -> bool:
        now = time.monotonic()
        if self.every is not None:
            return now - self.last >= self.every
        return self.spent + self.cost <= _SHARE * (now - self.started)

    def is_worth(self, size: int) -> bool:
        """Whether it is due for so many bytes too, as long as no time was measured."""
        if self.every is None and not self.has_written:
            self.cost = _FIRST_COST + size / _SPEED
        return self.is_due()

    def add(self, seconds: float) -> None:
        self.spent, self.cost, self.last, self.has_written = self.spent + seconds, seconds, time.monotonic(), True


class Checkpoints:
    """Where one fit keeps its unfinished work, and goes on from if there is some.

    Parameters
    ----------
    folder : Path, optional
        Without one nothing is kept.
    every : float, optional
        Seconds between two checkpoints, at least; by default so many that all of them take about 1 % of the time.
    prepare : callable, optional
        Called before the first checkpoint is written.

    Attributes
    ----------
    place : EpochPosition
        Where in an epoch training is.
    seconds : float
        Time that went into what was found; 0 where the fit began anew.
    """

    def __init__(
        self, folder: Path | None = None, every: float | None = None, prepare: Callable[[], None] = lambda: None
    ):
        self.folder, self.prepare = folder, prepare
        self.seconds = 0.0
        self._clock = _Clock(every)
        self._reset({}, ALONE, torch.device("cpu"))

    def _reset(self, facts: Mapping[str, Any], group: Group, device: torch.device) -> None:
        self._facts, self._group, self._device = facts, group, device
        self._parts: dict[str, Part] = {}
        self._found: tuple[dict[str, Tensor], dict[str, Any]] | None = None
        self._place = EpochPosition()
        self._began = time.monotonic()

    @property
    def is_on(self) -> bool:
        """Whether anything is kept."""
        return self.folder is not None

    @property
    def place(self) -> EpochPosition:
        """Where in an epoch training is."""
        return self._place if self.is_on else EpochPosition()

    @property
    def spent(self) -> float:
        """Seconds that writing took in this process."""
        return self._clock.spent

    def part(self, name: str) -> Checkpoints:
        """Return the place for one of several fits of a training: a folder inside this one."""
        if self.folder is None:
            return self
        inner = Checkpoints(self.folder / name, prepare=lambda: self.prepare())
        inner._clock = self._clock
        return inner

    def begin(self, facts: Mapping[str, Any], group: Group = ALONE, device: torch.device | None = None) -> None:
        """Begin a fit: read what is there.

        Parameters
        ----------
        facts : mapping
            What decides the result: settings, seed, a digest of the matrix. Plain values.
        group : Group
            The processes that train together; the main one reads and writes.
        device : torch.device, optional
            Whose generator is kept too.

        Raises
        ------
        ArtifactError
            If a checkpoint is of a fit with other facts; it says which.
        """
        if self.folder is None:
            return
        self._reset(json.loads(json.dumps(facts, default=str)), group, device or torch.device("cpu"))
        found = newest_checkpoint(self.folder) if group.is_main else None
        differ = group.broadcast_text("" if found is None else different(found[1].get("facts"), self._facts))
        self._found = _shared(found, group)
        if differ:
            raise ArtifactError(
                f"Expected the training in {self.folder} to go on with the same data and settings; {differ}. "
                "Give the same ones, or remove it (overwrite) to start again."
            )
        seconds = None if self._found is None else self._found[1].get("seconds")
        self.seconds = float(seconds) if isinstance(seconds, int | float) else 0.0

    def keep(self, **parts: Part | nn.Module) -> None:
        """Register parts, weights before what depends on them."""
        if self.is_on:
            more = {name: Weights(part) if isinstance(part, nn.Module) else part for name, part in parts.items()}
            if again := self._parts.keys() & more.keys():
                raise ValueError(f"The parts {again} are there already: each fit of a training needs its own `part`.")
            self._parts |= more

    def restore(self) -> bool:
        """Bring all parts to the state of the checkpoint; whether there was one.

        Raises
        ------
        ArtifactError
            If it does not fit the parts.
        """
        if self._found is None or self._found[1].get("kind") != _TRAINING:
            return False
        tensors, self._found = self._found[0], None
        split: dict[str, dict[str, Tensor]] = {name: {} for name in (*self._parts, "place", _GENERATORS)}
        try:
            for key, tensor in tensors.items():
                name, _, rest = key.partition("/")
                split[name][rest] = tensor
            self._set_generators(split.pop(_GENERATORS))
            self._place.set_state(split.pop("place"))
            for name in sorted(split, key=lambda name: not isinstance(self._parts[name], Weights)):
                self._parts[name].set_state(split[name])
        except (DataError, KeyError, RuntimeError) as error:
            raise ArtifactError(
                f"The checkpoint in {self.folder} does not fit this model: {error}. Start again (overwrite)."
            ) from error
        return True

    def offer(self, within_epoch: bool = False) -> None:
        """Write a checkpoint if one is due: the fit can go on from here.

        Parameters
        ----------
        within_epoch : bool
            After a step. Several processes would have to agree on each, so they wait for the end of the epoch.
        """
        if self.folder is not None and not (within_epoch and self._group.size > 1) and self._is_due():
            generators = self._generators()
            self._write(_TRAINING, lambda: {**_prefixed({**self._parts, "place": self._place}), **generators})

    def finished(self) -> State | None:
        """Return what `offer_finished` was given in an earlier process, if it was written."""
        if self._found is None or self._found[1].get("kind") != _FINISHED:
            return None
        tensors, self._found = self._found[0], None
        return {name: tensor.clone() for name, tensor in tensors.items()}

    def offer_finished(self, get_state: Callable[[], State]) -> None:
        """Keep the result of the fit if a checkpoint is due, for what comes after it in the same training."""
        if self.folder is not None and self._is_due():
            self._write(_FINISHED, get_state)

    def remove(self) -> None:
        """Remove what is kept: the training is complete."""
        if self.folder is not None and self._group.is_main:
            remove_checkpoints(self.folder)

    def _is_due(self) -> bool:
        due = self._clock.is_due() if self._group.is_main else False
        return bool(self._group.broadcast_value(float(due))) if self._group.size > 1 else due

    def _write(self, kind: str, get_state: Callable[[], State]) -> None:
        started = time.monotonic()
        if not self._group.is_main:
            return
        state = get_state()
        if not self._clock.is_worth(sum(tensor.nbytes for tensor in state.values())):
            return
        assert self.folder is not None
        about = {"kind": kind, "facts": self._facts, "seconds": self.seconds + started - self._began}
        try:
            if not self._clock.has_written:
                self.prepare()
            write_checkpoint(self.folder, state, about)
        except StorageError as error:
            if not self._clock.has_failed:
                logger.warning("Training goes on without checkpoints, none could be written: %s", error)
            self._clock.has_failed = True
        self._clock.add(time.monotonic() - started)

    def _generators(self) -> dict[str, Tensor]:
        """The states of torch's generators, a row for each process."""
        states = {"cpu": torch.get_rng_state()}
        if self._device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self._device)
        return {f"{_GENERATORS}/{name}": self._group.gather(state) for name, state in states.items()}

    def _set_generators(self, states: State) -> None:
        torch.set_rng_state(states["cpu"][self._group.rank].clone())
        if self._device.type == "cuda" and "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"][self._group.rank].clone(), self._device)


NO_CHECKPOINTS = Checkpoints()


def _prefixed(parts: Mapping[str, Part]) -> dict[str, Tensor]:
    return {f"{name}/{key}": tensor for name, part in parts.items() for key, tensor in part.get_state().items()}


def _shared(
    found: tuple[dict[str, Tensor], dict[str, Any]] | None, group: Group
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """What the main process has found, in every process."""
    if group.size == 1:
        return found
    tensors, about = found or ({}, {})
    kinds = {name: [str(tensor.dtype).removeprefix("torch."), list(tensor.shape)] for name, tensor in tensors.items()}
    told = json.loads(group.broadcast_text(json.dumps([found is not None, kinds, about])))
    if not told[0]:
        return None
    own = {
        name: tensors[name].clone() if group.is_main else torch.empty(shape, dtype=getattr(torch, dtype))
        for name, (dtype, shape) in told[1].items()
    }
    group.broadcast(own.values())
    return own, told[2]


def different(before: Any, now: Mapping[str, Any]) -> str:
    """Say which facts differ, such as "seed was 0 and is 1"; empty where none does."""
    old, new = _flat(before if isinstance(before, Mapping) else {}), _flat(now)
    keys = [key for key in {**new, **old} if old.get(key) != new.get(key)]
    told = [f"{key} was {_short(old.get(key))} and is {_short(new.get(key))}" for key in keys[:_TOLD]]
    return ", ".join([*told, f"{len(keys) - _TOLD} more"] if keys[_TOLD:] else told)


def _flat(facts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in facts.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _short(value: Any) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
