"""What makes the scores of a batch: a model, or the similarity of its items."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.batch.plan import ScoringPlan
from recsys.inference.topn import BLOCK
from recsys.models.trained import TrainedModel
from recsys.training.batches import SparseRows, weighted_sum


class BlockScorer(Protocol):
    """Scores histories in blocks of items: a Recommender, or SimilarItems."""

    def score_blocks(self, history: csr_matrix, users: Any = None, width: int = BLOCK) -> Iterator[Tensor]:
        """Yield scores of shape (rows, at most `width`), of consecutive items each time."""


class SimilarItems:
    """Score items by their similarity to the items of a history.

    Parameters
    ----------
    codes : Tensor, shape (items, factors)
        Embedding of each item. A score is the cosine of two embeddings, summed over the items of the history.
    """

    def __init__(self, codes: Tensor):
        self.codes = torch.nn.functional.normalize(codes.float(), dim=1)

    def score_blocks(self, history: csr_matrix, users: Any = None, width: int = BLOCK) -> Iterator[Tensor]:
        """Yield cosines of shape (rows, at most `width`), of consecutive items each time."""
        wanted = weighted_sum(SparseRows(history, self.codes.device).everything(), self.codes)
        return (wanted @ codes.T for codes in torch.split(self.codes, width))


def block_scorer(saved: TrainedModel, plan: ScoringPlan) -> BlockScorer:
    """Return what makes the scores of a plan: the model, in bfloat16 where asked, or the similarity of its items."""
    if plan.precision == "bf16":
        saved.model.to_bf16()
    return SimilarItems(saved.model.embed_items()) if plan.lists_for == "items" else saved.model
