"""What a command writes is tried before its work: an hour of training must not end at a folder that cannot be made."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path
from typing import Any

from recsys.errors import ArtifactError, ConfigError

FIELDS = ("output", "plots", "rejects")  # fields of jobs that name what is written
TRIAL = b"\0" * 65_536  # bytes written to see whether the disk takes some


def try_destinations(job: Any) -> None:
    """Try every path that a job will write to; addresses of object stores are tried by the jobs that take them."""
    for item in dataclasses.fields(job):
        value = getattr(job, item.name)
        if dataclasses.is_dataclass(value):
            try_destinations(value)
        elif item.name in FIELDS and isinstance(value, Path):
            try_destination(value)


def try_destination(path: Path) -> None:
    """Raise an error that names `path` where a file or folder of that name could not be written there."""
    try:
        path.name.encode(), str(path).encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"Expected a path in UTF-8 to write to, found {str(path)!r}: choose another name.") from error
    if "\0" in str(path):
        raise ConfigError(f"Expected a path without NUL to write to, found {str(path)!r}: choose another name.")
    if path.is_dir():
        _try_write(path, path, "recsys")
    parent = path.absolute().parent
    while not os.path.lexists(parent):
        parent = parent.parent
    if not parent.is_dir():
        raise ArtifactError(f"Expected a folder at {parent} to write {path}, found a file: choose another place.")
    _try_write(parent, path, path.absolute().name)


def _try_write(folder: Path, path: Path, name: str) -> None:
    """Write a draft as the job itself will, with a name as long."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{name}.", suffix=".tmp") as draft:
            draft.write(TRIAL)
            draft.flush()
            os.fsync(draft.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
