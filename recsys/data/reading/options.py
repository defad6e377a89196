"""Settings for reading ratings, with their defaults and their help texts."""

from __future__ import annotations

import codecs
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from recsys.errors import ConfigError

NOT_TEXT = ("idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape")  # as codecs.lookup names them
SEPARATORS = {"tab": "\t", "\\t": "\t", "space": " ", "comma": ",", "semicolon": ";", "pipe": "|"}


def _option(default: Any, help: str, *flags: str) -> Any:
    return field(default=default, metadata={"help": help, "flags": flags})


@dataclass(frozen=True)
class ReadingOptions:
    """What to read and which rows to keep. Whatever is not given is detected from the file.

    Order of the steps: unreadable rows are rejected, duplicates resolved, `min_rating` applied, and at last the two
    minima, repeatedly until both hold.

    Parameters
    ----------
    user_column, item_column, rating_column, timestamp_column : str, optional
        Names of the columns, or numbers from 1 (as text) where the file has no header. "none" for rating or timestamp
        reads none.
    separator : str, optional
        Text between two columns: one character, "::", or a name such as "tab" or "space".
    header : bool, optional
        Whether the first line names the columns.
    encoding : str
        A text encoding known to Python.
    min_rating : float, optional
        Least rating of a row that counts as a preference.
    min_user_items, min_item_users : int
        Least number of items of a user, and of users of an item; 0 or more.
    duplicates : {"last", "first", "mean", "max", "sum", "error"}, optional
        What to do with rows that repeat a (user, item) pair; "last" if not given. "last" and "first" are in time, and
        in order of the rows where times are equal or missing.
    order : {"time", "rows"}, optional
        What decides the order of a history, for models that use it: times, equal ones in order of the rows (as if not
        given), or the order of the rows alone.
    on_bad_row : {"reject", "fail"}
        Count unreadable rows and continue, or raise DataError at the first.
    rejects : Path, optional
        CSV file to write rejected rows to, with file, line and reason.

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """

    user_column: str | None = _option(None, "Column of the user ids: its name, or its number (from 1) without header.")
    item_column: str | None = _option(None, "Column of the item ids.")
    rating_column: str | None = _option(None, "Column of the ratings; 'none' reads none.")
    timestamp_column: str | None = _option(None, "Column of the times (epoch or ISO dates); 'none' reads none.")
    separator: str | None = _option(None, "Text between two columns: a character, '::', tab, space, ...")
    header: bool | None = _option(None, "Whether the first line names the columns.", "--header/--no-header")
    encoding: str = _option("utf-8", "Encoding of the text, e.g. latin-1.")
    min_rating: float | None = _option(
        None, "Least rating that counts as a preference; items rated lower are seen, so never recommended."
    )
    min_user_items: int = _option(0, "Keep users with at least this many items.")
    min_item_users: int = _option(0, "Keep items with at least this many users.")
    duplicates: Literal["last", "first", "mean", "max", "sum", "error"] | None = _option(
        None, "What to do with rows that repeat a (user, item) pair; the last one is kept if not given."
    )
    order: Literal["time", "rows"] | None = _option(
        None, "Models of sequences: order histories by time (if not given), or take the order of the rows."
    )
    on_bad_row: Literal["reject", "fail"] = _option("reject", "Count unreadable rows and go on, or stop at the first.")
    rejects: Path | None = _option(
        None, "Write every rejected row, with line and reason, to this CSV; those of a second file beside it."
    )

    def __post_init__(self) -> None:
        if self.duplicates is not None:
            _check_choice("duplicates", self.duplicates, ("last", "first", "mean", "max", "sum", "error"))
        if self.order is not None:
            _check_choice("order", self.order, ("time", "rows"))
        _check_choice("on_bad_row", self.on_bad_row, ("reject", "fail"))
        for name in ("min_user_items", "min_item_users"):
            if getattr(self, name) < 0:
                raise ConfigError(f"Expected {name} of 0 or more, found {getattr(self, name)}.")
        if self.min_rating is not None and not math.isfinite(self.min_rating):
            raise ConfigError(f"Expected a finite min_rating, found {self.min_rating}.")
        if self.separator is not None and (not self.separator or set(self.separator) & set('"\r\n\0')):
            raise ConfigError(f"Expected a separator such as ',' or tab or '::', found {self.separator!r}.")
        _check_encoding(self.encoding)

    @property
    def separator_text(self) -> str | None:
        """The separator itself, with names such as 'tab' translated."""
        return None if self.separator is None else SEPARATORS.get(self.separator.lower(), self.separator)

    @property
    def columns(self) -> tuple[str | None, ...]:
        """The columns given by name or number, None for the others."""
        return self.user_column, self.item_column, self.rating_column, self.timestamp_column

    def beside(self, name: str) -> ReadingOptions:
        """Return the options for a further file of a job: its rejects go to `out-NAME.csv` instead of `out.csv`."""
        if self.rejects is None:
            return self
        return replace(self, rejects=self.rejects.with_name(f"{self.rejects.stem}-{name}{self.rejects.suffix}"))


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"Expected {name} to be one of {', '.join(choices)}; found {value!r}.")


def _check_encoding(name: str) -> None:
    """Raise ConfigError unless `name` is an encoding of text, as the codec base64 is not."""
    try:
        codec = codecs.lookup(name)
    except (LookupError, ValueError):  # ValueError: a NUL in the name
        codec = None
    if codec is None or not getattr(codec, "_is_text_encoding", True) or codec.name in NOT_TEXT:
        raise ConfigError(f"Expected a text encoding such as utf-8 or latin-1, found encoding={name!r}.")
