"""Titles and groups of items: MovieLens' movies.csv and movies.dat, or any table with an id and a name."""

from __future__ import annotations

from pathlib import Path

from recsys.data.reading.layout import ALIASES, find_separator, plain_name, split_line
from recsys.data.reading.streams import read_lines
from recsys.errors import DataError

ID_NAMES = (*ALIASES["item"], "id")
TITLE_NAMES = ("title", "name", "itemname", "gamename", "productname", "artistname", "movietitle", "booktitle")
GROUP_NAMES = ("group", "groups", "genre", "genres", "category", "categories")


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
    rows, item, title = _read_table(path, "titles", TITLE_NAMES, 1, separator, encoding)
    titles: dict[str, str] = {}
    for fields in rows:
        if len(fields) > max(item, title) and fields[item].strip():
            titles.setdefault(fields[item], fields[title].strip())
    if not titles:
        raise DataError(f"Expected lines with an item id and a title in {Path(path).name}, found none.")
    return titles


def read_groups(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Read the groups of items: genres, brands, authors.

    Parameters
    ----------
    path : str or Path
        A text file. Its columns are found by their names (group, genre, category); else the id is in the first and the
        group in the last. Several groups of an item stand in one field, with a bar between them: `Comedy|Romance`.

    Returns
    -------
    dict of str to tuple of str
        Groups by item id, in their order; an item without a group is not in it. Of an id that occurs twice the first
        line is kept.

    Raises
    ------
    DataError
        If no line has an id and a group.
    """
    rows, item, group = _read_table(path, "groups", GROUP_NAMES, -1)
    groups: dict[str, tuple[str, ...]] = {}
    for fields in rows:
        if len(fields) > max(item, group, 1) and fields[item].strip():
            names = (name.strip() for name in fields[group].split("|"))
            groups.setdefault(fields[item], tuple(dict.fromkeys(name for name in names if name)))
    found = {one: names for one, names in groups.items() if names}
    if not found:
        raise DataError(f"Expected lines with an item id and a group in {Path(path).name}, found none.")
    return found


def _read_table(
    path: str | Path,
    what: str,
    names: tuple[str, ...],
    otherwise: int,
    separator: str | None = None,
    encoding: str | None = None,
) -> tuple[list[list[str]], int, int]:
    """Lines as fields, and the places of the id and of the column with one of the names (or the place `otherwise`)."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"Expected a table of {what}, found no file {path}. Check the path.")
    lines = [line for line in _lines(path, encoding) if line.strip()]
    if not lines:
        raise DataError(f"Expected item ids and {what} in {path.name}, found an empty file.")
    separator = separator or find_separator(lines[:1000], path.name)
    rows = [fields for line in lines if (fields := split_line(line, separator)) is not None]
    header = [plain_name(name) for name in rows[0]] if rows else []
    item = next((header.index(name) for name in ID_NAMES if name in header), None)
    wanted = next((header.index(name) for name in names if name in header), None)
    if item is None:
        return rows, 0, otherwise
    if wanted is None:
        wanted = otherwise if otherwise % len(header) != item else 0
    return rows[1:], item, wanted


def _lines(path: Path, encoding: str | None) -> list[str]:
    if encoding is not None:
        return read_lines(path, encoding)
    try:
        return read_lines(path, "utf-8")
    except UnicodeDecodeError:
        return read_lines(path, "latin-1")
