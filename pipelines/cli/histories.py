"""The history of one user for a command: a user of a ratings file (--user, --ratings), or a list of items (--items)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click
import pandas as pd

from recsys.data.interactions import Interactions
from recsys.data.order import in_order
from recsys.data.reading import ReadingOptions, read_interactions
from recsys.errors import DataError, UnsupportedError
from recsys.evaluation.tasks import TASKS
from recsys.models.trained import TrainedModel
from recsys.system.storage import Location

from .output import listed
from .reading import read_histories
from .settings import comma_list
from .unknown import SHOWN, UnknownIds, find_unknown

NEW_USER = "new user"  # the id of somebody who is only a list of items


@dataclass(frozen=True)
class OneHistory:
    """The interactions that hold it, the user's id in them, the items that the model knows, and those it does not."""

    interactions: Interactions
    user: str
    items: list[Any]
    unknown: UnknownIds


def check_history(user: str | None, ratings: Location | None, items: str | None) -> None:
    """Raise UsageError unless one history is given, one way or the other."""
    if (user is None) == (items is None):
        raise click.UsageError("Expected either --user ID with --ratings FILE, or --items ID,ID.")
    if user is not None and ratings is None:
        raise click.UsageError("Expected --ratings FILE with the history of --user, found none.")


def read_history(
    saved: TrainedModel, user: str | None, ratings: Location | None, items: str | None, reading: ReadingOptions
) -> OneHistory:
    """Read the history of a user, or make one of items. Raises DataError if the model knows none of its items."""
    if items is not None:
        user, interactions = NEW_USER, _of_items(comma_list(items), saved)
    else:
        assert user is not None and ratings is not None  # check_history saw to it
        interactions = _of_user(saved, user, ratings, reading)
    ids = _item_ids(interactions, user)
    known = [item for item, position in zip(ids, saved.items.positions(ids), strict=True) if position >= 0]
    if not known:
        names = listed(ids, SHOWN)
        raise DataError(f"Expected a history with an item that the model knows, found none of {len(ids)}: {names}.")
    return OneHistory(interactions, user, known, find_unknown(ids, saved.items))


def _of_items(items: list[str], saved: TrainedModel) -> Interactions:
    """The history of a new user who has had these items."""
    if TASKS[saved.model.task].ratings:
        raise UnsupportedError(f"{saved.model.name} needs to know how the items were rated: give --user and --ratings.")
    if saved.model.needs_training_users:
        raise UnsupportedError(f"{saved.model.name} can score only its training users: give --user instead of --items.")
    return in_order(read_interactions(pd.DataFrame({"user_id": NEW_USER, "item_id": items})), "rows")


def _of_user(saved: TrainedModel, user: str, ratings: Location, reading: ReadingOptions) -> Interactions:
    """The ratings file, which must have the user."""
    interactions = read_histories(saved, ratings, reading)
    if interactions.users.positions([user])[0] < 0:
        raise DataError(
            f"Expected user {user!r} among the {len(interactions.users):,} of {ratings}, found none: "
            f"{interactions.ledger.line()}."
        )
    if saved.users is not None and saved.users.positions([user])[0] < 0:
        raise UnsupportedError(f"{saved.model.name} can score only its training users, and {user!r} is not one.")
    return interactions


def _item_ids(histories: Interactions, user: str) -> list[Any]:
    """Ids of the items in a user's history."""
    position = histories.users.positions([user])[0]
    return list(histories.items.take(histories.item[histories.user == position]).to_pylist())


def named(item: Any, titles: Mapping[str, str]) -> dict[str, Any]:
    """An item with its title, empty without one."""
    return {"item_id": item, "title": titles.get(str(item), "")}
