"""Where things lie: a path of this machine, or the address of an object store (s3://bucket/key, gs://, abfs://, ...).

What is read from an address is fetched whole first: the readers know files only. What is written goes through a
`Folder`, in which a file appears whole or not at all: here by a rename, in a store by one put. The filesystems are
those of fsspec, which finds credentials where each store's own tools find them.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import re
import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias
from urllib.request import url2pathname

from recsys.errors import ConfigError, DataError, RecsysError, StorageError

Location: TypeAlias = Path | str  # an address is text: a Path would make s3:/bucket of s3://bucket

log = logging.getLogger(__name__)


def as_location(place: str | Path) -> Location:
    """A Path, or an address as text without a slash at its end. `file://` is a path of this machine in other words."""
    protocol, mark, rest = str(place).partition("://")
    if isinstance(place, Path) or not mark:
        return Path(place)
    return Path(url2pathname(rest)) if protocol == "file" else f"{protocol}://{rest.rstrip('/')}"


def absolute(place: Location) -> Location:
    """The place in words that mean the same to a process elsewhere."""
    place = as_location(place)
    return place.absolute() if isinstance(place, Path) else place


# Reading


@contextlib.contextmanager
def local_copy(place: Location) -> Iterator[Path]:
    """The path itself, or a copy of the file or folder at an address, under the same name.

    The copy lies in the folder for temporary files (TMPDIR), which must have room for it, and is gone after the block;
    files still mapped to memory live on. Errors of ours raised in the block speak of the address. Raises DataError
    where nothing is there or the store does not give it, ConfigError where its package is missing.
    """
    place = as_location(place)
    if isinstance(place, Path):
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="recsys-", ignore_cleanup_errors=True) as folder:
        log.info("fetching %s", place)
        copy = _fetch(place, Path(folder))
        try:
            yield copy
        except RecsysError as error:
            error.args = (str(error).replace(str(copy), place),)
            raise


@contextlib.contextmanager
def local_copies(places: Sequence[Location]) -> Iterator[list[Path]]:
    """`local_copy` of each."""
    with contextlib.ExitStack() as copies:
        yield [copies.enter_context(local_copy(place)) for place in places]


def _fetch(address: str, folder: Path) -> Path:
    filesystem, root = _open(address)
    copy = folder / (PurePosixPath(root).name or "root")
    try:
        if filesystem.info(root)["type"] != "directory":
            filesystem.get_file(root, str(copy))
            return copy
        # Some stores keep an empty object as the sign of a folder.
        names = [name for name in filesystem.find(root) if not name.endswith("/") and name != root]
        copies = [copy / _below(name, root, address) for name in names]
        copy.mkdir()
        for parent in {file.parent for file in copies}:
            parent.mkdir(parents=True, exist_ok=True)
        filesystem.get(names, [str(file) for file in copies])  # together: a store answers many at once
    except FileNotFoundError as error:
        raise DataError(f"Expected a file or a folder at {address}, found none. Check the address.") from error
    except Exception as error:
        if isinstance(error, RecsysError):
            raise
        raise DataError(_refused("read", address, error)) from error
    return copy


def _below(name: str, root: str, address: str) -> PurePosixPath:
    """Where a file lies under the root. Objects may have any name: none may lead out of the copy."""
    inside = PurePosixPath(name).relative_to(root)
    if ".." in inside.parts:
        raise DataError(f"Expected names without '..' at {address}, found {name}: rename it.")
    return inside


def _open(address: str) -> tuple[Any, str]:
    """The filesystem of an address, and the path in it."""
    import fsspec

    try:
        filesystem, root = fsspec.core.url_to_fs(address)
    except ImportError as error:  # its words name the package
        raise ConfigError(
            f"Expected the package for {address}, found none: {error}. Those of s3:// and gs:// come with  "
            'pip install "recsys[object-stores]".'
        ) from error
    except ValueError as error:
        raise ConfigError(f"Expected an address such as s3://bucket/key, found {address}: {error}.") from error
    except Exception as error:
        raise ConfigError(_refused("open", address, error)) from error
    if not str(root).strip("/"):
        raise ConfigError(f"Expected an address with a bucket and a key, such as s3://bucket/key, found {address}.")
    return filesystem, str(root).rstrip("/")


def _refused(verb: str, address: str, error: Exception) -> str:
    found = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"Expected room for a copy of {address} in {tempfile.gettempdir()}, found: {found}. Set TMPDIR to more."
    return (
        f"Expected to {verb} {address}, found: {found}. Check the address, and the credentials where the tools of its "
        "store look for them."
    )


# Writing


class Folder(ABC):
    """A folder of a job's files, by names such as `plan.json` and `recommendations/part-00000.parquet`."""

    @abstractmethod
    def is_file(self, name: str = "") -> bool:
        """Whether there is a file of that name; without a name, whether the folder itself is one."""

    @abstractmethod
    def is_empty(self) -> bool:
        """Whether nothing is there."""

    @abstractmethod
    def names(self, inner: str) -> list[str]:
        """Names of the files of an inner folder, in order, half-written ones left out: `inner/part-00000.csv`."""

    @abstractmethod
    def make(self, *inner: str) -> None:
        """Make the folder and some in it ready, without what a killed job left half written."""

    @abstractmethod
    def read_text(self, name: str) -> str:
        """Content of a file, in UTF-8."""

    @abstractmethod
    def new_file(self, name: str) -> AbstractContextManager[Path]:
        """A temporary file to fill, which then takes the name: nobody ever sees half of it."""

    @abstractmethod
    def append(self, name: str, text: str) -> None:
        """Add to the end of a file that only one process writes."""

    @abstractmethod
    def local(self, name: str) -> AbstractContextManager[Path]:
        """A file to read: itself, or a copy of it for as long as the block lasts."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    def sha256(self, name: str) -> str:
        """Checksum of a file as it can be read."""
        with self.local(name) as file:
            return sha256(file)


def folder_at(place: Location) -> Folder:
    """The folder of a path or an address. Raises ConfigError where no package knows such addresses."""
    place = as_location(place)
    return LocalFolder(place) if isinstance(place, Path) else ObjectStoreFolder(place, *_open(place))


@dataclass(frozen=True)
class LocalFolder(Folder):
    """A folder of this machine, or one that it has mounted."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def is_file(self, name: str = "") -> bool:
        """Whether the file is there."""
        return (self.path / name).is_file()

    def is_empty(self) -> bool:
        """Whether there is no folder, or nothing in it."""
        return not self.path.is_dir() or not any(self.path.iterdir())

    def names(self, inner: str) -> list[str]:
        """Files that are not hidden."""
        folder = self.path / inner
        files = [file.name for file in folder.iterdir() if file.is_file()] if folder.is_dir() else []
        return [f"{inner}/{name}" for name in sorted(files) if not name.startswith(".")]

    def make(self, *inner: str) -> None:
        """Folders, without the temporary files of `new_file`."""
        for folder in (self.path, *(self.path / name for name in inner)):
            folder.mkdir(parents=True, exist_ok=True)
            for file in folder.iterdir():
                if re.fullmatch(r"\..+\.[0-9a-f]{8}\.\w+", file.name):
                    file.unlink(missing_ok=True)

    def read_text(self, name: str) -> str:
        """As it stands."""
        return (self.path / name).read_text(encoding="utf-8")

    @contextlib.contextmanager
    def new_file(self, name: str) -> Iterator[Path]:
        """Flushed, then renamed."""
        file = self.path / name
        unique = uuid.uuid4().hex[:8]  # of no other worker, on any machine
        temporary = file.with_name(f".{file.stem}.{unique}{file.suffix}")
        try:
            yield temporary
            flush(temporary)
            temporary.replace(file)
            flush(file.parent)
        finally:
            with contextlib.suppress(OSError):  # the first error is the one to hear about
                temporary.unlink(missing_ok=True)

    def append(self, name: str, text: str) -> None:
        """At the end of the file itself."""
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.write(text)

    @contextlib.contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """Itself."""
        yield self.path / name

    def remove(self, name: str) -> None:
        """Gone at once."""
        (self.path / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class ObjectStoreFolder(Folder):
    """The keys of an object store below an address. Raises StorageError for all that the store refuses."""

    address: str
    filesystem: Any
    root: str

    def __str__(self) -> str:
        return self.address

    def is_file(self, name: str = "") -> bool:
        """Whether the object is there."""
        with self._asked("look for", name):
            try:
                return bool(self._fresh().info(self._key(name))["type"] == "file")
            except FileNotFoundError:
                return False

    def is_empty(self) -> bool:
        """Whether no key begins so."""
        return not self._list("")

    def names(self, inner: str) -> list[str]:
        """The keys directly below."""
        entries = [entry["name"] for entry in self._list(inner) if entry["type"] == "file"]
        return sorted(f"{inner}/{PurePosixPath(name).name}" for name in entries)

    def make(self, *inner: str) -> None:
        """Nothing: keys need no folder, and a put that was killed left none."""

    def read_text(self, name: str) -> str:
        """The object's content."""
        with self._asked("read", name):
            return bytes(self.filesystem.cat_file(self._key(name))).decode("utf-8")

    @contextlib.contextmanager
    def new_file(self, name: str) -> Iterator[Path]:
        """Written here, then put: the object appears when the last byte has arrived."""
        with tempfile.TemporaryDirectory(prefix="recsys-") as folder:
            file = Path(folder) / PurePosixPath(name).name
            yield file
            with self._asked("write", name):
                self.filesystem.put_file(str(file), self._key(name))

    def append(self, name: str, text: str) -> None:
        """Objects do not grow: the whole is put anew."""
        text = (self.read_text(name) if self.is_file(name) else "") + text
        with self._asked("write", name):
            self.filesystem.pipe_file(self._key(name), text.encode("utf-8"))

    @contextlib.contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """Fetched."""
        with tempfile.TemporaryDirectory(prefix="recsys-", ignore_cleanup_errors=True) as folder:
            file = Path(folder) / PurePosixPath(name).name
            with self._asked("read", name):
                self.filesystem.get_file(self._key(name), str(file))
            yield file

    def remove(self, name: str) -> None:
        """By one request."""
        if self.is_file(name):
            with self._asked("remove", name):
                self.filesystem.rm_file(self._key(name))

    def _key(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def _fresh(self) -> Any:
        """The filesystem without what it remembers: other processes write there too."""
        self.filesystem.invalidate_cache()
        return self.filesystem

    def _list(self, inner: str) -> list[dict[str, Any]]:
        root = self._key(inner)
        with self._asked("list", inner):
            try:
                entries = self._fresh().ls(root, detail=True)
            except FileNotFoundError:
                return []
        return [entry for entry in entries if entry["name"].strip("/") != root.strip("/")]  # the sign of a folder

    @contextlib.contextmanager
    def _asked(self, verb: str, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each store has errors of its own
            raise StorageError(_refused(verb, f"{self.address}/{name}".rstrip("/"), error)) from error


# Files


def flush(path: Path) -> None:
    """Have the system write a file or folder to disk, so that a rename after it never shows an empty one."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(file: Path) -> str:
    """Checksum of a file, in hexadecimal."""
    with file.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
