"""Training that goes on after a kill: where its checkpoints are, whether they belong to it, and when it is complete."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from recsys.data.interactions import Interactions
from recsys.data.item_features.features import fingerprint_of
from recsys.errors import ArtifactError, ConfigError
from recsys.models import Recommender
from recsys.system.atomic import parse_json, refuse_existing
from recsys.system.hardware import cpu_name
from recsys.system.packages import versions
from recsys.training.checkpoint import Checkpoints, different
from recsys.training.checkpoint_files import has_checkpoints, read_description, remove_checkpoints, write_description
from recsys.training.data_parallel import Group

from .options import setting
from .output import note

MARK = "model.json"

# What a job says of where and how it happens, not of what it trains; the ratings count by their content.
_OUTSIDE = {
    "ratings",
    "reading",
    "output",
    "overwrite",
    "tracking",
    "keeping",
    "model",
    "settings",
    "device",
    "register",
}


@dataclass(frozen=True)
class KeepingOptions:
    """What is kept of a training until it is complete."""

    resume: bool = setting(False, "Go on with the interrupted training whose checkpoints are in OUTPUT.checkpoint.")
    checkpoint_every: float | None = setting(
        None, "Seconds between two checkpoints, at least (inf: none); by default they take 1 % of the time."
    )

    def __post_init__(self) -> None:
        every = self.checkpoint_every
        if every is not None and (math.isnan(every) or every < 0):
            raise ConfigError(f"Expected checkpoint_every of 0 seconds or more, found {every}.")


@dataclass(frozen=True)
class Training:
    """A training among its checkpoints.

    run_id: of the tracked run of the interrupted training. overwrite: whether the model directory may be replaced.
    complete: the content of model.json where the training was complete already, else None.
    """

    checkpoints: Checkpoints
    facts: Mapping[str, Any]
    overwrite: bool
    run_id: str | None = None
    complete: Mapping[str, Any] | None = None

    def remember(self, run_id: str | None) -> None:
        """Let the first checkpoint say what is trained, where, and in which tracked run."""
        assert self.checkpoints.folder is not None
        about = {"training": self.facts, "machine": machine(), "run_id": run_id}
        self.checkpoints.prepare = partial(write_description, self.checkpoints.folder, about)


def folder_of(output: Path) -> Path:
    """Where the checkpoints of a training are: beside its model directory; behind a link, beside what it points to."""
    target = output.resolve() if output.is_symlink() or output.name in ("", "..") else output
    return target.with_name(f"{target.name}.checkpoint")


def refuse_early(output: Path, options: KeepingOptions, overwrite: bool) -> None:
    """Refuse what would be replaced, before the data are read; with --resume that depends on the data."""
    if not options.resume:
        refuse_existing(output, MARK, overwrite)
        if not overwrite and has_checkpoints(folder_of(output)):
            raise ArtifactError(
                f"{folder_of(output)} holds a training that was interrupted: add --resume to go on with it, or "
                "--overwrite to start again."
            )


def open_training(
    output: Path, options: KeepingOptions, overwrite: bool, facts: Mapping[str, Any], group: Group
) -> Training:
    """Begin a training, or find what is left of an interrupted one; the main process decides for all.

    Raises ArtifactError where it was another training, or something else is in the way.
    """
    folder = folder_of(output)
    checkpoints = Checkpoints(folder, options.checkpoint_every)
    if not options.resume:
        if group.is_main:
            remove_checkpoints(folder)
        return Training(checkpoints, facts, overwrite)
    refusal, about, complete = "", None, None
    if group.is_main:
        try:
            about, complete = read_description(folder), complete_model(output, facts)
            _check(output, about, complete, overwrite, facts)
            if about is None:  # it is unknown what the checkpoints are of, if there are any
                remove_checkpoints(folder)
        except ArtifactError as error:
            refusal = str(error)
    refusal, about, complete = json.loads(group.broadcast_text(json.dumps([refusal, about, complete])))
    if refusal:
        raise ArtifactError(refusal)
    run_id = None if about is None else about.get("run_id")
    is_left = about is not None
    return Training(checkpoints, facts, overwrite or complete is not None, run_id, None if is_left else complete)


def _check(
    output: Path, about: Mapping[str, Any] | None, complete: object, overwrite: bool, facts: Mapping[str, Any]
) -> None:
    """Refuse another training; say what is found."""
    folder = folder_of(output)
    if complete is None:
        refuse_existing(output, MARK, overwrite)
    if about is None:
        if complete is None:
            note(f"There is no checkpoint in {folder}: the training starts from its beginning.")
        return
    if differ := different(about.get("training"), facts):
        raise ArtifactError(
            f"Expected the same training as the one that was interrupted; {differ}. Give the same ratings and "
            "settings, or leave --resume out and add --overwrite to start again."
        )
    if differ := different(about.get("machine"), machine()):
        note(f"The weights may differ in their last digits from those of a training without a break: {differ}.")


def complete_model(output: Path, facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """The content of model.json if the model directory is what this training makes, else None."""
    file = output / MARK
    try:
        about = parse_json(file.read_bytes(), file)
    except (OSError, ArtifactError):
        return None
    data, split = (_table(about.get(name)) for name in ("data", "split"))
    found = {
        **{name: about.get(name) for name in ("model", "seed")},
        "settings": about.get("config"),
        "data": data.get("fingerprint"),
        **{name: split.get(name) for name in ("held_out", "refit")},
    }
    return about if all(value == facts[name] for name, value in found.items()) else None


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def training_facts(job: Any, interactions: Interactions, model: Recommender) -> dict[str, Any]:
    """What decides the result of a training, as plain values: data, model, settings, and the job's own."""
    chosen = {name: value for name, value in _flat(job) if name not in _OUTSIDE}
    facts = {"data": interactions.fingerprint(), "model": model.name, "settings": asdict(model.config), **chosen}
    if interactions.features is not None and interactions.features.matrix is not None:
        facts["features"] = fingerprint_of(interactions.features.matrix)
    plain: dict[str, Any] = json.loads(json.dumps(facts, default=str))
    return plain


def _flat(options: Any) -> Iterator[tuple[str, Any]]:
    """Names and values of all options of a job; those that lie outside of a training are not looked into."""
    for item in dataclasses.fields(options):
        value = getattr(options, item.name)
        if dataclasses.is_dataclass(value) and item.name not in _OUTSIDE:
            yield from _flat(value)
        else:
            yield item.name, value


def machine() -> dict[str, Any]:
    """What the last digits of the weights depend on besides the training itself."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"processor": cpu_name(), "gpu": gpu, "threads": torch.get_num_threads(), "versions": versions()}


def resume_hint(output: Path) -> str:
    """How to go on with an interrupted training, where something was kept."""
    if not has_checkpoints(folder_of(output)):
        return ""
    return f"What was trained is in {folder_of(output)}: run the same command with --resume to go on."
