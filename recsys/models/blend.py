"""Blend: a weighted sum of the scores of several models, each divided by its scale.

```
history ─┬─> edlae ─> / scale ── x w0 ─┐
         ├─> ials  ─> / scale ── x w1 ─┼─> scores
         └─> vae   ─> / scale ── x w2 ─┘
```
The members are fitted one after the other on the same rows; the weights are then searched on the validation users only.
Members with different errors give a better list together than the best of them alone: linear models are stronger at the
top of a list, low-rank models further down.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.errors import ConfigError
from recsys.models.base import Recommender
from recsys.models.config import make_config, require
from recsys.models.embeddings import Embeddings
from recsys.models.state import StateSpec, TensorSpec
from recsys.models.weight_search import search_weights
from recsys.training.context import SampledValidate, TrainingContext, Validate
from recsys.training.parts import part_of
from recsys.types import ScoreFunction

# Bytes of members' scores cached while weights are searched; if not all fit, fewer validation users are used.
_CACHE_BYTES = 1_000_000_000
# Training users on whom the members' scales are measured.
_MEASURED = 500


@dataclass(frozen=True)
class BlendConfig:
    """Members and weights of a blend.

    Parameters
    ----------
    members : str
        Names of models, separated by commas; a model named twice is fitted with two seeds.
    weights : str
        A number for each member, separated by commas; empty: searched on the validation users.
    settings : mapping
        Settings of each member by its name; in `Blend.create` also by dotted names (vae.latent=100).
    """

    members: str = "edlae,ials,dae"
    weights: str = ""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(len(self.names) > 1, f"Expected two or more members of a blend, found {self.members!r}.")
        for name in self.settings:
            require(name in self.names, f"Expected settings of members ({self.members}), found some of {name!r}.")
        if self.weights:
            _check_weights(self.given_weights, self.names)

    @property
    def names(self) -> list[str]:
        """Names of the members."""
        return [name.strip() for name in self.members.split(",") if name.strip()]

    @property
    def given_weights(self) -> list[float]:
        """Weights of the members; empty if they are to be searched."""
        try:
            return [float(weight) for weight in self.weights.split(",") if weight.strip()]
        except ValueError as error:
            raise ConfigError(f"Expected weights such as 0.5,0.3,0.2; found {self.weights!r}.") from error


def _check_weights(weights: Sequence[float], names: Sequence[str]) -> None:
    fit = len(weights) == len(names) and all(0 <= weight < np.inf for weight in weights) and sum(weights) > 0
    require(fit, f"Expected weights of 0 or more for {', '.join(names)}, one above 0; found {weights}.")


def _shares(weights: Sequence[float]) -> Tensor:
    return torch.tensor(weights) / sum(weights)


def own_and_members(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Divide settings into a model's own and those of its members by name: `vae.latent` is that of the member vae."""
    own: dict[str, Any] = {}
    members: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        name, dot, setting = key.removeprefix("settings.").partition(".")
        if dot:
            members.setdefault(name, {})[setting] = value
        else:
            own[key] = value
    given = own.pop("settings", {})
    require(isinstance(given, Mapping), f"Expected settings of members by their names, found {given!r}.")
    for name in given:
        members[name] = {**given[name], **members.get(name, {})}
    return own, members


class Blend(Recommender[BlendConfig]):
    """Weighted sum of the members' scores, each divided by its scale.

    Attributes
    ----------
    members : list of Recommender
    weights, scales : Tensor, shape (members,)
        Float32, in the order of `members`; the weights sum to 1.
    kinds : mapping
        The models a blend may have as members, by name; `recsys.models` fills it in, since it knows them all.
    """

    name = "blend"
    family = "blend"
    Config = BlendConfig
    explained_by = "weighted sum"
    is_kept_whole = False  # the epochs of its members are kept with each of them
    kinds: ClassVar[Mapping[str, type[Recommender]]] = {}

    members: list[Recommender]
    weights: Tensor
    scales: Tensor

    def __init__(self, config: BlendConfig | None = None):
        super().__init__(config)
        # A model folder must not depend on later defaults: all settings of the members are part of the config.
        full = {name: dataclasses.asdict(self._unfitted(name).config) for name in self.config.names}
        self.config = replace(self.config, settings=full)

    @property
    def uses_order(self) -> bool:
        """Whether a member uses the order of histories."""
        return any(self._unfitted(name).uses_order for name in self.config.names)

    @property
    def uses_features(self) -> bool:
        """Whether a fit needs features of the items: where one of the members does."""
        return any(self._unfitted(name).uses_features for name in self.config.names)

    def _unfitted(self, name: str) -> Recommender:
        allowed = [
            other
            for other, kind in self.kinds.items()
            if kind.task == self.task and not kind.needs_training_users and not issubclass(kind, Blend)
        ]
        require(name in allowed, f"Expected members of {', '.join(allowed)}; found {name!r}.")
        return self.kinds[name].create(self.config.settings.get(name, {}))

    @classmethod
    def create(cls, settings: Mapping[str, Any] | None = None) -> Self:
        """Create a blend; `vae.latent` is the setting `latent` of its member `vae`. See `Recommender.create`."""
        own, members = own_and_members(cls._with_preset(settings or {}))
        # Created at once: settings of a member are checked against `members`, which may differ from the default.
        names = own.get("members", cls.Config.members)
        return cls(replace(make_config(cls.Config, own, cls.name), members=names, settings=members))

    @classmethod
    def of(cls, members: Sequence[Recommender], user_items: csr_matrix, weights: Validate | Sequence[float]) -> Self:
        """Blend models that are already fitted.

        Parameters
        ----------
        members : sequence of Recommender
            Two members of one name must have equal settings.
        user_items : csr_matrix, shape (users, items)
            What they were fitted on.
        weights : sequence of float or callable
            A weight of each member, or a validation function to choose them by.

        Returns
        -------
        Self
        """
        names = ",".join(member.name for member in members)
        model = cls(cls.Config(names, settings={m.name: dataclasses.asdict(m.config) for m in members}))
        model.n_items, model.members = members[0].n_items, list(members)
        model.scales = model._measure(user_items)
        model.weights = model._search(weights) if callable(weights) else _shares(weights)
        return model

    def _fit(self, matrix: csr_matrix, context: TrainingContext) -> None:
        given = self.config.given_weights
        if not given and context.validate is None:
            raise ConfigError(
                "Expected validation users to choose the weights of a blend on, found none: hold out users for "
                "validation, or give the setting weights, such as weights=0.5,0.3,0.2."
            )
        self.members = [self._unfitted(name) for name in self.config.names]
        for number, (member, own) in enumerate(self._contexts(context)):
            context.on_phase(f"member {member.name}", number, len(self.members))
            member.fit(matrix, own)
        context.on_phase("weights", 0, 1)
        self.scales = self._measure(matrix)
        self.weights = _shares(given) if given else self._search(context.validate)
        context.on_phase("weights", 1, 1)

    def _refit(self, user_items: csr_matrix, context: TrainingContext) -> Self:
        fresh = type(self)(self.config)
        fresh.n_items, fresh.weights = user_items.shape[1], self.weights
        fresh.members = [member.refit(user_items, own) for member, own in self._contexts(context)]
        fresh.scales = fresh._measure(user_items)
        return fresh

    def _contexts(self, context: TrainingContext) -> Iterator[tuple[Recommender, TrainingContext]]:
        """Members with their contexts; each has its own seed, so that a model named twice gives two models."""
        for number, member in enumerate(self.members):
            own = context.checkpoints.part(f"{number}-{member.name}")
            start = None if context.start is None else context.start.part(f"{number}.{member.name}.")
            yield member, replace(context, seed=context.seed + number, checkpoints=own, start=start)

    def _measure(self, matrix: csr_matrix) -> Tensor:
        """Scale of each member: standard deviation of a user's scores over items, mean over users."""
        rows = np.linspace(0, matrix.shape[0] - 1, min(_MEASURED, matrix.shape[0])).astype(np.int64)
        correction = min(1, matrix.shape[1] - 1)  # one item has no spread
        spread = [member.score(matrix[rows]).std(dim=1, correction=correction).mean().cpu() for member in self.members]
        return torch.stack(spread).clamp_min(torch.finfo(torch.float32).tiny)

    def _search(self, validate: Validate | None) -> Tensor:
        assert validate is not None and self.n_items is not None
        if isinstance(validate, SampledValidate):
            validate = validate.sample(max(1, _CACHE_BYTES // (4 * self.n_items * len(self.members))))
        cache = _Cache(self._parts)
        return torch.tensor(search_weights(lambda weights: validate(cache.scorer(weights)), len(self.members)))

    def _parts(self, history: csr_matrix) -> Tensor:
        """The members' scaled scores, float32 (members, users, items)."""
        scores = [member.score(history) for member in self.members]
        return torch.stack([part / scale for part, scale in zip(scores, self.scales.tolist(), strict=True)])

    def _score(self, history: csr_matrix, users: NDArray[Any] | None) -> Tensor:
        return self._sum(member.score(history) for member in self.members)

    def _score_blocks(self, history: csr_matrix, users: NDArray[Any] | None, width: int) -> Iterator[Tensor]:
        blocks = (_narrow(member.score_blocks(history, width=width), width) for member in self.members)
        return map(self._sum, zip(*blocks, strict=True))

    def _sum(self, parts: Iterable[Tensor]) -> Tensor:
        factors = (self.weights / self.scales).tolist()
        total: Tensor | None = None
        for factor, part in zip(factors, parts, strict=True):  # one at a time: at most two score matrices in memory
            total = part * factor if total is None else total.add_(part, alpha=factor)
        assert total is not None
        return total

    def _contributions(self, history: csr_matrix, items: NDArray[np.int64]) -> Tensor:
        return self._sum(
            member._contributions(member._checked(history, None)[0], items).float() for member in self.members
        )

    def summary(self) -> str:
        """Return the weight of each member."""
        return ", ".join(f"{name} {weight:.2f}" for name, weight in zip(self.config.names, self.weights, strict=True))

    def _embed_items(self) -> Tensor:
        return self._side_by_side(member.embed_items() for member in self.members)

    def _item_weights(self) -> Tensor | None:
        """The members' items side by side if one of them has items x items weights: they are as long."""
        long = any(member.item_weights() is not None for member in self.members)
        return self._embed_items() if long else None

    def _embed_users(self, history: csr_matrix, users: NDArray[Any] | None) -> Embeddings:
        if self._item_weights() is not None:
            return super()._embed_users(history, users)
        return Embeddings(self._side_by_side(member.embed_users(history).mean for member in self.members))

    def _side_by_side(self, parts: Iterable[Tensor]) -> Tensor:
        """The members' vectors (rows, sum of sizes): cosines are weighted means of theirs."""
        units = (torch.nn.functional.normalize(part, dim=1) for part in parts)
        return torch.cat([unit * weight**0.5 for unit, weight in zip(units, self.weights.tolist(), strict=True)], dim=1)

    def _item_scoring_vectors(self) -> Tensor:
        factors = (self.weights / self.scales).tolist()
        parts = [m.item_scoring_vectors() * factor for m, factor in zip(self.members, factors, strict=True)]
        return torch.cat(parts, dim=1)

    def _user_scoring_vectors(self, history: csr_matrix, users: NDArray[Any] | None) -> Tensor:
        return torch.cat([member.user_scoring_vectors(history) for member in self.members], dim=1)

    def _get_state(self) -> dict[str, Tensor]:
        state = {"weights": self.weights, "scales": self.scales}
        for prefix, member in _prefixed(self.members):
            state |= {prefix + key: tensor for key, tensor in member.get_state().items()}
        return state

    def _set_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        assert self.n_items is not None
        self.weights, self.scales = state["weights"], state["scales"]
        self.members = [self._unfitted(name) for name in self.config.names]
        for prefix, member in _prefixed(self.members):
            member.set_state(part_of(state, prefix), self.n_items, str(device))

    def _state_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        spec = StateSpec({name: TensorSpec((len(self.config.names),), low=0) for name in ("weights", "scales")})
        return spec | self._members_spec(state, lambda member, own: member._state_spec(n_items, own))

    def _start_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        return self._members_spec(state, lambda member, own: member._start_spec(n_items, own))

    def _members_spec(
        self, state: Mapping[str, Tensor], spec_of: Callable[[Recommender, Mapping[str, Tensor]], StateSpec]
    ) -> StateSpec:
        spec = StateSpec()
        for prefix, member in _prefixed([self._unfitted(name) for name in self.config.names]):
            spec = spec | spec_of(member, part_of(state, prefix)).prefixed(prefix)
        return spec


def _prefixed(members: Iterable[Recommender]) -> Iterator[tuple[str, Recommender]]:
    """Members with the prefix of their tensors in the state."""
    for number, member in enumerate(members):
        yield f"{number}.{member.name}.", member


def _narrow(blocks: Iterable[Tensor], width: int) -> Iterator[Tensor]:
    """Blocks of `width` items, also of a member that returns all scores at once."""
    for block in blocks:
        yield from torch.split(block, width, dim=1)


class _Cache:
    """Members' scores of histories, cached up to _CACHE_BYTES: a trial of weights then needs no model."""

    def __init__(self, parts: Callable[[csr_matrix], Tensor]):
        self.parts = parts
        self.kept: dict[bytes, Tensor] = {}
        self.room = _CACHE_BYTES

    def scorer(self, weights: Sequence[float]) -> ScoreFunction:
        """Return the score function of these weights."""

        def score(history: csr_matrix, /, *, users: ArrayLike | None = None) -> Tensor:
            parts = self._get(history)
            scores: Tensor = torch.tensordot(torch.tensor(weights, device=parts.device), parts, 1)
            return scores

        return score

    def _get(self, history: csr_matrix) -> Tensor:
        cells = (history.indptr, history.indices, history.data)
        key = hashlib.blake2b(b"".join(part.tobytes() for part in cells)).digest()
        if key in self.kept:
            return self.kept[key]
        parts = self.parts(history)
        if parts.nbytes <= self.room:
            self.kept[key], self.room = parts, self.room - parts.nbytes
        return parts
