"""Models on disk: a self-contained directory that needs no training data, holds no pickle and notices damage.

```
model.json           what it is: model, config, task, metrics, data fingerprint, how the ratings were read, seed,
                     versions, sha256 of the rest
weights.safetensors  its state
items.parquet        position, item_id (in its own type), count: number of training users
users.parquet        position, user_id: only for models that know no other users
```
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from recsys.errors import ArtifactError, DataError, RecsysError
from recsys.interactions import Vocabulary
from recsys.models import MODELS, Recommender, create_model
from recsys.places import Place, flush, folder_at, local_copy, sha256
from recsys.training import TrainingContext

SCHEMA_VERSION = 1

# What reading a damaged or edited file can raise; pyarrow's own errors are among them.
_UNREADABLE = (SafetensorError, KeyError, AttributeError, TypeError, ValueError, RuntimeError, RecsysError, OSError)


@dataclass(frozen=True)
class SavedModel:
    """A model with the names of its items: all that scoring needs besides histories.

    item_counts: int64 (items,), training users of each. users: training users, for models with needs_training_users.
    about: the content of model.json. digest: sha256 of model.json, which holds those of the other files.
    """

    model: Recommender
    items: Vocabulary
    item_counts: NDArray[np.int64]
    users: Vocabulary | None
    about: Mapping[str, Any]
    digest: str


def save_model(
    directory: Path,
    model: Recommender,
    items: Vocabulary,
    item_counts: NDArray[np.int64],
    users: Vocabulary | None = None,
    about: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a fitted model; the directory appears complete or not at all. Returns it.

    `about`: more entries for model.json (metrics, seed, data, ...). Raises ArtifactError where something stands there
    already, unless `overwrite`; DataError where the ids are not the model's.
    """
    state = model.get_state()
    _check_ids(model, items, item_counts, users)
    with new_directory(directory, "model.json", overwrite) as place:
        save_file(state, place / "weights.safetensors")
        _write_ids(place / "items.parquet", "item_id", items, item_counts)
        if users is not None and model.needs_training_users:
            _write_ids(place / "users.parquet", "user_id", users)
        described = {
            "schema_version": SCHEMA_VERSION,
            "model": model.name,
            "task": model.task,
            "config": dataclasses.asdict(model.config),
            "items": len(items),
            **(about or {}),
            "versions": versions(),
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "files": {file.name: sha256(file) for file in sorted(place.iterdir())},
        }
        write_json(place / "model.json", described)
    return directory


def _check_ids(model: Recommender, items: Vocabulary, item_counts: NDArray[np.int64], users: Vocabulary | None) -> None:
    """Refuse names that would be given to the wrong items, before anything is written."""
    if not len(items) == len(item_counts) == model.items:
        raise DataError(
            f"Expected ids and counts of the model's {model.items} items, found {len(items)} and {len(item_counts)}."
        )
    if model.needs_training_users and users is None:
        raise DataError(f"Expected the ids of the training users: {model.name} knows no others. Pass them as users.")


def load_model(directory: Place, device: str = "auto") -> SavedModel:
    """Read a model directory, fetched first where it has an address (recsys.places).

    Raises ArtifactError, with the reason, where it is damaged, foreign or too new.
    """
    with local_copy(directory) as path:
        return _load(path, device)


def _load(directory: Path, device: str) -> SavedModel:
    about = _read_description(directory)
    TrainingContext(device=device).resolve_device()  # a device that cannot be had is no damage
    for name, expected in about["files"].items():
        # Names come from a file somebody may have edited: none may point outside the directory.
        if Path(name).name != name or not (directory / name).is_file():
            raise ArtifactError(f"Expected {name} in {directory}, found none: the model is incomplete, save it again.")
        if sha256(directory / name) != expected:
            raise ArtifactError(
                f"{directory / name} is damaged: its checksum is not that in model.json. Copy it again."
            )
    try:
        table = pq.read_table(directory / "items.parquet")
        items, counts = Vocabulary(table["item_id"].combine_chunks()), table["count"].to_numpy()
        known = directory / "users.parquet"
        users = Vocabulary(pq.read_table(known)["user_id"].combine_chunks()) if known.name in about["files"] else None
        model = create_model(about["model"], about["config"])
        model.set_state(load_file(directory / "weights.safetensors"), len(items), device)
    except _UNREADABLE as error:
        raise ArtifactError(f"{directory} cannot be read as a {about['model']} model: {error}") from error
    return SavedModel(model, items, counts, users, about, sha256(directory / "model.json"))


def _read_description(directory: Path) -> dict[str, Any]:
    file = directory / "model.json"
    if not file.is_file():
        raise ArtifactError(f"Expected a model directory with model.json, found none in {directory}: train one first.")
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        found, model, files = about["schema_version"], about["model"], about["files"].keys()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{file} is damaged or not from recsys: {error!r}.") from error
    if found != SCHEMA_VERSION:
        raise ArtifactError(f"Expected model format {SCHEMA_VERSION}, found {found} in {file}: use the recsys of then.")
    if model not in list(MODELS):
        raise ArtifactError(f"Expected a model of {', '.join(MODELS)}; found {model!r} in {file}.")
    if missing := {"weights.safetensors", "items.parquet"} - files:  # unlisted, they would go unchecked
        raise ArtifactError(f"Expected checksums of all files in {file}, found none of {', '.join(sorted(missing))}.")
    return dict(about)


def _write_ids(file: Path, name: str, ids: Vocabulary, counts: NDArray[np.int64] | None = None) -> None:
    columns: dict[str, Any] = {"position": pa.array(np.arange(len(ids), dtype=np.int32)), name: ids.ids}
    if counts is not None:
        columns["count"] = pa.array(counts.astype(np.int64))
    pq.write_table(pa.table(columns), file, compression="zstd")


@contextlib.contextmanager
def new_directory(directory: Path, mark: str, overwrite: bool = False) -> Iterator[Path]:
    """A temporary directory beside `directory` that takes its name when the block ends well, else vanishes.

    Raises ArtifactError at once where `directory` already holds something, unless `overwrite` and it holds `mark`.
    """
    refuse_existing(directory, mark, overwrite)
    directory = directory.resolve()  # a link keeps pointing here
    directory.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", suffix=".tmp", dir=directory.parent))
    try:
        yield place
        place.chmod(0o755)  # mkdtemp makes it for the owner alone
        for file in place.rglob("*"):
            flush(file)
        _take_the_place(place, directory)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _take_the_place(new: Path, directory: Path) -> None:
    """Rename `new` to `directory`; what was there is put aside first and removed last."""
    aside = new.with_suffix(".old")
    if directory.exists():
        directory.rename(aside)
    new.rename(directory)
    shutil.rmtree(aside, ignore_errors=True)
    flush(directory.parent)


def refuse_existing(directory: Place, mark: str, overwrite: bool) -> None:
    """Raise ArtifactError where `directory` is a file or holds something, unless `overwrite` and it is one of ours.

    `mark` is the file that shows it is: nobody's folder is replaced because of a mistyped path.
    """
    folder = folder_at(directory)
    if folder.is_file():
        raise ArtifactError(f"Expected a folder to write to, found the file {folder}: choose another place.")
    if folder.is_empty():
        return
    if not overwrite:
        raise ArtifactError(f"{folder} already holds something: choose another place, or add --overwrite.")
    if not folder.is_file(mark):
        raise ArtifactError(f"{folder} holds something that is not ours to replace (no {mark}): remove it by hand.")


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """The content as `json_text`, in a file."""
    file.write_text(json_text(content) + "\n", encoding="utf-8")


def json_text(content: Mapping[str, Any]) -> str:
    """JSON for machines and people: sorted by nothing, two spaces deep, text as it is, null for NaN."""
    plain = json.loads(json.dumps(content, default=_plain), parse_constant=lambda _: None)
    return json.dumps(plain, indent=2, ensure_ascii=False)


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


def versions() -> dict[str, str]:
    """Versions of recsys and of what decides its results."""
    found = {}
    for package in ("recsys", "torch", "numpy", "scipy", "pandas", "pyarrow", "implicit"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
