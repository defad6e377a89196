"""How commands read item features: which models use them, what was found, and items that come after training."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from recsys.data.interactions import Interactions
from recsys.data.item_features import FeatureOptions, ItemTable, read_item_table
from recsys.data.item_features.features import ItemFeatures, read_item_features, with_features
from recsys.errors import ConfigError
from recsys.models import Recommender
from recsys.models.trained import TrainedModel
from recsys.system.storage import Location
from recsys.system.text import plural

from .options import setting
from .output import note
from .progress import activity
from .settings import comma_list


@dataclass(frozen=True)
class FeatureFlags:
    """What is known of the items besides who took them."""

    item_features: Location | None = setting(
        None, "Table of the items (CSV, Parquet): categories, text, numbers, dates, embeddings."
    )
    feature_columns: str = setting(
        "", "Its columns to read, separated by commas; all by default. year:categories says what one holds."
    )
    ignore_columns: str = setting("", "Its columns not to read, separated by commas.")

    def __post_init__(self) -> None:
        if self.item_features is None and (self.feature_columns or self.ignore_columns):
            raise ConfigError("Expected --item-features FILE together with the names of its columns, found none.")
        _ = self.options  # refuses nonsense

    @property
    def options(self) -> FeatureOptions:
        """How the library reads the table."""
        return FeatureOptions(tuple(comma_list(self.feature_columns)), tuple(comma_list(self.ignore_columns)))

    def typed_again(self) -> str:
        """These flags, for the next command a person is told to type."""
        given = {name: value for name, value in asdict(self).items() if value}
        return "".join(f" --{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in given.items())

    def read(self) -> ItemFeatures | None:
        """Read the table, with progress; None without one."""
        if self.item_features is None:
            return None
        with activity(f"reading {self.item_features}"):
            return read_item_features(self.item_features, self.options)

    def require_for(self, models: Sequence[Recommender]) -> None:
        """Raise ConfigError, before the data are read, where a model needs features and there are none."""
        using = [model.name for model in models if model.uses_features]
        if using and self.item_features is None:
            raise ConfigError(f"Expected --item-features FILE for {using[0]}, which uses what is known of the items.")

    def add_to(self, interactions: Interactions, models: Sequence[Recommender]) -> Interactions:
        """The interactions with features, where a model uses them; says what was found."""
        self.require_for(models)
        if self.item_features is not None and not any(model.uses_features for model in models):
            names = ", ".join(model.name for model in models)
            note(f"Not read: {names} does not use item features.", str(self.item_features))
            return interactions
        features = self.read()
        if features is not None:
            note_features(features.describe(interactions.items), str(self.item_features))
        return with_features(interactions, features)


def note_features(facts: Mapping[str, Any], name: str) -> None:
    """Say in a few lines which columns were found, what became of the rows, and which items have no features."""
    columns = [f"{column} = {each['kind']} ({each['features']:,})" for column, each in facts["columns"].items()]
    unread = f"; not read: {', '.join(facts['unread'])}" if facts["unread"] else ""
    note(f"ids = {facts['item_column']}, features: {', '.join(columns)}{unread}", name)
    note(facts["ledger"], name)
    note(account_of(facts), name)


def account_of(facts: Mapping[str, Any]) -> str:
    """Which items have no features, and which features no item of the ratings, in a sentence."""
    without, only = facts["items_without_features"], facts["features_without_items"]
    return f"{plural(without, 'item')} without features; {plural(only, 'item')} that only the features know."


def add_new_items(saved: TrainedModel, table: Location | None) -> TrainedModel:
    """The model with the items of a table that it does not know yet, by their features; says how many."""
    return grow(saved, read_new_items(saved, table))


def read_new_items(saved: TrainedModel, table: Location | None) -> ItemTable | None:
    """Read a table with the columns that the model uses; None without one."""
    if table is None:
        return None
    encoder = saved.require_features()
    with activity(f"reading {table}"):
        return read_item_table(table, encoder.options)


def grow(saved: TrainedModel, read: ItemTable | None) -> TrainedModel:
    """The model with the items of a table that it does not know yet; says how many."""
    if read is None:
        return saved
    grown = saved.with_new_items(read)
    note(read.ledger.line(), "new-items")
    new = len(grown.items) - len(saved.items)
    note(f"{plural(new, 'item')} new to the model, {len(read) - new:,} known to it already.", "new-items")
    return grown
