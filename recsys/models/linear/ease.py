"""Linear autoencoders in closed form: EASE, and EDLAE and its relatives as settings of one formula.

scores = history @ D^damping B D^-damping with B = I - P diag(c) and P = (X' W X + diag(r))^-1, where

    W    weight of a user, (n / mean n)^-user_power: 0 gives equal weight to interactions, 1 to users
    d    popularity of an item, the diagonal of X' W X; D = diag(d / mean d)
    r    ridge of an item, l2 (d / mean d)^item_power + dropout / (1 - dropout) d
    c    max(r, (1 - diagonal) / diag P), which bounds the diagonal of B

With feature_weight above 0, features of the items are further rows of X, and items without interactions are scored by
them (see recsys.models.linear.feature_rows).

Steck: Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019, arXiv:1905.03375 (EASE: l2 alone).
Steck: Autoencoders that don't overfit towards the Identity, NeurIPS 2020 (EDLAE: dropout).
Moon et al.: It's Enough: Relaxing Diagonal Constraints in Linear Autoencoders, SIGIR 2023 (RLAE, RDLAE: diagonal).
Steck: Markov Random Fields for Collaborative Filtering, NeurIPS 2019, arXiv:1910.09645 (item_power, in its words the
columns of X are divided by d^(item_power / 2) before the inverse and multiplied back after it).
Park et al.: Why is Normalization Necessary for Linear Recommenders?, SIGIR 2025 (DAN: user_power and damping).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.errors import ConfigError
from recsys.models.base import ConfigT, Recommender
from recsys.models.config import require
from recsys.models.content.weighing import weighed, weighed_new
from recsys.models.linear.dual import DualWeights, dual_bytes, suits_dual
from recsys.models.linear.feature_rows import FEATURE_L2, FeatureRows, check_feature_settings
from recsys.models.recency import RecencyWeighted, check_half_life
from recsys.models.scaling import weigh_users
from recsys.models.search_space import Range, tunable
from recsys.models.state import StateSpec, TensorSpec
from recsys.system.memory import require_memory
from recsys.training.batches import SparseRows, weighted_sum
from recsys.training.context import TrainingContext

# Rows of the Gram matrix computed at once: bounds the memory of their sparse form.
_BLOCK = 1024
_SILENT = TrainingContext()


@dataclass(frozen=True)
class EASEConfig:
    """Settings of EASE."""

    # added to the diagonal of the Gram matrix; 100 to 1000 for most data
    l2: float = tunable(500.0, Range(10.0, 10_000.0, log=True))
    # of item features, as rows beside users, each item's of length 1; 0: fitted without features
    feature_weight: float = 0.0
    # ridge of the regression that scores items without interactions by their features
    feature_l2: float = tunable(3.0, FEATURE_L2, with_features=True)

    def __post_init__(self) -> None:
        require(self.l2 > 0, f"Expected l2 above 0, found {self.l2}.")
        check_feature_settings(self.feature_weight, self.feature_l2)


@dataclass(frozen=True)
class RidgeConfig:
    """Weights of users and ridge of items, shared by EDLAE and sparse EASE."""

    # ridge of an item of mean popularity
    l2: float = tunable(300.0, Range(10.0, 10_000.0, log=True))
    # share of each history hidden from the input, in expectation
    dropout: float = tunable(0.5, Range(0.0, 0.8))
    item_power: float = 0.0
    # 0.5 was near the best on MovieLens-1M and on Gowalla
    user_power: float = tunable(0.5, Range(0.0, 1.0))

    def __post_init__(self) -> None:
        require(self.l2 > 0, f"Expected l2 above 0, found {self.l2}.")
        require(0 <= self.dropout < 1, f"Expected dropout in [0, 1), found {self.dropout}.")
        require(0 <= self.item_power <= 1, f"Expected item_power from 0 to 1, found {self.item_power}.")
        require(0 <= self.user_power <= 1, f"Expected user_power from 0 to 1, found {self.user_power}.")


@dataclass(frozen=True)
class EDLAEConfig(RidgeConfig):
    """All settings of the formula. With only l2 it is EASE."""

    # the best of a few constants over nine data sets (benchmarks/edlae_defaults.py)
    l2: float = tunable(100.0, Range(10.0, 10_000.0, log=True))
    dropout: float = tunable(0.65, Range(0.0, 0.9))
    diagonal: float = 0.0  # upper bound of an item's weight on itself; above 0 it is RDLAE, with dropout 0 RLAE
    damping: float = 0.0  # lowers the scores of popular items and raises their weight as inputs
    half_life: float | None = None  # of an item of a history that is scored, in later items; None: all weigh alike
    feature_weight: float = 0.0  # of item features, as rows beside users; 0: fitted without features
    # ridge of the regression that scores items without interactions by their features
    feature_l2: float = tunable(3.0, FEATURE_L2, with_features=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.diagonal <= 1, f"Expected diagonal from 0 to 1, found {self.diagonal}.")
        check_half_life(self.half_life)
        check_feature_settings(self.feature_weight, self.feature_l2)
        require(0 <= self.damping <= 1, f"Expected damping from 0 to 1, found {self.damping}.")


class ClosedForm(Recommender[ConfigT]):
    """The common fit. Memory: 4 x items^2 bytes, solved in place; 8 x items^2 on a GPU while it is fitted.

    With at most half as many users as items, and without item features, it is 12 x users^2 bytes instead (see
    recsys.models.linear.dual).

    Attributes
    ----------
    gram : Tensor, float32 (items, items), optional
        The Gram matrix of the fit, on the CPU, where `keep_gram` of its context asked for it.
    """

    family = "linear autoencoder"
    is_random = False
    explained_by = "exact"
    gram: Tensor | None = None
    dual: DualWeights | None = None  # instead of `weights`, with few users
    features: FeatureRows | None = None  # of fits with item features

    @property
    def uses_features(self) -> bool:
        """Whether features have a weight."""
        return self._settings().feature_weight > 0

    def _fit(self, matrix: csr_matrix, context: TrainingContext) -> None:
        device, settings = context.resolve_device(), self._settings()
        given = context.item_features
        self.dual = None
        is_plain = context.start is None and not context.keep_gram and given is None
        if suits_dual(matrix) and is_plain and device.type == "cpu":
            self._fit_dual(matrix, settings, context)
            return
        require_memory(
            self.name,
            closed_form_bytes(matrix.shape[1], device) + context.keep_gram * 4 * matrix.shape[1] ** 2,
            device,
            "sparse-ease or elsa, which need no items x items matrix",
        )
        self.features = None if given is None else FeatureRows.of(matrix, given)
        if context.start is None:
            rows = weigh_users(matrix, settings.user_power)
            rows = self.features.under(rows, settings.feature_weight) if self.features else rows
            gram = gram_matrix(rows, device, context)
        else:
            gram = context.start.state["gram"].to(device, copy=True)
        self.gram = gram.to("cpu", copy=True) if context.keep_gram else None
        self._solve(gram, settings, context)
        if self.features and given is not None:
            rows = weighed(given, self.features.weights)
            new = np.flatnonzero(~self.features.known & (np.diff(rows.indptr) > 0))
            self.weights[:, torch.as_tensor(new, device=device)] = self._new_columns(self.features, rows[new])

    def _solve(self, gram: Tensor, settings: EDLAEConfig, context: TrainingContext) -> None:
        """Turn a Gram matrix into the weights, in place."""
        popularity = relative_popularity(gram.diagonal())
        ridge = ridge_of(gram.diagonal(), settings)
        gram.diagonal().add_(ridge)
        context.on_phase("matrix inverse", 0, 1)
        inverse = _invert(gram, settings.l2)
        context.on_phase("matrix inverse", 1, 1)
        scale = torch.maximum(ridge, (1 - settings.diagonal) / inverse.diagonal())
        self.weights = inverse.mul_(-scale)
        self.weights.diagonal().add_(1)
        if not settings.diagonal:  # rounding errors
            self.weights.fill_diagonal_(0)
        if settings.damping:
            self.weights.mul_(popularity[:, None] ** settings.damping).mul_(popularity**-settings.damping)

    def _new_columns(self, features: FeatureRows, new: csr_matrix) -> Tensor:
        """Weights of the items on new ones with weighed features, (items, new items)."""
        shares = features.shares(new, self._settings().feature_l2, self.name)
        return self.weights @ shares.to(self.weights.device)

    def with_new_items(self, features: csr_matrix) -> Self:
        """Return a copy that knows more items; see `Recommender.with_new_items`."""
        self._require_fitted()
        if self.features is None:
            return super().with_new_items(features)
        new = weighed_new(features, self.features.weights)
        model, items, count = type(self)(self.config), len(self.weights), new.shape[0]
        model.n_items, model.features = items + count, self.features.with_new_items(count)
        model.weights = self.weights.new_zeros(items + count, items + count)
        model.weights[:items, :items] = self.weights
        model.weights[:items, items:] = self._new_columns(self.features, new)
        return model

    def _fit_dual(self, matrix: csr_matrix, settings: EDLAEConfig, context: TrainingContext) -> None:
        require_memory(self.name, dual_bytes(matrix.shape[0]), torch.device("cpu"), "sparse-ease or elsa")
        rows = weigh_users(matrix, settings.user_power)
        squares = torch.as_tensor(np.asarray(rows.multiply(rows).sum(axis=0), dtype=np.float64).ravel())
        ridge, damping = ridge_of(squares, settings).numpy(), relative_popularity(squares) ** settings.damping
        try:
            self.dual = DualWeights.solve(rows, ridge, settings.diagonal, damping.numpy(), context)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            raise _too_weak(settings.l2) from error

    @abstractmethod
    def _settings(self) -> EDLAEConfig:
        """The config in terms of the common formula."""

    def _score(self, history: csr_matrix, users: NDArray[Any] | None) -> Tensor:
        if self.dual is not None:
            return self.dual.scores(history)
        return weighted_sum(SparseRows(history, self.weights.device).everything(), self.weights)

    def _contributions(self, history: csr_matrix, items: NDArray[np.int64]) -> Tensor:
        if self.dual is None:
            return super()._contributions(history, items)
        return self.dual.cells(history.indices.astype(np.int64), items) * torch.as_tensor(history.data)[:, None]

    def _item_weights(self) -> Tensor:
        if self.dual is None:
            return self.weights
        size = 4 * len(self.dual.diagonal) ** 2
        require_memory(self.name, size, torch.device("cpu"), "an embedder, such as svd, whose vectors are short")
        return self.dual.dense()

    def _get_state(self) -> dict[str, Tensor]:
        if self.dual is not None:
            return self.dual.get_state()
        return {"weights": self.weights} | (self.features.get_state() if self.features else {})

    def _set_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        if "weights" in state:
            self.weights, self.dual = state["weights"].to(device), None
            self.features = FeatureRows.from_state(state) if self.uses_features else None
        else:
            self.dual = DualWeights.from_state(state, len(state["diagonal"]))

    def _state_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        if "inverse" in state and not self.uses_features:
            return DualWeights.spec(n_items)
        own = StateSpec({"weights": TensorSpec((n_items, n_items))})
        return own | FeatureRows.spec(n_items, state) if self.uses_features else own

    def _start_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        return StateSpec({"gram": TensorSpec((n_items, n_items))} if "gram" in state else {})

    @property
    def sums_rows(self) -> bool:
        """Whether the Gram matrix is a sum over users, to which further rows can be added."""
        return self._settings().user_power == 0 and not self.uses_features


class EDLAE(RecencyWeighted[EDLAEConfig], ClosedForm[EDLAEConfig]):
    """EDLAE, a linear autoencoder trained to fill in hidden items; RLAE, RDLAE, MRF and DAN by its settings.

    preset=steck2020 and moon2023: settings of the papers for MovieLens-20M.
    """

    name = "edlae"
    Config = EDLAEConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "steck2020": {"l2": 300.0, "dropout": 0.33, "user_power": 0.0},
        "moon2023": {"l2": 1000.0, "dropout": 0.2, "diagonal": 0.6, "user_power": 0.0},
    }

    def _settings(self) -> EDLAEConfig:
        return self.config


class EASE(ClosedForm[EASEConfig]):
    """EASE, a linear autoencoder in closed form: B = I - P diag(P)^-1 with P = (X'X + l2 I)^-1."""

    name = "ease"
    Config = EASEConfig

    def _settings(self) -> EDLAEConfig:
        own = {"feature_weight": self.config.feature_weight, "feature_l2": self.config.feature_l2}
        return EDLAEConfig(l2=self.config.l2, dropout=0, user_power=0, **own)


def closed_form_bytes(items: int, device: torch.device) -> int:
    """Return the bytes that fitting an items x items model takes: one float32 matrix, two on a GPU.

    Parameters
    ----------
    items : int
    device : torch.device

    Returns
    -------
    int
    """
    squares = 1 if device.type == "cpu" else 2
    return 4 * items * (squares * items + 2 * min(items, _BLOCK))


def gram_matrix(matrix: csr_matrix, device: torch.device, context: TrainingContext = _SILENT) -> Tensor:
    """Compute X'X as a dense matrix, a block of rows at a time.

    Parameters
    ----------
    matrix : csr_matrix, shape (users, items)
    device : torch.device
    context : TrainingContext
        Its `on_phase` is called after every block.

    Returns
    -------
    Tensor
        Float32 (items, items), on the device.
    """
    items = matrix.shape[1]
    gram = torch.empty(items, items, device=device)
    columns = matrix.T.tocsr()
    for start in range(0, items, _BLOCK):
        context.on_phase("Gram matrix", start, items)
        rows = slice(start, start + _BLOCK)
        gram[rows] = torch.as_tensor((columns[rows] @ matrix).toarray(), device=device)
    context.on_phase("Gram matrix", items, items)
    return gram


def update_gram(gram: Tensor, before: csr_matrix, after: csr_matrix) -> Tensor:
    """Turn before'before into after'after by the rows that differ.

    With D = after - before it is before'before + D'after + before'D. Sums of products of whole numbers below 2^24 are
    exact in float32, so for histories of ones the result is equal to `gram_matrix(after)`, bit by bit.

    Parameters
    ----------
    gram : Tensor, float32 (items, items)
        before'before, on the CPU; changed in place.
    before, after : csr_matrix, shape (users, items)
        The same users and items in the same places.

    Returns
    -------
    Tensor
        `gram`.
    """
    change = csr_matrix(after - before)
    change.eliminate_zeros()
    rows = np.flatnonzero(np.diff(change.indptr))
    change, old, new = change[rows], before[rows], after[rows]
    changed, olden = change.T.tocsr(), old.T.tocsr()
    for start in range(0, len(gram), _BLOCK):
        block = slice(start, start + _BLOCK)
        gram[block] += torch.as_tensor((changed[block] @ new + olden[block] @ change).toarray())
    return gram


def ridge_of(popularity: Tensor, settings: RidgeConfig) -> Tensor:
    """Return the ridge added to the diagonal of the Gram matrix, (items,), given the popularity of the items."""
    dropped = settings.dropout / (1 - settings.dropout) * popularity
    return settings.l2 * relative_popularity(popularity) ** settings.item_power + dropped


def relative_popularity(popularity: Tensor) -> Tensor:
    """Return popularity over its mean among items with interactions; items without any get the smallest of those."""
    known = popularity[popularity > 0]
    if not len(known):  # values so small that their squares are 0
        return torch.ones_like(popularity)
    return popularity.clamp_min(known.min()) / known.mean()


def _invert(gram: Tensor, l2: float) -> Tensor:
    """The inverse of a symmetric matrix, in place."""
    columns = gram.mT  # column-major as LAPACK wants it: no copy
    try:
        torch.linalg.cholesky(columns, out=columns)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise _too_weak(l2) from error
    torch.cholesky_inverse(columns, out=columns)
    return gram


def _too_weak(l2: float) -> ConfigError:
    return ConfigError(f"Expected an l2 that keeps the matrix solvable, found {l2}: raise it.")
