"""The best n items of each user: masking, cutting and tie-breaking, once for all models.

Seen items become -inf before the cut and are dropped after it, so that a long history still leaves n items and a
negative score can win. Equal scores are ordered by item position, whatever the batch or the device; evaluation orders
them by hashes of the ids instead (`recsys.inference.ties`). A list is never longer than the catalog.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.errors import ConfigError, DataError
from recsys.inference.selection import select_best
from recsys.inference.ties import TieBreak, break_ties
from recsys.types import ScoreFunction

BLOCK = 65_536  # items scored at once; fixed, because lists must not depend on the machine
MAX_SCORES = 64_000_000  # of a batch in memory at once: 256 MB

Lists = tuple[NDArray[np.int32], NDArray[np.float32]]  # positions and scores, each (users, n)


@dataclass(frozen=True)
class TopN:
    """Lists of a batch of users.

    Attributes
    ----------
    start : int
        The batch's first row of the history.
    positions : ndarray of int32, shape (users, n)
        Best first; -1 where fewer than n items are left.
    scores : ndarray of float32, shape (users, n)
        -inf where there is no item.
    """

    start: int
    positions: NDArray[np.int32]
    scores: NDArray[np.float32]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of items in each list, int64 (users,)."""
        return np.asarray((self.positions >= 0).sum(axis=1))


def check_length(n: Any) -> None:
    """Raise ConfigError unless n, the length of a list, is a whole number of at least 1."""
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)):
        raise ConfigError(f"Expected a whole number as n, found {n!r}.")
    if n < 1:
        raise ConfigError(f"Expected n of at least 1, found {n}.")


def top_n(
    scores: Tensor | NDArray[Any],
    n: int,
    seen: csr_matrix | None = None,
    allowed: NDArray[np.bool_] | None = None,
    overwrite: bool = False,
    tie_break: TieBreak | None = None,
) -> Lists:
    """Select the n best unseen items of each user.

    ```
    scores  9 -2 -1     seen  x . .     n = 3     ->  positions  2 1 -1     scores  -1 -2 -inf
    ```

    Parameters
    ----------
    scores : Tensor or ndarray, shape (users, items)
        Higher is better. A score of -inf means "never recommend".
    n : int
        Length of a list, at least 1. More than the catalog has is cut to the catalog, before anything is allocated.
    seen : csr_matrix, shape (users, items), optional
        Every stored cell is masked, including stored zeros.
    allowed : ndarray of bool, shape (items,), optional
        The other items are masked.
    overwrite : bool
        Write the masks into `scores` rather than into a copy.
    tie_break : TieBreak, optional
        The order of equal scores; by position without it.

    Returns
    -------
    positions : ndarray of int32, shape (users, min(n, items))
        Best first; -1 where fewer items are left.
    scores : ndarray of float32, shape (users, min(n, items))
        -inf where there is no item.

    Raises
    ------
    ConfigError
        If n is no whole number of at least 1.
    DataError
        If a score is NaN or a shape does not match.
    """
    check_length(n)
    table = torch.as_tensor(scores)
    if table.dtype != torch.bfloat16:  # converted after the cut
        table = table.float()
    _check_shapes(table, seen, allowed)
    n = min(n, table.shape[1])
    if not overwrite and (seen is not None or allowed is not None):
        table = table.clone()
    mask_scores(table, seen, allowed)
    if tie_break is None or not n:
        values, positions = select_best(table, n)
    else:  # one more shows whether the cut goes through equal scores
        values, positions = select_best(table, min(n + 1, table.shape[1]))
        values, positions = break_ties(table, values, positions, n, tie_break)
    best = values.float().cpu().numpy()
    listed: NDArray[np.int32] = np.where(best == -np.inf, -1, positions.cpu().numpy()).astype(np.int32)
    return listed, best


def mask_scores(table: Tensor, seen: csr_matrix | None, allowed: NDArray[np.bool_] | None) -> None:
    """Write -inf where items were seen, and where they are not allowed.

    Parameters
    ----------
    table : Tensor, shape (users, items)
        Scores, written to.
    seen : csr_matrix, shape (users, items), optional
        Every stored cell is masked.
    allowed : ndarray of bool, shape (items,), optional
        The other items are masked.
    """
    if seen is not None:
        rows = np.repeat(np.arange(seen.shape[0]), np.diff(seen.indptr))
        table[
            torch.as_tensor(rows, device=table.device), torch.as_tensor(seen.indices, device=table.device).long()
        ] = -torch.inf
    if allowed is not None:
        table[:, torch.as_tensor(~allowed, device=table.device)] = -torch.inf


@torch.inference_mode()
def top_n_of_blocks(
    blocks: Iterable[Tensor],
    n: int,
    masked: csr_matrix | None = None,
    allowed: NDArray[np.bool_] | None = None,
    cap: GroupCap | None = None,
) -> Lists:
    """Select the n best items of scores that come in blocks of items, so that memory follows one block.

    Parameters
    ----------
    blocks : iterable of Tensor, shape (users, items of the block)
        In order of position. Each is written to.
    n : int
        Length of a list, at least 1.
    masked : csr_matrix, shape (users, items), optional
        Every stored cell is masked.
    allowed : ndarray of bool, shape (items,), optional
        The other items are masked.
    cap : GroupCap, optional
        Limits the items of one group in a list; lower items take the places.

    Returns
    -------
    positions, scores : ndarray, shape (users, min(n, items))
        As `top_n` returns them: the best of a row are among the best of its blocks, with a cap too.

    Raises
    ------
    DataError
        If there is no block, a score is NaN, or a shape does not match.
    """
    best: Lists | None = None
    start = 0
    for block in blocks:
        stop = start + block.shape[1]
        columns = slice(start, stop)
        mask, allowed_here = masks_of(columns, masked, allowed)
        if cap is None:
            part = top_n(block, n, mask, allowed_here, overwrite=True)
        else:
            part = _capped_top_n(block, n, mask, allowed_here, GroupCap(cap.groups[columns], cap.most))
        part = moved(part, start)
        best = part if best is None else merge_lists(best, part, n, cap)
        start = stop
    if best is None:
        raise DataError("Expected at least one block of scores, found none.")
    return best


def refuse_infinite(scores: NDArray[np.float32]) -> None:
    """Raise DataError where a list, best first, begins with a score of infinity: arithmetic overflowed.

    Parameters
    ----------
    scores : ndarray of float32, shape (users, n)
        Scores of lists.
    """
    if (scores[:, :1] == np.inf).any():
        raise DataError("Expected finite scores, found infinity: the weights are too large; train the model again.")


@dataclass(frozen=True)
class GroupCap:
    """A limit on the items of one group in a list.

    Attributes
    ----------
    groups : ndarray of int32, shape (items,)
        Group of each item; items of group -1 are not limited.
    most : int
        Most items of a group in a list.
    """

    groups: NDArray[np.int32]
    most: int

    def keeps(self, positions: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Say which places of lists (users, places), best first, respect the limit; -1 is no item."""
        group = np.where(positions >= 0, self.groups[positions], -1)
        order = group.argsort(axis=1, kind="stable")
        ordered = np.take_along_axis(group, order, axis=1)
        places = np.broadcast_to(np.arange(group.shape[1]), group.shape)
        opens = np.diff(ordered, axis=1, prepend=-2) != 0
        nth = places - np.maximum.accumulate(np.where(opens, places, 0), axis=1)
        kept = np.empty(group.shape, dtype=bool)
        np.put_along_axis(kept, order, (nth < self.most) | (ordered < 0), axis=1)
        return kept & (positions >= 0)


def _capped_top_n(
    block: Tensor, n: int, mask: csr_matrix | None, allowed: NDArray[np.bool_] | None, cap: GroupCap
) -> Lists:
    """Select longer and longer lists, until what the cap keeps of them is n items or all there are."""
    items, longer = block.shape[1], 4 * n
    while True:
        positions, scores = top_n(block, min(longer, items), mask, allowed, overwrite=True)
        kept = cap.keeps(positions)
        if longer >= items or bool(((kept.sum(axis=1) >= n) | (positions[:, -1] < 0)).all()):
            return _first(positions, scores, kept, n)
        longer *= 4


def masks_of(
    columns: slice, masked: csr_matrix | None, allowed: NDArray[np.bool_] | None
) -> tuple[csr_matrix | None, NDArray[np.bool_] | None]:
    """Return what is masked, and what is allowed, of some columns."""
    if masked is not None and (columns.start > 0 or columns.stop < masked.shape[1]):
        masked = masked[:, columns]
    return masked, None if allowed is None else allowed[columns]


def moved(lists: Lists, start: int) -> Lists:
    """Return lists of a block that begins at a position, with the positions of the whole catalog."""
    return np.where(lists[0] >= 0, lists[0] + np.int32(start), np.int32(-1)), lists[1]


def merge_lists(left: Lists, right: Lists, n: int, cap: GroupCap | None = None) -> Lists:
    """Return the best n of two lists of each user, the left ones of lower positions: equal scores stay in order."""
    positions, scores = np.hstack([left[0], right[0]]), np.hstack([left[1], right[1]])
    order = np.argsort(-scores, axis=1, kind="stable")
    positions, scores = np.take_along_axis(positions, order, axis=1), np.take_along_axis(scores, order, axis=1)
    return _first(positions, scores, positions >= 0 if cap is None else cap.keeps(positions), n)


def _first(positions: NDArray[np.int32], scores: NDArray[np.float32], kept: NDArray[np.bool_], n: int) -> Lists:
    """The first n places kept in each row; the rest of a row is -1 and -inf."""
    order = np.argsort(~kept, axis=1, kind="stable")[:, :n]
    kept = np.take_along_axis(kept, order, axis=1)
    positions, scores = np.take_along_axis(positions, order, axis=1), np.take_along_axis(scores, order, axis=1)
    return np.where(kept, positions, np.int32(-1)), np.where(kept, scores, np.float32(-np.inf))


def _check_shapes(table: Tensor, seen: csr_matrix | None, allowed: NDArray[np.bool_] | None) -> None:
    if table.ndim != 2:
        raise DataError(f"Expected scores of shape (users, items), found {tuple(table.shape)}.")
    if seen is not None and seen.shape != tuple(table.shape):
        raise DataError(f"Expected seen items of shape {tuple(table.shape)} like the scores, found {seen.shape}.")
    if allowed is not None and (allowed.dtype != np.bool_ or allowed.shape != table.shape[1:]):
        raise DataError(
            f"Expected allowed of type bool and shape ({table.shape[1]},), found {allowed.dtype} {allowed.shape}."
        )


def recommend(
    score: ScoreFunction,
    history: csr_matrix,
    n: int,
    batch_size: int = 512,
    filter_seen: bool = True,
    allowed: NDArray[np.bool_] | None = None,
    users: NDArray[np.int64] | None = None,
    seen: csr_matrix | None = None,
    tie_break: TieBreak | None = None,
) -> Iterator[TopN]:
    """Make lists for every row of `history`, batch by batch: memory follows batch_size x items, not users x items.

    Parameters
    ----------
    score : ScoreFunction
        From histories to scores.
    history : csr_matrix, shape (users, items)
        What the model sees of each user.
    n : int
        Length of a list, at least 1.
    batch_size : int
        Users scored at once; fewer where their scores would take more than 256 MB.
    filter_seen : bool
        Whether to mask what the user has had.
    allowed : ndarray of bool, shape (items,), optional
        The other items are never recommended.
    users : ndarray of int64, shape (users,), optional
        Rows of the training matrix, passed to `score`.
    seen : csr_matrix, shape (users, items), optional
        What `filter_seen` masks, where that is more than the histories.
    tie_break : TieBreak, optional
        The order of equal scores; by position without it.

    Yields
    ------
    TopN
        Lists of consecutive users.

    Raises
    ------
    ConfigError
        If `n` or `batch_size` is below 1.
    DataError
        If a score is NaN or a shape does not match.
    """
    how = batch_size, filter_seen, users, seen, tie_break
    for (lists,) in recommend_among(score, history, [(n, allowed)], *how):
        yield lists


def recommend_among(
    score: ScoreFunction,
    history: csr_matrix,
    lists: Sequence[tuple[int, NDArray[np.bool_] | None]],
    batch_size: int = 512,
    filter_seen: bool = True,
    users: NDArray[np.int64] | None = None,
    seen: csr_matrix | None = None,
    tie_break: TieBreak | None = None,
) -> Iterator[list[TopN]]:
    """Make several lists for every row of `history`, of parts of the catalog, from scores that are made once.

    Parameters
    ----------
    lists : sequence of (int, ndarray of bool or None)
        The length of each list, and the items that may be in it; None: all.
    score, history, batch_size, filter_seen, users, seen, tie_break
        As in `recommend`, which raises the same errors.

    Yields
    ------
    list of TopN
        One for each of `lists`, of the same consecutive users.
    """
    if batch_size < 1:
        raise ConfigError(f"Expected a batch_size of at least 1, found {batch_size}.")
    batch_size = min(batch_size, max(1, MAX_SCORES // max(1, history.shape[1])))
    mask = (history if seen is None else seen) if filter_seen else None
    for start in range(0, history.shape[0], batch_size):
        rows = slice(start, start + batch_size)
        known = {} if users is None else {"users": users[rows]}
        with torch.inference_mode():
            scores = score(history[rows], **known)
            hidden, ties = None if mask is None else mask[rows], None if tie_break is None else tie_break[rows]
            found = [
                top_n(scores, n, hidden, allowed, overwrite=place == len(lists) - 1, tie_break=ties)
                for place, (n, allowed) in enumerate(lists)
            ]
        for _, values in found:
            refuse_infinite(values)
        yield [TopN(start, *one) for one in found]
