"""The folder of a nightly job: what the file of the job says, which night it is, and what is done of it.

nights/CURRENT                       2026-11-26-1f3a90c2: the night whose lists are in use
nights/trend.html                    the measures of the last nights
nights/2026-11-26-1f3a90c2/          the date, and the first digits of the fingerprint of its inputs
    night.json                       the inputs and the result of every finished step
    published                        is there once CURRENT has named this night
    model/ champion/ lists/          the new model, the champion at its start, the lists
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from recsys.errors import ArtifactError, ConfigError, DataError
from recsys.system.atomic import json_text, parse_json
from recsys.system.files import sha256, write_text
from recsys.system.packages import versions
from recsys.system.storage import Location, as_location, folder_at
from recsys.system.toml_files import read_toml

from .options import refuse_unknown

STEPS = ("check", "train", "evaluate", "promote", "score")  # each a command, with a table of its flags
POINTER, STATE, DONE, TREND = "CURRENT", "night.json", "published", "trend.html"
_NIGHT = re.compile(r"\d{4}-\d{2}-\d{2}-[0-9a-f]{8}\Z")
_LOOKED_AT = 60  # earlier nights whose steps may be taken over


@dataclass(frozen=True)
class Plan:
    """What the file says: ratings, the registered name, the folder of nights, and the flags of each step.

    publish: an address of an object store where the lists go, with a CURRENT of its own; None for the folder of nights.
    """

    ratings: tuple[str, ...]
    name: str
    output: Path
    publish: Location | None
    warm_start: bool
    flags: Mapping[str, Mapping[str, Any]]

    def lists(self, night: str) -> Location:
        """Where the lists of a night are."""
        return self.output / night / "lists" if self.publish is None else f"{self.publish}/{night}/lists"


@dataclass
class State:
    """What is done of a night: its run in MLflow, and the record of every finished step.

    A record has the `inputs` of the step (a digest), its `result`, and the night it was `taken_from`, if any.
    """

    folder: Path
    inputs: str
    run_id: str | None = None
    refused: str = ""
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)

    def write(self) -> None:
        """Write it down, whole or not at all."""
        content = {"inputs": self.inputs, "run_id": self.run_id, "refused": self.refused, "steps": self.steps}
        write_text(self.folder / STATE, json_text(content))

    def result(self, step: str) -> Mapping[str, Any]:
        """The result of a step; empty where it is not done."""
        found: Mapping[str, Any] = self.steps.get(step, {}).get("result", {})
        return found


def read_plan(file: Path) -> Plan:
    """Read the file of the job. Raises ConfigError for anything but what is expected."""
    table = read_toml(file, "the job")
    refuse_unknown(table, {"ratings", "name", "output", "publish", "warm_start", *STEPS}, f"in {file}")
    ratings = table.get("ratings")
    ratings = [ratings] if isinstance(ratings, str) else ratings
    if not (isinstance(ratings, list) and ratings and all(isinstance(one, str) for one in ratings)):
        raise ConfigError(f'Expected ratings = "FILE" (or a list of files) in {file}, found {ratings!r}.')
    name, output = table.get("name"), table.get("output", "nights")
    if not (isinstance(name, str) and name and isinstance(output, str)):
        raise ConfigError(f'Expected name = "NAME" of the model in the registry in {file}, found {name!r}.')
    publish = table.get("publish")
    if publish is not None and not (isinstance(publish, str) and "://" in publish):
        raise ConfigError(f'Expected publish = "s3://BUCKET/KEY" (or another address) in {file}, found {publish!r}.')
    flags = {step: table.get(step, {}) for step in STEPS}
    if wrong := [step for step, own in flags.items() if not isinstance(own, dict)]:
        raise ConfigError(f"Expected a table [{wrong[0]}] of flags in {file}, found {flags[wrong[0]]!r}.")
    if not isinstance(flags["train"].get("test_bucket", flags["train"].get("test-bucket")), float):
        raise ConfigError(f"Expected test_bucket = 0.05 (or another share) in [train] of {file}: users judge by it.")
    place = None if publish is None else as_location(publish)
    return Plan(tuple(ratings), name, Path(output), place, bool(table.get("warm_start", False)), flags)


# Fingerprints


def fingerprint(file: Path, plan: Plan) -> str:
    """A digest of everything that decides the night: the file, and the bytes of the ratings."""
    return _digest(file.read_bytes(), ratings_digest(plan))


def ratings_digest(plan: Plan) -> str:
    """A digest of the bytes of the ratings."""
    parts = []
    for place in map(Path, plan.ratings):
        if not place.exists():
            raise DataError(f"Expected ratings at {place}, found nothing.")
        files = sorted(one for one in place.rglob("*") if one.is_file()) if place.is_dir() else [place]
        parts += [f"{one.relative_to(place) if place.is_dir() else ''}:{sha256(one)}" for one in files]
    return _digest(*parts)


def step_inputs(step: str, plan: Plan, ratings: str, *upstream: str) -> str:
    """A digest of what decides a step: version, flags, the files they name, the ratings, and what came before."""
    named = [
        f"{key}:{sha256(Path(value))}"
        for key, value in sorted(plan.flags[step].items())
        if isinstance(value, str) and Path(value).is_file()
    ]
    return _digest(step, str(versions().get("recsys")), json_text(plan.flags[step]), *named, ratings, *upstream)


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(f"{len(data)}:".encode() + data)
    return digest.hexdigest()


# Nights


def nights(output: Path) -> list[str]:
    """Names of all nights, the earliest first."""
    return sorted(path.name for path in output.iterdir() if _NIGHT.match(path.name)) if output.is_dir() else []


def choose_night(output: Path, inputs: str, day: str = "", force: bool = False) -> tuple[Path, bool]:
    """The folder of the night, and whether there is something to do: an unfinished one of the same inputs goes on."""
    same, current = [name for name in nights(output) if name.endswith(inputs[:8])], read_current(output)
    if same and not force:
        if same[-1] == current:
            return output / same[-1], False
        if not (output / same[-1] / DONE).exists():
            return output / same[-1], True
    try:
        chosen = date.fromisoformat(day) if day else date.today()
    except ValueError as error:
        raise ConfigError(f"Expected a date such as 2026-11-26, found {day!r}.") from error
    name = f"{chosen.isoformat()}-{inputs[:8]}"
    if name == current or (output / name / DONE).exists():
        raise ConfigError(f"Expected another date than that of {name}, which is complete.")
    return output / name, True


def read_current(output: Path) -> str | None:
    """The night in use."""
    file = output / POINTER
    return file.read_text(encoding="utf-8").strip() if file.is_file() else None


def read_state(folder: Path, inputs: str) -> State:
    """What is done of a night of these inputs."""
    found = stored(folder)
    if found is None:
        return State(folder, inputs)
    if found.inputs != inputs:
        raise ArtifactError(
            f"Expected the steps of this night in {folder / STATE}, found those of other inputs: remove {folder}."
        )
    return found


def stored(folder: Path) -> State | None:
    """What is written down of a night; None where that is nothing."""
    file = folder / STATE
    if not file.exists():
        return None
    found = parse_json(file.read_bytes(), file)
    inputs, run_id, steps = found.get("inputs"), found.get("run_id"), found.get("steps")
    records = list(steps.values()) if isinstance(steps, dict) else [None]
    if not (isinstance(inputs, str) and all(isinstance(one, dict) and "result" in one for one in records)):
        raise ArtifactError(f"{file} is damaged or not from recsys: remove {folder}.")
    return State(folder, inputs, None if run_id is None else str(run_id), str(found.get("refused", "")), steps or {})


def done_before(plan: Plan, night: str, step: str, inputs: str) -> tuple[Path, dict[str, Any]] | None:
    """An earlier night in which a step with the same inputs is done, and its record; the latest of them."""
    for name in reversed([name for name in nights(plan.output) if name != night][-_LOOKED_AT:]):
        try:
            found = stored(plan.output / name)
        except ArtifactError:
            continue  # a damaged night takes no part
        record = found.steps.get(step) if found is not None else None
        if record is not None and record.get("inputs") == inputs:
            return plan.output / name, record
    return None


def link_folder(source: Path, target: Path) -> None:
    """Let a folder appear under another name too, at once; its files are shared where the disk can do that."""
    if target.exists():
        return
    draft = target.with_name(f"{target.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(source, draft, copy_function=_link)
    draft.rename(target)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def publish(plan: Plan, folder: Path) -> None:
    """Let CURRENT name this night, in one step; in an object store before it is done here."""
    if plan.publish is not None:
        with folder_at(plan.publish).new_file(POINTER) as draft:
            draft.write_text(f"{folder.name}\n", encoding="utf-8")
    if read_current(plan.output) != folder.name:
        write_text(plan.output / POINTER, f"{folder.name}\n")
    if not (folder / DONE).exists():
        write_text(folder / DONE, "")


@contextlib.contextmanager
def alone(output: Path) -> Iterator[None]:
    """Refuse a second job in the same folder while one is at work."""
    from filelock import FileLock, Timeout  # comes with torch

    output.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(output / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise ConfigError(f"Expected no other nightly job in {output}, found one at work: wait for its end.") from error
