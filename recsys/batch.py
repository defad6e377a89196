"""Top-n for everybody, in files: a plan, shards written one by one, and a manifest that says all are there.

```
plan.json                  what will be written; the same plan gives the same bytes
recommendations/part-*     user_id, item_id, rank (from 1), score: users in input order, best item first
short_lists/part-*         user_id, items, reason: who got fewer than n items, and why
manifest.json              last: the sign of completeness, with rows and sha256 of every file
```
A shard's files are written to temporary names, flushed and renamed, then noted in progress.jsonl. A job that was
killed goes on after the shards noted there; one whose files are damaged is written again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.artifacts import SavedModel, flush, refuse_existing, sha256, versions, write_json
from recsys.errors import ArtifactError, ConfigError
from recsys.interactions import UserItemMatrix
from recsys.topn import recommend

SCHEMA_VERSION = 1

# Why somebody has fewer than n items.
NO_HISTORY = "no item of the history is known to the model"
NOT_TRAINED = "the user was not in training, and this model cannot score anybody else"
NOTHING_LEFT = "too few unseen items are left"

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
    """All that decides the bytes of a batch: whose lists, from which model and histories, how long, how cut."""

    model: str  # digest of the model directory
    histories: str  # fingerprint of the interactions
    users: int
    n: int = 10
    filter_seen: bool = True
    batch_size: int = 512  # users scored at once
    shard_users: int = 65_536  # users a file
    format: Literal["parquet", "csv"] = "parquet"

    def __post_init__(self) -> None:
        for name in ("n", "batch_size", "shard_users"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Expected {name} of at least 1, found {getattr(self, name)}.")

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


def open_output(directory: Path, plan: Plan, resume: bool = False, overwrite: bool = False) -> dict[str, Note]:
    """Make the folder ready; notes of the shards that are done already and whole, by name.

    Raises ArtifactError where the folder holds something and neither `resume` nor `overwrite` is given, or where
    `resume` finds the output of another plan.
    """
    if resume and (directory / _PLAN).is_file():
        if _read_json(directory / _PLAN).get("hash") != plan.hash:
            raise ArtifactError(
                f"{directory} holds the output of another job (other model, histories or settings): resume it with "
                "its own settings, choose another place, or use --overwrite instead of --resume."
            )
        _make_folders(directory)
        return _finished(directory, plan)
    refuse_existing(directory, _PLAN, overwrite)
    directory.mkdir(parents=True, exist_ok=True)
    _clear(directory)
    # The plan is never missing once there is anything else: it shows whose folder this is, should the job be killed.
    _write(directory / _PLAN, partial(write_json, content={"hash": plan.hash, **asdict(plan)}))
    _make_folders(directory)
    return {}


def _make_folders(directory: Path) -> None:
    """The folders of the shards, and nothing in them that a killed job left half written."""
    for folder in _FOLDERS:
        (directory / folder).mkdir(exist_ok=True)
    for leftover in (*directory.glob("*/.part-*"), *directory.glob(".plan.*"), *directory.glob(".manifest.*")):
        leftover.unlink()


def _clear(directory: Path) -> None:
    """Remove an earlier output, the manifest first: without it nobody takes the rest for complete."""
    for name in (_MANIFEST, _PROGRESS):
        (directory / name).unlink(missing_ok=True)
    for folder in _FOLDERS:
        for file in (directory / folder).glob("part-*"):
            file.unlink()


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ArtifactError(f"{file} is damaged ({error}): use --overwrite instead of --resume.") from error


def _finished(directory: Path, plan: Plan) -> dict[str, Note]:
    notes: dict[str, Note] = {}
    if (directory / _MANIFEST).is_file():
        notes = _read_json(directory / _MANIFEST).get("shards", {})
        (directory / _MANIFEST).unlink()  # whatever is missing, the output is not complete until it is written anew
        for name, note in notes.items():
            _note(directory, name, note)
    elif (directory / _PROGRESS).is_file():
        notes = dict(_read_notes((directory / _PROGRESS).read_text(encoding="utf-8")))
    whole = {name: note for name, note in notes.items() if _is_whole(directory, note)}
    return {shard.name: whole[shard.name] for shard in plan.shards if shard.name in whole}


def _read_notes(text: str) -> Iterator[tuple[str, Note]]:
    for line in text.splitlines():
        try:
            name, note = json.loads(line)
        except ValueError:
            continue  # a job was killed while it wrote this line; the shard is written again
        yield name, note


def _is_whole(directory: Path, note: Note) -> bool:
    return all((directory / name).is_file() and sha256(directory / name) == sum for name, sum in note["sha256"].items())


def write_shards(
    directory: Path, plan: Plan, saved: SavedModel, histories: UserItemMatrix, done: Mapping[str, Note]
) -> Iterator[Note]:
    """Write the shards that are not `done`; the note of every shard, in order."""
    for shard in plan.shards:
        if shard.name in done:
            yield done[shard.name]
            continue
        note = _write_shard(directory, plan, saved, histories, shard)
        _note(directory, shard.name, note)
        yield note


def _note(directory: Path, name: str, note: Note) -> None:
    with (directory / _PROGRESS).open("a", encoding="utf-8") as progress:
        progress.write("\n" + json.dumps([name, note]))  # on a line of its own, whatever a killed job left before


def write_manifest(directory: Path, plan: Plan, notes: list[Note], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Say that the output is complete, and what it is. `facts` are added. Returns the manifest."""
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "plan_hash": plan.hash,
        "plan": asdict(plan),
        **facts,
        "users": plan.users,
        "rows": sum(note["rows"] for note in notes),
        "short_lists": sum(note["short_lists"] for note in notes),
        "shards": {shard.name: note for shard, note in zip(plan.shards, notes, strict=True)},
        "versions": versions(),
    }
    _write(directory / _MANIFEST, partial(write_json, content=manifest))
    (directory / _PROGRESS).unlink(missing_ok=True)
    return manifest


def _write_shard(directory: Path, plan: Plan, saved: SavedModel, histories: UserItemMatrix, shard: Shard) -> Note:
    positions, scores, reasons = _lists(plan, saved, histories, shard)
    users = np.arange(shard.start, shard.stop)
    row, rank = np.nonzero(positions >= 0)
    lists = pa.table(
        {
            "user_id": histories.users.take(users[row]),
            "item_id": saved.items.take(positions[row, rank]),
            "rank": pa.array(rank + 1, pa.int32()),
            "score": pa.array(scores[row, rank], pa.float32()),
        }
    )
    lengths = (positions >= 0).sum(axis=1)
    short = np.flatnonzero(lengths < plan.n)
    short_lists = pa.table(
        {
            "user_id": histories.users.take(users[short]),
            "items": pa.array(lengths[short], pa.int32()),
            "reason": pa.array([reasons.get(i, NOTHING_LEFT) for i in short.tolist()], pa.string()),
        }
    )
    names = plan.files(shard)
    for name, table in zip(names, (lists, short_lists), strict=True):
        _write(directory / name, partial(_write_table, table))
    return {
        "users": len(users),
        "rows": lists.num_rows,
        "short_lists": len(short),
        "sha256": {name: sha256(directory / name) for name in names},
    }


def _lists(
    plan: Plan, saved: SavedModel, histories: UserItemMatrix, shard: Shard
) -> tuple[NDArray[np.int32], NDArray[np.float32], dict[int, str]]:
    """Positions and scores (users of the shard, n or all items), and why some rows are empty."""
    history = histories.matrix[shard.start : shard.stop]
    n = min(plan.n, len(saved.items))
    positions = np.full((history.shape[0], n), -1, dtype=np.int32)
    scores = np.full(positions.shape, -np.inf, dtype=np.float32)
    reasons = dict.fromkeys(np.flatnonzero(np.diff(history.indptr) == 0).tolist(), NO_HISTORY)
    trained = None
    if saved.model.needs_training_users:
        assert saved.users is not None  # save_model saw to it
        trained = saved.users.positions(histories.users.take(np.arange(shard.start, shard.stop))).astype(np.int64)
        reasons |= dict.fromkeys(np.flatnonzero(trained < 0).tolist(), NOT_TRAINED)
    able = np.setdiff1d(np.arange(history.shape[0]), list(reasons))
    for batch in recommend(
        saved.model.score,
        history[able],
        n,
        plan.batch_size,
        plan.filter_seen,
        users=None if trained is None else trained[able],
    ):
        rows = able[batch.start : batch.start + len(batch.positions)]
        positions[rows], scores[rows] = batch.positions, batch.scores
    return positions, scores, reasons


def _write_table(table: pa.Table, file: Path) -> None:
    if file.suffix == ".csv":
        pa_csv.write_csv(table, file)
    else:
        pq.write_table(table, file, compression="zstd")


def _write(file: Path, write: Callable[[Path], None]) -> None:
    """Have `write` fill a temporary file, which then takes the name: nobody ever sees half of it."""
    temporary = file.with_name(f".{file.stem}.{os.getpid()}{file.suffix}")
    try:
        write(temporary)
        flush(temporary)
        temporary.replace(file)
        flush(file.parent)
    finally:
        temporary.unlink(missing_ok=True)
