"""The layout of a ratings file (separator, header, columns): given, or detected from its first lines."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from recsys.data.reading.options import ReadingOptions
from recsys.data.reading.times import TimeKind, date_order, is_date
from recsys.errors import DataError

# Usual names of the four columns, lower case, without blanks, '_' and '-'.
ALIASES = {
    "user": ("userid", "user", "uid", "reviewerid", "customerid", "memberid", "visitorid"),
    "item": (
        *("itemid", "item", "iid", "movieid", "movie", "asin", "parentasin", "productid", "product", "artistid"),
        *("gameid", "bookid", "isbn", "trackid", "songid", "businessid", "jokeid", "animeid"),
    ),
    "rating": (
        *("rating", "ratings", "overall", "score", "stars", "weight", "bookrating", "value"),
        *("plays", "playcount", "count", "hours", "purchase"),
    ),
    "timestamp": ("timestamp", "unixreviewtime", "datetime", "time", "date", "ts"),
}
# Names of a rating column that count only if there is none of the above: RecBole's label, yes or no columns.
SECOND_CHOICE = {"rating": ("label", "liked", "like", "clicked", "click", "recommended", "isrecommended")}
CANDIDATES = ("\t", "::", ";", "|", ",", " ")  # most telling first; an id may well hold a blank
SEPARATOR_SAMPLE = 2_000  # lines from which the separator is found
FIRST_EPOCH = 100_000_000  # March 1973 in seconds: larger than any rating, play count or price
SEPARATOR_LINE = re.compile('\ufeff*"?sep=(.)"?\r?', re.IGNORECASE)  # first line of a CSV for a spreadsheet program
NO_COLUMN = "none"
WHOLE_NUMBER = re.compile("0|[1-9][0-9]{0,17}")  # fits into 64 bits


@dataclass(frozen=True)
class Columns:
    """Positions of the four columns, from 0; None for a column that the file does not have."""

    user: int
    item: int
    rating: int | None = None
    timestamp: int | None = None

    def used(self) -> list[int]:
        """Positions of the columns that are read."""
        return [place for place in (self.user, self.item, self.rating, self.timestamp) if place is not None]


@dataclass(frozen=True)
class Layout:
    """The layout of a text file.

    Attributes
    ----------
    separator : str
        Text between two columns.
    header : bool
        Whether a line names the columns.
    names : tuple of str
        Names in the header, or "1", "2", "3", ... without one.
    columns : Columns
        Positions of the columns to read.
    time : str
        How timestamps are written: as "integer" or "decimal" epochs, as ISO "date" or "zoned date" (with an offset
        from UTC), or as dates with slashes or dots whose "day", "month" or "year" stands first.
    skip : int
        Lines before the first row of data.
    numbered : bool
        Whether all columns are read and the ids of the first rows are whole numbers (7, not 007): they then take the
        fast path.
    truth : bool
        Whether ratings are written as True and False.
    adjacency : bool
        Whether a line is a user followed by all of its items, as in the files of LightGCN.
    """

    separator: str
    header: bool
    names: tuple[str, ...]
    columns: Columns
    time: TimeKind = "integer"
    skip: int = 0
    numbered: bool = False
    truth: bool = False
    adjacency: bool = False


def find_layout(lines: Sequence[str], options: ReadingOptions, where: str) -> Layout:
    """Detect the layout of a file from its first lines.

    Parameters
    ----------
    lines : sequence of str
        First lines of the file, without their line ends.
    options : ReadingOptions
        What is given is not detected.
    where : str
        Name of the file, for messages.

    Returns
    -------
    Layout

    Raises
    ------
    DataError
        If the layout cannot be detected, with what was found.
    """
    filled = [(number, line) for number, line in enumerate(lines) if line.strip(" \r")]
    given = options.separator_text
    skip = 0
    if filled and (found := SEPARATOR_LINE.fullmatch(filled[0][1])):
        given, skip = given or found[1], filled[0][0] + 1
        filled = filled[1:]
    if not filled:
        raise DataError(f"Expected rows of ratings in {where}, found an empty file.")
    texts = [line for _, line in filled]
    separator = given or find_separator(texts[:SEPARATOR_SAMPLE], where)
    if comments := _comments(texts, separator):
        skip, filled, texts = filled[comments - 1][0] + 1, filled[comments:], texts[comments:]
    rows = _split_rows(texts, separator, where)
    if options.header is None and _is_adjacency(rows, separator, options):
        return Layout(separator, False, ("user", "items"), Columns(0, 1), skip=skip, adjacency=True)
    header = options.header if options.header is not None else _has_header(rows, options)
    names = tuple(name.strip() for name in rows[0]) if header else tuple(str(i + 1) for i in range(len(rows[0])))
    data = [row for row in rows[1 if header else 0 :] if len(row) == len(names)]
    columns = find_columns(names, options, where) if header else _by_position(names, data, options, where)
    if header and len(filled) == 1:
        raise DataError(f"Expected rows of ratings in {where}, found only the header: {_short(texts[0])}.")
    return Layout(
        separator,
        header,
        names,
        columns,
        time=_time_kind(data, columns, names, where),
        skip=filled[0][0] + 1 if header else skip,
        numbered=_is_numbered(data, columns, len(names)),
        truth=_is_truth(data, columns),
    )


def _comments(lines: Sequence[str], separator: str) -> int:
    """How many lines at the top are comments: they begin with # and have fewer or more fields than the rows do."""
    count = next((place for place, line in enumerate(lines) if not line.lstrip("\ufeff").startswith("#")), 0)
    while count and _width(lines[count - 1], separator) == _width(lines[count], separator):
        count -= 1  # it names the columns, or is a row whose user begins with #
    return count


def _width(line: str, separator: str) -> int:
    return len(split_line(line, separator) or [])


def _split_rows(lines: Sequence[str], separator: str, where: str) -> list[list[str]]:
    rows = [fields for line in lines if (fields := split_line(line, separator)) is not None]
    if not rows:
        raise DataError(f"Expected lines of text columns in {where}, found quotes that do not close in all of them.")
    if len(rows[0]) < 2:
        raise DataError(
            f"Expected two columns or more in {where}, found one with the separator {separator!r}: "
            f"{_short(lines[0])}. Give the right `separator`."
        )
    return rows


def split_line(line: str, separator: str) -> list[str] | None:
    """Split one line into its fields.

    Quotes are removed as in CSV, but a separator of several characters knows no quotes. A run of blanks counts as one
    blank. No other character ends a line or a field: unusual line separators (U+2028, form feed, ...) are data.

    Parameters
    ----------
    line : str
        The line without its line feed.
    separator : str
        Text between two fields.

    Returns
    -------
    list of str, or None
        None if a quote does not close, or if the line holds a NUL or a carriage return before its end.
    """
    line = line[:-1] if line.endswith("\r") else line
    if "\r" in line or "\0" in line:
        return None
    if separator == " " and '"' not in line:
        return [field for field in line.split(" ") if field]
    if '"' not in line or len(separator) > 1:
        return line.split(separator)
    try:
        rows = list(csv.reader([line + "\n", "end"], delimiter=separator, skipinitialspace=separator == " "))
    except csv.Error:
        return None
    return rows[0] if len(rows) == 2 else None  # one row: an open quote has swallowed the next line


def find_columns(names: Sequence[str], options: ReadingOptions, where: str) -> Columns:
    """Find the columns by name: those given in `options`, else by the usual aliases.

    Parameters
    ----------
    names : sequence of str
        Names of all columns.
    options : ReadingOptions
        Names given for user, item, rating and timestamp.
    where : str
        Name of the source, for messages.

    Returns
    -------
    Columns

    Raises
    ------
    DataError
        If user or item is missing or ambiguous, with the names found.
    """
    user, item = (_required(kind, names, options, where) for kind in ("user", "item"))
    rating, timestamp = (_find(kind, names, options, where) for kind in ("rating", "timestamp"))
    return _distinct(Columns(user, item, rating, timestamp), names, where)


def find_separator(lines: Sequence[str], where: str) -> str:
    """Return the candidate that cuts most lines into equally many fields, two or more; the earlier one on a tie."""
    lines = [line for line in lines if line.count('"') % 2 == 0] or lines  # others are pieces of a longer record
    best, share = None, 0.0
    for candidate in CANDIDATES:
        counts = Counter(len(fields) for line in lines if (fields := split_line(line, candidate)) is not None)
        usual, times = max(((n, t) for n, t in counts.items() if n > 1), key=lambda c: c[1], default=(0, 0))
        if usual and times / len(lines) > share + 0.01:
            best, share = candidate, times / len(lines)
    if best is None:
        raise DataError(
            f"Expected columns separated by comma, tab, '::', ';', '|' or blank in {where}, found lines like "
            f"{_short(lines[0])}. Give another one as `separator`."
        )
    return best


def plain_name(name: str) -> str:
    """Normalize a column name as in ALIASES: 'User_ID' and RecBole's 'user_id:token' are userid."""
    return re.sub(r"[\s_-]", "", re.sub(r":(token|float)(_seq)?$", "", name.strip())).lower()


def _required(kind: str, names: Sequence[str], options: ReadingOptions, where: str) -> int:
    place = _find(kind, names, options, where)
    if place is None:
        raise DataError(
            f"Expected a column of {kind} ids in {where}, found the columns {_listed(names)}. "
            f"Name it with {kind}_column, or set header=False if the first line is data."
        )
    return place


def _find(kind: str, names: Sequence[str], options: ReadingOptions, where: str) -> int | None:
    given = getattr(options, f"{kind}_column")
    if given is not None and given.lower() == NO_COLUMN and given not in names:
        return None
    if given is not None:
        places = [place for place, name in enumerate(names) if name == given]
        expected = f"the column {given!r}"
        if not places:
            raise DataError(f"Expected {expected} in {where}, found the columns {_listed(names)}.")
    else:
        plain = [plain_name(name) for name in names]
        places = [place for place, name in enumerate(plain) if name in ALIASES[kind]]
        places = places or [place for place, name in enumerate(plain) if name in SECOND_CHOICE.get(kind, ())]
        exact = [place for place in places if names[place] == ("timestamp" if kind == "timestamp" else f"{kind}_id")]
        places = exact or places
        expected = f"one column of {kind}s"
    if len(places) > 1:
        raise DataError(
            f"Expected {expected} in {where}, found {len(places)}: {_listed([names[p] for p in places])}. "
            f"Name the one to read with {kind}_column, or rename one."
        )
    return places[0] if places else None


def _by_position(names: Sequence[str], data: list[list[str]], options: ReadingOptions, where: str) -> Columns:
    """Without a header: user, item, rating, timestamp in this order, unless numbers are given (from 1)."""
    default = {"user": 0, "item": 1, "rating": 2, "timestamp": 3}
    if len(names) == 3 and data and all(_is_epoch(row[2]) for row in data):
        default = {"user": 0, "item": 1, "timestamp": 2}  # the third column holds times, not ratings
    places: dict[str, int | None] = {}
    for kind in ALIASES:
        given = getattr(options, f"{kind}_column")
        place = default.get(kind)
        if given is None:
            places[kind] = place if place is not None and place < len(names) else None
        elif given.lower() == NO_COLUMN and kind in ("rating", "timestamp"):
            places[kind] = None
        elif given.isdecimal() and 1 <= int(given) <= len(names):
            places[kind] = int(given) - 1
        else:
            raise DataError(
                f"Expected {kind}_column to be a number from 1 to {len(names)}, as {where} has no header; "
                f"found {given!r}. Set header=True if its first line names the columns."
            )
    user, item = places["user"], places["item"]
    assert user is not None and item is not None  # two columns at least, checked before
    return _distinct(Columns(user, item, places["rating"], places["timestamp"]), names, where)


def _distinct(columns: Columns, names: Sequence[str], where: str) -> Columns:
    used = columns.used()
    if len(set(used)) < len(used):
        twice = next(place for place in used if used.count(place) > 1)
        raise DataError(
            f"Expected a column of its own for each of user, item, rating and timestamp in {where}, found "
            f"{names[twice]!r} for two of them. Name them with user_column, item_column, rating_column and "
            "timestamp_column ('none' reads none)."
        )
    return columns


def _has_header(rows: list[list[str]], options: ReadingOptions) -> bool:
    """Whether the first row names columns: by known or given names, or by text above numbers or dates."""
    first = [field.strip() for field in rows[0]]
    given = {options.user_column, options.item_column, options.rating_column, options.timestamp_column} - {None}
    known = {plain_name(name) for name in first} & {*ALIASES["user"], *ALIASES["item"]}
    if known or any(name in given for name in first if not name.isdecimal()):
        return True
    below = [row for row in rows[1:] if len(row) == len(first)]
    share = 1.0 if re.search(r"\d", "".join(first)) else 0.9  # names have no digits; a few strays may follow
    return bool(below) and any(
        not kind(name) and sum(kind(row[place].strip()) for row in below) >= share * len(below)
        for place, name in enumerate(first)
        for kind in (_is_number, is_date)
    )


def _time_kind(data: list[list[str]], columns: Columns, names: Sequence[str], where: str) -> TimeKind:
    place = columns.timestamp
    if place is None:
        return "integer"
    times = [text for row in data if (text := row[place].strip())]
    if not times or all(re.fullmatch(r"-?\d+", text) for text in times):
        return "integer"
    if sum(map(_is_number, times)) > len(times) / 2:
        return "decimal"
    order = date_order(times, names[place], where)
    if order is not None:
        return order
    zoned = sum(bool(re.search(r"(Z|[+-]\d\d:?\d\d)$", text)) and ":" in text for text in times)
    return "zoned date" if zoned > len(times) / 2 else "date"


def _is_truth(data: list[list[str]], columns: Columns) -> bool:
    """Whether most ratings are True or False."""
    if columns.rating is None:
        return False
    ratings = [text for row in data if (text := row[columns.rating].strip().lower())]
    return sum(text in ("true", "false") for text in ratings) > len(ratings) / 2


def _is_adjacency(rows: list[list[str]], separator: str, options: ReadingOptions) -> bool:
    """Whether each line is a user and its items, all whole numbers: many lengths, no user twice, no item twice."""
    if separator != " " or any(options.columns):
        return False
    widths = Counter(map(len, rows))
    users = {row[0] for row in rows}
    return (
        len(widths) > 1
        and max(widths.values()) <= len(rows) / 2
        and len(users) == len(rows)
        and all(WHOLE_NUMBER.fullmatch(text) for row in rows for text in row)
        and all(len(set(row[1:])) == len(row) - 1 for row in rows)
    )


def _is_numbered(data: list[list[str]], columns: Columns, width: int) -> bool:
    ids = (row[place] for row in data for place in (columns.user, columns.item))
    return len(columns.used()) == width and all(WHOLE_NUMBER.fullmatch(text) for text in ids)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _is_epoch(text: str) -> bool:
    return _is_number(text) and float(text) >= FIRST_EPOCH


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(_short(name)) for name in names[:12])
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _short(text: str) -> str:
    text = text.rstrip("\r")
    return text if len(text) <= 60 else text[:57] + "..."
