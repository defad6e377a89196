"""RatingRecommender: what all models of ratings share, and the two plainest of them.

A rating is what one could say without knowing the person's taste (mean + bias of the item + bias of the user) and what
taste adds to it. The first is taken out here before a model learns and put back when it predicts; what a model predicts
lies within the scale of the ratings it learned from.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.data.matrix import as_csr
from recsys.errors import DataError, UnsupportedError
from recsys.models.base import Recommender
from recsys.models.config import require
from recsys.models.search_space import Range, tunable
from recsys.training.batches import SparseBatch, SparseRows
from recsys.training.context import TrainingContext

_ROUNDS = 10  # of biases fitted in turn: they move by less than .001 after that
_NUMBERS = 32_000_000  # held at once by fold_in (128 MB)
_EDGE = 0.002  # share of the scale at each end that holds all predictions beyond it
_SHARED = 10_000  # items whose products with each other are held (400 MB)


@dataclass(frozen=True)
class RatingConfig:
    """The settings of all models of ratings that take biases out."""

    # a bias is a mean over so many more ratings, all of them exactly as expected
    user_shrinkage: float = tunable(5.0, Range(0.5, 50.0, log=True))
    item_shrinkage: float = tunable(5.0, Range(0.5, 50.0, log=True))

    def __post_init__(self) -> None:
        for name in ("user_shrinkage", "item_shrinkage"):
            require(getattr(self, name) >= 0, f"Expected {name} of 0 or more, found {getattr(self, name)}.")


@dataclass(frozen=True)
class Baseline:
    """Rating without taste: mean + item bias (items,) + user bias, which is worked out from a history, so of anybody.

    lowest, highest: the scale.
    """

    mean: Tensor
    items: Tensor
    lowest: Tensor
    highest: Tensor
    user_shrinkage: Tensor

    @classmethod
    def fit(cls, matrix: csr_matrix, user_shrinkage: float, item_shrinkage: float, device: torch.device) -> Baseline:
        """From CSR (users, items) of ratings, by turns."""
        rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
        mean = matrix.data.mean(dtype=np.float64)
        rest = matrix.data - mean
        users, items = np.zeros(matrix.shape[0]), np.zeros(matrix.shape[1])
        for _ in range(_ROUNDS):
            users = _shrunken_means(rest - items[matrix.indices], rows, len(users), user_shrinkage)
            items = _shrunken_means(rest - users[rows], matrix.indices, len(items), item_shrinkage)
        numbers = (mean, items, matrix.data.min(), matrix.data.max(), user_shrinkage)
        return cls(*(torch.as_tensor(number, dtype=torch.float32, device=device) for number in numbers))

    def split(self, ratings: SparseBatch) -> tuple[SparseBatch, Tensor]:
        """What is left of ratings (rows, items), and the biases of their users (rows,)."""
        rest = ratings.values - self.mean - self.items[ratings.items]
        users = ratings.row_sums(rest) / (ratings.lengths + self.user_shrinkage).clamp_min(1e-12)
        rest = rest - users.repeat_interleave(ratings.lengths, output_size=len(rest))
        return SparseBatch(ratings.items, rest, ratings.offsets), users

    def split_matrix(self, matrix: csr_matrix) -> csr_matrix:
        """What is left of a matrix of ratings (users, items), the same cells stored."""
        residuals, _ = self.split(SparseRows(matrix, self.mean.device).everything())
        return csr_matrix((residuals.values.cpu().numpy(), matrix.indices, matrix.indptr), shape=matrix.shape)

    def residual_rows(self, matrix: csr_matrix, transposed: bool) -> SparseRows:
        """The same on the device: rows are users, or items if transposed."""
        rest = self.split_matrix(matrix)
        return SparseRows(csr_matrix(rest.T) if transposed else rest, self.mean.device)

    def with_items(self, rest: SparseBatch, shrinkage: float) -> tuple[Baseline, SparseBatch]:
        """A baseline of more items, (items + new,), and what their biases leave of their ratings.

        rest: rows are new items, cells their ratings less mean and user bias. A bias is a shrunken mean of those.
        """
        biases = rest.row_sums(rest.values) / (rest.lengths + shrinkage).clamp_min(1e-12)
        left = rest.values - biases.repeat_interleave(rest.lengths, output_size=len(rest.values))
        return replace(self, items=torch.cat([self.items, biases])), SparseBatch(rest.items, left, rest.offsets)

    def join(self, taste: Tensor, users: Tensor) -> Tensor:
        """Ratings from what taste adds (rows, items) and biases of users (rows,), within the scale."""
        return self.within(taste + (self.mean + self.items) + users[:, None])

    def within(self, ratings: Tensor) -> Tensor:
        """Ratings in the scale, their order kept: what lies beyond an end is laid into the last _EDGE of the scale.

        A cut would make equals of all a generous person is expected to like; their list would go by position. With the
        width m of that edge and x how far a rating reaches over its beginning, the rest of it is m x / (m + x).
        """
        edge = (self.highest - self.lowest) * _EDGE
        low, high = self.lowest + edge, self.highest - edge
        above, below = (ratings - high).clamp_min_(0), (low - ratings).clamp_min_(0)
        return ratings.clamp(low, high).add_(_part(above, edge)).sub_(_part(below, edge))


def _part(reach: Tensor, edge: Tensor) -> Tensor:
    return reach.mul_(edge / (reach + edge).clamp_min_(1e-12))


def _shrunken_means(values: NDArray[np.float64], groups: NDArray[Any], count: int, more: float) -> NDArray[np.float64]:
    sums, sizes = np.bincount(groups, values, count), np.bincount(groups, minlength=count)
    means: NDArray[np.float64] = sums / np.maximum(sizes + more, 1e-12)
    return means


class RatingRecommender(Recommender):
    """A model of ratings, real zeros and negative ones included: `score` gives ratings, on the scale of training.

    A subclass brings `_learn`, `_rate` and its weights. `fit` has made `self.baseline` before it asks to learn.
    """

    task = "rating"
    baseline: Baseline

    def _fit(self, matrix: csr_matrix, context: TrainingContext) -> None:
        self.baseline = self._make_baseline(matrix, context.resolve_device())
        self._learn(matrix, context)

    def _make_baseline(self, matrix: csr_matrix, device: torch.device) -> Baseline:
        return Baseline.fit(matrix, self.config.user_shrinkage, self.config.item_shrinkage, device)

    def _score(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Tensor:
        ratings = SparseRows(history, self.baseline.mean.device).everything()
        return self._rate(ratings)

    def _get_state(self) -> dict[str, Tensor]:
        return {f"baseline.{name}": tensor for name, tensor in vars(self.baseline).items()} | self._get_weights()

    def _set_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        own = {name: tensor.to(device) for name, tensor in state.items()}
        self.baseline = Baseline(**{name[9:]: own.pop(name) for name in state if name.startswith("baseline.")})
        self._set_weights(own)

    def with_new_items(self, histories: csr_matrix, ratings: csr_matrix) -> Self:
        """A copy that knows more items, from what people gave them, the model's weights standing as they are.

        histories: CSR (users, items) of items the model knows, of anybody; ratings: CSR (users, new items) of the same
        people, of every new item at least one. Positions of new items follow those of the others. The copy scores, and
        is saved, like any model. Raises UnsupportedError for a model that cannot, DataError for matrices that do not
        fit.
        """
        self.check_new_items()
        known, _ = self._checked(histories, None)
        new = as_csr(ratings)
        if new.shape[0] != known.shape[0]:
            raise DataError(f"Expected a row of ratings for each of {known.shape[0]} histories, found {new.shape[0]}.")
        if not np.isfinite(new.data).all():
            raise DataError("Expected finite ratings of new items, found NaN or infinity: leave those out.")
        unrated = new.shape[1] - len(np.unique(new.indices))
        if unrated:
            raise DataError(f"Expected a rating of every new item, found none of {unrated:,}: leave those out.")
        raters = np.flatnonzero(np.diff(new.indptr))
        model = copy(self)
        model.n_items = known.shape[1] + new.shape[1]
        with torch.no_grad():
            model._add_items(known[raters], new[raters])
        return model

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
            f"{self.name} knows an item by more than a bias and a code, so new ones cannot be added: train it again "
            "with them, or use biases, biased-mf or an autoencoder of ratings by items (side=item)."
        )

    def _add_codes(self, known: SparseBatch, new: SparseBatch) -> None:
        """Put codes of new items after the others, from residuals of their raters (people, items), (new items, people).

        Ridge regression of the latter on the weights of the people, who are folded in: what folds people in, turned.
        """

    @abstractmethod
    def _learn(self, matrix: csr_matrix, context: TrainingContext) -> None: ...

    @abstractmethod
    def _rate(self, ratings: SparseBatch) -> Tensor:
        """Ratings of all items (rows, items), in the scale, new memory, for people who gave `ratings`."""

    def _get_weights(self) -> dict[str, Tensor]:
        return {}

    def _set_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Take what `_get_weights` gave, on the right device."""


def rate_by_codes(baseline: Baseline, codes: Tensor, l2: Tensor, ratings: SparseBatch) -> Tensor:
    """Ratings (rows, items) of people folded in on codes of items (items, width) with l2 (rows,)."""
    residuals, users = baseline.split(ratings)
    weights = fold_in(residuals, codes, l2)
    return baseline.join(weights @ codes.T, users)


def fold_in(residuals: SparseBatch, codes: Tensor, l2: Tensor) -> Tensor:
    """Weights (rows, width) of people: ridge regression of their residuals on the codes (items, width) of the items.

    min_w sum_i (residual_i - w . code_i)^2 + l2 |w|^2, l2 (rows,) above 0. Exact, in blocks of people with as many
    ratings each; short histories by the equations of their ratings, long ones by those of the weights.
    """
    lengths = residuals.lengths
    order = lengths.argsort(stable=True)
    weights = torch.zeros(len(residuals), codes.shape[1], device=codes.device)
    # Products of all items with all, once, where people together would ask for more of them than there are.
    shared = len(codes) <= _SHARED and int(lengths.clamp_max(codes.shape[1]).square().sum()) > len(codes) ** 2
    products = codes @ codes.T if shared else None
    for rows in _alike(order, lengths[order], codes.shape[1]):
        items, targets = _padded(residuals, rows)
        weights[rows] = _ridge(items, targets, codes, products, l2[rows])
    return weights


def _alike(order: Tensor, lengths: Tensor, width: int) -> Iterator[Tensor]:
    """Rows in blocks, from short to long, that need at most _NUMBERS numbers when all are as long as the last."""
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
    """Items (rows, longest), -1 where a row has no more, and residuals, 0 there."""
    lengths = residuals.lengths[rows]
    place = torch.arange(int(lengths.max()), device=rows.device)
    here = place < lengths[:, None]
    cells = (residuals.offsets[rows][:, None] + place).clamp_max(len(residuals.items) - 1)
    return residuals.items[cells].masked_fill(~here, -1), residuals.values[cells] * here


def _ridge(items: Tensor, targets: Tensor, codes: Tensor, products: Tensor | None, l2: Tensor) -> Tensor:
    """Weights (rows, width) from items and targets (rows, n), -1 being none, and l2 (rows,)."""
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
    """The mean of all ratings, for everybody and everything."""

    name = "global-mean"
    family = "baseline"
    Config = GlobalMeanConfig
    is_random = False

    def _make_baseline(self, matrix: csr_matrix, device: torch.device) -> Baseline:
        return Baseline.fit(matrix, np.inf, np.inf, device)

    def _learn(self, matrix: csr_matrix, context: TrainingContext) -> None:
        """Nothing more."""

    def _rate(self, ratings: SparseBatch) -> Tensor:
        return self.baseline.mean.repeat(len(ratings), len(self.baseline.items))


class Biases(RatingRecommender):
    """Mean + bias of the item + bias of the user: the floor every model of taste must clear."""

    name = "biases"
    family = "baseline"
    Config = RatingConfig
    is_random = False

    def check_new_items(self) -> None:
        """A bias is all an item needs."""

    def _learn(self, matrix: csr_matrix, context: TrainingContext) -> None:
        """Nothing more."""

    def _rate(self, ratings: SparseBatch) -> Tensor:
        _, users = self.baseline.split(ratings)
        return self.baseline.join(torch.zeros((), device=users.device), users)
