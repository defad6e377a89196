"""Rules for the lists of a batch: which items may be listed, how many of a group, which scores.

Files of ids are small tables: the first column, or the one with a known name, holds the ids.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.data.interactions import Vocabulary
from recsys.data.reading.id_files import read_columns, read_ids
from recsys.errors import DataError
from recsys.inference.topn import GroupCap
from recsys.system.storage import Location
from recsys.system.text import printable

_NAMED = 3  # unknown ids that a warning names

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ListRules:
    """What may stand in a list.

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
    """

    allowed: NDArray[np.bool_] | None = None
    cap: GroupCap | None = None
    min_score: float | None = None
    popularity: NDArray[np.float32] | None = None


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
        None: all items. Ids that the model does not know have no effect; a warning counts and names them.

    Raises
    ------
    DataError
        If the model knows none of the ids of a file.
    """
    if only is None and exclude is None:
        return None
    allowed = np.full(len(items), only is None)
    if only is not None:
        allowed[_known_positions(items, only)] = True
    if exclude is not None:
        allowed[_known_positions(items, exclude)] = False
    return allowed


def _known_positions(items: Vocabulary, path: Location) -> NDArray[np.int32]:
    """Positions of the items of a file."""
    named = read_ids(path, "item")
    positions = items.positions(named.ids)
    if len(named) and (positions < 0).all():
        raise DataError(f"Expected items the model knows in {path}, found none among {len(named)}: check the ids.")
    warn_of_unknown(named.ids, positions, path, "items the model does not know: they have no effect")
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
        Items that are not in the file are not limited.
    """
    names, groups = read_columns(path, "item", 2)
    positions = items.positions(names)
    warn_of_unknown(names, positions, path, "items the model does not know: they have no effect")
    codes = groups.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    group = np.full(len(items), -1, dtype=np.int32)
    group[positions[positions >= 0]] = codes[positions >= 0]
    return GroupCap(group, most)


def warn_of_unknown(ids: pa.Array, positions: NDArray[np.int32], path: Location, what: str) -> None:
    """Warn in one line of ids without a position; say nothing where there are none.

    Parameters
    ----------
    ids : pyarrow.Array
        Ids of a file.
    positions : ndarray of int32
        Position of each, -1 where it is unknown.
    path : Path or str
        The file.
    what : str
        What the unknown ids are.
    """
    unknown = np.flatnonzero(positions < 0)
    if not len(unknown):
        return
    names = ", ".join(printable(repr(ids[int(row)].as_py()), single_line=True)[:60] for row in unknown[:_NAMED])
    more = ", ..." if len(unknown) > _NAMED else ""
    log.warning("%s: %d of %d ids are %s (%s%s).", path, len(unknown), len(ids), what, names, more)
