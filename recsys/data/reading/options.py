"""How a ratings file is to be read: the one home of these settings and of their defaults."""

from __future__ import annotations

import codecs
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from recsys.errors import ConfigError

SEPARATORS = {"tab": "\t", "\\t": "\t", "space": " ", "comma": ",", "semicolon": ";", "pipe": "|"}


def _option(default: Any, help: str, *flags: str) -> Any:
    return field(default=default, metadata={"help": help, "flags": flags})


@dataclass(frozen=True)
class ReadingOptions:
    """What to read and what to keep. Everything is found out from the file where nothing is given.

    The order of the steps: unreadable rows are set apart, then duplicates resolved, then `min_rating`, then the two
    minima, over and over until both hold. Raises ConfigError for a value that makes no sense.
    """

    user_column: str | None = _option(None, "Column of the user ids: its name, or its number (from 1) without header.")
    item_column: str | None = _option(None, "Column of the item ids.")
    rating_column: str | None = _option(None, "Column of the ratings; 'none' reads none.")
    timestamp_column: str | None = _option(None, "Column of the times (epoch or ISO dates); 'none' reads none.")
    separator: str | None = _option(None, "What stands between columns: a character, '::', tab, space, ...")
    header: bool | None = _option(None, "Whether the first line names the columns.", "--header/--no-header")
    encoding: str = _option("utf-8", "Encoding of the text, e.g. latin-1.")
    min_rating: float | None = _option(None, "Keep rows with this rating or a higher one.")
    min_user_items: int = _option(0, "Keep users with so many items or more.")
    min_item_users: int = _option(0, "Keep items with so many users or more.")
    duplicates: Literal["last", "first", "mean", "max", "sum", "error"] | None = _option(
        None, "What becomes of rows that repeat a (user, item) pair; the last one is kept if not given."
    )
    on_bad_row: Literal["reject", "fail"] = _option("reject", "Count unreadable rows and go on, or stop at the first.")
    rejects: Path | None = _option(
        None, "Write every row left out, with line and reason, to this CSV; those of a second file beside it."
    )

    def __post_init__(self) -> None:
        if self.duplicates is not None:
            _check_choice("duplicates", self.duplicates, ("last", "first", "mean", "max", "sum", "error"))
        _check_choice("on_bad_row", self.on_bad_row, ("reject", "fail"))
        for name in ("min_user_items", "min_item_users"):
            if getattr(self, name) < 0:
                raise ConfigError(f"Expected {name} of 0 or more, found {getattr(self, name)}.")
        if self.min_rating is not None and not math.isfinite(self.min_rating):
            raise ConfigError(f"Expected a finite min_rating, found {self.min_rating}.")
        if self.separator is not None and (not self.separator or set(self.separator) & set('"\r\n\0')):
            raise ConfigError(f"Expected a separator such as ',' or tab or '::', found {self.separator!r}.")
        try:
            codecs.lookup(self.encoding)
        except LookupError:
            raise ConfigError(f"Expected an encoding such as utf-8 or latin-1, found {self.encoding!r}.") from None

    @property
    def separator_text(self) -> str | None:
        """The separator itself: 'tab' is spelled out on the command line."""
        return None if self.separator is None else SEPARATORS.get(self.separator.lower(), self.separator)

    @property
    def columns(self) -> tuple[str | None, ...]:
        """The columns named, if any."""
        return self.user_column, self.item_column, self.rating_column, self.timestamp_column

    def beside(self, name: str) -> ReadingOptions:
        """The same for a further file of a job: its rejected rows go to `out-NAME.csv`, not over those in `out.csv`."""
        if self.rejects is None:
            return self
        return replace(self, rejects=self.rejects.with_name(f"{self.rejects.stem}-{name}{self.rejects.suffix}"))


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"Expected {name} to be one of {', '.join(choices)}; found {value!r}.")
