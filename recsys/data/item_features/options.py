"""Settings for item features: which columns of the table are read, and as what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from recsys.errors import ConfigError

Kind = Literal["categories", "text", "number", "date", "embedding"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class FeatureOptions:
    """Which columns of a table of items are read, and as what.

    Parameters
    ----------
    feature_columns : tuple of str
        Names of the columns to read; all but the ids if empty. `year:categories` also says what a column holds:
        categories, text, number, date or embedding; found from its values otherwise.
    ignore_columns : tuple of str
        Names of columns not to read.
    item_column : str, optional
        The column of the item ids; found by its name if not given, else the first.
    encoding : str, optional
        Of a text file: UTF-8 if not given, or latin-1 where the file is not UTF-8.
    separator : str, optional
        Text between two columns of a text file; found if not given.
    min_items : int
        Least number of items with a category or a term, for it to be a feature.
    max_terms : int
        Most terms of a column of text: the ones that occur most often.

    Raises
    ------
    ConfigError
        If a kind is unknown, a column is both named and ignored, or a number is below 1.
    """

    feature_columns: tuple[str, ...] = ()
    ignore_columns: tuple[str, ...] = ()
    item_column: str | None = None
    encoding: str | None = None
    separator: str | None = None
    min_items: int = 2
    max_terms: int = 10_000

    def __post_init__(self) -> None:
        for name in ("min_items", "max_terms"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Expected {name} of at least 1, found {getattr(self, name)}.")
        both = [name for name in self.kinds if name in self.ignore_columns]
        if both:
            raise ConfigError(
                f"Expected different columns in feature_columns and ignore_columns, found {both[0]!r} in both."
            )

    @property
    def kinds(self) -> Mapping[str, Kind | None]:
        """The columns to read by name, with what they hold where that was said; empty where all are read."""
        return dict(map(_name_and_kind, self.feature_columns))


def _name_and_kind(text: str) -> tuple[str, Kind | None]:
    """`year:categories` -> ("year", "categories"); a name alone has no kind."""
    name, colon, given = text.rpartition(":")
    if not colon:
        return text, None
    kind = next((kind for kind in KINDS if kind == given), None)
    if kind is None:
        raise ConfigError(f"Expected one of {', '.join(KINDS)} after the colon of a feature column, found {text!r}.")
    return name, kind
