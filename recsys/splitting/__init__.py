"""Who may see what: training users, histories and held-out items, under the usual protocols.

holdout: Split and Holdout, the parts of a division. by_user: strong, k_fold. by_row: weak, cells, leave_one_out,
temporal, given. PROTOCOLS and FOLDS name them for the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from recsys.splitting.by_row import cells, given, k_fold_cells, leave_one_out, temporal, weak
from recsys.splitting.by_user import hide, holdout, k_fold, strong
from recsys.splitting.holdout import Holdout, Split, everybody

PROTOCOLS: dict[str, Callable[..., Split]] = {
    "strong": strong,
    "weak": weak,
    "cells": cells,
    "leave-one-out": leave_one_out,
    "temporal": temporal,
    "given": given,
}

FOLDS: dict[str, Callable[..., Iterator[tuple[str, Split]]]] = {"strong": k_fold, "cells": k_fold_cells}

__all__ = [
    "FOLDS",
    "PROTOCOLS",
    "Holdout",
    "Split",
    "cells",
    "everybody",
    "given",
    "hide",
    "holdout",
    "k_fold",
    "k_fold_cells",
    "leave_one_out",
    "strong",
    "temporal",
    "weak",
]
