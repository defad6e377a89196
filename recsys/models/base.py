"""Recommender: the protocol of all models, and the checks that are done once for all of them.

A model is fitted on a user-item matrix and scores *histories*: rows of items of any user, known or new. A subclass
implements `_fit`, `_score`, `_get_state`, `_set_state` and `_state_spec`; masking, cutting and ties belong to
`recsys.inference`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import ArpackError
from torch import Tensor
from typing_extensions import TypeVar

from recsys.data.matrix import as_csr
from recsys.errors import DataError, UnsupportedError
from recsys.inference.topn import BLOCK
from recsys.models.checks import check_features, check_positions, check_values, out_of_range
from recsys.models.config import make_config, require
from recsys.models.queries import Queries
from recsys.models.resuming import offer_finished, take_finished
from recsys.models.state import StateSpec, check_state
from recsys.training.context import Epoch, TrainingContext, describe_training

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ConfigT = TypeVar("ConfigT", bound="DataclassInstance", default=Any)

# What numerical code raises where a matrix cannot be solved, or numbers leave the range of their type.
_NUMERICAL = (
    torch.linalg.LinAlgError,  # type: ignore[attr-defined]
    np.linalg.LinAlgError,
    ArpackError,
    ArithmeticError,
)


class Recommender(Queries, Generic[ConfigT]):
    """A model of preferences or of ratings.

    Parameters
    ----------
    config : ConfigT, optional
        An instance of `Config`: everything that makes the model what it is. Defaults where None.

    Attributes
    ----------
    name : str
        Its entry in `recsys.models.MODELS`.
    family : str
        Which kind of model, in words.
    size_setting : str
        The setting that is the size of a user's code; empty for a model without a code.
    Config : type
        A frozen dataclass: the only place of the settings' defaults.
    task : {"ranking", "rating"}
        Whether scores order items or predict ratings on the scale of the training data.
    needs_training_users : bool
        True for a model that can score only the users it was fitted on; their training rows are passed as `users`.
    is_random : bool
        Whether the seed changes the result of a fit.
    presets : mapping
        Settings of publications, by name.
    uses_order : bool
        Whether cells of histories hold places in time: a property of the settings.
    uses_features : bool
        Whether a fit needs features of the items (`context.item_features`): a property of the settings.
    is_kept_whole : bool
        Whether `get_state` holds all that a fit found, so that a training that goes on after it needs no other part.
    n_items : int or None
        Number of items of the training matrix; None before `fit`.
    epochs : list of Epoch
        Epochs of the last fit; empty for models without epochs.
    """

    name: ClassVar[str]
    family: ClassVar[str]
    size_setting: ClassVar[str] = ""
    Config: type[ConfigT]
    task: ClassVar[str] = "ranking"
    needs_training_users: ClassVar[bool] = False
    is_random: ClassVar[bool] = True
    is_kept_whole: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __init__(self, config: ConfigT | None = None):
        self.config: ConfigT = self.Config() if config is None else config
        self.n_items: int | None = None
        self.epochs: list[Epoch] = []
        self._planned = 0  # epochs of the last fit

    @classmethod
    def create(cls, settings: Mapping[str, Any] | None = None) -> Self:
        """Create a model from settings by name.

        Parameters
        ----------
        settings : mapping, optional
            Values by the names of the fields of `Config`; text is converted to the type of the field. `preset` starts
            from one of `presets`, and the other settings override it.

        Raises
        ------
        ConfigError
            If a preset or a setting is unknown, or a value does not fit.
        """
        return cls(make_config(cls.Config, cls._with_preset(settings or {}), cls.name))

    @classmethod
    def _with_preset(cls, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        if "preset" not in settings:
            return settings
        name, known = settings["preset"], ", ".join(cls.presets) or "none"
        require(name in cls.presets, f"Expected {cls.name}.preset of {known}; found {name!r}.")
        return {**cls.presets[name], **{key: value for key, value in settings.items() if key != "preset"}}

    def fit(
        self,
        user_items: csr_matrix,
        context: TrainingContext | None = None,
        *,
        show_progress: bool = False,
        callback: None = None,
    ) -> Self:
        """Fit the model from scratch, or from `context.start`; an earlier fit of this object leaves no trace.

        Parameters
        ----------
        user_items : csr_matrix, shape (users, items)
            Preferences of 0 or more, or ratings. A stored zero is an interaction.
        context : TrainingContext, optional
            Seed, device, validation and progress callbacks.
        show_progress, callback
            Of `implicit`; only False and None are accepted, because the library prints nothing and reports through
            `context.on_step`, `on_epoch` and `on_phase`.

        Returns
        -------
        Self
            The model itself.

        Raises
        ------
        UnsupportedError
            If `show_progress` or `callback` is given.
        DataError
            If the matrix is empty, holds NaN, infinity or (for rankings) negative values, or if its values are so
            large or so small that the result is not finite.
        ConfigError
            If training diverges, or the device does not exist.
        """
        if show_progress or callback is not None:
            name = "show_progress" if show_progress else "callback"
            raise UnsupportedError(f"{name}: the library prints nothing; give a TrainingContext with on_epoch instead.")
        matrix = self._own_cells(user_items)
        check_values(matrix, self.task)
        context = self._checked_start(context or TrainingContext(), matrix.shape[1])
        if take_finished(self, matrix, context):
            return self
        self.n_items, self.epochs = matrix.shape[1], []
        self._planned = context.planned(getattr(self.config, "epochs", 1))
        try:
            with _forked_random_stream(), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                torch.manual_seed(context.seed)
                self._fit(matrix, context)
                self._check_fitted(matrix)
        except _NUMERICAL as error:
            self.n_items = None
            raise out_of_range(self.name, matrix, error) from error
        except BaseException:
            self.n_items = None  # a model that is half fitted counts as not fitted
            raise
        offer_finished(self, context)
        return self

    def _checked_start(self, context: TrainingContext, items: int) -> TrainingContext:
        """The context with the patience of its start, whose state is checked; features are those of the items."""
        context = check_features(self.name, self.uses_features, context, items)
        if context.start is None:
            return context
        check_state(context.start.state, self._start_spec(items, context.start.state))
        return replace(context, patience=min(context.patience, context.start.patience or context.patience))

    def _check_fitted(self, matrix: csr_matrix) -> None:
        state = self._get_state()
        try:
            check_state(state, self._state_spec(matrix.shape[1], state))
        except DataError as error:
            raise out_of_range(self.name, matrix, error) from error

    def refit(self, user_items: csr_matrix, context: TrainingContext | None = None) -> Self:
        """Fit a new model of the same settings on other rows, for as many epochs as validation found best.

        Nothing is validated, so the rows may be those of all users.

        Parameters
        ----------
        user_items : csr_matrix, shape (users, items)
        context : TrainingContext, optional

        Returns
        -------
        Self
            A new, fitted model.
        """
        context = context or TrainingContext()
        own = context.checkpoints.part("refit")
        return self._refit(as_csr(user_items), replace(context, validate=None, checkpoints=own))

    def _refit(self, user_items: csr_matrix, context: TrainingContext) -> Self:
        best = max((epoch.number for epoch in self.epochs if epoch.best), default=None)
        return type(self)(self.config).fit(user_items, replace(context, stop_after=best))

    def score(self, history: csr_matrix, items: ArrayLike | None = None, users: ArrayLike | None = None) -> Tensor:
        """Score items for histories; seen items are not masked (`top_n` does that).

        Parameters
        ----------
        history : csr_matrix, shape (users, items)
            Items of the training catalog.
        items : array of int, optional
            Positions of the items to score; all items by default.
        users : array of int, optional
            Rows of the training matrix these histories belong to, for models with `needs_training_users`.

        Returns
        -------
        Tensor
            Float32 (users, items) or (users, len(items)), on the model's device. Higher is better. The caller may
            write into it.

        Raises
        ------
        NotFittedError
            Before `fit`.
        DataError
            If the columns are not the model's items, or a position is out of range.
        UnsupportedError
            If the model needs training users and none were given.
        """
        matrix, known = self._checked(history, users)
        wanted = None if items is None else check_positions(items, matrix.shape[1])
        with torch.no_grad(), self._solving():  # not inference_mode: the caller may write into what it gets
            scores = self._score(matrix, known).float()
        return scores if wanted is None else scores[:, torch.as_tensor(wanted, device=scores.device)]

    @torch.inference_mode()
    def score_blocks(self, history: csr_matrix, users: ArrayLike | None = None, width: int = BLOCK) -> Iterator[Tensor]:
        """Score items in blocks, in order of position.

        Parameters
        ----------
        history, users
            As in `score`.
        width : int
            Largest number of items in a block. A model without a final matrix product gives one block of all items.

        Yields
        ------
        Tensor
            (users, up to width), float32, or bfloat16 after `to_bf16`.
        """
        with self._solving():
            yield from self._score_blocks(*self._checked(history, users), width)

    @contextmanager
    def _solving(self) -> Iterator[None]:
        """Turn errors of numerical code into one that says whose weights they come from."""
        try:
            yield
        except _NUMERICAL as error:
            raise DataError(
                f"Expected weights of {self.name} that can score these histories, found a system of equations that "
                f"cannot be solved ({error}): train the model again."
            ) from error

    @property
    def n_users(self) -> int | None:
        """Number of users it was trained on, for a model with `needs_training_users`; None for others."""
        return None

    def _checked(self, history: csr_matrix, users: ArrayLike | None) -> tuple[csr_matrix, NDArray[np.int64] | None]:
        self._require_fitted()
        matrix = self._to_score(history)
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

    def scaled_config(self, user_items: csr_matrix) -> ConfigT:
        """Return the config with every None that means "scaled with the data" replaced by its value for a matrix."""
        return self.config

    def summary(self) -> str:
        """Return what the fit decided (chosen settings, weights), in a few words; empty if there was nothing."""
        return ""

    @property
    def stopped(self) -> str:
        """Where training ended and which weights were kept, in one sentence; empty for models without epochs."""
        return describe_training(self.epochs, self._planned)

    def to_bf16(self) -> None:
        """Score in bfloat16 from now on: about three significant digits, faster on hardware that supports it.

        Raises
        ------
        UnsupportedError
            If the model is not a network.
        """
        raise UnsupportedError(f"{self.name} is scored in fp32 only.")

    def get_state(self) -> dict[str, Tensor]:
        """Return everything scoring needs, as CPU tensors by name.

        Raises
        ------
        NotFittedError
            Before `fit`.
        """
        self._require_fitted()
        return {name: tensor.detach().cpu().contiguous() for name, tensor in self._get_state().items()}

    def set_state(self, state: Mapping[str, Tensor], items: int, device: str = "auto") -> Self:
        """Become the fitted model whose `get_state` returned `state`.

        Parameters
        ----------
        state : mapping of str to Tensor
            Checked before use: names, types, shapes, finite values, indices in range.
        items : int
            Number of items of the training matrix.
        device : str
            As in `TrainingContext`.

        Returns
        -------
        Self
            The model itself.

        Raises
        ------
        DataError
            If a tensor is not what this model with these settings must have; its name is in the message.
        """
        if items < 1:
            raise DataError(f"Expected a model of at least 1 item, found {items}.")
        check_state(state, self._state_spec(items, state))
        self.n_items, self.epochs = items, []
        self._set_state(state, TrainingContext(device=device).resolve_device())
        return self

    @abstractmethod
    def _fit(self, matrix: csr_matrix, context: TrainingContext) -> None: ...

    def _score_blocks(self, history: csr_matrix, users: NDArray[np.int64] | None, width: int) -> Iterator[Tensor]:
        yield self._score(history, users)

    @abstractmethod
    def _get_state(self) -> dict[str, Tensor]: ...

    @abstractmethod
    def _set_state(self, state: Mapping[str, Tensor], device: torch.device) -> None: ...

    def _start_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        """Declare what of a state a fit can begin with (`context.start`); nothing, if every fit is a full one."""
        return StateSpec()

    @abstractmethod
    def _state_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        """Declare the state of a model of `n_items`. `state`: for sizes that only the state itself tells; unchecked."""


def _forked_random_stream() -> AbstractContextManager[None]:
    """Restore torch's generators afterwards. All devices are named, since the default warns where there are several."""
    return torch.random.fork_rng(devices=range(torch.cuda.device_count()))
