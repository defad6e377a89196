"""Files and folders that appear whole or not at all, also where a process is killed or a disk is full.

What is written goes to a *draft* beside its place and is then renamed:

```
model/                                     what was there before, until the last moment
.model.1f0c22ab-9d5e8a3b70c1.draft/        hidden and locked while its process lives
├── new/model/                             what is being written
└── old/model/                             what was there, where the system cannot exchange two folders in one step
```
A process that was killed leaves its draft unlocked; the next one that writes beside it puts `old/` back where nothing
took its place, and removes the rest.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import re
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from recsys.errors import ArtifactError
from recsys.system.disk import require_writable_name, storage_errors

if sys.platform != "win32":
    import fcntl

_DRAFT = re.compile(r"\.(?P<stem>.+)\.(?P<host>[0-9a-f]{8})-[0-9a-f]{12}\.draft")
_LONGEST_STEM = 120  # bytes of a name that its draft repeats; names may have 255
_FORGOTTEN = 7 * 86_400  # seconds after which a draft is taken for abandoned where no lock can tell

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of renameat2(2)


# Files


@contextlib.contextmanager
def new_file(file: Path, sweep: bool = True) -> Iterator[Path]:
    """Write a file that takes its name when the block ends without an error.

    The old file stays until the new one is complete and on disk. Behind a link the file it points to is replaced. What
    is no regular file (a pipe, `/dev/stdout`) is written to directly.

    Parameters
    ----------
    file : Path
        Folders above it are made.
    sweep : bool
        Whether to remove what dead processes left beside it. Costs a look at every name in the folder.

    Yields
    ------
    Path
        The draft to fill: it has the name of the file, in another folder of the same disk.

    Raises
    ------
    ArtifactError
        If `file` is a folder.
    StorageError
        If the disk is full or does not take it.
    """
    require_writable_name(file)
    with storage_errors(file):
        file = file.resolve()
        if file.is_dir():
            raise ArtifactError(f"Expected a file to write to, found the folder {file}: choose another place.")
        if file.exists() and not file.is_file():
            yield file
            return
        with draft_beside(file, sweep) as draft:
            yield draft
            if file.exists():
                shutil.copymode(file, draft)
            flush(draft)
            draft.replace(file)
            flush(file.parent)


def write_text(file: Path, text: str) -> None:
    """Write a text in UTF-8 as `new_file` does: the file holds the old text or the new one, never a part."""
    with new_file(file) as draft:
        draft.write_text(text, encoding="utf-8", newline="")


def flush(path: Path) -> None:
    """Have the system write a file or folder to disk, so that a rename after it never shows an empty one."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(file: Path) -> str:
    """Return the checksum of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# Drafts


def is_draft(name: str) -> bool:
    """Return whether a file name is that of a draft."""
    return _DRAFT.fullmatch(name) is not None


@contextlib.contextmanager
def draft_beside(target: Path, sweep: bool = True) -> Iterator[Path]:
    """Yield a path for a draft of `target` that does not exist yet; whatever is there when the block ends is removed.

    Parameters
    ----------
    target : Path
        Absolute; folders above it are made.
    sweep : bool
        Whether to call `remove_leftovers` first.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if sweep:
        remove_leftovers(target.parent)
    folder, handle = _locked_folder(target)
    try:
        (folder / "new").mkdir()
        yield folder / "new" / target.name
    finally:
        try:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(handle)  # what is still there is anybody's to remove


def put_folder(draft: Path, target: Path, overwrite: bool) -> None:
    """Give a folder in a draft (`draft_beside`) its final name. With `overwrite`, what was there is removed after it.

    The system exchanges the two in one step where it can. Elsewhere there is a moment with nothing at the name; should
    the process be killed in it, `recover` puts the old folder back.
    """
    if not (overwrite and target.exists()):
        draft.rename(target)  # the system refuses where something is in a folder of that name
    elif not exchange(draft, target):
        old = next(parent for parent in draft.parents if is_draft(parent.name)) / "old" / target.name
        old.parent.mkdir()
        try:
            target.rename(old)
            draft.rename(target)
        except BaseException:
            if old.exists() and not target.exists():
                old.rename(target)
            raise
    flush(target.parent)


def recover(target: Path) -> None:
    """Put back what a killed process moved away from `target` and did not replace; nothing where all is well."""
    if not os.path.lexists(target):
        with contextlib.suppress(OSError):
            remove_leftovers(target.absolute().parent)


def remove_leftovers(folder: Path, any_host: bool = False) -> None:
    """Remove the drafts that dead processes left in a folder; first put back what they moved away and did not replace.

    A draft is left alone while its process lives: it holds a lock. Where no lock can tell, because another machine
    wrote it or the file system has none, the draft is removed after a week.

    Parameters
    ----------
    folder : Path
        Its inner folders are not looked at.
    any_host : bool
        Whether drafts of other machines are removed as those of this one are: for a folder that belongs to one job.
    """
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = os.listdir(folder)  # noqa: PTH208  (names alone, where there may be many)
    for name in names:
        found = _DRAFT.fullmatch(name)
        if found is not None and (draft := folder / name).is_dir():
            with contextlib.suppress(OSError), _claimed(draft, any_host or found["host"] == _host()) as is_abandoned:
                if is_abandoned:
                    _put_back(draft)
                    shutil.rmtree(draft, ignore_errors=True)


def _put_back(draft: Path) -> None:
    """Rename what was moved away to its old name, where nothing took it."""
    for old in (draft / "old").glob("*"):
        if not os.path.lexists(draft.parent / old.name):
            old.rename(draft.parent / old.name)


def _locked_folder(target: Path) -> tuple[Path, int]:
    """A new hidden folder beside `target`, and the open handle that keeps it locked."""
    while True:
        folder = target.with_name(f".{_stem(target.name)}.{_host()}-{uuid.uuid4().hex[:12]}.draft")
        folder.mkdir(mode=0o700)
        try:
            handle = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # another process took it for a leftover before it was locked
            continue
        if _lock(handle) is not False and folder.exists():
            return folder, handle
        os.close(handle)


@contextlib.contextmanager
def _claimed(draft: Path, is_of_this_host: bool) -> Iterator[bool]:
    """Whether a draft is abandoned; in the block no other process can claim it."""
    handle = os.open(draft, os.O_RDONLY)
    try:
        is_free = _lock(handle)
        if is_free and is_of_this_host:
            yield True
        else:
            yield is_free is not False and _age(draft) > _FORGOTTEN
    finally:
        os.close(handle)


def _lock(handle: int) -> bool | None:
    """Lock an open file or folder until it is closed: False where another process has it, None without locks."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems
        return None
    return True


def _age(folder: Path) -> float:
    """Seconds since anything in a folder was written."""
    return time.time() - max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))


def _host() -> str:
    """This machine, in eight characters."""
    return hashlib.sha256(socket.gethostname().encode("utf-8", "surrogateescape")).hexdigest()[:8]


def _stem(name: str) -> str:
    """The name, or a part of a long one."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= _LONGEST_STEM else os.fsdecode(encoded[:_LONGEST_STEM].decode("utf-8", "ignore"))


def exchange(one: Path, other: Path) -> bool:
    """Exchange two paths of one disk in one step; False where the system or the file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.EXDEV):
        return False
    raise OSError(code, os.strerror(code), str(other))
