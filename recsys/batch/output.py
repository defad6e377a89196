"""A batch output on disk: a plan, shards written one by one, and a manifest that says all are there.

```
plan.json                  what will be written; the same plan gives the same bytes
recommendations/part-*     user_id, item_id, rank (from 1), score: users in order, best item first
short_lists/part-*         user_id, items, reason: who got fewer than n items, and why
manifest.json              last: the sign of completeness, with rows and sha256 of every file
```
It lies in a folder of this machine or of an object store (recsys.places). A shard's files appear whole, then are noted
in progress.jsonl. A job that was killed goes on after the shards noted there; one whose files are damaged is written
again. How a shard is made: recsys.shards.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from recsys.errors import ArtifactError, ConfigError
from recsys.system.atomic import refuse_existing, write_json
from recsys.system.hardware import versions
from recsys.system.storage import Folder, Location, folder_at

SCHEMA_VERSION = 1

_PLAN, _PROGRESS, _MANIFEST = "plan.json", "progress.jsonl", "manifest.json"
_FOLDERS = ("recommendations", "short_lists")

Note = dict[str, Any]  # of a finished shard: users, rows, short lists, sha256 of its files


@dataclass(frozen=True)
class Shard:
    """Users `start`.. before `stop`, and the name of their files."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class Plan:
    """All that decides the bytes of a batch: whose lists, from which model and histories, by which rules, how cut."""

    model: str  # digest of the model directory
    audience: str  # fingerprint of the users, their histories and the rules
    users: int
    n: int = 10
    lists_for: Literal["users", "items"] = "users"  # items: their most similar ones
    filter_seen: bool = True
    cold: Literal["popularity", "skip"] = "skip"  # what a user gets who cannot be scored; the former adds a column
    shard_users: int = 65_536  # users a file
    format: Literal["parquet", "csv"] = "parquet"
    csv_safe: bool = False
    device: str = "cpu"  # kind of device: they round differently
    precision: Literal["fp32", "bf16"] = "fp32"  # of the scores
    tile: int = 256  # users scored in one product, whose last bits depend on its shape

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "bf16"):
            raise ConfigError(f"Expected precision fp32 or bf16, found {self.precision!r}.")
        for name in ("n", "shard_users", "tile"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Expected {name} of at least 1, found {getattr(self, name)}.")
        if self.csv_safe and self.format != "csv":
            raise ConfigError("Expected --csv-safe with --format csv, found parquet: only spreadsheets need it.")

    @property
    def target(self) -> str:
        """Name of the column that says whose list it is."""
        return "user_id" if self.lists_for == "users" else "target_item_id"

    @property
    def hash(self) -> str:
        """sha256 of the plan."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def shards(self) -> list[Shard]:
        """The users cut into consecutive shards."""
        starts = range(0, self.users, self.shard_users)
        ends = [min(start + self.shard_users, self.users) for start in starts]
        return [Shard(f"part-{i:05d}", *bounds) for i, bounds in enumerate(zip(starts, ends, strict=True))]

    def files(self, shard: Shard) -> list[str]:
        """Names of the shard's two files: its lists, and its short lists (always Parquet)."""
        return [f"{_FOLDERS[0]}/{shard.name}.{self.format}", f"{_FOLDERS[1]}/{shard.name}.parquet"]


def open_output(directory: Location, plan: Plan, resume: bool = False, overwrite: bool = False) -> dict[str, Note]:
    """Make the folder ready; notes of the shards that are done already and whole, by name.

    Raises ArtifactError where the folder holds something and neither `resume` nor `overwrite` is given, or where
    `resume` finds the output of another plan.
    """
    folder = folder_at(directory)
    if resume and folder.is_file(_PLAN):
        if _read_json(folder, _PLAN).get("hash") != plan.hash:
            raise ArtifactError(
                f"{folder} holds the output of another job (other model, histories or settings): resume it with "
                "its own settings, choose another place, or use --overwrite instead of --resume."
            )
        folder.make(*_FOLDERS)
        return _finished(folder, plan)
    refuse_output(directory, overwrite=overwrite)
    folder.make()
    _clear(folder)
    # The plan is never missing once there is anything else: it shows whose folder this is, should the job be killed.
    with folder.new_file(_PLAN) as file:
        write_json(file, {"hash": plan.hash, **asdict(plan)})
    folder.make(*_FOLDERS)
    return {}


def refuse_output(directory: Location, resume: bool = False, overwrite: bool = False) -> None:
    """Raise ArtifactError where something is in the way of an output: better before all the work than after it."""
    if not (resume and folder_at(directory).is_file(_PLAN)):
        refuse_existing(directory, _PLAN, overwrite)


def _clear(folder: Folder) -> None:
    """Remove an earlier output, the manifest first: without it nobody takes the rest for complete."""
    for name in (_MANIFEST, _PROGRESS):
        folder.remove(name)
    for name in (name for inner in _FOLDERS for name in folder.names(inner)):
        if name.partition("/")[2].startswith("part-"):
            folder.remove(name)


def _read_json(folder: Folder, name: str) -> dict[str, Any]:
    try:
        return dict(json.loads(folder.read_text(name)))
    except (ValueError, TypeError) as error:
        raise ArtifactError(f"{folder}/{name} is damaged ({error}): use --overwrite instead of --resume.") from error


def _finished(folder: Folder, plan: Plan) -> dict[str, Note]:
    notes: dict[str, Note] = {}
    if folder.is_file(_MANIFEST):
        notes = _read_json(folder, _MANIFEST).get("shards", {})
        folder.remove(_MANIFEST)  # whatever is missing, the output is not complete until it is written anew
        for name, note in notes.items():
            _note(folder, name, note)
    elif folder.is_file(_PROGRESS):
        notes = dict(_read_notes(folder.read_text(_PROGRESS)))
    whole = {name: note for name, note in notes.items() if _is_whole(folder, note)}
    return {shard.name: whole[shard.name] for shard in plan.shards if shard.name in whole}


def _read_notes(text: str) -> Iterator[tuple[str, Note]]:
    for line in text.splitlines():
        try:
            name, note = json.loads(line)
        except ValueError:
            continue  # a job was killed while it wrote this line; the shard is written again
        yield name, note


def _is_whole(folder: Folder, note: Note) -> bool:
    return all(folder.is_file(name) and folder.sha256(name) == sum for name, sum in note["sha256"].items())


def keep_notes(
    directory: Location, plan: Plan, done: Mapping[str, Note], written: Iterable[tuple[str, Note]]
) -> Iterator[tuple[str, Note]]:
    """Note each shard as it is written, so that a killed job can go on after it; the `done` ones come first.

    Raises ArtifactError where another job has taken the folder meanwhile.
    """
    folder = folder_at(directory)
    yield from done.items()
    for name, note in written:
        _require_ours(folder, plan)
        _note(folder, name, note)
        yield name, note


def _note(folder: Folder, name: str, note: Note) -> None:
    folder.append(_PROGRESS, "\n" + json.dumps([name, note]))  # on its own line, whatever a killed job left before


def _require_ours(folder: Folder, plan: Plan) -> None:
    if not folder.is_file(_PLAN) or _read_json(folder, _PLAN).get("hash") != plan.hash:
        raise ArtifactError(
            f"Expected {folder} for this job alone, found that another has taken it: choose a place for each."
        )


def write_manifest(
    directory: Location, plan: Plan, notes: Mapping[str, Note], facts: Mapping[str, Any], refused: Sequence[str] = ()
) -> dict[str, Any]:
    """Say that the output is complete, and what it is. `facts` are added. Returns the manifest.

    `refused`: why it must not be published, from the gates. Raises ArtifactError where a shard is missing, or
    where another job has taken the folder.
    """
    folder = folder_at(directory)
    missing = [shard.name for shard in plan.shards if shard.name not in notes]
    if missing:
        raise ArtifactError(f"Expected notes of all {len(plan.shards)} shards, found none of {', '.join(missing[:5])}.")
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "published": not refused,
        "refused": list(refused),
        "plan_hash": plan.hash,
        "plan": asdict(plan),
        **facts,
        "users": plan.users,
        "rows": sum(note["rows"] for note in notes.values()),
        "short_lists": sum(note["short_lists"] for note in notes.values()),
        "shards": {shard.name: notes[shard.name] for shard in plan.shards},
        "versions": versions(),
    }
    _require_ours(folder, plan)
    folder.make(*_FOLDERS)  # a worker that was killed may have left something half written
    with folder.new_file(_MANIFEST) as file:
        write_json(file, manifest)
    folder.remove(_PROGRESS)
    return manifest
