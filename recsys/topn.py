"""The best n items of each user: masking, cutting and tie-breaking, once for all models.

Seen items become -inf before the cut and are dropped after it, so that a long history still leaves n items and a
negative score can win. Equal scores are ordered by item position, whatever the batch or the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.errors import ConfigError, DataError

# Scores (users, items), a fresh tensor, of histories; `Recommender.score` is one.
ScoreFunction = Callable[..., Tensor]

# Candidates taken beyond n, so that ties at the cut rarely need a full sort of the row.
_MARGIN = 16


@dataclass(frozen=True)
class TopN:
    """Lists of a batch of users: rows `start`.. of the history.

    positions: int32 (users, n), -1 where fewer than n items are left; scores: float32 (users, n), -inf there.
    """

    start: int
    positions: NDArray[np.int32]
    scores: NDArray[np.float32]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Items in each list, int64 (users,)."""
        return np.asarray((self.positions >= 0).sum(axis=1))


def top_n(
    scores: Tensor | NDArray[Any],
    n: int,
    seen: csr_matrix | None = None,
    allowed: NDArray[np.bool_] | None = None,
    overwrite: bool = False,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Best n positions and their scores, best first, from scores (users, items).

    ```
    scores  9 -2 -1     seen  x . .     n = 3     ->  positions  2 1 -1     scores  -1 -2 -inf
    ```
    `seen`, CSR (users, items): every stored cell is masked, a stored zero too. `allowed`, bool (items,): the others
    are masked. A score of -inf means "never" and is left out. `overwrite` lets the mask be written into `scores`.
    Raises DataError when a score is NaN, or where `seen` or `allowed` has another shape.
    """
    if n < 1:
        raise ConfigError(f"Expected n of at least 1, found {n}.")
    table = torch.as_tensor(scores, dtype=torch.float32)
    _check_shapes(table, seen, allowed)
    if not overwrite and (seen is not None or allowed is not None):
        table = table.clone()
    if seen is not None:
        rows = np.repeat(np.arange(seen.shape[0]), np.diff(seen.indptr))
        table[
            torch.as_tensor(rows, device=table.device), torch.as_tensor(seen.indices, device=table.device).long()
        ] = -torch.inf
    if allowed is not None:
        table[:, torch.as_tensor(~allowed, device=table.device)] = -torch.inf
    values, positions = _best(table, min(n, table.shape[1]))
    if bool(values.isnan().any()):
        raise DataError("Expected finite scores, found NaN: the model has diverged; train it with a smaller rate.")
    positions = torch.where(values == -torch.inf, -1, positions)
    short = n - positions.shape[1]
    return (
        np.pad(positions.cpu().numpy().astype(np.int32), ((0, 0), (0, short)), constant_values=-1),
        np.pad(values.cpu().numpy(), ((0, 0), (0, short)), constant_values=-np.inf),
    )


def _check_shapes(table: Tensor, seen: csr_matrix | None, allowed: NDArray[np.bool_] | None) -> None:
    if table.ndim != 2:
        raise DataError(f"Expected scores of shape (users, items), found {tuple(table.shape)}.")
    if seen is not None and seen.shape != tuple(table.shape):
        raise DataError(f"Expected seen items of shape {tuple(table.shape)} like the scores, found {seen.shape}.")
    if allowed is not None and (allowed.dtype != np.bool_ or allowed.shape != table.shape[1:]):
        raise DataError(
            f"Expected allowed as {table.shape[1]} times true or false, found {allowed.dtype} {allowed.shape}."
        )


def _best(table: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """torch.topk, but equal scores in order of position (topk leaves their order, and who is in, open)."""
    width = min(n + _MARGIN, table.shape[1])
    values, positions = table.topk(width, dim=1)
    positions, order = positions.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    positions = positions.gather(1, order)
    # All candidates from the n-th on are equal and finite: others as good may have been left outside the margin.
    doubtful = (values[:, n - 1] == values[:, -1]) & (values[:, -1] > -torch.inf) if width < table.shape[1] else None
    if doubtful is not None and bool(doubtful.any()):
        best, where = table[doubtful].sort(dim=1, descending=True, stable=True)
        values[doubtful], positions[doubtful] = best[:, :width], where[:, :width]
    return values[:, :n], positions[:, :n]


def recommend(
    score: ScoreFunction,
    history: csr_matrix,
    n: int,
    batch_size: int = 512,
    filter_seen: bool = True,
    allowed: NDArray[np.bool_] | None = None,
    users: NDArray[np.int64] | None = None,
) -> Iterator[TopN]:
    """Lists for every row of `history`, batch by batch: memory follows batch_size x items, not users x items.

    `users`, if given, are passed to `score` with their histories: rows of the training matrix.
    """
    if batch_size < 1:
        raise ConfigError(f"Expected a batch_size of at least 1, found {batch_size}.")
    for start in range(0, history.shape[0], batch_size):
        batch = history[start : start + batch_size]
        known = {} if users is None else {"users": users[start : start + batch_size]}
        with torch.inference_mode():
            lists = top_n(score(batch, **known), n, batch if filter_seen else None, allowed, overwrite=True)
        yield TopN(start, *lists)
