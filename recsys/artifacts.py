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

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from recsys.data.interactions import Vocabulary
from recsys.errors import ArtifactError, DataError, RecsysError
from recsys.models import MODELS, Recommender, create_model
from recsys.system.atomic import new_directory, write_json
from recsys.system.hardware import versions
from recsys.system.storage import Location, local_copy, sha256
from recsys.training.context import TrainingContext

SCHEMA_VERSION = 1

_RENAMED_SETTINGS = {"neighbours": "neighbors"}  # as 0.1 wrote them

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
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "files": {file.name: sha256(file) for file in sorted(place.iterdir())},
        }
        write_json(place / "model.json", described)
    return directory


def _check_ids(model: Recommender, items: Vocabulary, item_counts: NDArray[np.int64], users: Vocabulary | None) -> None:
    """Refuse names that would be given to the wrong items, before anything is written."""
    if not len(items) == len(item_counts) == model.n_items:
        raise DataError(
            f"Expected ids and counts of the model's {model.n_items} items, found {len(items)} and {len(item_counts)}."
        )
    if model.needs_training_users and users is None:
        raise DataError(f"Expected the ids of the training users: {model.name} knows no others. Pass them as users.")


def load_model(directory: Location, device: str = "auto") -> SavedModel:
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
        model = create_model(about["model"], _settings(about["config"]))
        model.set_state(load_file(directory / "weights.safetensors"), len(items), device)
    except _UNREADABLE as error:
        raise ArtifactError(f"{directory} cannot be read as a {about['model']} model: {error}") from error
    return SavedModel(model, items, counts, users, about, sha256(directory / "model.json"))


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by the names of today; those of a blend's members too."""
    return {
        _RENAMED_SETTINGS.get(name, name): _settings(value) if isinstance(value, Mapping) else value
        for name, value in config.items()
    }


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
