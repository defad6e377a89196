"""Who gets lists in a batch, and what may be in them: the flags, and how they are read."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from recsys.batch.cold_users import TasteByAttributes
from recsys.batch.rules import ListRules, allowed_items, group_cap
from recsys.batch.targets import Targets, excluded_pairs, item_targets, make_targets
from recsys.data.interactions import Vocabulary
from recsys.data.item_features.features import read_item_features
from recsys.data.matrix import UserItemMatrix
from recsys.data.reading.id_files import read_columns
from recsys.errors import ConfigError, DataError
from recsys.inference.rules import Rule
from recsys.models.trained import TrainedModel
from recsys.system.storage import Location
from recsys.system.text import plural

from .options import setting
from .output import note
from .progress import activity
from .rules import RuleFlags
from .unknown import UnknownIds, find_unknown


@dataclass(frozen=True)
class Choice:
    """Which users get lists, and which items may be in them."""

    users: Location | None = setting(None, "File of the users to score, in its order; all users by default.")
    new_users: Location | None = setting(None, "Ratings of further users, none of whom is in RATINGS.")
    new_items: Location | None = setting(None, "Table of items that came after training, for a model with features.")
    only_items: Location | None = setting(None, "File of the only items to recommend.")
    exclude_items: Location | None = setting(None, "File of items that are never recommended.")
    ruling: RuleFlags = field(default_factory=RuleFlags)
    exclude_pairs: Location | None = setting(None, "File of user_id, item_id: pairs that are never recommended.")
    keep_seen: bool = setting(False, "Also recommend items of the history.")
    min_score: float | None = setting(None, "Leave out items with a lower score.")
    max_per_group: int | None = setting(None, "Maximum number of items of a group in a list.")
    groups: Location | None = setting(None, "File of item_id, group (a brand, an author, ...).")
    cold: Literal["popularity", "skip", "fail"] = setting(
        "skip", "Users without a known item: popular items (marked in a column), no list, or refuse the job."
    )
    user_features: Location | None = setting(
        None, "Table of the users; with --cold popularity, users without a known item get what others like them take."
    )
    item_to_item: bool = setting(False, "List similar items for every item; needs no RATINGS.")

    def __post_init__(self) -> None:
        if (self.max_per_group is None) != (self.groups is None):
            raise ConfigError("Expected --max-per-group K and --groups FILE together, found one of them.")
        if self.max_per_group is not None and self.max_per_group < 1:
            raise ConfigError(f"Expected max_per_group of at least 1, found {self.max_per_group}.")
        if self.min_score is not None and not math.isfinite(self.min_score):
            raise ConfigError(f"Expected a finite min_score, found {self.min_score}.")
        if self.user_features is not None and self.cold != "popularity":
            raise ConfigError(f"Expected --cold popularity together with --user-features, found --cold {self.cold}.")
        users_only = {"users": self.users, "new-users": self.new_users, "exclude-pairs": self.exclude_pairs}
        users_only["user-features"] = self.user_features
        given = [name for name, value in users_only.items() if value is not None]
        if self.item_to_item and given:
            raise ConfigError(f"Expected --item-to-item without --{given[0]}, found both.")


def unknown_ids(choice: Choice, saved: TrainedModel, histories: UserItemMatrix | None) -> dict[str, UnknownIds]:
    """Ids in the files of the job that the model or the histories do not know, by the option of the file."""
    found = {}
    for option, file in (("only-items", choice.only_items), ("exclude-items", choice.exclude_items)):
        if file is not None:
            found[option] = find_unknown(read_columns(file, "item", 1)[0], saved.items)
    if choice.groups is not None:
        found["groups"] = find_unknown(read_columns(choice.groups, "item", 2)[0], saved.items)
    if histories is not None and choice.users is not None:
        found["users"] = find_unknown(read_columns(choice.users, "user", 1)[0], histories.users)
    if histories is not None and choice.exclude_pairs is not None:
        users, items = read_columns(choice.exclude_pairs, "user", 2)
        found["exclude-pairs (users)"] = find_unknown(users, histories.users)
        found["exclude-pairs (items)"] = find_unknown(items, saved.items)
    return found


def choose(choice: Choice, saved: TrainedModel, histories: UserItemMatrix | None) -> tuple[Targets, ListRules]:
    """Choose which users get lists, and by which rules."""
    targets = item_targets(saved) if histories is None else make_targets(histories, saved, choice.users)
    if choice.exclude_pairs is not None:
        targets = replace(targets, excluded=excluded_pairs(choice.exclude_pairs, targets, saved.items))
    if choice.cold == "fail" and targets.cold.any():
        raise DataError(
            f"Expected a known item in every history (--cold fail), found {targets.cold.sum():,} of {len(targets):,} "
            "users without: use --cold skip or --cold popularity."
        )
    taste = None
    if histories is not None and choice.user_features is not None:
        targets, taste = by_attributes(choice.user_features, targets, histories)
    most, groups = choice.max_per_group, choice.groups
    cap = None if most is None or groups is None else group_cap(saved.items, groups, most)
    ruled = choice.ruling.read(saved)
    if ruled is not None and cap is not None:
        ruled, cap = replace(ruled, rules=(*ruled.rules, Rule.of_cap(f"at most {most} a group", cap))), None
    rules = ListRules(
        allowed_items(saved.items, choice.only_items, choice.exclude_items),
        cap,
        choice.min_score,
        saved.item_counts.astype(np.float32) if choice.cold == "popularity" else None,
        ruled,
        taste,
    )
    return targets, rules


def by_attributes(table: Location, targets: Targets, histories: UserItemMatrix) -> tuple[Targets, TasteByAttributes]:
    """The targets with what is known of them besides, and what users like them take; says what was found."""
    with activity(f"reading {table}"):
        users = read_item_features(table, whose="user")
    attributes, known = users.over(Vocabulary(targets.ids)), users.over(histories.users)
    assert attributes is not None and known is not None and users.table is not None
    without = int((np.diff(attributes.indptr)[targets.cold] == 0).sum())
    note(
        f"{plural(len(users.items), 'user')} with {plural(attributes.shape[1], 'attribute')}; of "
        f"{plural(int(targets.cold.sum()), 'user')} without a known item, {without:,} have none.",
        "user-features",
    )
    return replace(targets, attributes=attributes), TasteByAttributes.fit(known, histories.matrix)
