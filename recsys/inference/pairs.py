"""Predicted ratings of (user, item) pairs: each user is scored once, however many pairs there are and in what order."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.types import ScoreFunction

_SCORES = 64_000_000  # held at once, at most (256 MB)


def predict_pairs(
    score: ScoreFunction,
    histories: csr_matrix,
    user: NDArray[Any],
    item: NDArray[Any],
    batch_size: int = 512,
    trained: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """Scores of pairs, float32 (pairs,): row `user` of the histories, CSR (users, items), and column `item`.

    NaN where one of them is -1. `trained`, if given, are rows of the training matrix, (users,), passed to `score`.
    Memory: about 40 bytes a pair, and the scores of up to `batch_size` users.
    """
    found = np.full(len(user), np.nan, dtype=np.float32)
    pairs = np.flatnonzero((user >= 0) & (item >= 0))
    pairs = pairs[np.argsort(user[pairs], kind="stable")]
    people, starts = np.unique(user[pairs], return_index=True)
    bounds = np.append(starts, len(pairs))
    size = max(1, min(batch_size, _SCORES // max(1, histories.shape[1])))
    for start in range(0, len(people), size):
        batch = people[start : start + size]
        mine = pairs[bounds[start] : bounds[start + len(batch)]]
        known = {} if trained is None else {"users": trained[batch]}
        with torch.inference_mode():
            scores = score(histories[batch], **known)
            row, column = np.searchsorted(batch, user[mine]), item[mine]
            at = [torch.as_tensor(place, device=scores.device).long() for place in (row, column)]
            found[mine] = scores[at[0], at[1]].float().cpu().numpy()
    return found
