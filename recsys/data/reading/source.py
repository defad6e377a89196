"""Sources of ratings: files, folders, a prepared store, a DataFrame; and reading one as a whole."""

from __future__ import annotations

import itertools
import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

from recsys.data.interactions import Interactions
from recsys.data.reading.assembly import assemble
from recsys.data.reading.delimited import read_text, sniff
from recsys.data.reading.layout import Layout
from recsys.data.reading.options import ReadingOptions
from recsys.data.reading.policies import apply_policies
from recsys.data.reading.rows import Account, Rows
from recsys.data.reading.selection import with_row_numbers
from recsys.data.reading.streams import first_bytes
from recsys.data.reading.tables import FRAME, read_frame, read_parquet
from recsys.data.store import MANIFEST, is_store, open_store
from recsys.errors import ConfigError, DataError
from recsys.system.storage import local_copies

if TYPE_CHECKING:
    import pandas as pd

DEFAULT = ReadingOptions()
SHORT_LINE = 16  # bytes of a short line of four columns
PARTITION = re.compile(r"([^=]+)=(.*)|\d+")  # a folder that divides a table: date=2026-01-31, or 2026
NULL = "__HIVE_DEFAULT_PARTITION__"


def read_interactions(
    source: str | Path | Sequence[str | Path] | pd.DataFrame, options: ReadingOptions = DEFAULT
) -> Interactions:
    """Read ratings, and account for every row.

    Peak memory is about 200 MB, 30 bytes a row (60 where rows are not in order of users) and the ids.

    Parameters
    ----------
    source : str, Path, sequence of these, or DataFrame
        A file (text, gzipped text, Parquet), several files, a folder, a prepared store, or a pandas DataFrame. All but
        the last may be an address (`s3://bucket/key`, see recsys.system.storage). Folders in a folder must be
        partitions, `date=2026-01-31` or `2026`; the former are columns of Parquet files for `options` that name them,
        and ignored otherwise.
    options : ReadingOptions
        What is not given is detected.

    Returns
    -------
    Interactions
        Ids are exactly as in the source: text for text files, else in their own type. `ledger` accounts for every row,
        `columns` says which columns were read.

    Raises
    ------
    DataError
        If no usable row is found, naming what was found.
    ConfigError
        If an option is given that the source does not take.
    """
    if hasattr(source, "iloc") and hasattr(source, "columns"):
        with Account(options) as account:
            account.open_file(FRAME)
            return assemble(read_frame(cast(Any, source), options, account.note_columns), account, options)
    places = [source] if isinstance(source, (str, Path)) else source
    if not isinstance(places, Sequence) or not all(isinstance(place, (str, Path)) for place in places):
        raise DataError(
            f"Expected a path, a list of paths or a pandas DataFrame, found {type(source).__name__}. Convert a table "
            "of another library with its .to_pandas()."
        )
    with local_copies(places) as paths:
        return _read(paths, options)


def _read(source: list[Path], options: ReadingOptions) -> Interactions:
    store = _store(source)
    files = [store / MANIFEST] if store is not None else find_files(source)
    _refuse_to_overwrite_input(files, options.rejects)
    with Account(options) as account:
        if store is not None:
            return _read_store(store, account, options)
        expected = sum(file.stat().st_size for file in files) // SHORT_LINE
        # Closed here, not by the garbage collector: it may be at work in any thread, and closing waits for threads.
        with closing(_read_files(files, account, options)) as pieces:
            return assemble(pieces, account, options, expected)


def find_files(source: str | Path | Sequence[str | Path]) -> list[Path]:
    """List the files of a source.

    Parameters
    ----------
    source : str, Path, or sequence of these
        Files and folders. Hidden files of a folder are left out.

    Returns
    -------
    list of Path
        In order of name; those in partitions (`date=2026-01-31`, or `2026`) before the folder's own.

    Raises
    ------
    DataError
        If there is none, or if a given file does not exist.
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
    """Detect the layout of the first file of a source.

    Parameters
    ----------
    source : str, Path, or sequence of these
    options : ReadingOptions

    Returns
    -------
    Layout, or None
        None for Parquet and for a prepared store.

    Raises
    ------
    DataError
        If the layout cannot be detected.
    """
    if _store(source) is not None:
        return None
    first = find_files(source)[0]
    return None if _is_parquet(first) else sniff(first, options)


def _refuse_to_overwrite_input(files: list[Path], rejects: Path | None) -> None:
    """Raise ConfigError if rejected rows would be written over the ratings."""
    if rejects is not None and rejects.exists() and any(rejects.samefile(file) for file in files):
        raise ConfigError(f"Expected another file as `rejects`, found the ratings themselves: {rejects}.")


def _store(source: str | Path | Sequence[str | Path]) -> Path | None:
    """The prepared store that a source is, or None. Raises DataError for a store among other paths."""
    paths = [Path(source)] if isinstance(source, (str, Path)) else [Path(path) for path in source]
    stores = [path for path in paths if is_store(path)]
    if stores and len(paths) > 1:
        raise DataError(f"Expected a prepared store to stand alone, found {stores[0]} among {len(paths)} paths.")
    return stores[0] if stores else None


def _read_store(path: Path, account: Account, options: ReadingOptions) -> Interactions:
    """Interactions of a store after the same policies. How its file is read was given when it was prepared."""
    for name in ("user_column", "item_column", "rating_column", "timestamp_column", "separator", "header"):
        if getattr(options, name) is not None:
            raise ConfigError(
                f"Expected no {name} with the prepared store {path}, found one: give it to `recsys prepare`."
            )
    table = with_row_numbers(open_store(path))
    account.open_file(str(path))
    account.resume(table.ledger)
    account.columns = table.columns
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
                f"the folder {inner.name}: give it as a source of its own."
            )
        yield from _walk(inner)
    yield from (path for path in shown if not path.is_dir())


def _label(file: Path) -> str:
    """The file's name, after those of the partitions it is in: files of all of them may be called part-0."""
    around = list(itertools.takewhile(lambda folder: PARTITION.fullmatch(folder.name), file.parents))
    return str(file.relative_to(around[-1].parent)) if around else file.name


def partitions(file: Path) -> dict[str, str | None]:
    """Return the columns that the folders around a file give: `.../date=2026-01-31/part-0.parquet` has a date."""
    found = [match for part in file.parts[:-1] if (match := PARTITION.fullmatch(part)) and match[1]]
    return {match[1]: None if match[2] == NULL else unquote(match[2]) for match in found}


def _read_files(files: list[Path], account: Account, options: ReadingOptions) -> Generator[Rows, None, None]:
    kinds, headers = set(), set()
    for file in files:
        account.open_file(_label(file))
        if _is_parquet(file):
            pieces = read_parquet(file, options, partitions(file), account.note_columns)
        else:
            layout = sniff(file, options)
            headers.add(layout.header)
            if len(headers) > 1:
                raise DataError(
                    f"Expected a header in all text files or in none, found {file.name} to differ from those before "
                    "it: its columns would be guessed. Read it separately, or give all files a header."
                )
            account.note_columns(layout.names, layout.columns)
            account.next_row += layout.skip
            pieces = read_text(file, layout, options)
        for piece in pieces:
            kinds.add((piece.rating is None, _kind_of_time(piece)))
            if len(kinds) > 1:
                raise DataError(
                    f"Expected ratings and times in all files or in none, and times in one form, found {file.name} to "
                    "differ from those before it. Set rating_column='none' or timestamp_column='none' to read without."
                )
            yield piece


def _is_parquet(path: Path) -> bool:
    return first_bytes(path, 4) == b"PAR1"


def _kind_of_time(piece: Rows) -> str | None:
    """Whether a piece has no times, numbers or dates."""
    if piece.timestamp is None:
        return None
    return "dates" if piece.timestamp.dtype.kind == "M" else "numbers"
