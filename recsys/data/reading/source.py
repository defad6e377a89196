"""What a source of ratings is: files, a folder, a prepared store, a DataFrame; and reading it, whole."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from recsys.data.interactions import Interactions
from recsys.data.reading.assembly import apply_policies, assemble
from recsys.data.reading.delimited import read_text, sniff
from recsys.data.reading.layout import Layout
from recsys.data.reading.options import ReadingOptions
from recsys.data.reading.rows import Account, Rows
from recsys.data.reading.tables import FRAME, read_frame, read_parquet
from recsys.data.store import MANIFEST, is_store, open_store
from recsys.errors import ConfigError, DataError
from recsys.system.storage import local_copies

if TYPE_CHECKING:
    import pandas as pd

DEFAULT = ReadingOptions()
LEAN_LINE = 16  # bytes of a short line of four columns
PARTITION = re.compile(r"([^=]+)=(.*)|\d+")  # a folder that divides a table: date=2026-01-31, or 2026
NULL = "__HIVE_DEFAULT_PARTITION__"


def read_interactions(
    source: str | Path | Sequence[str | Path] | pd.DataFrame, options: ReadingOptions = DEFAULT
) -> Interactions:
    """Interactions of a file (text, gzip, Parquet), a folder or list of files, a store or a DataFrame.

    All but the last may have an address (`s3://bucket/key`, see recsys.places). Folders in a folder must be partitions,
    `date=2026-01-31` or `2026`; what the former say is a column of Parquet files for options that name it, and else
    ignored. Ids come back exactly as they stand; those of text files are text. `ledger` accounts for every row. Peak
    memory is about 200 MB, 30 bytes a row (60 where rows do not stand by user) and the ids. Raises DataError where
    nothing usable is found, naming what was.
    """
    if not isinstance(source, (str, Path, Sequence)):
        with Account(options) as account:
            account.open_file(FRAME)
            return assemble(read_frame(source, options), account, options)
    with local_copies([source] if isinstance(source, (str, Path)) else source) as paths:
        return _read(paths, options)


def _read(source: list[Path], options: ReadingOptions) -> Interactions:
    store = _store(source)
    files = [store / MANIFEST] if store is not None else find_files(source)
    _spare_the_input(files, options.rejects)
    with Account(options) as account:
        if store is not None:
            return _read_store(store, account, options)
        expected = sum(file.stat().st_size for file in files) // LEAN_LINE
        return assemble(_read_files(files, account, options), account, options, expected)


def find_files(source: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files of a source, a folder's in order of name, hidden ones left out. Raises DataError if there is none.

    Those in partitions (`date=2026-01-31`, or `2026`) come before the folder's own.
    """
    given = [Path(source)] if isinstance(source, (str, Path)) else [Path(path) for path in source]
    files = [file for path in given for file in (_files_in(path) if path.is_dir() else [path])]
    if not files:
        raise DataError("Expected one ratings file or more, found an empty list.")
    for file in files:
        if not file.is_file():
            raise DataError(f"Expected a ratings file, found nothing at {file}. Check the path.")
    return files


def text_layout(source: str | Path | Sequence[str | Path], options: ReadingOptions) -> Layout | None:
    """The layout found in the first file of a source; None for Parquet and for a prepared store."""
    if _store(source) is not None:
        return None
    first = find_files(source)[0]
    return None if _is_parquet(first) else sniff(first, options)


def _spare_the_input(files: list[Path], rejects: Path | None) -> None:
    """Raise ConfigError where the rejected rows would be written over the ratings."""
    if rejects is not None and rejects.exists() and any(rejects.samefile(file) for file in files):
        raise ConfigError(f"Expected another file for --rejects, found the ratings themselves: {rejects}.")


def _store(source: str | Path | Sequence[str | Path]) -> Path | None:
    """The prepared store that a source is, or None. Raises DataError for a store among other files."""
    paths = [Path(source)] if isinstance(source, (str, Path)) else [Path(path) for path in source]
    stores = [path for path in paths if is_store(path)]
    if stores and len(paths) > 1:
        raise DataError(f"Expected a prepared store to stand alone, found {stores[0]} among {len(paths)} paths.")
    return stores[0] if stores else None


def _read_store(path: Path, account: Account, options: ReadingOptions) -> Interactions:
    """A store goes through the same policies; how its file was to be read, `recsys prepare` was told."""
    for name in ("user_column", "item_column", "rating_column", "timestamp_column", "separator", "header"):
        if getattr(options, name) is not None:
            raise ConfigError(
                f"Expected no {name} with the prepared store {path}, found one: say it to recsys prepare."
            )
    table = open_store(path)
    account.open_file(str(path))
    account.resume(table.ledger)
    return apply_policies(table, account, options)


def _files_in(folder: Path) -> list[Path]:
    files = list(_walk(folder))
    if not files:
        raise DataError(f"Expected ratings files in the folder {folder}, found none.")
    return files


def _walk(folder: Path) -> Iterator[Path]:
    shown = sorted(path for path in folder.iterdir() if path.name[0] not in "._")
    for inner in (path for path in shown if path.is_dir()):
        if not PARTITION.fullmatch(inner.name):
            raise DataError(
                f"Expected only ratings files or partitions (date=2026-01-31, or 2026) in the folder {folder}, found "
                f"the folder {inner.name}: name it."
            )
        yield from _walk(inner)
    yield from (path for path in shown if not path.is_dir())


def _label(file: Path) -> str:
    """The file's name, after those of the partitions it lies in: all the others may be called part-0 too."""
    around = list(itertools.takewhile(lambda folder: PARTITION.fullmatch(folder.name), file.parents))
    return str(file.relative_to(around[-1].parent)) if around else file.name


def partitions(file: Path) -> dict[str, str | None]:
    """What the folders around a file say of its rows: `.../date=2026-01-31/part-0.parquet` -> that date."""
    found = [match for part in file.parts[:-1] if (match := PARTITION.fullmatch(part)) and match[1]]
    return {match[1]: None if match[2] == NULL else unquote(match[2]) for match in found}


def _read_files(files: list[Path], account: Account, options: ReadingOptions) -> Iterator[Rows]:
    shapes, headers = set(), set()
    for file in files:
        account.open_file(_label(file))
        if _is_parquet(file):
            pieces = read_parquet(file, options, partitions(file))
        else:
            layout = sniff(file, options)
            headers.add(layout.header)
            if len(headers) > 1:
                raise DataError(
                    f"Expected a header in all text files or in none, found {file.name} to differ from those before "
                    "it: its columns would be guessed. Read it apart, or give all a header."
                )
            account.next_row += layout.skip
            pieces = read_text(file, layout, options)
        for piece in pieces:
            shapes.add((piece.rating is None, piece.timestamp is None))
            if len(shapes) > 1:
                raise DataError(
                    f"Expected ratings and times in all files or in none, found {file.name} to differ from the files "
                    "before it. Say --rating-column none or --timestamp-column none to read without."
                )
            yield piece


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"
