"""Models on disk: a self-contained directory that needs no training data, holds no pickle and notices damage.

```
model.json           what it is: model, config, task, metrics, data fingerprint, how the ratings were read, seed,
                     versions, sha256 of the rest
weights.safetensors  its state
items.parquet        position, item_id (in its own type), count: number of training users
users.parquet        position, user_id: only for models that know no other users
features.json        how features are made of a table of items, and
features.safetensors the numbers for it: only for models that use them
gram.safetensors     the Gram matrix of a closed form: only where it was kept for warm starts, and read only for them
```
A directory may come from anywhere: everything in it is checked before it is used, and whatever is wrong with it is an
ArtifactError that says so.
"""

from __future__ import annotations

import dataclasses
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
from torch import Tensor

from recsys.data.interactions import Vocabulary
from recsys.data.item_features.encoder import NAMES as FEATURES
from recsys.data.item_features.encoder import NUMBERS as FEATURE_NUMBERS
from recsys.data.item_features.encoder import FeatureEncoder
from recsys.data.reading import ReadingOptions
from recsys.errors import ArtifactError, ConfigError, DataError, RecsysError
from recsys.models import MODELS, create_model
from recsys.models.linear.ease import ClosedForm
from recsys.models.state import check_state
from recsys.models.trained import READING, TrainedModel
from recsys.system.atomic import new_directory, parse_json, recover, write_json
from recsys.system.files import sha256
from recsys.system.packages import versions
from recsys.system.storage import Location, local_copy
from recsys.training.context import TrainingContext

SCHEMA_VERSION = 1

# As 0.1 wrote them: British spelling; the loss of the autoencoders `ae` and `sparse-ae`.
_RENAMED_SETTINGS = {"neighbors".replace("o", "ou"): "neighbors", "loss": "likelihood"}

_DESCRIPTION, _WEIGHTS, _ITEMS, _USERS = "model.json", "weights.safetensors", "items.parquet", "users.parquet"
_GRAM = "gram.safetensors"
_ALIGNMENT, _COPIED = 64, 64_000_000  # bytes: of a tensor's address; of the largest tensor that is copied for it

# What reading a damaged or crafted file can raise; pyarrow's own errors are among them.
_UNREADABLE = (
    *(SafetensorError, LookupError, ArithmeticError, AttributeError, TypeError, ValueError, RuntimeError),
    *(RecsysError, OSError, MemoryError),
)

_TRIES = 3  # of reading a directory that is replaced meanwhile

_KINDS = {"schema_version": int, "model": str, "config": dict, "items": int, "files": dict}
_OPTIONAL_KINDS = {"reading": dict, "split": dict, "data": dict, "metrics": dict, "versions": dict, "seed": int}
_OPTIONAL_KINDS |= {"started_from": dict}


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
        If the ids are not the model's, or its weights are not finite.
    StorageError
        If the disk is full, read-only, or permission is missing.
    """
    directory, model = Path(directory), trained.model
    state = model.get_state()
    _check_ids(trained)
    check_state(state, model._state_spec(len(trained.items), state))
    with new_directory(directory, _DESCRIPTION, overwrite) as place:
        save_file(state, place / _WEIGHTS)
        _write_ids(place / _ITEMS, "item_id", trained.items, trained.item_counts)
        if isinstance(model, ClosedForm) and model.gram is not None:
            save_file({"gram": model.gram}, place / _GRAM)
        if trained.features is not None:
            trained.features.save(place)
        if trained.users is not None and model.needs_training_users:
            _write_ids(place / _USERS, "user_id", trained.users)
        for file in place.glob("*.safetensors"):  # the library makes them for their owner alone
            file.chmod(place.stat().st_mode & 0o666)
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
        write_json(place / _DESCRIPTION, described)
    return directory


def _check_ids(trained: TrainedModel) -> None:
    """Refuse ids that would be given to the wrong items, before anything is written."""
    model, items, counts = trained.model, len(trained.items), len(trained.item_counts)
    if not items == counts == model.n_items:
        raise DataError(f"Expected ids and counts of the model's {model.n_items} items, found {items} and {counts}.")
    if model.needs_training_users and trained.users is None:
        raise DataError(f"Expected the ids of the training users as users: {model.name} knows no others.")
    if trained.users is not None and model.n_users not in (None, len(trained.users)):
        raise DataError(f"Expected ids of the model's {model.n_users} training users, found {len(trained.users)}.")


def load_model(directory: Location, device: str = "auto", with_gram: bool = False) -> TrainedModel:
    """Read a model directory.

    Parameters
    ----------
    directory : path or address
        An address of an object store is downloaded first (`recsys.system.storage`).
    device : str
        Where the model scores; see `TrainingContext`.
    with_gram : bool
        Read the Gram matrix too, if it was kept: to start another fit from this model.

    Returns
    -------
    TrainedModel

    Raises
    ------
    ArtifactError
        If the directory is damaged, not from recsys, or of a newer version; the message says what is wrong.
    ConfigError
        If the device is not there.
    """
    with local_copy(directory) as path:
        for _ in range(_TRIES):
            before = _digest(path)
            try:
                return _load(path, device, with_gram)
            except ArtifactError:
                if _digest(path) == before:
                    raise
        return _load(path, device, with_gram)


def _digest(directory: Path) -> str | None:
    """sha256 of model.json: it changes where another process replaces the directory while it is read."""
    try:
        return sha256(directory / _DESCRIPTION)
    except (OSError, ValueError):
        return None


def _load(directory: Path, device: str, with_gram: bool) -> TrainedModel:
    """The model in a directory of this machine."""
    recover(directory)
    about = _read_description(directory)
    digest = sha256(directory / _DESCRIPTION)
    TrainingContext(device=device).resolve_device()  # a device that is not there is no damage
    _check_files(directory, {name: sum_ for name, sum_ in about["files"].items() if with_gram or name != _GRAM})
    try:
        items, counts = _read_ids(directory / _ITEMS, "item_id", about["items"], has_counts=True)
        users = _read_ids(directory / _USERS, "user_id")[0] if _USERS in about["files"] else None
        model = create_model(about["model"], _settings(about["config"]))
        if model.needs_training_users and users is None:
            raise ArtifactError(f"expected {_USERS}, found none")
        model.set_state(_aligned(load_file(directory / _WEIGHTS)), len(items), device)
        features = FeatureEncoder.load(directory) if FEATURES in about["files"] else None
        if with_gram and isinstance(model, ClosedForm) and _GRAM in about["files"]:
            kept = load_file(directory / _GRAM)
            check_state(kept, model._start_spec(len(items), kept))
            model.gram = kept["gram"]
    except _UNREADABLE as error:
        reason = str(error) or type(error).__name__
        raise ArtifactError(f"{directory} cannot be read as a {about['model']} model: {reason}") from error
    if users is not None and model.n_users not in (None, len(users)):
        raise ArtifactError(f"Expected {model.n_users} users in {directory / _USERS}, found {len(users)}.")
    return TrainedModel(model, items, counts, users, about, digest, features)


def _aligned(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file, small ones where the processor likes them: matrix products round by the address.

    In the file they follow each other without a gap. Large ones stay mapped: processes share them.
    """
    return {
        name: tensor.clone() if tensor.data_ptr() % _ALIGNMENT and tensor.nbytes <= _COPIED else tensor
        for name, tensor in state.items()
    }


def _check_files(directory: Path, files: Mapping[str, str]) -> None:
    """Compare the files with their checksums. Their names may be crafted: none may lead out of the directory."""
    for name, expected in files.items():
        if name in ("", ".", "..") or "\0" in name or Path(name).name != name or not (directory / name).is_file():
            raise ArtifactError(f"Expected {name} in {directory}, found none: the model is incomplete, save it again.")
        if sha256(directory / name) != expected:
            raise ArtifactError(
                f"{directory / name} is damaged: its checksum is not that in model.json. Copy it again."
            )


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under their present names; those of a blend's members too."""
    if config.get("loss") == "squared":
        config = {**config, "loss": "gaussian"}
    return {
        _RENAMED_SETTINGS.get(name, name): _settings(value) if isinstance(value, Mapping) else value
        for name, value in config.items()
    }


def _read_description(directory: Path) -> dict[str, Any]:
    """The content of model.json; whatever `_load` uses of it has the type it must have."""
    file = directory / _DESCRIPTION
    if not file.is_file():
        raise ArtifactError(f"Expected a model directory with model.json, found none in {directory}: train one first.")
    about = parse_json(file.read_bytes(), file)
    _check_kinds(file, about)
    found, model, files = about["schema_version"], about["model"], about["files"]
    if found != SCHEMA_VERSION:
        raise ArtifactError(
            f"Expected model format {SCHEMA_VERSION}, found {found} in {file}: use the version of recsys that wrote it."
        )
    if model not in MODELS:
        raise ArtifactError(f"Expected a model of {', '.join(MODELS)}; found {model!r:.60} in {file}.")
    needed = {_WEIGHTS, _ITEMS} | ({FEATURES, FEATURE_NUMBERS} if {FEATURES, FEATURE_NUMBERS} & files.keys() else set())
    if missing := needed - files.keys():  # unlisted, they would go unchecked
        raise ArtifactError(f"Expected checksums of all files in {file}, found none of {', '.join(sorted(missing))}.")
    return about


def _check_kinds(file: Path, about: Mapping[str, Any]) -> None:
    """Refuse values of other types than those that are used here, in evaluation and in reading histories."""
    for name, kind in (_KINDS | _OPTIONAL_KINDS).items():
        if name not in about and name in _OPTIONAL_KINDS:
            continue
        if not isinstance(about.get(name), kind) or isinstance(about[name], bool):
            found = "found none" if name not in about else f"found {about[name]!r:.60}"
            raise ArtifactError(f"{file} is damaged or not from recsys: expected {name} ({kind.__name__}), {found}.")
    reading = about.get("reading", {})
    try:
        ReadingOptions(**{name: reading.get(name) for name in READING})
    except (ConfigError, TypeError) as error:
        raise ArtifactError(f"{file} is damaged or not from recsys: in reading, {error}.") from error


def _write_ids(file: Path, name: str, ids: Vocabulary, counts: NDArray[np.int64] | None = None) -> None:
    """Write ids by position, perhaps with a count for each."""
    columns: dict[str, Any] = {"position": pa.array(np.arange(len(ids), dtype=np.int32)), name: ids.ids}
    if counts is not None:
        columns["count"] = pa.array(counts.astype(np.int64))
    pq.write_table(pa.table(columns), file, compression="zstd")


def _read_ids(
    file: Path, name: str, rows: int | None = None, has_counts: bool = False
) -> tuple[Vocabulary, NDArray[np.int64]]:
    """Ids by position and their counts (1 each where there are none), as `_write_ids` wrote them.

    Raises ArtifactError, or an error of pyarrow, for anything else: other columns, types or sizes, missing or repeated
    ids, positions out of order, negative counts.
    """
    with pq.ParquetFile(file) as parquet:  # not read_table: it takes folders named a=b for columns
        columns = ["position", name, "count"] if has_counts else ["position", name]
        found, size = parquet.schema_arrow.names, parquet.metadata.num_rows
        if sorted(found) != sorted(columns):
            raise ArtifactError(f"{file.name}: expected the columns {', '.join(columns)}, found {', '.join(found)}")
        if size != (size if rows is None else rows) or size > np.iinfo(np.int32).max:
            raise ArtifactError(f"{file.name}: expected {rows} rows, found {size}")
        table = parquet.read().combine_chunks()
    table.validate(full=True)
    position, ids = (table[column].combine_chunks() for column in columns[:2])
    counts = table["count"].combine_chunks() if has_counts else pa.array(np.ones(len(table), dtype=np.int64))
    if not (pa.types.is_integer(position.type) and pa.types.is_integer(counts.type)):
        raise ArtifactError(f"{file.name}: expected integers, found {position.type} and {counts.type}")
    if not (pa.types.is_integer(ids.type) or pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type)):
        raise ArtifactError(f"{file.name}: expected ids of text or integers, found {ids.type}")
    if position.null_count or counts.null_count or not np.array_equal(position.to_numpy(), np.arange(len(table))):
        raise ArtifactError(f"{file.name}: expected the positions 0 to {len(table) - 1} in order")
    if len(counts) and counts.to_numpy().min() < 0:
        raise ArtifactError(f"{file.name}: expected counts of 0 or more")
    return Vocabulary.of(ids), counts.to_numpy().astype(np.int64)
