"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from recsys.errors import ArtifactError
from recsys.system.storage import Location, flush, folder_at


@contextlib.contextmanager
def new_directory(directory: Path, mark: str, overwrite: bool = False) -> Iterator[Path]:
    """A temporary directory beside `directory` that takes its name when the block ends well, else vanishes.

    Raises ArtifactError at once where `directory` already holds something, unless `overwrite` and it holds `mark`.
    """
    refuse_existing(directory, mark, overwrite)
    directory = directory.resolve()  # a link keeps pointing here
    directory.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", suffix=".tmp", dir=directory.parent))
    try:
        yield place
        place.chmod(0o755)  # mkdtemp makes it for the owner alone
        for file in place.rglob("*"):
            flush(file)
        _take_the_place(place, directory)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _take_the_place(new: Path, directory: Path) -> None:
    """Rename `new` to `directory`; what was there is put aside first and removed last."""
    aside = new.with_suffix(".old")
    if directory.exists():
        directory.rename(aside)
    new.rename(directory)
    shutil.rmtree(aside, ignore_errors=True)
    flush(directory.parent)


def refuse_existing(directory: Location, mark: str, overwrite: bool) -> None:
    """Raise ArtifactError where `directory` is a file or holds something, unless `overwrite` and it is one of ours.

    `mark` is the file that shows it is: nobody's folder is replaced because of a mistyped path.
    """
    folder = folder_at(directory)
    if folder.is_file():
        raise ArtifactError(f"Expected a folder to write to, found the file {folder}: choose another place.")
    if folder.is_empty():
        return
    if not overwrite:
        raise ArtifactError(f"{folder} already holds something: choose another place, or add --overwrite.")
    if not folder.is_file(mark):
        raise ArtifactError(f"{folder} holds something that is not ours to replace (no {mark}): remove it by hand.")


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """The content as `json_text`, in a file."""
    file.write_text(json_text(content) + "\n", encoding="utf-8")


def json_text(content: Mapping[str, Any]) -> str:
    """JSON for machines and people: sorted by nothing, two spaces deep, text as it is, null for NaN."""
    plain = json.loads(json.dumps(content, default=_plain), parse_constant=lambda _: None)
    return json.dumps(plain, indent=2, ensure_ascii=False)


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)
