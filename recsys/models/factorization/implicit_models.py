"""Matrix factorization and item neighbors by the `implicit` package, behind our protocol.

`implicit` learns; what happens around it is ours: it gets csr_matrix with int32 indices, one BLAS thread while it
works, and no chance to pad a short list (top_n cuts all lists). ALS and item-knn fold in new histories; BPR and LMF
know only the users they were trained on and say so. All repeat under a seed (BPR and LMF on one thread).
"""

from __future__ import annotations

import copy
import importlib
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.errors import ConfigError, MissingPackageError, UnsupportedError
from recsys.models.base import Recommender
from recsys.models.config import require
from recsys.models.search_space import Choice, Range, tunable
from recsys.training.context import TrainingContext


@dataclass(frozen=True)
class ALSConfig:
    """Implicit ALS: observed cells weigh alpha, all others 1."""

    factors: int = tunable(128, Range(16, 256, log=True))
    alpha: float = tunable(8.0, Range(1.0, 50.0, log=True))
    l2: float = tunable(80.0, Range(0.1, 300.0, log=True))
    iterations: int = tunable(15, Range(5, 30))

    def __post_init__(self) -> None:
        _check_factors(self.factors, self.l2, self.iterations)
        require(self.alpha > 0, f"Expected alpha above 0, found {self.alpha}.")


@dataclass(frozen=True)
class BPRConfig:
    """Bayesian personalized ranking."""

    factors: int = tunable(128, Range(16, 256, log=True))
    l2: float = tunable(0.01, Range(1e-4, 0.1, log=True))
    learning_rate: float = tunable(0.01, Range(1e-3, 0.1, log=True))
    iterations: int = tunable(100, Range(50, 300, log=True))

    def __post_init__(self) -> None:
        _check_factors(self.factors, self.l2, self.iterations)
        require(self.learning_rate > 0, f"Expected learning_rate above 0, found {self.learning_rate}.")


@dataclass(frozen=True)
class LMFConfig:
    """Logistic matrix factorization."""

    factors: int = tunable(30, Range(8, 128, log=True))
    l2: float = tunable(0.6, Range(0.01, 10.0, log=True))
    learning_rate: float = tunable(1.0, Range(0.1, 3.0, log=True))
    iterations: int = tunable(30, Range(10, 60))
    negatives: int = 30  # negatives drawn for each positive

    def __post_init__(self) -> None:
        _check_factors(self.factors, self.l2, self.iterations)
        require(self.learning_rate > 0, f"Expected learning_rate above 0, found {self.learning_rate}.")
        require(self.negatives >= 1, f"Expected negatives of at least 1, found {self.negatives}.")


@dataclass(frozen=True)
class ItemKNNConfig:
    """Neighbors of items."""

    neighbors: int = tunable(100, Range(10, 1000, log=True))
    similarity: Literal["cosine", "tfidf", "bm25"] = tunable("cosine", Choice(("cosine", "tfidf", "bm25")))

    def __post_init__(self) -> None:
        require(self.neighbors >= 1, f"Expected neighbors of at least 1, found {self.neighbors}.")
        require(
            self.similarity in ("cosine", "tfidf", "bm25"),
            f"Expected similarity cosine, tfidf or bm25, found {self.similarity!r}.",
        )


def _check_factors(factors: int, l2: float, iterations: int) -> None:
    require(factors >= 1, f"Expected factors of at least 1, found {factors}.")
    require(l2 >= 0, f"Expected l2 of 0 or more, found {l2}.")
    require(iterations >= 1, f"Expected iterations of at least 1, found {iterations}.")


class ALS(Recommender):
    """Alternating least squares (Hu, Koren, Volinsky 2008). A history is folded in by solving for its factors."""

    name = "als"
    family = "matrix factorization"
    Config = ALSConfig

    _solver: Any = None  # made at the first history, so that a model can be loaded without implicit

    def _fit(self, matrix: csr_matrix, context: TrainingContext) -> None:
        with _one_blas_thread():
            model = self._model(context.seed)
            _learn(model, matrix)
        self.item_factors = torch.as_tensor(np.array(model.item_factors))
        self._solver = None

    def _model(self, seed: int) -> Any:
        config = self.config
        return _implicit("als").AlternatingLeastSquares(
            factors=config.factors,
            regularization=config.l2,
            alpha=config.alpha,
            iterations=config.iterations,
            random_state=seed,
            num_threads=0,  # as many as OpenMP would take: the processors allowed, or OMP_NUM_THREADS
        )

    def _fold_in(self, history: csr_matrix) -> Tensor:
        with _one_blas_thread():
            model = copy.copy(
                self._prepared()
            )  # the number of threads is this call's own, other callers' is not touched
            model.num_threads = torch.get_num_threads()  # of this thread: 1 where many of us work side by side
            user_factors = model.recalculate_user(np.arange(history.shape[0]), history)
        return torch.as_tensor(user_factors)

    def _prepared(self) -> Any:
        """The items' side of the solve, with the product of their factors: the same for every history."""
        if self._solver is None:
            model = self._model(0)
            model.item_factors = self.item_factors.numpy()
            assert model.YtY is not None  # it keeps the product once asked for it
            self._solver = model  # whole when others see it
        return self._solver

    def _score(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Tensor:
        return self._fold_in(history) @ self.item_factors.T

    def _score_blocks(self, history: csr_matrix, users: NDArray[np.int64] | None, width: int) -> Iterator[Tensor]:
        user_factors = self._fold_in(history)
        return (user_factors @ factors.T for factors in torch.split(self.item_factors, width))

    def item_codes(self) -> Tensor:
        """Item factors, (items, factors)."""
        return self.item_factors

    def _get_state(self) -> dict[str, Tensor]:
        return {"item_factors": self.item_factors}

    def _set_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        self.item_factors = state["item_factors"]
        self._solver = None


class _KnownUsersFactorization(Recommender):
    """Factors of the training users and of the items; their products are the scores."""

    needs_training_users = True

    def _fit(self, matrix: csr_matrix, context: TrainingContext) -> None:
        with _one_blas_thread():
            model = self._model(context.seed)
            _learn(model, matrix)
        self.user_factors = torch.as_tensor(np.array(model.user_factors))
        self.item_factors = torch.as_tensor(np.array(model.item_factors))

    @abstractmethod
    def _model(self, seed: int) -> Any: ...

    def _factors_of(self, users: NDArray[np.int64] | None) -> Tensor:
        assert users is not None  # score() saw to it
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

    def item_codes(self) -> Tensor:
        """Item factors, (items, factors and a bias)."""
        return self.item_factors

    def _get_state(self) -> dict[str, Tensor]:
        return {"user_factors": self.user_factors, "item_factors": self.item_factors}

    def _set_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        self.user_factors, self.item_factors = state["user_factors"], state["item_factors"]


class BPR(_KnownUsersFactorization):
    """Bayesian personalized ranking (Rendle et al. 2009). Only for users seen in training."""

    name = "bpr"
    family = "matrix factorization"
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


class LMF(_KnownUsersFactorization):
    """Logistic matrix factorization (Johnson 2014). Only for users seen in training."""

    name = "lmf"
    family = "matrix factorization"
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


class ItemKNN(Recommender):
    """Each item's nearest neighbors by cosine, TF-IDF or BM25 (Deshpande, Karypis 2004); scores = history @ S."""

    name = "item-knn"
    family = "neighbors"
    Config = ItemKNNConfig
    is_random = False

    def _fit(self, matrix: csr_matrix, context: TrainingContext) -> None:
        kind = {"cosine": "CosineRecommender", "tfidf": "TFIDFRecommender", "bm25": "BM25Recommender"}
        with _one_blas_thread():
            neighbors = min(self.config.neighbors, matrix.shape[1])
            model = getattr(_implicit("nearest_neighbours"), kind[self.config.similarity])(neighbors, num_threads=1)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it warns of converting a matrix of its own making
                model.fit(matrix, show_progress=False)
        # float64 as `implicit` computes it: rounding would let near-ties change places.
        self.similarity = csr_matrix(model.similarity, shape=(matrix.shape[1], matrix.shape[1]))

    def _score(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Tensor:
        return torch.as_tensor((history @ self.similarity).toarray().astype(np.float32))

    def item_codes(self) -> Tensor:
        """Rows of the similarity matrix, (items, items), dense."""
        return torch.as_tensor(self.similarity.toarray())

    def _get_state(self) -> dict[str, Tensor]:
        matrix = self.similarity
        return {part: torch.as_tensor(getattr(matrix, part)) for part in ("data", "indices", "indptr")}

    def _set_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        assert self.n_items is not None
        data, indices, indptr = (state[part].numpy() for part in ("data", "indices", "indptr"))
        self.similarity = csr_matrix((data, indices, indptr), shape=(self.n_items, self.n_items))


def _implicit(module: str) -> Any:
    try:
        return importlib.import_module(f"implicit.{'cpu.' if module in ('als', 'bpr', 'lmf') else ''}{module}")
    except ImportError as error:
        raise MissingPackageError("implicit", "baselines") from error


def _learn(model: Any, matrix: csr_matrix) -> None:
    from implicit.recommender_base import ModelFitError

    try:
        model.fit(matrix, show_progress=False)
    except ModelFitError as error:
        raise ConfigError(f"Expected finite factors, implicit says: {error}. Lower learning_rate, raise l2.") from error


def _one_blas_thread() -> Any:
    """`implicit` runs its own threads; BLAS threads under them make it slower, and it warns."""
    _implicit("als")  # brings a BLAS of its own, which the limit must find loaded
    return _loaded_libraries().limit(limits=1, user_api="blas")


@cache
def _loaded_libraries() -> Any:
    """Looked for once: that takes milliseconds, as long as a small batch of histories."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
