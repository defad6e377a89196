"""What may be in the lists of a batch: which items, how many of a group, which scores, and the rules of a file.

Files of ids are small tables: the first column, or the one with a known name, holds the ids.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.batch.cold_users import TasteByAttributes
from recsys.data.interactions import Vocabulary
from recsys.data.reading.id_files import read_columns, read_ids
from recsys.errors import DataError
from recsys.inference.rules import RuleSet
from recsys.inference.topn import GroupCap
from recsys.system.storage import Location


@dataclass(frozen=True)
class ListRules:
    """What may be in a list.

    Attributes
    ----------
    allowed : ndarray of bool, shape (items,), optional
        Items that may be listed; None: all.
    cap : GroupCap, optional
        At most so many items of a group.
    min_score : float, optional
        Items with a lower score are left out; not those that a cold user gets by popularity.
    popularity : ndarray of float32, shape (items,), optional
        Scores for cold users; None: they get no list.
    taste : TasteByAttributes, optional
        Scores for cold users in place of popularity, by their attributes.
    rules : RuleSet, optional
        Rules of a file, and variety (`recsys.inference.rule_file`); a cap is one of them then.
    """

    allowed: NDArray[np.bool_] | None = None
    cap: GroupCap | None = None
    min_score: float | None = None
    popularity: NDArray[np.float32] | None = None
    rules: RuleSet | None = None
    taste: TasteByAttributes | None = None


def allowed_items(items: Vocabulary, only: Location | None, exclude: Location | None) -> NDArray[np.bool_] | None:
    """Read which items may be listed.

    Parameters
    ----------
    items : Vocabulary
        The model's items.
    only : Path or str, optional
        File of the only items; all items if None.
    exclude : Path or str, optional
        File of items never to list.

    Returns
    -------
    ndarray of bool, shape (items,), or None
        None: all items. Ids that the model does not know have no effect.

    Raises
    ------
    DataError
        If the model knows none of the ids of a file, or `only` is empty: no item could be listed.
    """
    if only is None and exclude is None:
        return None
    allowed = np.full(len(items), only is None)
    if only is not None:
        allowed[_known_positions(items, only, is_empty_allowed=False)] = True
    if exclude is not None:
        allowed[_known_positions(items, exclude)] = False
    return allowed


def _known_positions(items: Vocabulary, path: Location, is_empty_allowed: bool = True) -> NDArray[np.int32]:
    """Positions of the items of a file."""
    named = read_ids(path, "item")
    if not len(named) and not is_empty_allowed:
        raise DataError(f"Expected items in {path}, found an empty file: nothing could be listed.")
    positions = items.positions(named.ids)
    if len(named) and (positions < 0).all():
        raise DataError(f"Expected items the model knows in {path}, found none among {len(named)}: check the ids.")
    return positions[positions >= 0]


def group_cap(items: Vocabulary, path: Location, most: int) -> GroupCap:
    """Read the groups of items, and limit the items of one group in a list.

    Parameters
    ----------
    items : Vocabulary
        The model's items.
    path : Path or str
        File with the columns item_id, group.
    most : int
        Items of one group in a list, at most.

    Returns
    -------
    GroupCap
        Items that are not in the file are not limited; ids that the model does not know have no effect.
    """
    names, groups = read_columns(path, "item", 2)
    positions = items.positions(names)
    codes = groups.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    group = np.full(len(items), -1, dtype=np.int32)
    group[positions[positions >= 0]] = codes[positions >= 0]
    return GroupCap(group, most)
