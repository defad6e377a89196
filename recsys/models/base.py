"""Recommender: what every model can do, and the checks done once for all of them.

A model learns from a user-item matrix and scores *histories*: rows of items, of anybody. A subclass brings `_fit`,
`_score` and its state; masking, cutting and ties belong to recsys.topn.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.data.matrix import as_csr
from recsys.errors import DataError, NotFittedError, UnsupportedError
from recsys.inference.topn import top_n
from recsys.models.config import make_config, require
from recsys.training.context import Epoch, TrainingContext


class Recommender(ABC):
    """A model of preferences. `config` (an instance of `Config`) says what it is; `fit` learns; `score` answers.

    name: its entry in MODELS. family: which kind of model, in words. task: "ranking" or "rating".
    needs_training_users: True for a model that can score only users it was fitted on; their training rows are then
    passed as `users`. is_random: whether the seed matters to a fit. presets: settings of publications, by name.
    """

    name: ClassVar[str]
    family: ClassVar[str]
    Config: ClassVar[type[Any]]
    task: ClassVar[str] = "ranking"
    needs_training_users: ClassVar[bool] = False
    is_random: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __init__(self, config: Any | None = None):
        self.config = self.Config() if config is None else config
        self.n_items: int | None = None  # items of the matrix it was fitted on; None before
        self.epochs: list[Epoch] = []  # epochs of the last fit, for models that have some

    @classmethod
    def create(cls, settings: Mapping[str, Any] | None = None) -> Self:
        """A model with the given settings; text is turned into the type of the field.

        `preset` starts from one of `presets`; other settings win over it. Raises ConfigError for a preset or a setting
        the model does not have, or a value that does not fit.
        """
        return cls(make_config(cls.Config, cls._with_preset(settings or {}), cls.name))

    @classmethod
    def _with_preset(cls, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        if "preset" not in settings:
            return settings
        name, known = settings["preset"], ", ".join(cls.presets) or "none"
        require(name in cls.presets, f"Expected {cls.name}.preset of {known}; found {name!r}.")
        return {**cls.presets[name], **{key: value for key, value in settings.items() if key != "preset"}}

    def fit(self, user_items: csr_matrix, context: TrainingContext | None = None) -> Self:
        """Learn from CSR (users, items), from nothing: an earlier fit leaves no trace. Returns self.

        Raises DataError for a matrix without interactions, or with values no preference can have.
        """
        matrix = as_csr(user_items)
        _check_values(matrix, self.task)
        context = context or TrainingContext()
        context.resolve_device()
        self.n_items, self.epochs = matrix.shape[1], []
        try:
            with _forked_random_stream():
                torch.manual_seed(context.seed)
                self._fit(matrix, context)
        except BaseException:
            self.n_items = None  # half a fit is none
            raise
        return self

    def refit(self, user_items: csr_matrix, context: TrainingContext | None = None) -> Self:
        """A fresh model of the same kind, fitted on other rows as validation served this one best: so many epochs.

        Nobody validates it: the rows may be everybody's.
        """
        return self._refit(as_csr(user_items), replace(context or TrainingContext(), validate=None))

    def _refit(self, user_items: csr_matrix, context: TrainingContext) -> Self:
        best = max((epoch.number for epoch in self.epochs if epoch.best), default=None)
        return type(self)(self.config).fit(user_items, replace(context, stop_after=best))

    def score(self, history: csr_matrix, items: ArrayLike | None = None, users: ArrayLike | None = None) -> Tensor:
        """Scores of histories, CSR (users, items) -> float32 (users, items), or (users, len(items)) for some items.

        Higher is better; seen items are not masked (top_n does). On the model's device. `users`: rows of the training
        matrix these histories belong to, for models with `needs_training_users`.
        """
        matrix, known = self._checked(history, users)
        wanted = None if items is None else _positions(items, matrix.shape[1])
        with torch.no_grad():  # not inference_mode: the caller may write into what it gets
            scores = self._score(matrix, known).float()
        return scores if wanted is None else scores[:, torch.as_tensor(wanted, device=scores.device)]

    @torch.inference_mode()
    def score_blocks(
        self, history: csr_matrix, users: ArrayLike | None = None, width: int = 65_536
    ) -> Iterator[Tensor]:
        """Scores in blocks of items, side by side: (users, up to `width`) each, in order of position, float32, or
        bfloat16 after `to_bf16`.

        A model that makes its scores in a last product makes a block at a time; others give one block of all items.
        """
        yield from self._score_blocks(*self._checked(history, users), width)

    def _checked(self, history: csr_matrix, users: ArrayLike | None) -> tuple[csr_matrix, NDArray[np.int64] | None]:
        if self.n_items is None:
            raise NotFittedError(f"{type(self).__name__} has no weights yet: call fit() or load_model() first.")
        matrix = as_csr(history)
        if matrix.shape[1] != self.n_items:
            raise DataError(
                f"Expected histories over the model's {self.n_items} items, found {matrix.shape[1]} columns."
            )
        known = None if users is None else np.atleast_1d(np.asarray(users, dtype=np.int64))
        if self.needs_training_users and (known is None or len(known) != matrix.shape[0] or (known < 0).any()):
            raise UnsupportedError(
                f"{self.name} can score only users it was trained on (it has no way to fold in a new history): "
                "use a protocol that keeps every user in training (weak, leave-one-out), or another model."
            )
        return matrix, known

    def recommend(
        self,
        userid: ArrayLike,
        user_items: csr_matrix,
        N: int = 10,
        filter_already_liked_items: bool = True,
        filter_items: ArrayLike | None = None,
        items: ArrayLike | None = None,
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Item positions and scores, as `implicit` gives them: (N,) for one user, (users, N) for several.

        `user_items`: the histories, one row a user of `userid`. `filter_items` are never recommended; `items`, if
        given, are the only candidates. Unlike there, a list that runs short ends in -1 with a score of -inf.
        """
        several = np.atleast_1d(np.asarray(userid))
        history = as_csr(user_items)
        if history.shape[0] != len(several):
            raise DataError(f"Expected one row of user_items a user, found {history.shape[0]} for {len(several)}.")
        scores = self.score(history, users=several if self.needs_training_users else None)
        allowed = np.ones(history.shape[1], dtype=bool) if items is None else np.zeros(history.shape[1], dtype=bool)
        if items is not None:
            allowed[_positions(items, len(allowed))] = True
        if filter_items is not None:
            allowed[_positions(filter_items, len(allowed))] = False
        best, values = top_n(scores, N, history if filter_already_liked_items else None, allowed)
        return (best[0], values[0]) if np.ndim(userid) == 0 else (best, values)

    def similar_items(self, itemid: int, N: int = 10) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The N items nearest to one by cosine of their codes, itself first: positions (N,) and cosines (N,)."""
        if self.n_items is None:
            raise NotFittedError(f"{type(self).__name__} has no weights yet: call fit() or load_model() first.")
        codes = torch.nn.functional.normalize(self.item_codes().float(), dim=1)
        cosines = codes @ codes[_positions(itemid, self.n_items)[0]]
        cosines[itemid] = torch.inf  # first, also among its equals
        best, values = top_n(cosines[None], N)
        return best[0], np.minimum(values[0], 1)

    def summary(self) -> str:
        """What a fit decided, in a few words; empty where there is nothing to decide."""
        return ""

    def item_codes(self) -> Tensor:
        """A vector an item, (items, size), whose angles say how alike items are."""
        raise UnsupportedError(f"{self.name} has no item codes.")

    def to_bf16(self) -> None:
        """Score in bfloat16 from now on, which has three digits: faster where the chip has it, and approximate.

        Raises UnsupportedError for a model that has no such way.
        """
        raise UnsupportedError(f"{self.name} is scored in fp32 only.")

    def get_state(self) -> dict[str, Tensor]:
        """All that scoring needs, by name."""
        if self.n_items is None:
            raise NotFittedError(f"{type(self).__name__} has no weights yet: call fit() first.")
        return {name: tensor.detach().cpu().contiguous() for name, tensor in self._get_state().items()}

    def set_state(self, state: Mapping[str, Tensor], items: int, device: str = "auto") -> Self:
        """Become the fitted model `get_state` was taken from, which knew `items` items. Returns self."""
        self.n_items = items
        self._set_state(state, TrainingContext(device=device).resolve_device())
        return self

    @abstractmethod
    def _fit(self, matrix: csr_matrix, context: TrainingContext) -> None: ...

    @abstractmethod
    def _score(self, history: csr_matrix, users: NDArray[np.int64] | None) -> Tensor: ...

    def _score_blocks(self, history: csr_matrix, users: NDArray[np.int64] | None, width: int) -> Iterator[Tensor]:
        yield self._score(history, users)

    @abstractmethod
    def _get_state(self) -> dict[str, Tensor]: ...

    @abstractmethod
    def _set_state(self, state: Mapping[str, Tensor], device: torch.device) -> None: ...


def _check_values(matrix: csr_matrix, task: str) -> None:
    if not matrix.nnz:
        raise DataError(f"Expected interactions to learn from, found an empty matrix {matrix.shape}.")
    if not np.isfinite(matrix.data).all():
        raise DataError("Expected finite values in the user-item matrix, found NaN or infinity: leave those rows out.")
    if task == "ranking" and matrix.data.min() < 0:
        raise DataError(
            f"Expected preferences of 0 or more, found {matrix.data.min():g}: keep what was liked and give it 1."
        )


def _positions(items: ArrayLike, count: int) -> NDArray[np.int64]:
    """Item positions as int64 (n,). Raises DataError for what is not a position in 0..count-1."""
    array = np.atleast_1d(np.asarray(items))
    if array.size and (array.dtype.kind not in "iu" or array.min() < 0 or array.max() >= count):
        raise DataError(f"Expected item positions in 0..{count - 1}, found {items!r}.")
    return array.astype(np.int64)


def _forked_random_stream() -> AbstractContextManager[None]:
    """What is drawn inside leaves torch's generators as they were. All devices are named: several bring a warning."""
    return torch.random.fork_rng(devices=range(torch.cuda.device_count()))
