"""Fits that go on from a trained model: its rows in the new ratings, and what the fit begins with.

A network or a factorization begins with the earlier weights, carried over by id (recsys.models.warm_start). A closed
form begins with the earlier Gram matrix plus the rows that are new, where the ratings prove which these are: the first
of them in time, or in the file, must have the fingerprint of the earlier training. Everything else is fitted in full.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys import splitting
from recsys.data.interactions import Interactions, Vocabulary
from recsys.data.item_features.features import aligned_rows
from recsys.data.matrix import UserItemMatrix, sparse_rows
from recsys.errors import ConfigError
from recsys.evaluation.tasks import TASKS
from recsys.models import Recommender
from recsys.models.linear.ease import ClosedForm, update_gram
from recsys.models.pretraining import PretrainedEncoder
from recsys.models.trained import TrainedModel
from recsys.models.warm_start import Earlier
from recsys.splitting.holdout import Holdout, Split
from recsys.training.context import WarmStart

logger = logging.getLogger(__name__)

Origin = Earlier | PretrainedEncoder


@dataclass(frozen=True)
class Beginning:
    """What a fit begins with, and how that is said.

    Attributes
    ----------
    start : WarmStart or None
        For the context of the fit; None for a full fit.
    text : str
        One or two sentences.
    """

    start: WarmStart | None
    text: str


def find_origin(
    init_from: TrainedModel | None, encoder_from: TrainedModel | None = None, grow: bool = False
) -> Origin | None:
    """Return where a fit begins, from what was asked for.

    Parameters
    ----------
    init_from, encoder_from : TrainedModel, optional
        Not both.
    grow : bool
        Only with `init_from`.

    Returns
    -------
    Earlier, PretrainedEncoder or None

    Raises
    ------
    ConfigError
        If these do not go together.
    UnsupportedError
        If `encoder_from` has no encoder that can be taken over.
    """
    if init_from is not None and encoder_from is not None:
        raise ConfigError("Expected init_from or encoder_from, found both: a fit begins with one model.")
    if grow and init_from is None:
        raise ConfigError("Expected init_from together with grow, found grow alone: a catalog grows from another one.")
    if init_from is not None:
        return Earlier(init_from, grow)
    return None if encoder_from is None else PretrainedEncoder(encoder_from)


def fit_on(
    origin: Origin | None,
    model: Recommender,
    split: Split,
    interactions: Interactions,
    fit: Callable[..., Recommender],
    say: Callable[[str], None] = logger.info,
) -> Recommender:
    """Fit a model, going on from an earlier one if there is one.

    Parameters
    ----------
    origin : Earlier, PretrainedEncoder or None
    model : Recommender
    split : Split
        Whose training part it is fitted on; from `place`.
    interactions : Interactions
        The whole table that was split.
    fit : callable (model, start)
        Fits the model, or another like it, and returns it; `start` is for the context of the fit.
    say : callable
        Is told in a sentence or two what the fit begins with.

    Returns
    -------
    Recommender
        What `fit` returned.
    """
    if origin is None:
        return fit(model, start=None)
    beginning = begin(origin, model, split.train, interactions)
    say(beginning.text)
    fitted = fit(model, start=beginning.start)
    if isinstance(origin, Earlier):
        origin.keep_vanished(fitted, beginning.start, split.train)
    return fitted


def place(origin: Origin | None, split: Split) -> Split:
    """Return the split over the items of the new fit: all earlier ones first, if the catalog only grows."""
    if isinstance(origin, Earlier) and origin.grow:
        return with_items(split, origin.items_of(split.train))
    return split


def with_items(split: Split, items: Vocabulary) -> Split:
    """Return a split over more items.

    Parameters
    ----------
    split : Split
    items : Vocabulary
        Those of the split and others, in any order.

    Returns
    -------
    Split
        The same rows and parts; the matrices have a column for each of `items`.
    """
    place = items.positions(split.train.items.ids)

    def widened(matrix: csr_matrix) -> csr_matrix:
        rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
        return sparse_rows(rows, place[matrix.indices], matrix.data, (matrix.shape[0], len(items)))

    def part(held: Holdout | None) -> Holdout | None:
        if held is None:
            return None
        seen = None if held.seen is None else widened(held.seen)
        scopes = {name: np.isin(np.arange(len(items)), place[inside]) for name, inside in held.scopes.items()}
        history, held_out = widened(held.history), widened(held.held_out)
        return replace(held, history=history, held_out=held_out, seen=seen, items=items, scopes=scopes)

    features = split.train.features
    if features is not None:
        features = aligned_rows(features, split.train.items.positions(items.ids))
    train = replace(split.train, matrix=widened(split.train.matrix), items=items, features=features)
    facts = split.facts | {"train_items": len(items)}
    return replace(split, train=train, validation=part(split.validation), test=part(split.test), facts=facts)


def begin(origin: Origin, model: Recommender, train: UserItemMatrix, interactions: Interactions) -> Beginning:
    """Find what a fit begins with.

    Parameters
    ----------
    origin : Earlier or PretrainedEncoder
        The model to go on from, or whose encoder is taken over.
    model : Recommender
        To be fitted, from its `create`.
    train : UserItemMatrix
        What it is fitted on.
    interactions : Interactions
        The whole table that `train` is a part of.

    Returns
    -------
    Beginning

    Raises
    ------
    DataError
        If the earlier model knows none of the items.
    """
    start = origin.start(model, train)
    (facts,) = origin.record(train).values()
    known = f"{facts['known_items']:,} of {len(train.items):,} items are known to the model to start from"
    if isinstance(origin, PretrainedEncoder):
        layers = sorted({name.split(".")[2] for name in start.state} if start else ())
        return Beginning(start, f"{known}; layers that begin with its weights: {', '.join(layers)}.")
    if facts["items_left_out"]:
        known += f", and {facts['items_left_out']:,} of its own are gone"
    if start is not None:
        fresh = "; new ones begin like the items they are taken with" if facts["new_items"] else ""
        return Beginning(start, f"{known}{fresh}.")
    if not isinstance(model, ClosedForm):
        return Beginning(None, f"{known}, but a fit of {model.name} begins with nothing: fitted in full.")
    found = _gram(origin.trained, model, train, interactions)
    if isinstance(found, str):
        return Beginning(None, f"{known}; fitted in full, because {found}.")
    return Beginning(found, f"{known}; exact: the Gram matrix of the earlier fit and the rows that are new.")


def _gram(
    earlier: TrainedModel, model: ClosedForm[Any], train: UserItemMatrix, interactions: Interactions
) -> WarmStart | str:
    """A start with the Gram matrix of `train`, or the reason why there is none."""
    kept = earlier.model.gram if isinstance(earlier.model, ClosedForm) else None
    if kept is None:
        return "the earlier fit did not keep its Gram matrix (keep_gram)"
    if not model.sums_rows:
        return "with user_power above 0, or with item features, a new row changes the weight of all others"
    before = earlier_training(earlier, interactions)
    if before is None:
        return "the first of these ratings are not those of the earlier fit, so that the new ones cannot be told"
    if not _is_of(kept.numpy(), earlier.items, before):
        return "the kept Gram matrix is not that of these ratings"
    gram = _placed(kept.numpy(), earlier.items.positions(train.items.ids))
    return WarmStart({"gram": update_gram(gram, *_aligned(before, train))})


def earlier_training(trained: TrainedModel, interactions: Interactions) -> UserItemMatrix | None:
    """Find the training matrix of a model in later ratings.

    Parameters
    ----------
    trained : TrainedModel
        Its record says when its last rating was, how many it had, their fingerprint, and how they were split.
    interactions : Interactions
        Later ratings.

    Returns
    -------
    UserItemMatrix or None
        None where no first part of the ratings has the fingerprint.
    """
    about = trained.about
    facts, split, seed = (about.get(name) for name in ("data", "split", "seed"))
    if not (isinstance(facts, Mapping) and isinstance(split, Mapping) and isinstance(seed, int)):
        return None
    task, share = TASKS[trained.model.task], split.get("held_out")
    if not isinstance(share, float | int) or isinstance(share, bool):
        return None
    for rows in _first_parts(interactions, facts):
        part = interactions if rows.all() else take_rows(interactions, rows)
        if part.fingerprint() == facts.get("fingerprint"):
            if split.get("refit") or not share:
                return splitting.everybody(part, task.ratings).train
            return task.validation_split(part, trained.model, share, seed).train
    return None


def _first_parts(interactions: Interactions, facts: Mapping[str, Any]) -> Iterator[NDArray[np.bool_]]:
    """Masks of the rows that may be those of an earlier table: the first in time, the first of the source."""
    times, count = facts.get("time"), facts.get("rows")
    if interactions.timestamp is not None and isinstance(times, list) and len(times) == 2:
        last = pd.to_datetime(str(times[1]), errors="coerce")
        if last is not pd.NaT:
            yield interactions.timestamp < last.value // 1_000_000 + 1000  # the record holds whole seconds
    if isinstance(count, int) and 0 < count <= len(interactions):
        first = np.zeros(len(interactions), dtype=bool)
        order = np.arange(len(interactions)) if interactions.row is None else np.argsort(interactions.row)
        first[order[:count]] = True
        yield first


def take_rows(interactions: Interactions, rows: NDArray[np.bool_]) -> Interactions:
    """Return some of the rows, as if the others had never been there: users and items without rows are gone."""
    users, user = np.unique(interactions.user[rows], return_inverse=True)
    items, item = np.unique(interactions.item[rows], return_inverse=True)

    def part(column: NDArray[Any] | None) -> Any:
        return None if column is None else column[rows]

    return Interactions(
        Vocabulary(interactions.users.take(users)),
        Vocabulary(interactions.items.take(items)),
        user.astype(np.int32),
        item.astype(np.int32),
        part(interactions.rating),
        part(interactions.timestamp),
        policies=interactions.policies,
    )


def _is_of(gram: NDArray[np.float32], items: Vocabulary, before: UserItemMatrix) -> bool:
    """Whether the row sums of a Gram matrix, and its diagonal, are those of a matrix of ones."""
    place = items.positions(before.items.ids)
    if (place < 0).any():
        return False
    counts, sums = np.zeros(len(items)), np.zeros(len(items))
    counts[place] = before.item_counts
    sums[place] = before.matrix.T @ np.diff(before.matrix.indptr).astype(np.float64)
    return np.array_equal(gram.diagonal(), counts) and np.array_equal(gram.sum(axis=1, dtype=np.float64), sums)


def _aligned(before: UserItemMatrix, after: UserItemMatrix) -> tuple[csr_matrix, csr_matrix]:
    """Both matrices over the users of both and the items of the later one."""
    column = after.items.positions(before.items.ids)
    row = after.users.positions(before.users.ids).copy()
    gone = row < 0
    row[gone] = len(after.users) + np.arange(int(gone.sum()))
    shape = len(after.users) + int(gone.sum()), len(after.items)
    cells = before.matrix.tocoo()
    kept = column[cells.col] >= 0
    placed = (cells.data[kept], (row[cells.row[kept]], column[cells.col[kept]]))
    indptr = np.pad(after.matrix.indptr, (0, int(gone.sum())), mode="edge")
    later = csr_matrix((after.matrix.data, after.matrix.indices, indptr), shape=shape)
    return csr_matrix(placed, shape=shape), later


def _placed(gram: NDArray[np.float32], source: NDArray[Any]) -> Tensor:
    """A Gram matrix over other items: `source` is the old position of each, -1 for new ones, whose sums are 0."""
    known = np.flatnonzero(source >= 0)
    placed = np.zeros((len(source), len(source)), dtype=np.float32)
    placed[np.ix_(known, known)] = gram[np.ix_(source[known], source[known])]
    return torch.as_tensor(placed)
