"""Predicted ratings of (user, item) pairs: each user is scored once, however many pairs there are, in any order."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.inference.topn import MAX_SCORES
from recsys.types import ScoreFunction


def predict_pairs(
    score: ScoreFunction,
    histories: csr_matrix,
    user: NDArray[Any],
    item: NDArray[Any],
    batch_size: int = 512,
    trained: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """Score pairs of a user and an item.

    Memory is about 40 bytes per pair, and the scores of up to `batch_size` users.

    Parameters
    ----------
    score : ScoreFunction
        From histories to scores.
    histories : csr_matrix, shape (users, items)
        What the model sees of each user.
    user, item : ndarray of int, shape (pairs,)
        Row and column of each pair; -1 where unknown.
    batch_size : int
        Users scored at once.
    trained : ndarray of int64, shape (users,), optional
        Rows of the training matrix, passed to `score`.

    Returns
    -------
    ndarray of float32, shape (pairs,)
        NaN where the user or the item is unknown.
    """
    predicted = np.full(len(user), np.nan, dtype=np.float32)
    pairs = np.flatnonzero((user >= 0) & (item >= 0))
    pairs = pairs[np.argsort(user[pairs], kind="stable")]
    users, starts = np.unique(user[pairs], return_index=True)
    bounds = np.append(starts, len(pairs))
    size = max(1, min(batch_size, MAX_SCORES // max(1, histories.shape[1])))
    for start in range(0, len(users), size):
        batch = users[start : start + size]
        of_batch = pairs[bounds[start] : bounds[start + len(batch)]]
        known = {} if trained is None else {"users": trained[batch]}
        with torch.inference_mode():
            scores = score(histories[batch], **known)
            places = np.searchsorted(batch, user[of_batch]), item[of_batch]
            row, column = (torch.as_tensor(place, device=scores.device).long() for place in places)
            predicted[of_batch] = scores[row, column].float().cpu().numpy()
    return predicted
