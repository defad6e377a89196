"""A fit among checkpoints: which one it is, and its result where an earlier process has finished it.

How unfinished fits are kept: recsys.training.checkpoint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.training.context import TrainingContext
from recsys.training.loop import with_epochs, without_epochs

if TYPE_CHECKING:
    from recsys.models.base import Recommender


def take_finished(model: Recommender, matrix: csr_matrix, context: TrainingContext) -> bool:
    """Begin the fit of a model among the checkpoints of its context, and take its result if it is there.

    Parameters
    ----------
    model : Recommender
    matrix : csr_matrix, shape (users, items)
    context : TrainingContext

    Returns
    -------
    bool
        Whether the model is fitted now.

    Raises
    ------
    ArtifactError
        If a checkpoint is there of a fit with other ratings or settings.
    """
    device = context.resolve_device()
    if context.checkpoints.is_on:
        context.checkpoints.begin(_describe(model, matrix, context), context.group, device)
    finished = context.checkpoints.finished()
    if finished is None:
        return False
    state, epochs = without_epochs(finished)
    model.set_state(state, matrix.shape[1], str(device)).epochs = epochs
    return True


def offer_finished(model: Recommender, context: TrainingContext) -> None:
    """Offer the result of a fit to the checkpoints: what comes after it may be interrupted too."""
    if model.is_kept_whole and not context.keep_gram:  # a state has no Gram matrix
        context.checkpoints.offer_finished(lambda: with_epochs(model.get_state(), model.epochs))


def _describe(model: Recommender, matrix: csr_matrix, context: TrainingContext) -> dict[str, Any]:
    """Everything that decides the weights, as plain values."""
    start, features = context.start, context.item_features
    return {
        "model": model.name,
        "settings": asdict(model.config),
        "ratings": _of_matrix(matrix),
        "item_features": None if features is None else _of_matrix(features),
        "start": None if start is None else f"{_digest(map(start.state.get, sorted(start.state)))}, {start.share}",
        "seed": context.seed,
        "precision": context.precision,
        "validated": context.validate is not None,
        "patience": context.patience,
        "stop_after": context.stop_after,
        "processes": context.group.size,
    }


def _of_matrix(matrix: csr_matrix) -> str:
    return f"{matrix.shape[0]} x {matrix.shape[1]}, {_digest((matrix.indptr, matrix.indices, matrix.data))}"


def _digest(arrays: Iterable[Any]) -> str:
    """A checksum of the numbers in some arrays or tensors, the beginning of a sha256."""
    digest = hashlib.sha256()
    for array in arrays:
        plain = array.numpy(force=True) if isinstance(array, Tensor) else array
        digest.update(np.ascontiguousarray(plain).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()[:16]
