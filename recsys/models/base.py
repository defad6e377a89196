"""Recommender: what every model can do, and the checks done once for all of them.

A model learns from a user-item matrix and scores *histories*: rows of items, of anybody. A subclass brings `_fit`,
`_score` and its state; masking, cutting and ties belong to recsys.topn.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix, issparse
from torch import Tensor
from typing_extensions import Self

from recsys.errors import ConfigError, DataError, NotFittedError, UnsupportedError
from recsys.topn import top_n
from recsys.training import Epoch, TrainingContext


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
        self.items: int | None = None  # items of the matrix it was fitted on; None before
        self.history: list[Epoch] = []  # epochs of the last fit, for models that have some

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
        self.items, self.history = matrix.shape[1], []
        try:
            with _forked_random_stream():
                torch.manual_seed(context.seed)
                self._fit(matrix, context)
        except BaseException:
            self.items = None  # half a fit is none
            raise
        return self

    def refit(self, user_items: csr_matrix, context: TrainingContext | None = None) -> Self:
        """A fresh model of the same kind, fitted on other rows as validation served this one best: so many epochs.

        Nobody validates it: the rows may be everybody's.
        """
        return self._refit(as_csr(user_items), replace(context or TrainingContext(), validate=None))

    def _refit(self, user_items: csr_matrix, context: TrainingContext) -> Self:
        best = max((epoch.number for epoch in self.history if epoch.best), default=None)
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
        if self.items is None:
            raise NotFittedError(f"{type(self).__name__} has no weights yet: call fit() or load_model() first.")
        matrix = as_csr(history)
        if matrix.shape[1] != self.items:
            raise DataError(f"Expected histories over the model's {self.items} items, found {matrix.shape[1]} columns.")
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
        if self.items is None:
            raise NotFittedError(f"{type(self).__name__} has no weights yet: call fit() or load_model() first.")
        codes = torch.nn.functional.normalize(self.item_codes().float(), dim=1)
        cosines = codes @ codes[_positions(itemid, self.items)[0]]
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
        if self.items is None:
            raise NotFittedError(f"{type(self).__name__} has no weights yet: call fit() first.")
        return {name: tensor.detach().cpu().contiguous() for name, tensor in self._get_state().items()}

    def set_state(self, state: Mapping[str, Tensor], items: int, device: str = "auto") -> Self:
        """Become the fitted model `get_state` was taken from, which knew `items` items. Returns self."""
        self.items = items
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


def as_csr(matrix: Any) -> csr_matrix:
    """csr_matrix float32 with int32 sorted indices, each cell once, whatever sparse form came in (1-D: one row).

    Stored zeros stay; the matrix given is not changed. Raises DataError for what is not sparse.
    """
    if not issparse(matrix):
        raise DataError(f"Expected a scipy sparse matrix (users, items), found {type(matrix).__name__}.")
    # csr_array and int64 indices are refused by implicit; unsorted ones would make results depend on their order.
    given = cast(Any, matrix)
    csr: csr_matrix = csr_matrix(given if given.ndim == 2 else given.reshape(1, -1), dtype=np.float32)
    if csr.nnz > np.iinfo(np.int32).max:
        raise DataError(f"Expected at most {np.iinfo(np.int32).max:,} interactions in a matrix, found {csr.nnz:,}.")
    if csr.indices.dtype != np.int32 or csr.indptr.dtype != np.int32:
        csr = csr_matrix((csr.data, csr.indices.astype(np.int32), csr.indptr.astype(np.int32)), shape=csr.shape)
    writable = all(part.flags.writeable for part in (csr.data, csr.indices, csr.indptr))  # as implicit and torch want
    if not csr.has_canonical_format or not writable:
        csr = csr.copy()
        csr.sum_duplicates()
    return csr


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


def make_config(config: type[Any], settings: Mapping[str, Any], model: str) -> Any:
    """A Config from settings by name, text turned into each field's type."""
    hints = typing.get_type_hints(config)
    known = {item.name: hints[item.name] for item in dataclasses.fields(config)}
    for key in settings:
        if key not in known:
            raise ConfigError(f"{model} has no setting {key!r}. It has: {', '.join(known) or 'none'}.")
    return config(**{key: _convert(value, known[key], f"{model}.{key}") for key, value in settings.items()})


def _convert(value: Any, hint: Any, name: str) -> Any:
    kinds = [kind for kind in typing.get_args(hint) or (hint,) if kind is not type(None)]
    optional = len(typing.get_args(hint)) > len(kinds)
    if optional and (value is None or (isinstance(value, str) and value.lower() == "none")):
        return None
    if typing.get_origin(hint) is typing.Literal:
        return value  # the config itself refuses what it does not know
    kind = kinds[0]
    try:
        if kind is bool:
            return {"true": True, "false": False, "1": True, "0": False}[str(value).lower()]
        if kind is int and not isinstance(value, int):
            number = float(value)
            if number != int(number):
                raise ValueError
            return int(number)
        converted = kind(value)
        if kind is float and not math.isfinite(converted):
            raise ValueError
        return converted
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise ConfigError(f"Expected {name} to be of type {kind.__name__}, found {value!r}.") from error


def require(condition: bool, message: str) -> None:
    """Raise ConfigError with the message unless the condition holds."""
    if not condition:
        raise ConfigError(message)
