"""Blend of models of ratings: a weighted mean of what they predict.

A model named several times is fitted under as many seeds: the mean of five networks is more accurate than any of them,
since their errors differ where ratings are few. The weights are searched on the held-out ratings; predictions stay
within the scale, since the weights are not negative and sum to 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.models.blend import Blend, BlendConfig
from recsys.models.ratings.base import RatingModel


@dataclass(frozen=True)
class RatingBlendConfig(BlendConfig):
    """Members and weights of a blend of models of ratings.

    Parameters
    ----------
    members : str
        Names of models, separated by commas; a model named five times is fitted with five seeds.
    weights : str
        A number for each member, separated by commas; empty: searched on the held-out ratings.
    settings : mapping
        Settings of each member by its name; in `RatingBlend.create` also by dotted names (autorec.hidden=200).
    """

    members: str = "autorec,autorec,autorec,autorec,autorec"


class RatingBlend(Blend, RatingModel[BlendConfig]):
    """Weighted mean of the ratings that several models predict, or one model under several seeds."""

    name = "rating-blend"
    Config = RatingBlendConfig
    task = "rating"
    members: list[RatingModel]  # type: ignore[assignment]  # kinds of this task

    def _measure(self, matrix: csr_matrix) -> Tensor:
        """Ones: all members predict on one scale."""
        return torch.ones(len(self.members))

    def check_new_items(self) -> None:
        """Raise UnsupportedError if a member cannot take new items without being trained again."""
        for member in self.members:
            member.check_new_items()

    def _add_items(self, known: csr_matrix, new: csr_matrix) -> None:
        self.members = [member.with_rated_items(known, new) for member in self.members]
