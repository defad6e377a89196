"""ALS, BPR and LMF: matrix factorization by the `implicit` package, behind our protocol.

`implicit` fits; the rest is ours: it gets a csr_matrix with int32 indices, one BLAS thread while it works, and never
cuts a list. ALS folds new histories in; BPR and LMF know only the users they were trained on and say so. All are
reproducible under a seed (BPR and LMF by using one thread).
"""

from __future__ import annotations

import copy
import importlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.errors import ConfigError, UnsupportedError
from recsys.models.base import ConfigT, Recommender
from recsys.models.config import require
from recsys.models.contributions import folded_in
from recsys.models.embeddings import Embeddings
from recsys.models.factorization.factors import Factors
from recsys.models.factorization.known_users import KnownUsers
from recsys.models.factorization.scaled import ScaledFactorization, scaled_weights
from recsys.models.recency import RecencyWeighted, check_half_life
from recsys.models.search_space import Range, tunable
from recsys.models.state import USERS, StateSpec, TensorSpec
from recsys.system.packages import missing_package
from recsys.training.context import TrainingContext


@dataclass(frozen=True)
class ALSConfig:
    """Settings of implicit ALS: an observed cell weighs alpha times its value, every other cell weighs 1."""

    factors: int = tunable(128, Range(16, 256, log=True))
    # None: scaled with the data, see scaled_weights
    alpha: float | None = tunable(None, Range(1.0, 50.0, log=True))
    l2: float | None = tunable(None, Range(0.1, 300.0, log=True))
    iterations: int = tunable(15, Range(5, 30))
    half_life: float | None = None  # of an item of a history that is scored, in later items; None: all weigh alike

    def __post_init__(self) -> None:
        _check_factors(self.factors, self.l2, self.iterations)
        require(self.alpha is None or self.alpha > 0, f"Expected alpha above 0, found {self.alpha}.")
        check_half_life(self.half_life)


@dataclass(frozen=True)
class BPRConfig:
    """Settings of Bayesian personalized ranking."""

    factors: int = tunable(128, Range(16, 256, log=True))
    l2: float = tunable(0.01, Range(1e-4, 0.1, log=True))
    learning_rate: float = tunable(0.01, Range(1e-3, 0.1, log=True))
    iterations: int = tunable(100, Range(50, 300, log=True))

    def __post_init__(self) -> None:
        _check_factors(self.factors, self.l2, self.iterations)
        require(self.learning_rate > 0, f"Expected learning_rate above 0, found {self.learning_rate}.")


@dataclass(frozen=True)
class LMFConfig:
    """Settings of logistic matrix factorization."""

    factors: int = tunable(30, Range(8, 128, log=True))
    l2: float = tunable(0.6, Range(0.01, 10.0, log=True))
    learning_rate: float = tunable(1.0, Range(0.1, 3.0, log=True))
    iterations: int = tunable(30, Range(10, 60))
    negatives: int = 30  # negatives drawn for each positive

    def __post_init__(self) -> None:
        _check_factors(self.factors, self.l2, self.iterations)
        require(self.learning_rate > 0, f"Expected learning_rate above 0, found {self.learning_rate}.")
        require(self.negatives >= 1, f"Expected negatives of at least 1, found {self.negatives}.")


def _check_factors(factors: int, l2: float | None, iterations: int) -> None:
    require(factors >= 1, f"Expected factors of at least 1, found {factors}.")
    require(l2 is None or l2 >= 0, f"Expected l2 of 0 or more, found {l2}.")
    require(iterations >= 1, f"Expected iterations of at least 1, found {iterations}.")


class ALS(RecencyWeighted[ALSConfig], ScaledFactorization[ALSConfig]):
    """Alternating least squares; a history is folded in by solving for its factors.

    Hu, Koren, Volinsky: Collaborative Filtering for Implicit Feedback Datasets, ICDM 2008, equations 4 and 5.
    """

    name = "als"
    family = "matrix factorization"
    size_setting = "factors"
    Config = ALSConfig
    explained_by = "closed form"

    scalable = ("alpha", "l2")

    alpha: float  # the values in use, given or scaled
    l2: float
    _solver: Any = None  # made at the first history, so that a model can be loaded without implicit

    def scaled_config(self, user_items: csr_matrix) -> ALSConfig:
        """Return the config with alpha and l2 scaled with the data where they are None."""
        alpha, l2 = scaled_weights(user_items, self.config.alpha)
        return replace(self.config, alpha=alpha, l2=l2 if self.config.l2 is None else self.config.l2)

    def _fit(self, matrix: csr_matrix, context: TrainingContext) -> None:
        scaled = self.scaled_config(matrix)
        assert scaled.alpha is not None and scaled.l2 is not None
        self.alpha, self.l2 = scaled.alpha, scaled.l2
        with _one_blas_thread():
            model = self._model(self.config.factors, context.seed)
            _begin(model, matrix.shape[0], context)
            factors = Factors(model, matrix.shape)
            context.checkpoints.keep(factors=factors)
            context.checkpoints.restore()
            _fit_with_implicit(model, matrix, context.planned(self.config.iterations), context, factors)
        self.item_factors = torch.as_tensor(np.array(model.item_factors))
        self._solver = None
        self._known = KnownUsers.of(self._scored_alike(matrix), self._solve, self.config.factors)

    def _model(self, factors: int, seed: int) -> Any:
        return _implicit("als").AlternatingLeastSquares(
            factors=factors,
            regularization=self.l2,
            alpha=self.alpha,
            iterations=self.config.iterations,
            random_state=seed,
            num_threads=0,  # as many as OpenMP would take: the processors allowed, or OMP_NUM_THREADS
        )

    def _fold_in(self, history: csr_matrix) -> Tensor:
        return self._known.factors_of(history, self._solve)

    def _solve(self, history: csr_matrix) -> Tensor:
        with _one_blas_thread():
            model = copy.copy(self._prepared())  # the number of threads is set for this call alone
            model.num_threads = torch.get_num_threads()  # 1 where many workers run side by side
            try:
                user_factors = model.recalculate_user(np.arange(history.shape[0]), history)
            except ValueError as error:  # of LAPACK
                raise np.linalg.LinAlgError(str(error)) from error
        return torch.as_tensor(user_factors)

    def _prepared(self) -> Any:
        """The item side of the solve with its Gram matrix: the same for every history."""
        if self._solver is None:
            model = self._model(self.item_factors.shape[1], 0)
            model.item_factors = self.item_factors.numpy()
            assert model.YtY is not None  # computed once when asked for, then kept
            self._solver = model  # complete before other threads can see it
        return self._solver

    def _score(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Tensor:
        return self._fold_in(history) @ self.item_factors.T

    def _score_blocks(self, history: csr_matrix, users: NDArray[np.int64] | None, width: int) -> Iterator[Tensor]:
        user_factors = self._fold_in(history)
        return (user_factors @ factors.T for factors in torch.split(self.item_factors, width))

    def _contributions(self, history: csr_matrix, items: NDArray[np.int64]) -> Tensor:
        table = self.item_factors
        confidence = self.alpha * torch.as_tensor(history.data).double()
        ridge = torch.as_tensor(self._prepared().YtY).double()
        ridge = ridge + self.l2 * torch.eye(len(ridge), dtype=ridge.dtype)
        return folded_in(table, history, confidence, confidence - 1, ridge) @ table[torch.as_tensor(items)].double().T

    def _embed_users(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Embeddings:
        return Embeddings(self._fold_in(history))

    def _user_scoring_vectors(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Tensor:
        return self._fold_in(history)

    def _embed_items(self) -> Tensor:
        return self.item_factors

    def _item_scoring_vectors(self) -> Tensor:
        return self.item_factors

    def _get_state(self) -> dict[str, Tensor]:
        return {"item_factors": self.item_factors} | self._scaled_state() | self._known.get_state()

    def _set_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        self.item_factors = state["item_factors"]
        self._set_scaled(state)
        self._solver = None
        self._known = KnownUsers.from_state(state, self.config.factors, device)

    def _state_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        own = StateSpec({"item_factors": TensorSpec((n_items, self.config.factors))} | self._scaled_spec())
        return own | KnownUsers.spec(state, self.config.factors)

    def _start_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        return StateSpec({"item_factors": TensorSpec((n_items, self.config.factors))})


class _KnownUsersFactorization(Recommender[ConfigT]):
    """Factors of the training users and of the items; their products are the scores."""

    needs_training_users = True
    explained_by = "none"

    def _fit(self, matrix: csr_matrix, context: TrainingContext) -> None:
        with _one_blas_thread():
            model = self._model(context.seed)
            _begin(model, matrix.shape[0], context)
            _fit_with_implicit(model, matrix, context.planned(model.iterations), context)
        self.user_factors = torch.as_tensor(np.array(model.user_factors))
        self.item_factors = torch.as_tensor(np.array(model.item_factors))

    @abstractmethod
    def _model(self, seed: int) -> Any: ...

    @property
    def n_users(self) -> int | None:
        """Number of users it was trained on; None before the fit."""
        return None if self.n_items is None else len(self.user_factors)

    def _factors_of(self, users: NDArray[np.int64] | None) -> Tensor:
        assert users is not None  # score() checked it
        if len(users) and users.max() >= len(self.user_factors):
            raise UnsupportedError(
                f"{self.name} was trained on {len(self.user_factors)} users, found user {users.max()}: "
                "positions are rows of the training matrix."
            )
        return self.user_factors[torch.as_tensor(users)]

    def _score(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Tensor:
        return self._factors_of(users) @ self.item_factors.T

    def _score_blocks(self, history: csr_matrix, users: NDArray[np.int64] | None, width: int) -> Iterator[Tensor]:
        user_factors = self._factors_of(users)
        return (user_factors @ factors.T for factors in torch.split(self.item_factors, width))

    def _embed_users(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Embeddings:
        return Embeddings(self._factors_of(users))

    def _embed_items(self) -> Tensor:
        return self.item_factors

    def _user_scoring_vectors(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Tensor:
        return self._factors_of(users)

    def _item_scoring_vectors(self) -> Tensor:
        return self.item_factors

    def _get_state(self) -> dict[str, Tensor]:
        return {"user_factors": self.user_factors, "item_factors": self.item_factors}

    def _set_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        self.user_factors, self.item_factors = state["user_factors"], state["item_factors"]

    def _state_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        users, items = TensorSpec((USERS, "width")), TensorSpec((n_items, "width"))
        return StateSpec({"user_factors": users, "item_factors": items})

    def _start_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        return self._state_spec(n_items, state)


class BPR(_KnownUsersFactorization[BPRConfig]):
    """Bayesian personalized ranking, for training users only.

    Rendle, Freudenthaler, Gantner, Schmidt-Thieme: BPR: Bayesian Personalized Ranking from Implicit Feedback, UAI 2009.
    """

    name = "bpr"
    family = "matrix factorization"
    size_setting = "factors"
    Config = BPRConfig

    def _model(self, seed: int) -> Any:
        config = self.config
        return _implicit("bpr").BayesianPersonalizedRanking(
            factors=config.factors,
            learning_rate=config.learning_rate,
            regularization=config.l2,
            iterations=config.iterations,
            random_state=seed,
            num_threads=1,  # its threads race: only one gives the same factors twice
        )


class LMF(_KnownUsersFactorization[LMFConfig]):
    """Logistic matrix factorization, for training users only.

    Johnson: Logistic Matrix Factorization for Implicit Feedback Data, NIPS workshop 2014.
    """

    name = "lmf"
    family = "matrix factorization"
    size_setting = "factors"
    Config = LMFConfig

    def _model(self, seed: int) -> Any:
        config = self.config
        return _implicit("lmf").LogisticMatrixFactorization(
            factors=config.factors,
            learning_rate=config.learning_rate,
            regularization=config.l2,
            iterations=config.iterations,
            neg_prop=config.negatives,
            random_state=seed,
            num_threads=1,
        )


def _implicit(module: str) -> Any:
    try:
        return importlib.import_module(f"implicit.cpu.{module}")
    except ImportError as error:
        raise missing_package("implicit", "baselines") from error


def _begin(model: Any, users: int, context: TrainingContext) -> None:
    """Set the factors of a warm start; `implicit` draws those that are not set, and ALS solves those of zeros."""
    if context.start is not None:
        for name, table in {"user_factors": torch.zeros(users, model.factors), **context.start.state}.items():
            setattr(model, name, table.numpy().copy())


def _fit_with_implicit(
    model: Any, matrix: csr_matrix, iterations: int, context: TrainingContext, kept: Factors | None = None
) -> None:
    """Fit, or go on with what is `kept`. Generators of `implicit` cannot be kept: with them a fit begins anew."""
    from implicit.recommender_base import ModelFitError

    done = 0 if kept is None else kept.done
    model.iterations = iterations - done
    context.on_phase("iterations", done, iterations)

    def report(iteration: int, *_: Any) -> None:
        context.on_phase("iterations", done + iteration + 1, iterations)
        if kept is not None:
            kept.done = done + iteration + 1
            context.checkpoints.offer()

    try:
        model.fit(matrix, show_progress=False, callback=report)
    except ModelFitError as error:
        raise ConfigError(f"Expected finite factors, implicit says: {error}. Lower learning_rate, raise l2.") from error


def _one_blas_thread() -> Any:
    """Limit BLAS to one thread: `implicit` runs its own threads, and warns where BLAS adds more."""
    _implicit("als")  # loads a BLAS of its own, which the limit must find
    return _loaded_libraries().limit(limits=1, user_api="blas")


@cache
def _loaded_libraries() -> Any:
    """Found once: that takes milliseconds, as long as a small batch of histories."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
