"""The prepared store: interactions in a folder of plain arrays that open memory-mapped, whatever their size.

```
store.json                       version, ledger, sizes and SHA-256 of the files below
users.arrow, items.arrow         the ids by position, in their own type
user.npy, item.npy               int32 (rows,), sorted by user, then item: the CSR matrix without its row pointers
rating.npy, timestamp.npy        float32 and int64 (rows,), where there are any
row.npy                          int32 (rows,), place of each row in the file it came from
seen_items.arrow, seen_*.npy     the same of rows that were seen and are no preference, where there are any
```
Nothing in it is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from recsys.data.interactions import Interactions, Ledger, Vocabulary
from recsys.errors import ArtifactError
from recsys.system.threads import in_order

FORMAT, VERSION = "recsys store", 1
MANIFEST = "store.json"
COLUMNS = {"user": "int32", "item": "int32", "rating": "float32", "timestamp": "int64", "row": "int32"}
SEEN = "seen_"
PIECE = 1 << 20  # bytes


def is_store(path: Path) -> bool:
    """Whether a path is a prepared store, whole or damaged."""
    return (path / MANIFEST).is_file()


def refuse_existing_store(path: Path, overwrite: bool) -> None:
    """Raise ArtifactError where something stands at `path`; with `overwrite` a store may."""
    if path.exists() and not (overwrite and is_store(path)):
        kind = "a store" if is_store(path) else "something that is no store"
        way = "Say --overwrite to replace it, or choose" if is_store(path) else "Remove it, or choose"
        raise ArtifactError(f"Expected nothing at {path}, found {kind}. {way} another name.")


def write_store(interactions: Interactions, path: Path, overwrite: bool = False) -> Path:
    """Write a store at `path`, under a temporary name first. Raises ArtifactError where something is in the way."""
    refuse_existing_store(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        for name, vocabulary in (("users", interactions.users), ("items", interactions.items)):
            _write_ids(draft / f"{name}.arrow", vocabulary.ids)
        _write_columns(draft, "", interactions)
        if interactions.seen_only is not None:
            _write_ids(draft / "seen_items.arrow", interactions.seen_only.items.ids)
            _write_columns(draft, SEEN, interactions.seen_only)
        files = sorted(file.name for file in draft.iterdir())
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "rows": len(interactions),
            **({} if interactions.seen_only is None else {"seen_rows": len(interactions.seen_only)}),
            "ledger": {"read": interactions.ledger.read, "rejected": dict(interactions.ledger.rejected)},
            "files": {
                name: {"bytes": (draft / name).stat().st_size, "sha256": _digest(draft / name)} for name in files
            },
        }
        (draft / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        draft.chmod(0o777 & ~_umask())  # mkdtemp makes it for one's own eyes only
        if path.exists():  # a store, and to be replaced
            old = path.with_name(f"{draft.name}.old")
            path.rename(old)
            draft.rename(path)
            shutil.rmtree(old)
        else:
            draft.rename(path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return path


def open_store(path: Path) -> Interactions:
    """Interactions of a store, memory-mapped: little private memory, changes never reach the files.

    Every file is compared with its checksum first. Raises ArtifactError for a damaged, foreign or newer store.
    """
    manifest = _manifest(path)
    _verify(path, manifest)
    columns = {name: _column(path, name, manifest, manifest["rows"]) for name in COLUMNS}
    ledger = Ledger(manifest["ledger"]["read"], manifest["ledger"]["rejected"])
    users, items = (Vocabulary(_read_ids(path / f"{name}.arrow")) for name in ("users", "items"))
    return Interactions(users, items, ledger=ledger, seen_only=_seen_only(path, manifest, users), **columns)


def _seen_only(path: Path, manifest: dict[str, Any], users: Vocabulary) -> Interactions | None:
    """Rows that were seen and are no preference; None where the store has none."""
    if "seen_items.arrow" not in manifest["files"]:
        return None
    columns = {name: _column(path, SEEN + name, manifest, manifest["seen_rows"]) for name in COLUMNS}
    return Interactions(users, Vocabulary(_read_ids(path / "seen_items.arrow")), **columns)


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        known = manifest["format"] == FORMAT
        version, _, _, _ = manifest["version"], manifest["rows"], manifest["ledger"]["rejected"], manifest["files"]
    except (ValueError, TypeError, KeyError) as error:
        raise ArtifactError(f"Expected a prepared store at {path}, found its {MANIFEST} damaged ({error}).") from error
    if not known or version != VERSION:
        raise ArtifactError(
            f"Expected a prepared store of version {VERSION} at {path}, found {manifest['format']} version {version}. "
            "Run `recsys prepare` again."
        )
    return manifest


def _verify(path: Path, manifest: dict[str, Any]) -> None:
    needed = {"users.arrow", "items.arrow", "user.npy", "item.npy", *manifest["files"]}
    for name in sorted(needed):
        known = manifest["files"].get(name)
        found = (path / name).stat().st_size if (path / name).is_file() else None
        if known is None or found != known["bytes"]:
            expected = "to be listed" if known is None else f"with {known['bytes']:,} bytes"
            raise _damaged(path, f"Expected {name} {expected}, found {'no such file' if found is None else found}")
    names = sorted(manifest["files"], key=lambda name: -int(manifest["files"][name]["bytes"]))
    for name, digest in zip(names, in_order(lambda name: _digest(path / name), names), strict=True):
        if digest != manifest["files"][name]["sha256"]:
            raise _damaged(path, f"Expected {name} with its SHA-256, found other bytes")


def _damaged(path: Path, what: str) -> ArtifactError:
    return ArtifactError(f"{what} in the store {path}: it is damaged. Run `recsys prepare` again.")


def _column(path: Path, name: str, manifest: dict[str, Any], rows: int) -> Any:
    if f"{name}.npy" not in manifest["files"]:
        return None
    try:
        column = np.load(path / f"{name}.npy", mmap_mode="c", allow_pickle=False)  # "c": written to, it turns private
    except ValueError as error:
        raise _damaged(path, f"Expected numbers in {name}.npy, found: {error}") from error
    kind = COLUMNS[name.removeprefix(SEEN)]
    if column.dtype != kind or column.shape != (rows,):
        raise _damaged(path, f"Expected {name}.npy to be {kind} ({rows},), found {column.dtype} {column.shape}")
    return column


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _write_columns(folder: Path, prefix: str, interactions: Interactions) -> None:
    for name in COLUMNS:
        column = getattr(interactions, name)
        if column is not None:
            np.save(folder / f"{prefix}{name}.npy", column, allow_pickle=False)


def _write_ids(path: Path, ids: pa.Array) -> None:
    table = pa.table({"id": ids})
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


def _read_ids(path: Path) -> pa.Array:
    try:
        with pa.memory_map(str(path)) as file:
            ids = pa.ipc.open_file(file).read_all()["id"]
    except (pa.ArrowException, KeyError) as error:
        raise _damaged(path.parent, f"Expected ids in {path.name}, found: {error}") from error
    return ids.chunk(0) if ids.num_chunks == 1 else ids.combine_chunks()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
