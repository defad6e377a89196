"""Outputs that appear whole or not at all: `new_directory`, `new_file`, `write_text`, `write_json`.

How: recsys.system.files. What a full or closed disk does to them: StorageError (recsys.system.disk).
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from recsys.errors import ArtifactError
from recsys.system.disk import require_writable, require_writable_name, storage_errors
from recsys.system.files import draft_beside, flush, new_file, put_folder, recover, write_text
from recsys.system.storage import Location, as_location, folder_at

__all__ = [
    "json_text",
    "new_directory",
    "new_file",
    "parse_json",
    "recover",
    "refuse_existing",
    "require_writable",
    "write_json",
    "write_text",
]

_DEEPEST = 100  # levels of lists and objects within each other in a JSON file


@contextlib.contextmanager
def new_directory(directory: Path, mark: str, overwrite: bool = False) -> Iterator[Path]:
    """Write a folder that takes its name when the block ends without an error.

    The old folder stays until the new one is complete and on disk. Behind a link the folder it points to is replaced.
    Nothing is left of a block that fails; what a killed process leaves is removed by the next one.

    Parameters
    ----------
    directory : Path
        Folders above it are made. Its permissions follow the umask.
    mark : str
        Name of the file that shows that a folder is one of ours: see `refuse_existing`.
    overwrite : bool
        Whether a folder with the mark is replaced.

    Yields
    ------
    Path
        The draft folder to fill, on the same disk.

    Raises
    ------
    ArtifactError
        At once where something is in the way; at the end where another process wrote there meanwhile.
    StorageError
        If the disk is full or does not take it.
    """
    refuse_existing(directory, mark, overwrite)
    with storage_errors(directory):
        target = directory.resolve()
        if target.is_mount():
            raise ArtifactError(f"Expected a folder that can be replaced, found {directory} mounted: choose one in it.")
        with draft_beside(target) as draft:
            draft.mkdir()
            yield draft
            for path in (*draft.rglob("*"), draft):
                flush(path)
            _refuse_content(target, mark, overwrite)
            try:
                put_folder(draft, target, overwrite)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                raise ArtifactError(f"{directory} was written by another process meanwhile: try again.") from error


def refuse_existing(directory: Location, mark: str, overwrite: bool) -> None:
    """Raise an error where a folder cannot be written at `directory`: call it before the work.

    Parameters
    ----------
    directory : Path or str
        A path of this machine, or the address of an object store.
    mark : str
        Name of the file that shows that a folder is one of ours. A folder without it is never replaced: the path may
        be mistyped.
    overwrite : bool
        Whether a folder with the mark may be replaced.

    Raises
    ------
    ArtifactError
        If a file is there, or a folder that is not empty and must not be replaced.
    ConfigError, StorageError
        If a path of this machine cannot be written to (`require_writable`).
    """
    place = as_location(directory)
    if isinstance(place, Path):
        require_writable_name(place)
        recover(place)
    _refuse_content(place, mark, overwrite)
    if isinstance(place, Path):
        require_writable(place / mark)


def _refuse_content(place: Location, mark: str, overwrite: bool) -> None:
    """Raise ArtifactError where a file is in the way, or a folder's content that must not be replaced."""
    folder = folder_at(place)
    if folder.is_file():
        raise ArtifactError(f"Expected a folder to write to, found the file {folder}: choose another place.")
    if folder.is_empty():
        return
    if not overwrite:
        raise ArtifactError(f"{folder} already holds something: choose another place, or set overwrite.")
    if not folder.is_file(mark):
        raise ArtifactError(f"{folder} holds something that recsys did not write (no {mark}): choose another place.")


# JSON


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write the content as `json_text`, whole or not at all."""
    write_text(file, json_text(content) + "\n")


def json_text(content: Mapping[str, Any]) -> str:
    """Return JSON for machines and people: order kept, indented by two spaces, letters as they are, null for NaN."""
    plain = json.loads(json.dumps(content, default=_plain), parse_constant=lambda _: None)
    return json.dumps(plain, indent=2, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """A number of numpy or torch as Python's, anything else as text."""
    return value.item() if hasattr(value, "item") else str(value)


def parse_json(content: bytes, source: Path | str) -> dict[str, Any]:
    """Read a JSON object that somebody else may have written.

    Parameters
    ----------
    content : bytes
        The file's content.
    source : Path or str
        Its name, for the error.

    Returns
    -------
    dict
        The object, every number in it finite.

    Raises
    ------
    ArtifactError
        If it is not UTF-8, no JSON, no object, has a key twice, a number that is not finite, or too many levels.
    """
    try:
        found = json.loads(
            content.decode("utf-8"), object_pairs_hook=_distinct, parse_constant=_finite, parse_float=_finite
        )
        _check_depth(found)
    except (ValueError, RecursionError) as error:  # wrong encodings and numbers of 5000 digits are ValueErrors
        reason = "too many levels" if isinstance(error, RecursionError) else str(error)[:200]
        raise ArtifactError(f"{source} is damaged or not from recsys: {reason}.") from error
    if not isinstance(found, dict):
        raise ArtifactError(f"{source} is damaged or not from recsys: it holds no JSON object.")
    return found


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of these pairs; ValueError where a key comes twice: readers differ in which one they take."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _finite(text: str) -> float:
    """A number; ValueError for NaN, infinity, and what is too large."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:20]} is not finite")
    return number


def _check_depth(value: Any) -> None:
    """Raise ValueError where lists and objects lie too deep within each other for what works on them later."""
    level = [value]
    for _ in range(_DEEPEST):
        nested = [item for item in level if isinstance(item, dict | list)]
        if not nested:
            return
        level = [inner for item in nested for inner in (item.values() if isinstance(item, dict) else item)]
    raise ValueError("it has too many levels")
