"""RatingRecommender: what all models of ratings share, and the two simplest of them.

A rating is a baseline (mean + bias of the item + bias of the user) plus what personal taste adds. The baseline is
subtracted here before a model is fitted and added back when it predicts. Predictions stay within the scale of the
training ratings.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor
from typing_extensions import TypeVar

from recsys.data.matrix import as_csr
from recsys.errors import DataError, UnsupportedError
from recsys.models.base import ConfigT, Recommender
from recsys.models.config import require
from recsys.models.embeddings import Embeddings, unit_rows
from recsys.models.ratings.baseline import Baseline
from recsys.models.search_space import Range, tunable
from recsys.models.state import StateSpec
from recsys.training.batches import SparseBatch, SparseRows, weighted_sum
from recsys.training.context import TrainingContext

_NUMBERS = 32_000_000  # numbers held at once by fold_in (128 MB)
_SHARED = 10_000  # largest number of items whose products with each other are held (400 MB)


@dataclass(frozen=True)
class RatingConfig:
    """The settings of all models of ratings that subtract biases."""

    # a bias is a sum of residuals over their number plus this shrinkage
    user_shrinkage: float = tunable(5.0, Range(0.5, 50.0, log=True))
    item_shrinkage: float = tunable(5.0, Range(0.5, 50.0, log=True))

    def __post_init__(self) -> None:
        for name in ("user_shrinkage", "item_shrinkage"):
            require(getattr(self, name) >= 0, f"Expected {name} of 0 or more, found {getattr(self, name)}.")


RatingConfigT = TypeVar("RatingConfigT", bound=RatingConfig, default=Any)


class RatingModel(Recommender[ConfigT]):
    """A model of the rating task: `score` predicts ratings on the scale of the training data."""

    task = "rating"

    def with_rated_items(self, histories: csr_matrix, ratings: csr_matrix) -> Self:
        """Return a copy of the model that knows more items, without training again.

        Parameters
        ----------
        histories : csr_matrix, shape (users, items)
            Ratings of known items by any users.
        ratings : csr_matrix, shape (users, new items)
            Ratings of the new items by the same users; at least one of every new item.

        Returns
        -------
        Self
            The new items follow the others. The copy scores and is saved like any model.

        Raises
        ------
        UnsupportedError
            If the model cannot take new items.
        DataError
            If the matrices do not match, hold NaN or infinity, or a new item has no rating.
        """
        self.check_new_items()
        known, _ = self._checked(histories, None)
        new = as_csr(ratings)
        if new.shape[0] != known.shape[0]:
            raise DataError(f"Expected a row of ratings for each of {known.shape[0]} histories, found {new.shape[0]}.")
        if not np.isfinite(new.data).all():
            raise DataError("Expected finite ratings of new items, found NaN or infinity: remove those.")
        unrated = new.shape[1] - len(np.unique(new.indices))
        if unrated:
            raise DataError(f"Expected a rating of every new item, found none of {unrated:,}: remove those items.")
        raters = np.flatnonzero(np.diff(new.indptr))
        model = copy(self)
        model.n_items = known.shape[1] + new.shape[1]
        with torch.no_grad():
            model._add_items(known[raters], new[raters])
        return model

    @abstractmethod
    def _add_items(self, known: csr_matrix, new: csr_matrix) -> None:
        """Learn the items of `new` (users, new items), from users with these ratings of known items."""

    @abstractmethod
    def check_new_items(self) -> None:
        """Raise UnsupportedError if the model cannot take new items without being trained again."""


class RatingRecommender(RatingModel[RatingConfigT]):
    """A model of ratings, zeros and negative ones included, that subtracts a baseline of biases.

    A subclass implements `_learn`, which finds `self.baseline` fitted, `_rate`, and its weights: `_get_weights`,
    `_set_weights` and `_weights_spec`.
    """

    baseline: Baseline

    def _fit(self, matrix: csr_matrix, context: TrainingContext) -> None:
        self.baseline = self._make_baseline(matrix, context.resolve_device())
        self._learn(matrix, context)

    def _make_baseline(self, matrix: csr_matrix, device: torch.device) -> Baseline:
        return Baseline.fit(matrix, self.config.user_shrinkage, self.config.item_shrinkage, device)

    def _score(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Tensor:
        ratings = SparseRows(history, self.baseline.mean.device).everything()
        return self._rate(ratings)

    def _embed_users(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Embeddings:
        return self._embed_ratings(SparseRows(history, self.baseline.mean.device).everything())

    def _get_state(self) -> dict[str, Tensor]:
        return {f"baseline.{name}": tensor for name, tensor in vars(self.baseline).items()} | self._get_weights()

    def _set_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        own = {name: tensor.to(device) for name, tensor in state.items()}
        self.baseline = Baseline(**{name[9:]: own.pop(name) for name in state if name.startswith("baseline.")})
        self._set_weights(own)

    def _state_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        return Baseline.state_spec(n_items).prefixed("baseline.") | self._weights_spec(n_items, state)

    def _add_items(self, known: csr_matrix, new: csr_matrix) -> None:
        device = self.baseline.mean.device
        residuals, users = self.baseline.split(SparseRows(known, device).everything())
        rows = SparseRows(csr_matrix(new.T), device).everything()
        rest = SparseBatch(rows.items, rows.values - self.baseline.mean - users[rows.items], rows.offsets)
        self.baseline, left = self.baseline.with_items(rest, self.config.item_shrinkage)
        self._add_codes(residuals, left)

    def check_new_items(self) -> None:
        """Raise UnsupportedError if the model cannot take new items without being trained again."""
        raise UnsupportedError(
            f"{self.name} cannot represent an item by a bias and a code alone, so new items cannot be added: train it "
            "again with them, or use biases, biased-mf or a rating autoencoder by items (side=item)."
        )

    def _add_codes(self, known: SparseBatch, new: SparseBatch) -> None:
        """Append codes of new items, from residuals of their raters: known (users, items), new (new items, users).

        Ridge regression of `new` on the weights of the users, who are folded in first.
        """

    @abstractmethod
    def _learn(self, matrix: csr_matrix, context: TrainingContext) -> None: ...

    @abstractmethod
    def _rate(self, ratings: SparseBatch) -> Tensor:
        """Predict ratings of all items (rows, items), within the scale, in new memory, from the users' `ratings`."""

    def _embed_ratings(self, ratings: SparseBatch) -> Embeddings:
        """The embeddings of users with these ratings; by default the residuals times the unit vectors of the items."""
        weights = self._item_weights()
        residuals, _ = self.baseline.split(ratings)
        vectors = unit_rows(self._embed_items() if weights is None else weights)
        assert isinstance(vectors, Tensor)  # no model of ratings has sparse weights
        return Embeddings(weighted_sum(residuals, vectors))

    def _get_weights(self) -> dict[str, Tensor]:
        return {}

    def _set_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Take what `_get_weights` returned, on the right device."""

    def _weights_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        """Declare what `_get_weights` returns."""
        return StateSpec()


def rate_by_codes(baseline: Baseline, codes: Tensor, l2: Tensor, ratings: SparseBatch) -> Tensor:
    """Predict ratings (rows, items) of users folded in on item codes (items, width) with l2 (rows,)."""
    residuals, users = baseline.split(ratings)
    weights = fold_in(residuals, codes, l2)
    return baseline.join(weights @ codes.T, users)


def fold_in(residuals: SparseBatch, codes: Tensor, l2: Tensor) -> Tensor:
    """Fold users in: ridge regression of their residuals on the codes of the items they rated.

    Solves min_w sum_i (residual_i - w . code_i)^2 + l2 |w|^2 exactly, in blocks of users with similar numbers of
    ratings; short histories in the dual form, long ones in the primal form.

    Parameters
    ----------
    residuals : SparseBatch, shape (rows, items)
    codes : Tensor, shape (items, width)
    l2 : Tensor, shape (rows,)
        Above 0.

    Returns
    -------
    Tensor, shape (rows, width)
    """
    lengths = residuals.lengths
    order = lengths.argsort(stable=True)
    weights = torch.zeros(len(residuals), codes.shape[1], device=codes.device)
    # Products of all pairs of items are computed once if the users together would need more of them.
    shared = len(codes) <= _SHARED and int(lengths.clamp_max(codes.shape[1]).square().sum()) > len(codes) ** 2
    products = codes @ codes.T if shared else None
    for rows in _blocks(order, lengths[order], codes.shape[1]):
        items, targets = _padded(residuals, rows)
        weights[rows] = _ridge(items, targets, codes, products, l2[rows])
    return weights


def _blocks(order: Tensor, lengths: Tensor, width: int) -> Iterator[Tensor]:
    """Rows in blocks of similar length, from short to long, that need at most _NUMBERS numbers each."""
    sizes, start = lengths.tolist(), int((lengths == 0).sum())
    while start < len(sizes):
        stop = start + 1
        while stop < len(sizes) and sizes[stop] <= 1.2 * sizes[start] + 4:
            size = sizes[stop]
            if (stop + 1 - start) * (size * width + min(size, width) ** 2) > _NUMBERS:
                break
            stop += 1
        yield order[start:stop]
        start = stop


def _padded(residuals: SparseBatch, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Items (rows, longest), -1 after the end of a row, and residuals, 0 there."""
    lengths = residuals.lengths[rows]
    place = torch.arange(int(lengths.max()), device=rows.device)
    here = place < lengths[:, None]
    cells = (residuals.offsets[rows][:, None] + place).clamp_max(len(residuals.items) - 1)
    return residuals.items[cells].masked_fill(~here, -1), residuals.values[cells] * here


def _ridge(items: Tensor, targets: Tensor, codes: Tensor, products: Tensor | None, l2: Tensor) -> Tensor:
    """Weights (rows, width) from padded items and targets (rows, n), and l2 (rows,)."""
    here = items >= 0
    inputs = codes[items.clamp_min(0)] * here[..., None]  # (rows, n, width)
    dual = items.shape[1] < codes.shape[1]
    if not dual:
        gram = inputs.mT @ inputs
    elif products is None:
        gram = inputs @ inputs.mT
    else:
        gram = products[items[:, :, None], items[:, None, :]] * (here[:, :, None] & here[:, None, :])
    gram.diagonal(dim1=1, dim2=2).add_(l2[:, None])
    right = targets if dual else torch.einsum("rnw,rn->rw", inputs, targets)
    solved = torch.cholesky_solve(right[..., None], torch.linalg.cholesky(gram))[..., 0]
    return torch.einsum("rnw,rn->rw", inputs, solved) if dual else solved


@dataclass(frozen=True)
class GlobalMeanConfig:
    """No settings."""


class GlobalMean(RatingRecommender):
    """The mean of all ratings, for all users and items."""

    name = "global-mean"
    family = "baseline"
    Config = GlobalMeanConfig
    is_random = False
    explained_by = "none"

    def _make_baseline(self, matrix: csr_matrix, device: torch.device) -> Baseline:
        return Baseline.fit(matrix, np.inf, np.inf, device)

    def _learn(self, matrix: csr_matrix, context: TrainingContext) -> None:
        """Nothing beyond the baseline."""

    def _rate(self, ratings: SparseBatch) -> Tensor:
        return self.baseline.mean.repeat(len(ratings), len(self.baseline.items))


class Biases(RatingRecommender[RatingConfig]):
    """Mean + bias of the item + bias of the user; the non-personalized baseline of ratings.

    Koren: Factorization Meets the Neighborhood, KDD 2008, equation 1.
    """

    name = "biases"
    family = "baseline"
    Config = RatingConfig
    is_random = False

    def check_new_items(self) -> None:
        """A bias is all an item needs."""

    def _learn(self, matrix: csr_matrix, context: TrainingContext) -> None:
        """Nothing beyond the baseline."""

    def _rate(self, ratings: SparseBatch) -> Tensor:
        _, users = self.baseline.split(ratings)
        return self.baseline.join(torch.zeros((), device=users.device), users)
