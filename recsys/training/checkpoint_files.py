"""Files of checkpoints: written whole, their checksum in their name, the last two kept, damaged ones skipped.

```
model.checkpoint/
├── training.json                          which training this is: data, settings, versions, device
├── 000007-4c1e0a91d2b3f586.safetensors    tensors by name, what they are in the header; number and checksum
└── 000008-90fe12ab34cd5678.safetensors
```
A file is not forced to disk: that would take most of the time. A killed process loses nothing by it. A machine that
fails may leave the newest file damaged; its checksum shows that, and the one before is taken.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from recsys.errors import ArtifactError
from recsys.system.atomic import parse_json, write_json
from recsys.system.disk import storage_errors
from recsys.system.files import draft_beside, is_draft, remove_leftovers, sha256

logger = logging.getLogger(__name__)

DESCRIPTION = "training.json"
_NAME = re.compile(r"(?P<number>\d{6,})-(?P<digest>[0-9a-f]{16})\.safetensors")
_KEPT = 2
_HEADER = "recsys"  # of the metadata: everything in one JSON text

# What reading a damaged file can raise.
_UNREADABLE = (SafetensorError, ArtifactError, OSError, ValueError, KeyError, TypeError, RuntimeError)


def write_checkpoint(folder: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Path:
    """Write the next checkpoint of a folder, and remove all but the last two.

    Parameters
    ----------
    folder : Path
        Made where it does not exist.
    tensors : mapping of str to Tensor
        On any device.
    about : mapping
        Plain values, kept in the header.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    StorageError
        If the disk is full or does not take it.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with storage_errors(folder), draft_beside(folder.absolute() / "checkpoint") as draft:
        save_file(plain, draft, {_HEADER: json.dumps(about)})
        earlier = list_checkpoints(folder)
        number = 1 + max((int(_matched(file)["number"]) for file in earlier), default=0)
        place = folder / f"{number:06d}-{sha256(draft)[:16]}.safetensors"
        draft.replace(place)
        for file in earlier[: 1 - _KEPT]:
            file.unlink(missing_ok=True)
    return place


def newest_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Read the newest checkpoint that is not damaged.

    Parameters
    ----------
    folder : Path
        May not exist.

    Returns
    -------
    tensors : dict of str to Tensor
        They lie in the file, which is read where they are used: copy what is kept.
    about : dict
        What was written with them; None instead of both where there is none. Damaged files are skipped with a warning.
    """
    for file in reversed(list_checkpoints(folder)):
        try:
            if sha256(file)[:16] != _matched(file)["digest"]:
                raise ArtifactError("its checksum is not that in its name")
            with safe_open(file, "pt") as opened:
                about = parse_json((opened.metadata() or {})[_HEADER].encode(), file)
            return load_file(file), about
        except _UNREADABLE as error:
            logger.warning("The checkpoint %s is damaged and is skipped: %s.", file, str(error).rstrip("."))
    return None


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the files of checkpoints in a folder, oldest first; whether they are damaged is not looked at."""
    if not folder.is_dir():
        return []
    found = [file for file in folder.iterdir() if _NAME.fullmatch(file.name) and file.is_file()]
    return sorted(found, key=lambda file: (int(_matched(file)["number"]), file.name))


def has_checkpoints(folder: Path) -> bool:
    """Return whether there is a checkpoint in a folder or in those inside it."""
    inner = [place for place in folder.iterdir() if place.is_dir()] if folder.is_dir() else []
    return bool(list_checkpoints(folder)) or any(map(has_checkpoints, inner))


def _matched(file: Path) -> re.Match[str]:
    found = _NAME.fullmatch(file.name)
    assert found is not None
    return found


def write_description(folder: Path, about: Mapping[str, Any]) -> None:
    """Write which training the checkpoints of a folder belong to."""
    write_json(folder / DESCRIPTION, about)


def read_description(folder: Path) -> dict[str, Any] | None:
    """Read which training the checkpoints of a folder belong to; None where it was never written, or is damaged."""
    file = folder / DESCRIPTION
    try:
        about = parse_json(file.read_bytes(), file)
        if not isinstance(about.get("training"), dict):
            raise ArtifactError(f"{file} does not say what is trained.")
        return about
    except FileNotFoundError:
        return None
    except (ArtifactError, OSError) as error:
        logger.warning("%s is skipped with its checkpoints: %s", folder, error)
        return None


def remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoints in a folder and in those inside it, and the folder itself if nothing else is in it."""
    if not folder.is_dir() or folder.is_symlink():
        return
    with contextlib.suppress(OSError):
        remove_leftovers(folder)
        for place in list(folder.iterdir()):
            if place.is_dir() and not is_draft(place.name):
                remove_checkpoints(place)
            elif place.name == DESCRIPTION or _NAME.fullmatch(place.name):
                place.unlink(missing_ok=True)
        folder.rmdir()
