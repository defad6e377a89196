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
from recsys.models import MODELS, create_model
from recsys.models.trained import TrainedModel
from recsys.system.atomic import new_directory, write_json
from recsys.system.files import sha256
from recsys.system.packages import versions
from recsys.system.storage import Location, local_copy
from recsys.training.context import TrainingContext

SCHEMA_VERSION = 1

_RENAMED_SETTINGS = {"neighbours": "neighbors"}  # as 0.1 wrote them

# What reading a damaged or edited file can raise; pyarrow's own errors are among them.
_UNREADABLE = (SafetensorError, KeyError, AttributeError, TypeError, ValueError, RuntimeError, RecsysError, OSError)


def save_model(directory: str | Path, trained: TrainedModel, overwrite: bool = False) -> Path:
    """Write a fitted model; the directory appears complete or not at all.

    Parameters
    ----------
    directory : path
        Where to write.
    trained : TrainedModel
        The model with its ids; `about` goes into model.json.
    overwrite : bool
        Replace a model directory that is there.

    Returns
    -------
    Path
        The directory.

    Raises
    ------
    ArtifactError
        If something is there already that may not be replaced.
    DataError
        If the ids are not the model's.
    """
    directory, model = Path(directory), trained.model
    state = model.get_state()
    _check_ids(trained)
    with new_directory(directory, "model.json", overwrite) as place:
        save_file(state, place / "weights.safetensors")
        _write_ids(place / "items.parquet", "item_id", trained.items, trained.item_counts)
        if trained.users is not None and model.needs_training_users:
            _write_ids(place / "users.parquet", "user_id", trained.users)
        described = {
            "schema_version": SCHEMA_VERSION,
            "model": model.name,
            "task": model.task,
            "config": dataclasses.asdict(model.config),
            "items": len(trained.items),
        }
        made_here = {*described, "versions", "created", "files"}
        described |= {key: value for key, value in trained.about.items() if key not in made_here}
        described |= {
            "versions": versions(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "files": {file.name: sha256(file) for file in sorted(place.iterdir())},
        }
        write_json(place / "model.json", described)
    return directory


def _check_ids(trained: TrainedModel) -> None:
    """Refuse ids that would be given to the wrong items, before anything is written."""
    model, items, counts = trained.model, len(trained.items), len(trained.item_counts)
    if not items == counts == model.n_items:
        raise DataError(f"Expected ids and counts of the model's {model.n_items} items, found {items} and {counts}.")
    if model.needs_training_users and trained.users is None:
        raise DataError(f"Expected the ids of the training users as users: {model.name} knows no others.")


def load_model(directory: Location, device: str = "auto") -> TrainedModel:
    """Read a model directory, fetched first where it has an address (recsys.places).

    Raises ArtifactError, with the reason, where it is damaged, foreign or too new.
    """
    with local_copy(directory) as path:
        return _load(path, device)


def _load(directory: Path, device: str) -> TrainedModel:
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
    return TrainedModel(model, items, counts, users, about, sha256(directory / "model.json"))


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
