"""The prepared store: interactions in a folder of plain arrays that open memory-mapped, whatever their size.

```
store.json                       version, ledger, sizes and SHA-256 of the files below
users.arrow, items.arrow         the ids by position, in their own type
user.npy, item.npy               int32 (rows,), sorted by user, then item: the CSR matrix without its row pointers
rating.npy, timestamp.npy        float32 and int64 (rows,), where there are any
row.npy                          int32 (rows,), number of each row in the file it came from
seen_items.arrow, seen_*.npy     the same of rows that were seen and are no preference, where there are any
seen_users.arrow                 ids of users with no other rows, after those of users.arrow, where there are any
```
Nothing in it is ever unpickled, and everything is validated before it is used: anybody may have written it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
from numpy.typing import NDArray

from recsys.data.interactions import ColumnUse, Interactions, Ledger, Vocabulary
from recsys.errors import ArtifactError, DataError
from recsys.system.atomic import new_directory, parse_json, refuse_existing, write_json
from recsys.system.files import sha256
from recsys.system.threads import map_in_order

FORMAT, VERSION = "recsys store", 1
MANIFEST = "store.json"
COLUMNS = {"user": "int32", "item": "int32", "rating": "float32", "timestamp": "int64", "row": "int32"}
SEEN = "seen_"
REQUIRED = ("users.arrow", "items.arrow", "user.npy", "item.npy")
SEEN_REQUIRED = ("seen_items.arrow", "seen_user.npy", "seen_item.npy")
SEEN_USERS = "seen_users.arrow"
BLOCK = 1 << 22  # rows validated at once
LATEST = 2**53  # milliseconds either side of 1970: what a float64 holds exactly


def is_store(path: Path) -> bool:
    """Whether a path is a prepared store, whole or damaged."""
    return (path / MANIFEST).is_file()


def refuse_existing_store(path: Path, overwrite: bool) -> None:
    """Raise ArtifactError where a store cannot be written at `path`: call it before reading what goes in."""
    refuse_existing(path, MANIFEST, overwrite)


def write_store(interactions: Interactions, path: Path, overwrite: bool = False) -> Path:
    """Write a store. An old one stays in place until the new one is complete.

    Parameters
    ----------
    interactions : Interactions
        As `read_interactions` returns them: sorted by user, then item.
    path : Path
        Folder of the store.
    overwrite : bool
        Whether a store that is there is replaced.

    Returns
    -------
    Path
        The same path.

    Raises
    ------
    ArtifactError
        If something else is in the way.
    DataError
        If the interactions are not sorted, or hold positions out of range.
    """
    problem = _find_problem(interactions) or (interactions.seen_only and _find_problem(interactions.seen_only, False))
    if problem:
        raise DataError(f"Expected interactions as read_interactions returns them, found {problem}.")
    with new_directory(path, MANIFEST, overwrite) as draft:
        for name, vocabulary in (("users", interactions.users), ("items", interactions.items)):
            _write_ids(draft / f"{name}.arrow", vocabulary.ids)
        _write_columns(draft, "", interactions)
        if interactions.seen_only is not None:
            _write_ids(draft / "seen_items.arrow", interactions.seen_only.items.ids)
            further = interactions.seen_only.users.ids[len(interactions.users) :]
            if len(further):
                _write_ids(draft / SEEN_USERS, further)
            _write_columns(draft, SEEN, interactions.seen_only)
        write_json(draft / MANIFEST, _describe(interactions, draft))
    return path


def _describe(interactions: Interactions, folder: Path) -> dict[str, Any]:
    """The content of store.json."""
    manifest: dict[str, Any] = {"format": FORMAT, "version": VERSION, "rows": len(interactions)}
    if interactions.seen_only is not None:
        manifest["seen_rows"] = len(interactions.seen_only)
    manifest["ledger"] = {"read": interactions.ledger.read, "rejected": dict(interactions.ledger.rejected)}
    if interactions.policies:
        manifest["policies"] = dict(interactions.policies)
    if interactions.columns is not None:
        manifest["columns"] = {
            "read": dict(interactions.columns.read),
            "unread": list(interactions.columns.unread),
        }
    files = sorted(folder.iterdir())
    manifest["files"] = {file.name: {"bytes": file.stat().st_size, "sha256": sha256(file)} for file in files}
    return manifest


def open_store(path: Path) -> Interactions:
    """Open a store, memory-mapped: little private memory, and changes never reach the files.

    Parameters
    ----------
    path : Path
        Folder of the store.

    Returns
    -------
    Interactions

    Raises
    ------
    ArtifactError
        If the store is damaged, foreign or newer: a file that differs from its checksum, or content that is not what
        a store holds (types, lengths, order of rows, positions out of range, repeated ids, ratings that are not
        finite).
    """
    manifest = _read_manifest(path)
    _verify_files(path, manifest)
    users, items = (_read_ids(path, f"{name}.arrow") for name in ("users", "items"))
    columns = {name: _column(path, name, manifest, manifest["rows"]) for name in COLUMNS}
    seen_only = None
    if SEEN_REQUIRED[0] in manifest["files"]:
        seen = {name: _column(path, SEEN + name, manifest, manifest["seen_rows"]) for name in COLUMNS}
        seen_only = Interactions(_all_users(path, users, manifest), _read_ids(path, SEEN_REQUIRED[0]), **seen)
    ledger = Ledger(manifest["ledger"]["read"], manifest["ledger"]["rejected"])
    use = manifest.get("columns")
    table = Interactions(
        users,
        items,
        ledger=ledger,
        seen_only=seen_only,
        columns=None if use is None else ColumnUse(use["read"], tuple(use["unread"])),
        policies=manifest.get("policies", {}),
        **columns,
    )
    problem = _find_problem(table) or (seen_only is not None and _find_problem(seen_only, is_sorted=False))
    if problem:
        raise _damaged(path, f"Expected interactions, found {problem}")
    return table


def _find_problem(table: Interactions, is_sorted: bool = True) -> str | None:
    """What is wrong with the columns of a table, None if nothing is."""
    starts = range(0, len(table), BLOCK)
    for problem in map_in_order(lambda start: _find_problem_in(table, start, is_sorted), starts):
        if problem:
            return problem
    if not is_sorted:
        return None
    ends = (int(table.user[0]), int(table.user[-1]) + 1) if len(table) else (0, 0)
    used = np.zeros(len(table.items), dtype=bool)
    used[table.item] = True
    return None if ends == (0, len(table.users)) and used.all() else "users or items without a row"


def _find_problem_in(table: Interactions, start: int, is_sorted: bool) -> str | None:
    """The same of some rows, and of the first one after them."""
    rows = slice(start, start + BLOCK + 1)
    user, item = table.user[rows], table.item[rows]
    for name, positions, count in (("user", user, len(table.users)), ("item", item, len(table.items))):
        if len(positions) and (positions.min() < 0 or positions.max() >= count):
            return f"a {name} position out of range"
    if is_sorted and (user[1:] - user[:-1] > 1).any():
        return "users without a row"
    if is_sorted and not ((user[1:] > user[:-1]) | ((user[1:] == user[:-1]) & (item[1:] > item[:-1]))).all():
        return "rows out of order, or one twice"
    if table.rating is not None and not np.isfinite(table.rating[rows]).all():
        return "a rating that is not finite"
    if table.row is not None and len(table.row[rows]) and table.row[rows].min() < 0:
        return "a negative row number"
    times = None if table.timestamp is None else table.timestamp[rows]
    if times is not None and len(times) and (times.min() < -LATEST or times.max() > LATEST):
        return "a timestamp out of range"
    return None


def _read_manifest(path: Path) -> dict[str, Any]:
    """The content of store.json, of the right types throughout."""
    try:
        manifest = parse_json((path / MANIFEST).read_bytes(), path / MANIFEST)
    except OSError as error:
        raise ArtifactError(f"Expected a prepared store at {path}, found no {MANIFEST} to read: {error}.") from error
    if manifest.get("format") != FORMAT:
        raise ArtifactError(f"Expected a prepared store at {path}, found its {MANIFEST} damaged or of another kind.")
    if manifest.get("version") != VERSION:
        raise ArtifactError(
            f"Expected a prepared store of version {VERSION} at {path}, found version {manifest.get('version')!r}. "
            "Run `recsys prepare` again."
        )
    if not _is_manifest(manifest):
        raise _damaged(path, f"Expected rows, ledger, columns and files in {MANIFEST}, found other values")
    return manifest


def _is_manifest(manifest: dict[str, Any]) -> bool:
    """Whether every entry has its type."""
    ledger, use, files = manifest.get("ledger"), manifest.get("columns"), manifest.get("files")
    known = {
        *REQUIRED,
        *SEEN_REQUIRED,
        SEEN_USERS,
        *(f"{prefix}{name}.npy" for prefix in ("", SEEN) for name in COLUMNS),
    }
    return (
        _is_count(manifest.get("rows"))
        and isinstance(ledger, dict)
        and _is_count(ledger.get("read"))
        and isinstance(ledger.get("rejected"), dict)
        and all(map(_is_count, ledger["rejected"].values()))
        and (use is None or _is_column_use(use))
        and _are_policies(manifest.get("policies", {}))
        and isinstance(files, dict)
        and set(REQUIRED) <= set(files) <= known
        and (
            set(files) <= {*REQUIRED, *(f"{name}.npy" for name in COLUMNS)}
            or (set(SEEN_REQUIRED) <= set(files) and _is_count(manifest.get("seen_rows")))
        )
        and all(
            isinstance(file, dict) and _is_count(file.get("bytes")) and isinstance(file.get("sha256"), str)
            for file in files.values()
        )
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _are_policies(policies: Any) -> bool:
    """Whether these are options of reading."""
    if not isinstance(policies, dict) or not set(policies) <= {"min_rating", "duplicates"}:
        return False
    least = policies.get("min_rating")
    if least is not None and (isinstance(least, bool) or not isinstance(least, (int, float)) or not abs(least) < 1e300):
        return False
    return policies.get("duplicates") in (None, "last", "first", "mean", "max", "sum", "error")


def _is_column_use(use: Any) -> bool:
    return (
        isinstance(use, dict)
        and isinstance(use.get("read"), dict)
        and isinstance(use.get("unread"), list)
        and all(isinstance(name, str) for name in [*use["read"].values(), *use["unread"]])
    )


def _verify_files(path: Path, manifest: dict[str, Any]) -> None:
    """Raise ArtifactError for a file that is missing or differs from its size or checksum."""
    files = manifest["files"]
    for name in sorted(files):
        file = path / name
        found = file.stat().st_size if file.is_file() else None
        if found != files[name]["bytes"]:
            there = "no such file" if found is None else f"{found:,}"
            raise _damaged(path, f"Expected {name} with {files[name]['bytes']:,} bytes, found {there}")
    names = sorted(files, key=lambda name: -int(files[name]["bytes"]))
    for name, digest in zip(names, map_in_order(lambda name: sha256(path / name), names), strict=True):
        if digest != files[name]["sha256"]:
            raise _damaged(path, f"Expected {name} with its SHA-256, found other bytes")


def _damaged(path: Path, what: str) -> ArtifactError:
    return ArtifactError(f"{what} in the store {path}: it is damaged. Run `recsys prepare` again.")


def _column(path: Path, name: str, manifest: dict[str, Any], rows: int) -> Any:
    """A column of numbers, memory-mapped; None if the store has none."""
    if f"{name}.npy" not in manifest["files"]:
        return None
    try:
        column = np.lib.format.open_memmap(path / f"{name}.npy", mode="c")  # "c": written to, it turns private
    except Exception as error:  # numpy tells a damaged header in many ways, tokenize.TokenError among them
        raise _damaged(path, f"Expected numbers in {name}.npy, found: {error}") from error
    kind = COLUMNS[name.removeprefix(SEEN)]
    if column.dtype != kind or column.shape != (rows,):
        raise _damaged(path, f"Expected {name}.npy to be {kind} ({rows},), found {column.dtype} {column.shape}")
    return column


def _write_columns(folder: Path, prefix: str, interactions: Interactions) -> None:
    for name in COLUMNS:
        column: NDArray[Any] | None = getattr(interactions, name)
        if column is not None:
            np.save(folder / f"{prefix}{name}.npy", column, allow_pickle=False)


def _write_ids(path: Path, ids: pa.Array) -> None:
    table = pa.table({"id": ids})
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


def _all_users(folder: Path, users: Vocabulary, manifest: dict[str, Any]) -> Vocabulary:
    """The users, then those who have seen something and have no other rows."""
    if SEEN_USERS not in manifest["files"]:
        return users
    further = _read_ids(folder, SEEN_USERS)
    if further.ids.type != users.ids.type or (users.positions(further.ids) >= 0).any():
        raise _damaged(folder, f"Expected further users in {SEEN_USERS}, found others")
    return users.extended(further.ids)


def _read_ids(folder: Path, name: str) -> Vocabulary:
    """Distinct ids of a file, memory-mapped and validated in full."""
    try:
        with pa.memory_map(str(folder / name)) as file:
            table = pa.ipc.open_file(file).read_all()
        table.validate(full=True)
        ids = table["id"]
        ids = ids.chunk(0) if ids.num_chunks == 1 else ids.combine_chunks()
    except (pa.ArrowException, KeyError, OSError, ValueError) as error:
        raise _damaged(folder, f"Expected ids in {name}, found: {error}") from error
    is_text = pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type)
    if not is_text and not pa.types.is_integer(ids.type):
        raise _damaged(folder, f"Expected text or integers in {name}, found the type {ids.type}")
    if ids.null_count or len(pc.unique(ids)) != len(ids):
        raise _damaged(folder, f"Expected distinct ids in {name}, found missing or repeated ones")
    return Vocabulary(ids)
