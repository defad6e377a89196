"""Whether a path can be written to, and one error for all the ways in which a disk refuses."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from recsys.errors import ArtifactError, ConfigError, RecsysError, StorageError

_LONGEST_NAME = 255  # bytes, on every file system in use
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EACCES, errno.EPERM)

# safetensors, pyarrow and SQLite say in words what Python says in numbers.
_NUMBER = re.compile(r"\((?:os error|errno) (\d+)\)|\[errno (\d+)\]", re.IGNORECASE)
_SQLITE = {
    "database or disk is full": errno.ENOSPC,
    "disk I/O error": errno.EIO,
    "attempt to write a readonly database": errno.EROFS,
    "unable to open database file": errno.EACCES,
}
_TRIAL = b"\0" * 65_536  # bytes written to see whether the disk has room at all


def require_writable(path: Path) -> None:
    """Try whether a file or folder can be written at `path`, before the work that it is for.

    A trial file is written beside it and removed; nothing else changes, and no folder is made.

    Parameters
    ----------
    path : Path
        May exist or not; so may the folders above it.

    Raises
    ------
    ConfigError
        If the path is not valid UTF-8, holds a NUL, or a name in it is too long.
    ArtifactError
        If a file stands where a folder above it must be.
    StorageError
        If the disk is full or read-only, or permission is missing.
    """
    require_writable_name(path)
    with storage_errors(path):
        folder = path.resolve().parent
        while not os.path.lexists(folder):
            folder = folder.parent
        if not folder.is_dir():
            raise ArtifactError(f"Expected a folder at {folder} to write {path}, found a file: choose another place.")
        _write_trial(folder)


def require_writable_name(path: Path) -> None:
    """Raise ConfigError for a path that no file can have, or that the libraries which write files cannot take."""
    text = str(path)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ConfigError(f"Expected a path in UTF-8 to write to, found {text!r}: choose another name.") from error
    if "\0" in text:
        raise ConfigError(f"Expected a path without NUL to write to, found {text!r}: choose another name.")
    with contextlib.suppress(OSError):  # what the system says of a path comes when it is tried
        try:
            path.resolve()
        except RuntimeError as error:
            raise ConfigError(f"Expected a path to write to, found links in a circle: {path}. Remove them.") from error
    longest = max((len(part.encode("utf-8")) for part in path.parts), default=0)
    if longest > _LONGEST_NAME:
        raise ConfigError(
            f"Expected names of at most {_LONGEST_NAME} bytes in a path to write to, found one of {longest}: "
            "choose a shorter one."
        )


def _write_trial(folder: Path) -> None:
    """Write a small file without a name, where the system has such: a kill leaves nothing behind."""
    with tempfile.TemporaryFile(dir=folder, prefix=".", suffix=".trial") as stream:
        stream.write(_TRIAL)
        stream.flush()
        os.fsync(stream.fileno())


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Raise StorageError, which names `path` and its disk, for whatever shows in the block that the disk refuses.

    Errors of the system, of safetensors, of pyarrow and of SQLite are recognized. All others pass: among them errors
    of the system about files elsewhere, such as an input that cannot be read.

    Parameters
    ----------
    path : Path
        What is being written: a file, or a folder with all in it.
    """
    try:
        yield
    except RecsysError:
        raise
    except Exception as error:
        found = storage_error(error, path)
        if found is None:
            raise
        raise found from error


def storage_error(error: Exception, path: Path) -> StorageError | None:
    """Return the error to raise where another one shows that the disk of `path` refuses it; None where it does not."""
    number = _error_number(error)
    name = getattr(error, "filename", None)
    file = Path(os.fsdecode(name)) if isinstance(name, str | bytes) else path
    if number is None or not (number in _FULL or _is_part(file, path)):
        return None
    disk = _mount_point(path)
    if number in _FULL:
        return StorageError(
            f"Expected room for {path}, found the disk at {disk} full ({_free(disk)} free), or a limit on it reached: "
            "free some space, or choose another place."
        )
    if number == errno.EROFS:
        return StorageError(f"Expected to write {path}, found the disk at {disk} read-only: choose another place.")
    if number in _REFUSED:
        return StorageError(f"Expected permission to write {path}, found none: choose another place, or ask for it.")
    return StorageError(f"Expected to write {path} on the disk at {disk}, found: {os.strerror(number)}.")


def _error_number(error: Exception) -> int | None:
    """The system's number behind an error, also where a library has it in words only."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    if found := _NUMBER.search(text):
        return int(found[1] or found[2])
    return next((number for words, number in _SQLITE.items() if words in text), None)


def _is_part(file: Path, path: Path) -> bool:
    """Whether a file is the path, lies in it or in its draft, or is a folder above it."""
    found, target = file.absolute(), path.absolute()
    in_draft = any(part.startswith(".") and part.endswith((".draft", ".trial")) for part in found.parts)
    return in_draft or found == target or target in found.parents or found in target.parents


def _mount_point(path: Path) -> Path:
    """Where the disk of a path is mounted."""
    folder = path.absolute()
    while not (folder.exists() and os.path.ismount(folder)) and folder != folder.parent:
        folder = folder.parent
    return folder


def _free(disk: Path) -> str:
    """Free space in words."""
    try:
        return f"{shutil.disk_usage(disk).free / 1e6:,.1f} MB"
    except OSError:
        return "unknown space"
