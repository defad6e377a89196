"""Titles of items: MovieLens' movies.csv, movies.dat and u.item, or any table with an id and a name."""

from __future__ import annotations

from pathlib import Path

from recsys.data.reading.layout import ALIASES, find_separator, plain_name, split_line
from recsys.data.reading.streams import read_lines
from recsys.errors import DataError

ID_NAMES = (*ALIASES["item"], "id")
TITLE_NAMES = ("title", "name", "itemname", "gamename", "productname", "artistname", "movietitle", "booktitle")


def read_titles(path: str | Path, *, separator: str | None = None, encoding: str | None = None) -> dict[str, str]:
    """Read the titles of items.

    Parameters
    ----------
    path : str or Path
        A text file. Its columns are found by their names, and are the first two where there is no header.
    separator : str, optional
        Text between two columns; detected if not given.
    encoding : str, optional
        UTF-8 if not given, or latin-1 where the file is not UTF-8.

    Returns
    -------
    dict of str to str
        Titles by item id. Of an id that occurs twice the first title is kept.

    Raises
    ------
    DataError
        If no line has an id and a title.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"Expected a table of titles, found no file {path}. Check the path.")
    lines = [line for line in _lines(path, encoding) if line.strip()]
    if not lines:
        raise DataError(f"Expected item ids and titles in {path.name}, found an empty file.")
    separator = separator or find_separator(lines[:1000], path.name)
    rows = [fields for line in lines if (fields := split_line(line, separator)) is not None]
    names = [plain_name(name) for name in rows[0]] if rows else []
    item = next((names.index(name) for name in ID_NAMES if name in names), None)
    title = next((names.index(name) for name in TITLE_NAMES if name in names), None)
    if item is None or title is None:
        item, title = 0, 1
    else:
        rows = rows[1:]
    titles: dict[str, str] = {}
    for fields in rows:
        if len(fields) > max(item, title) and fields[item].strip():
            titles.setdefault(fields[item], fields[title].strip())
    if not titles:
        raise DataError(f"Expected lines with an item id and a title in {path.name}, found {lines[0][:60]!r}.")
    return titles


def _lines(path: Path, encoding: str | None) -> list[str]:
    if encoding is not None:
        return read_lines(path, encoding)
    try:
        return read_lines(path, "utf-8")
    except UnicodeDecodeError:
        return read_lines(path, "latin-1")
