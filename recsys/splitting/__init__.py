"""Splits of interactions into training, validation and test, under the usual protocols: `split` calls one by name.

holdout     Split and Holdout: the parts of a split
by_user     strong, k_fold: held-out users, new to the model; hide, holdout: test parts for a model that exists
by_row      weak, cells, given, k_fold_cells: held-out interactions; train_on_validation
by_time     leave_one_out, temporal: the later interactions held out
last_out    leave_last_out: the last item of every user, with the order of the histories
cold_items  cold_items: items without an interaction in training, and beside them interactions with the others
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from recsys.data.interactions import Interactions
from recsys.errors import ConfigError
from recsys.splitting._building import PROTOCOLS
from recsys.splitting.by_row import cells, given, k_fold_cells, train_on_validation, weak
from recsys.splitting.by_time import leave_one_out, temporal
from recsys.splitting.by_user import everybody, hide, holdout, k_fold, strong
from recsys.splitting.cold_items import cold_items
from recsys.splitting.holdout import Holdout, RowParts, Split
from recsys.splitting.last_out import leave_last_out

FOLDS: dict[str, Callable[..., Iterator[tuple[str, Split]]]] = {"strong": k_fold, "cells": k_fold_cells}


def split(interactions: Interactions, protocol: str = "strong", **options: Any) -> Split:
    """Divide interactions into training, validation and test.

    Parameters
    ----------
    interactions : Interactions
        What `read_interactions` returns.
    protocol : str
        "strong" (new users, the default), "weak" (a share of the items of every user), "cells" (random cells of the
        matrix), "leave-one-out" (the last item of every user), "leave-last-out" (the same for models of sequences),
        "temporal" (one cut in time for all users), or "cold-items" (items that are in no training row).
    **options
        Parameters of the protocol's own function in `recsys.splitting`: `share`, `seed`, `test`, `ratings`, ...

    Returns
    -------
    Split
        Its parts never overlap: no held-out item is in a history or in the training row of the same user.

    Raises
    ------
    ConfigError
        If the protocol is unknown, does not have an option, or an option is out of range.
    DataError
        If there are too few interactions for a part of the split.
    """
    known = [name for name in PROTOCOLS if name != "given"]  # which takes several tables
    if protocol not in known:
        raise ConfigError(f"Expected a protocol of {', '.join(known)}; found {protocol!r}.")
    function = PROTOCOLS[protocol]
    takes = [name for name in inspect.signature(function).parameters if name != "interactions"]
    if unknown := [name for name in options if name not in takes]:
        raise ConfigError(f"Expected options of {protocol} ({', '.join(takes)}), found {', '.join(unknown)}.")
    return function(interactions, **options)


__all__ = [
    "FOLDS",
    "PROTOCOLS",
    "Holdout",
    "RowParts",
    "Split",
    "cells",
    "cold_items",
    "everybody",
    "given",
    "hide",
    "holdout",
    "k_fold",
    "k_fold_cells",
    "leave_last_out",
    "leave_one_out",
    "split",
    "strong",
    "temporal",
    "train_on_validation",
    "weak",
]
