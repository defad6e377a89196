"""A batch output on disk: a plan, shards written one by one, and a manifest that says all of them are there.

```
plan.json                  what will be written; the same plan gives the same bytes
recommendations/part-*     user_id, item_id, rank (from 1), score: users in order, best item first
short_lists/part-*         user_id, items, reason: who got fewer than n items, and why
manifest.json              written last: the sign of completeness, with rows and sha256 of every file
```
The output lies in a folder of this machine or of an object store (recsys.system.storage). The files of a shard appear
whole, then are recorded in progress.jsonl. A job that was killed continues after the shards recorded there; a shard
whose files are damaged is written again. How a shard is made: recsys.batch.shards.

A complete output that is to be replaced stays readable until the new one is complete: the new files go to a draft
beside it (`lists.draft` beside `lists`), which then takes its name. An object store has no such renaming: there the
files of the complete draft are copied over the earlier ones, which lose their manifest first and get the new one last.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recsys.batch.plan import ENCODING_FOLDERS, FOLDERS, BatchPlan, Shard
from recsys.errors import ArtifactError
from recsys.system.atomic import parse_json, refuse_existing, write_json
from recsys.system.disk import storage_errors
from recsys.system.files import draft_beside, exchange, flush, put_folder
from recsys.system.packages import versions
from recsys.system.storage import Folder, Location, as_location, folder_at

SCHEMA_VERSION = 1

_PLAN, _PROGRESS, _MANIFEST = "plan.json", "progress.jsonl", "manifest.json"
_AGAIN = "Write it again, with overwrite instead of resume."

ShardSummary = dict[str, Any]  # of a finished shard: the counts of its plan, sha256 of its files by name


@dataclass(frozen=True)
class OpenedOutput:
    """An output that is ready to be written.

    Attributes
    ----------
    location : Path or str
        Folder the shards are written to: the output itself, or the draft beside an earlier output.
    target : Path or str
        Folder in which the lists are to be found in the end.
    finished : dict of str to ShardSummary
        Summaries of the shards that are written already and whole, by name.
    """

    location: Location
    target: Location
    finished: dict[str, ShardSummary]

    def publish(self) -> None:
        """Let a complete draft take the place of the earlier output; does nothing where there is no draft."""
        if self.location == self.target:
            return
        if not isinstance(as_location(self.target), Path):
            _copy_over(folder_at(self.location), folder_at(self.target))
            return
        target = Path(self.target).resolve()
        with storage_errors(target), draft_beside(target) as hidden:
            draft = Path(self.location)
            if target.is_dir() and exchange(draft, target):  # at no moment is either output without a name
                flush(target.parent)
                with contextlib.suppress(FileNotFoundError):  # another process may have removed it (_remove_replaced)
                    draft.rename(hidden)  # the earlier output, removed at the end of the block
            else:
                draft.rename(hidden)
                put_folder(hidden, target, overwrite=True)


def open_output(directory: Location, plan: BatchPlan, resume: bool = False, overwrite: bool = False) -> OpenedOutput:
    """Prepare the folder of an output and find the shards that are finished already.

    Parameters
    ----------
    directory : Path or str
        Folder of this machine, or address in an object store.
    plan : BatchPlan
        What will be written.
    resume : bool
        Continue a job that was stopped, or start it where nothing is there.
    overwrite : bool
        Replace an earlier output. A complete one stays until the new one is complete.

    Returns
    -------
    OpenedOutput
        Where to write, and the summaries of the shards that are finished.

    Raises
    ------
    ArtifactError
        If the folder holds something and neither `resume` nor `overwrite` is given, if `resume` finds the output of
        another plan, or if the plan or the manifest there is damaged.
    """
    _remove_replaced(directory)
    draft = draft_of(directory)
    for location in ([draft] if resume and draft is not None and _has_plan(draft, plan) else []) + [directory]:
        folder = folder_at(location)
        if resume and folder.is_file(_PLAN):
            if read_json(folder, _PLAN).get("hash") != plan.hash:
                raise ArtifactError(
                    f"{folder} holds the output of another job (other model, histories or settings): resume it with "
                    "its own settings, choose another place, or overwrite it instead of resuming."
                )
            folder.make(*plan.folders)
            return OpenedOutput(location, directory, _finished(folder, plan))
    refuse_output(directory, overwrite=overwrite)
    location = directory
    replaced = draft is not None and (folder_at(directory).is_file(_MANIFEST) or folder_at(draft).is_file(_PLAN))
    if overwrite and draft is not None and replaced:
        refuse_output(draft, overwrite=True)
        location = draft
    _start(folder_at(location), plan)
    return OpenedOutput(location, directory, {})


def draft_of(directory: Location) -> Location | None:
    """Folder beside `directory` in which its replacement is written; None of a mounted disk."""
    directory = as_location(directory)
    if not isinstance(directory, Path):
        return f"{directory}.draft"
    if directory.resolve().is_mount():
        return None
    directory = directory.resolve()
    return directory.with_name(f"{directory.name}.draft")


def refuse_output(directory: Location, resume: bool = False, overwrite: bool = False) -> None:
    """Raise ArtifactError where something is in the way of an output: better before all the work than after it."""
    _remove_replaced(directory)
    folder = folder_at(directory)
    if resume and folder.is_file(_PLAN):
        return
    if not overwrite and folder.is_file(_PLAN) and not folder.is_file(_MANIFEST):
        raise ArtifactError(
            f"{folder} already holds something, the lists of an interrupted job: set resume to continue it, choose "
            "another place, or set overwrite."
        )
    refuse_existing(directory, _PLAN, overwrite)


def _remove_replaced(directory: Location) -> None:
    """Remove the earlier output that a process left as the draft, killed right after the new one took its place."""
    draft, target = draft_of(directory), as_location(directory)
    if isinstance(draft, Path) and isinstance(target, Path) and (draft / _PLAN).is_file():
        with contextlib.suppress(FileNotFoundError):
            is_older = (draft / _MANIFEST).stat().st_mtime_ns < (target / _MANIFEST).stat().st_mtime_ns
            if is_older:  # a complete draft that waits for its place is newer than what it replaces
                with draft_beside(target.resolve()) as hidden:
                    draft.rename(hidden)


def _copy_over(draft: Folder, target: Folder) -> None:
    """Copy a complete output over an earlier one in an object store; should it be stopped, `resume` goes on with it."""
    _clear(target)
    files = [name for inner in (*FOLDERS, *ENCODING_FOLDERS) for name in draft.names(inner)]
    for name in (_PLAN, *files, _MANIFEST):
        target.copy_from(draft, name)
    _clear(draft)
    draft.remove(_PLAN)


def _has_plan(directory: Location, plan: BatchPlan) -> bool:
    """Whether a folder holds the output of this plan."""
    folder = folder_at(directory)
    return folder.is_file(_PLAN) and read_json(folder, _PLAN).get("hash") == plan.hash


def _start(folder: Folder, plan: BatchPlan) -> None:
    """Make an empty output with its plan."""
    folder.make()
    _clear(folder)
    # The plan is never missing once there is anything else: it shows whose folder this is, should the job be killed.
    with folder.new_file(_PLAN) as file:
        write_json(file, {"hash": plan.hash, **asdict(plan)})
    folder.make(*plan.folders)


def _clear(folder: Folder) -> None:
    """Remove an earlier output, the manifest first: without it the rest is not taken for complete."""
    for name in (_MANIFEST, _PROGRESS):
        folder.remove(name)
    for name in (name for inner in (*FOLDERS, *ENCODING_FOLDERS) for name in folder.names(inner)):
        if name.partition("/")[2].startswith("part-"):
            folder.remove(name)


def remove_output(directory: Location) -> None:
    """Remove an output whose content is kept elsewhere."""
    folder = folder_at(directory)
    _clear(folder)
    folder.remove(_PLAN)
    if isinstance(place := as_location(directory), Path):
        shutil.rmtree(place, ignore_errors=True)


def read_json(folder: Folder, name: str) -> dict[str, Any]:
    """Read a JSON object of an output.

    Parameters
    ----------
    folder : Folder
        Folder of the output.
    name : str
        Name of the file in it.

    Returns
    -------
    dict

    Raises
    ------
    ArtifactError
        If the file is not JSON, nested too deeply, or something other than an object.
    """
    try:
        with folder.local(name) as file:
            return parse_json(file.read_bytes(), f"{folder}/{name}")
    except ArtifactError as error:
        raise ArtifactError(f"{error} {_AGAIN}") from error


def damaged(folder: Folder, name: str, reason: str) -> ArtifactError:
    """The error for a damaged file of an output, with the way out."""
    return ArtifactError(f"{folder}/{name} is damaged or not from recsys: {reason}. {_AGAIN}")


def _finished(folder: Folder, plan: BatchPlan) -> dict[str, ShardSummary]:
    """Summaries of the shards whose files are there and whole."""
    summaries: dict[str, ShardSummary] = {}
    if folder.is_file(_MANIFEST):
        shards = read_json(folder, _MANIFEST).get("shards")
        if not isinstance(shards, dict):
            raise damaged(folder, _MANIFEST, "it has no shards")
        summaries = shards
        folder.remove(_MANIFEST)  # whatever is missing, the output is not complete until it is written anew
        for name, summary in summaries.items():
            _record(folder, name, summary)
    elif folder.is_file(_PROGRESS):
        summaries = dict(_read_progress(folder.read_text(_PROGRESS)))
    return {
        shard.name: summaries[shard.name]
        for shard in plan.shards
        if shard.name in summaries and _is_whole(folder, plan, shard, summaries[shard.name])
    }


def _read_progress(text: str) -> Iterator[tuple[str, Any]]:
    """Names and summaries of the recorded shards."""
    for line in text.splitlines():
        try:
            name, summary = json.loads(line)
        except (ValueError, TypeError, RecursionError):
            continue  # a job was killed while it wrote this line, or it is damaged; the shard is written again
        if isinstance(name, str):
            yield name, summary


def _is_whole(folder: Folder, plan: BatchPlan, shard: Shard, summary: Any) -> bool:
    """Whether the summary is one of this shard and its files are as it says."""
    names = plan.files(shard)
    return (
        isinstance(summary, dict)
        and plan.is_summary(summary)
        and isinstance(sums := summary.get("sha256"), dict)
        and sums.keys() == set(names)
        and all(folder.is_file(name) and folder.sha256(name) == sums[name] for name in names)
    )


def record_shards(
    directory: Location,
    plan: BatchPlan,
    finished: Mapping[str, ShardSummary],
    written: Iterable[tuple[str, ShardSummary]],
) -> Iterator[tuple[str, ShardSummary]]:
    """Record each shard as it is written, so that a killed job can continue after it.

    Parameters
    ----------
    directory : Path or str
        Folder the shards are written to.
    plan : BatchPlan
        The plan of the job.
    finished : mapping of str to ShardSummary
        Shards that were finished before; they come first.
    written : iterable of (str, ShardSummary)
        Name and summary of each shard, as it is finished.

    Yields
    ------
    (str, ShardSummary)
        Name and summary of every shard.

    Raises
    ------
    ArtifactError
        If another job has taken the folder meanwhile.
    """
    folder = folder_at(directory)
    yield from finished.items()
    for name, summary in written:
        _require_own_plan(folder, plan)
        _record(folder, name, summary)
        yield name, summary


def _require_all(plan: BatchPlan, summaries: Mapping[str, ShardSummary]) -> None:
    """Raise ArtifactError where a shard has no summary."""
    missing = [shard.name for shard in plan.shards if shard.name not in summaries]
    if missing:
        raise ArtifactError(
            f"Expected summaries of all {len(plan.shards)} shards, found none of {', '.join(missing[:5])}."
        )


def _record(folder: Folder, name: str, summary: ShardSummary) -> None:
    """Add a line of its own to the progress, whatever a killed job left before it."""
    folder.append(_PROGRESS, "\n" + json.dumps([name, summary]))


def _require_own_plan(folder: Folder, plan: BatchPlan) -> None:
    """Raise ArtifactError where another job has written its plan to the folder."""
    if not folder.is_file(_PLAN) or read_json(folder, _PLAN).get("hash") != plan.hash:
        raise ArtifactError(
            f"Expected {folder} for this job alone, found that another job has taken it: choose a place for each."
        )


def write_manifest(
    directory: Location,
    plan: BatchPlan,
    summaries: Mapping[str, ShardSummary],
    facts: Mapping[str, Any],
    refused: Sequence[str] = (),
) -> dict[str, Any]:
    """Write the manifest, which says that the output is complete and what it holds.

    Parameters
    ----------
    directory, plan : Path or str, BatchPlan
        Folder the shards were written to, and the plan of the job.
    summaries : mapping of str to ShardSummary
        The summary of every shard, by name.
    facts : mapping
        More entries for the manifest.
    refused : sequence of str
        Why the lists must not be published, from the gates; empty: they are published.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    ArtifactError
        If a shard is missing, or if another job has taken the folder.
    """
    folder = folder_at(directory)
    _require_all(plan, summaries)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "published": not refused,
        "refused": list(refused),
        "plan_hash": plan.hash,
        "plan": asdict(plan),
        **facts,
        "users": plan.users,
        **{name: sum(summary[name] for summary in summaries.values()) for name in plan.counts if name != "users"},
        "shards": {shard.name: summaries[shard.name] for shard in plan.shards},
        "versions": versions(),
    }
    _require_own_plan(folder, plan)
    folder.make(*plan.folders)  # a worker that was killed may have left something half written
    with folder.new_file(_MANIFEST) as file:
        write_json(file, manifest)
    folder.remove(_PROGRESS)
    return manifest
