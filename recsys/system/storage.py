"""Paths of this machine and addresses of object stores (s3://bucket/key, gs://, abfs://, ...), read and written alike.

What is read from an address is downloaded first: the readers work on files. What is written goes through a `Folder`,
in which a file appears whole or not at all: on this machine by a rename, in an object store by one upload. The
filesystems are those of fsspec, which finds credentials where each store's own tools find them.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias
from urllib.request import url2pathname

from recsys.errors import ConfigError, DataError, RecsysError, StorageError
from recsys.system.disk import storage_errors
from recsys.system.files import is_draft, new_file, remove_leftovers, sha256
from recsys.system.packages import install_hint
from recsys.system.text import mask_address, mask_secrets

Location: TypeAlias = Path | str  # an address is text: a Path would make s3:/bucket of s3://bucket

log = logging.getLogger(__name__)


def as_location(place: str | Path) -> Location:
    """Tell paths from addresses.

    Parameters
    ----------
    place : str or Path
        A path, or an address such as `s3://bucket/key`.

    Returns
    -------
    Path or str
        A Path (of `file://...` too), or the address without a slash at its end.
    """
    protocol, mark, rest = str(place).partition("://")
    if isinstance(place, Path) or not mark:
        return Path(place)
    return Path(url2pathname(rest)) if protocol == "file" else f"{protocol}://{rest.rstrip('/')}"


def absolute(place: Location) -> Location:
    """Return the location in a form that means the same in any working directory."""
    place = as_location(place)
    return place.absolute() if isinstance(place, Path) else place


# Reading


@contextlib.contextmanager
def local_copy(place: Location) -> Iterator[Path]:
    """Yield a path of this machine: the path itself, or a copy of what is at an address.

    Errors of recsys raised in the block name the address and not the copy.

    Parameters
    ----------
    place : Path or str
        A file or a folder.

    Yields
    ------
    Path
        A copy has the same name. It lies in the folder for temporary files (TMPDIR), which must have room for it, and
        is removed after the block; files still mapped to memory stay readable.

    Raises
    ------
    DataError
        If nothing is at the address, or the object store refuses to give it.
    ConfigError
        If the package for such addresses is missing.
    """
    place = as_location(place)
    if isinstance(place, Path):
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="recsys-", ignore_cleanup_errors=True) as folder:
        log.info("downloading %s", mask_secrets(place))
        copy = _download(place, Path(folder))
        try:
            yield copy
        except RecsysError as error:
            error.args = (str(error).replace(str(copy), mask_secrets(place)),)
            raise


@contextlib.contextmanager
def local_copies(places: Sequence[Location]) -> Iterator[list[Path]]:
    """Yield `local_copy` of each location, in the same order."""
    with contextlib.ExitStack() as copies:
        yield [copies.enter_context(local_copy(place)) for place in places]


def _download(address: str, folder: Path) -> Path:
    """Copy the file or folder at an address into `folder`."""
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
        filesystem.get(names, [str(file) for file in copies])  # in one call: a store answers many at once
    except FileNotFoundError as error:
        found = f"Expected a file or a folder at {mask_secrets(address)}, found none. Check the address."
        raise DataError(found) from error
    except Exception as error:
        if isinstance(error, RecsysError):
            raise
        raise DataError(_refused("read", address, error)) from error
    return copy


def _below(name: str, root: str, address: str) -> PurePosixPath:
    """Path of an object below the root. Objects may have any name: none may lead out of the copy."""
    inside = PurePosixPath(name).relative_to(root)
    if ".." in inside.parts:
        raise DataError(f"Expected names without '..' at {mask_secrets(address)}, found {name}: rename it.")
    return inside


def _open(address: str) -> tuple[Any, str]:
    """The filesystem of an address, and the path in it."""
    import fsspec

    try:
        filesystem, root = fsspec.core.url_to_fs(address)
    except ImportError as error:  # its message names the package
        raise ConfigError(
            f"Expected the package for {mask_secrets(address)}, found none: {error}. Those of s3:// and gs:// come "
            f"with  {install_hint('object-stores')}"
        ) from error
    except ValueError as error:
        found = mask_address(f"{address}: {error}", address)
        raise ConfigError(f"Expected an address such as s3://bucket/key, found {found}.") from error
    except Exception as error:
        raise ConfigError(_refused("open", address, error)) from error
    if not str(root).strip("/"):
        found = mask_secrets(address)
        raise ConfigError(f"Expected an address with a bucket and a key, such as s3://bucket/key, found {found}.")
    return filesystem, str(root).rstrip("/")


def _refused(verb: str, address: str, error: Exception) -> str:
    """The message where an object store, or the disk under a copy, refuses."""
    found, address = mask_address(str(error) or type(error).__name__, address), mask_secrets(address)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return (
            f"Expected room for a copy of {address} in {tempfile.gettempdir()}, found: {found}. Set TMPDIR to a folder "
            "with more."
        )
    return (
        f"Expected to {verb} {address}, found: {found}. Check the address, and the credentials where the tools of its "
        "object store look for them."
    )


# Writing


class Folder(ABC):
    """A folder that a job writes to, on this machine or in an object store.

    Files have names such as `plan.json` and `recommendations/part-00000.parquet`. All methods of an object store's
    folder raise StorageError for what the store refuses.
    """

    @abstractmethod
    def is_file(self, name: str = "") -> bool:
        """Return whether there is a file of that name; without a name, whether the folder itself is a file."""

    @abstractmethod
    def is_empty(self) -> bool:
        """Return whether there is no folder, or nothing in it."""

    @abstractmethod
    def names(self, inner: str) -> list[str]:
        """List the complete files directly in an inner folder, sorted, as `inner/part-00000.csv`."""

    @abstractmethod
    def make(self, *inner: str) -> None:
        """Create the folder and inner folders, and remove what killed jobs left half written in them."""

    @abstractmethod
    def read_text(self, name: str) -> str:
        """Return the content of a file in UTF-8."""

    @abstractmethod
    def new_file(self, name: str) -> AbstractContextManager[Path]:
        """Yield a draft to fill; it takes the name when the block ends without an error."""

    @abstractmethod
    def append(self, name: str, text: str) -> None:
        """Add text to the end of a file that only one process writes."""

    @abstractmethod
    def local(self, name: str) -> AbstractContextManager[Path]:
        """Yield a path of this machine to read the file: itself, or a copy for the length of the block."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file; nothing where there is none."""

    def copy_from(self, other: Folder, name: str) -> None:
        """Copy a file of another folder of the same kind under its name."""
        with other.local(name) as file, self.new_file(name) as draft:
            shutil.copyfile(file, draft)

    def sha256(self, name: str) -> str:
        """Return the checksum of a file as it can be read back."""
        with self.local(name) as file:
            return sha256(file)


def folder_at(place: Location) -> Folder:
    """Return the folder at a path or an address. Raises ConfigError where no package knows such addresses."""
    place = as_location(place)
    return LocalFolder(place) if isinstance(place, Path) else ObjectStoreFolder(place, *_open(place))


@dataclass(frozen=True)
class LocalFolder(Folder):
    """A folder of this machine, or one that is mounted on it."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def is_file(self, name: str = "") -> bool:
        """Return whether the file is there."""
        return (self.path / name).is_file()

    def is_empty(self) -> bool:
        """Return whether there is no folder, or nothing in it but leftovers of killed jobs."""
        return not self.path.is_dir() or not any(not is_draft(file.name) for file in self.path.iterdir())

    def names(self, inner: str) -> list[str]:
        """List the files that are not hidden."""
        folder = self.path / inner
        files = [file.name for file in folder.iterdir() if file.is_file()] if folder.is_dir() else []
        return [f"{inner}/{name}" for name in sorted(files) if not name.startswith(".")]

    def make(self, *inner: str) -> None:
        """Create the folders, and remove the drafts that `new_file` left in them."""
        with storage_errors(self.path):
            for folder in (self.path, *(self.path / name for name in inner)):
                folder.mkdir(parents=True, exist_ok=True)
                remove_leftovers(folder, any_host=True)  # the folder belongs to one job

    def read_text(self, name: str) -> str:
        """Return the content."""
        return (self.path / name).read_text(encoding="utf-8")

    def new_file(self, name: str) -> AbstractContextManager[Path]:
        """Yield a draft to fill, flushed and renamed after the block."""
        return new_file(self.path / name, sweep=False)  # `make` has done it, once for thousands of files

    def append(self, name: str, text: str) -> None:
        """Add to the file itself."""
        with storage_errors(self.path / name), (self.path / name).open("a", encoding="utf-8") as file:
            file.write(text)

    @contextlib.contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """Yield the file itself."""
        yield self.path / name

    def remove(self, name: str) -> None:
        """Remove the file."""
        (self.path / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class ObjectStoreFolder(Folder):
    """The objects of an object store whose keys begin with an address."""

    address: str
    filesystem: Any
    root: str

    def __str__(self) -> str:
        return mask_secrets(self.address)

    def is_file(self, name: str = "") -> bool:
        """Return whether the object is there."""
        with self._store_errors("look for", name):
            try:
                return bool(self._without_cache().info(self._key(name))["type"] == "file")
            except FileNotFoundError:
                return False

    def is_empty(self) -> bool:
        """Return whether no key begins with the address."""
        return not self._list("")

    def names(self, inner: str) -> list[str]:
        """List the objects directly below."""
        entries = [entry["name"] for entry in self._list(inner) if entry["type"] == "file"]
        return sorted(f"{inner}/{PurePosixPath(name).name}" for name in entries)

    def make(self, *inner: str) -> None:
        """Do nothing: keys need no folders, and an upload that was killed left no object."""

    def read_text(self, name: str) -> str:
        """Return the object's content."""
        with self._store_errors("read", name):
            return bytes(self.filesystem.cat_file(self._key(name))).decode("utf-8")

    @contextlib.contextmanager
    def new_file(self, name: str) -> Iterator[Path]:
        """Yield a temporary file, then upload it: the object appears when its last byte has arrived."""
        with tempfile.TemporaryDirectory(prefix="recsys-") as folder:
            file = Path(folder) / PurePosixPath(name).name
            yield file
            with self._store_errors("write", name):
                self.filesystem.put_file(str(file), self._key(name))

    def append(self, name: str, text: str) -> None:
        """Upload the whole again: objects cannot grow."""
        text = (self.read_text(name) if self.is_file(name) else "") + text
        with self._store_errors("write", name):
            self.filesystem.pipe_file(self._key(name), text.encode("utf-8"))

    @contextlib.contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """Yield a downloaded copy."""
        with tempfile.TemporaryDirectory(prefix="recsys-", ignore_cleanup_errors=True) as folder:
            file = Path(folder) / PurePosixPath(name).name
            with self._store_errors("read", name):
                self.filesystem.get_file(self._key(name), str(file))
            yield file

    def copy_from(self, other: Folder, name: str) -> None:
        """Have the store copy the object, without a way over this machine."""
        assert isinstance(other, ObjectStoreFolder)
        with self._store_errors("copy", name):
            self.filesystem.cp_file(other._key(name), self._key(name))

    def remove(self, name: str) -> None:
        """Remove the object."""
        if self.is_file(name):
            with self._store_errors("remove", name):
                self.filesystem.rm_file(self._key(name))

    def _key(self, name: str) -> str:
        """Key of an object."""
        return f"{self.root}/{name}" if name else self.root

    def _without_cache(self) -> Any:
        """The filesystem, its cache of listings emptied: other processes write there too."""
        self.filesystem.invalidate_cache()
        return self.filesystem

    def _list(self, inner: str) -> list[dict[str, Any]]:
        """Entries directly below an inner folder."""
        root = self._key(inner)
        with self._store_errors("list", inner):
            try:
                entries = self._without_cache().ls(root, detail=True)
            except FileNotFoundError:
                return []
        return [
            entry for entry in entries if entry["name"].strip("/") != root.strip("/")
        ]  # an object that stands for the folder

    @contextlib.contextmanager
    def _store_errors(self, verb: str, name: str) -> Iterator[None]:
        """Raise StorageError for any error in the block."""
        try:
            yield
        except Exception as error:  # each store has errors of its own
            raise StorageError(_refused(verb, f"{self.address}/{name}".rstrip("/"), error)) from error
