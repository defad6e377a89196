"""Blend: several models, each one's scores on a common scale, in a weighted sum.

```
history ─┬─> edlae ─> / scale ── x w0 ─┐
         ├─> ials  ─> / scale ── x w1 ─┼─> scores
         └─> vae   ─> / scale ── x w2 ─┘
```
The members are fitted one after the other on the same rows; the weights are then searched on the validation users, and
on them alone. Members that err in different places make a better list together than the best of them: linear models
lead at the top of a list, low-rank ones deeper in it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from recsys.errors import ConfigError
from recsys.models.base import Recommender
from recsys.models.config import make_config, require
from recsys.training.context import SampledValidate, TrainingContext, Validate
from recsys.types import ScoreFunction

# Bytes of members' scores kept while weights are searched; where all do not fit, fewer validation users take part.
_CACHE_BYTES = 1_000_000_000
# Training users by whom the members' scales are measured.
_MEASURED = 500
# What is moved from one member to the others in a trial: first a lot, then less.
_STEPS = (0.2, 0.1, 0.05)


@dataclass(frozen=True)
class BlendConfig:
    """Who takes part, and how much each counts.

    members: names of models, separated by commas; one named twice is fitted under two seeds. weights: a number for
    each, or nothing: then they are searched. settings: of each member; from outside by dotted names (vae.latent=100).
    """

    members: str = "edlae,ials,dae"
    weights: str = ""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(len(self.names) > 1, f"Expected two or more members of a blend, found {self.members!r}.")
        for name in self.settings:
            require(name in self.names, f"Expected settings of members ({self.members}), found some of {name!r}.")
        whole = {name: dataclasses.asdict(_member(name, self.settings.get(name, {})).config) for name in self.names}
        object.__setattr__(self, "settings", whole)  # what a model folder keeps must not hang on later defaults
        if self.weights:
            _check_weights(self.given_weights, self.names)

    @property
    def names(self) -> list[str]:
        """Of the members."""
        return [name.strip() for name in self.members.split(",") if name.strip()]

    @property
    def given_weights(self) -> list[float]:
        """Empty where they are to be searched."""
        try:
            return [float(weight) for weight in self.weights.split(",") if weight.strip()]
        except ValueError as error:
            raise ConfigError(f"Expected weights such as 0.5,0.3,0.2; found {self.weights!r}.") from error


def _check_weights(weights: Sequence[float], names: Sequence[str]) -> None:
    fit = len(weights) == len(names) and all(0 <= weight < np.inf for weight in weights) and sum(weights) > 0
    require(fit, f"Expected weights of 0 or more for {', '.join(names)}, one above 0; found {weights}.")


def _shares(weights: Sequence[float]) -> Tensor:
    return torch.tensor(weights) / sum(weights)


def _member(name: str, settings: Mapping[str, Any]) -> Recommender:
    from recsys.models import MODELS, create_model  # they name this one too

    model = create_model(name, settings)
    able = [other for other, kind in MODELS.items() if kind.task == "ranking" and not kind.needs_training_users]
    require(name in able and name != Blend.name, f"Expected members of {', '.join(able)}; found {name!r}.")
    return model


class Blend(Recommender):
    """Weighted sum of the members' scores, each divided by its scale.

    weights, scales: float32 (members,), in the order of `members`; the weights' sum is 1.
    """

    name = "blend"
    family = "blend"
    Config = BlendConfig

    members: list[Recommender]
    weights: Tensor
    scales: Tensor

    @classmethod
    def create(cls, settings: Mapping[str, Any] | None = None) -> Self:
        """A blend; `vae.latent` is the setting `latent` of its member `vae`."""
        own: dict[str, Any] = {}
        members: dict[str, dict[str, Any]] = {}
        for key, value in cls._with_preset(settings or {}).items():
            name, dot, setting = key.removeprefix("settings.").partition(".")
            if dot:
                members.setdefault(name, {})[setting] = value
            else:
                own[key] = value
        given = own.pop("settings", {})
        require(isinstance(given, Mapping), f"Expected settings of members by their names, found {given!r}.")
        for name in given:
            members[name] = {**given[name], **members.get(name, {})}
        # All at once: settings of a member that is not among the default ones are right where `members` names it.
        names = own.get("members", BlendConfig.members)
        return cls(replace(make_config(cls.Config, own, cls.name), members=names, settings=members))

    @classmethod
    def of(cls, members: Sequence[Recommender], user_items: csr_matrix, weights: Validate | Sequence[float]) -> Self:
        """A blend of models that are fitted already, on `user_items`; a Validate as weights is what they are chosen by.

        Two members of one name must have equal settings.
        """
        names = ",".join(member.name for member in members)
        model = cls(BlendConfig(names, settings={m.name: dataclasses.asdict(m.config) for m in members}))
        model.n_items, model.members = members[0].n_items, list(members)
        model.scales = model._measure(user_items)
        model.weights = model._search(weights) if callable(weights) else _shares(weights)
        return model

    def _fit(self, matrix: csr_matrix, context: TrainingContext) -> None:
        given = self.config.given_weights
        if not given and context.validate is None:
            raise ConfigError(
                "Expected validation users to choose the weights of a blend on, found none: hold some out "
                "(--held-out), or give the weights (-s weights=0.5,0.3,0.2)."
            )
        self.members = [_member(name, self.config.settings[name]) for name in self.config.names]
        for member, own in self._contexts(context):
            member.fit(matrix, own)
        self.scales = self._measure(matrix)
        self.weights = _shares(given) if given else self._search(context.validate)

    def _refit(self, user_items: csr_matrix, context: TrainingContext) -> Self:
        fresh = type(self)(self.config)
        fresh.n_items, fresh.weights = user_items.shape[1], self.weights
        fresh.members = [member.refit(user_items, own) for member, own in self._contexts(context)]
        fresh.scales = fresh._measure(user_items)
        return fresh

    def _contexts(self, context: TrainingContext) -> Iterator[tuple[Recommender, TrainingContext]]:
        """A seed of its own for each member: a model named twice is then two models."""
        for number, member in enumerate(self.members):
            yield member, replace(context, seed=context.seed + number)

    def _measure(self, matrix: csr_matrix) -> Tensor:
        """How far apart a member's scores of one user lie: standard deviation over items, mean over users."""
        rows = np.linspace(0, matrix.shape[0] - 1, min(_MEASURED, matrix.shape[0])).astype(np.int64)
        spread = [member.score(matrix[rows]).std(dim=1).mean().cpu() for member in self.members]
        return torch.stack(spread).clamp_min(torch.finfo(torch.float32).tiny)

    def _search(self, validate: Validate | None) -> Tensor:
        assert validate is not None and self.n_items is not None
        if isinstance(validate, SampledValidate):
            validate = validate.sample(max(1, _CACHE_BYTES // (4 * self.n_items * len(self.members))))
        cache = _Cache(self._parts)
        return torch.tensor(search_weights(lambda weights: validate(cache.scorer(weights)), len(self.members)))

    def _parts(self, history: csr_matrix) -> Tensor:
        """The members' scores on one scale, float32 (members, users, items)."""
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
        for factor, part in zip(factors, parts, strict=True):  # one at a time: no more than two tables in memory
            total = part * factor if total is None else total.add_(part, alpha=factor)
        assert total is not None
        return total

    def summary(self) -> str:
        """How much each member counts."""
        return ", ".join(f"{name} {weight:.2f}" for name, weight in zip(self.config.names, self.weights, strict=True))

    def item_codes(self) -> Tensor:
        """The members' codes side by side, (items, sum of sizes): cosines are the weighted means of theirs."""
        codes = (torch.nn.functional.normalize(member.item_codes().float(), dim=1) for member in self.members)
        return torch.cat([code * weight**0.5 for code, weight in zip(codes, self.weights.tolist(), strict=True)], dim=1)

    def _get_state(self) -> dict[str, Tensor]:
        state = {"weights": self.weights, "scales": self.scales}
        for prefix, member in self._prefixed():
            state |= {prefix + key: tensor for key, tensor in member.get_state().items()}
        return state

    def _set_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        assert self.n_items is not None
        self.weights, self.scales = state["weights"], state["scales"]
        self.members = [_member(name, self.config.settings[name]) for name in self.config.names]
        for prefix, member in self._prefixed():
            own = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
            member.set_state(own, self.n_items, str(device))

    def _prefixed(self) -> Iterator[tuple[str, Recommender]]:
        for number, member in enumerate(self.members):
            yield f"{number}.{member.name}.", member


def _narrow(blocks: Iterable[Tensor], width: int) -> Iterator[Tensor]:
    """Blocks of `width` items, also of a member that makes all scores at once."""
    for block in blocks:
        yield from torch.split(block, width, dim=1)


class _Cache:
    """Members' scores of histories, kept up to _CACHE_BYTES: a trial of weights then costs no model."""

    def __init__(self, parts: Callable[[csr_matrix], Tensor]):
        self.parts = parts
        self.kept: dict[bytes, Tensor] = {}
        self.room = _CACHE_BYTES

    def scorer(self, weights: Sequence[float]) -> ScoreFunction:
        """The score function of these weights."""

        def score(history: csr_matrix) -> Tensor:
            parts = self._get(history)
            scores: Tensor = torch.tensordot(torch.tensor(weights, device=parts.device), parts, 1)
            return scores

        return score

    def _get(self, history: csr_matrix) -> Tensor:
        key = hashlib.blake2b(history.indptr.tobytes() + history.indices.tobytes()).digest()
        if key in self.kept:
            return self.kept[key]
        parts = self.parts(history)
        if parts.nbytes <= self.room:
            self.kept[key], self.room = parts, self.room - parts.nbytes
        return parts


def search_weights(value: Callable[[Sequence[float]], float], members: int) -> list[float]:
    """Weights of sum 1 with a high `value`: from the best of equal ones and each member alone, step by step.

    A step adds to one weight, or takes from it, what the others lose or gain in proportion. Steps shrink when none
    helps: see _STEPS. A few dozen values are asked for.
    """
    starts = [[1 / members] * members, *np.eye(members).tolist()]
    best, weights = max(((value(start), start) for start in starts), key=lambda pair: pair[0])
    for step in _STEPS:
        improved = True
        while improved:
            improved = False
            for member, change in itertools.product(range(members), (step, -step)):
                trial = _moved(weights, member, change)
                found = value(trial) if trial != weights else best
                if found > best:
                    best, weights, improved = found, trial, True
    return weights


def _moved(weights: Sequence[float], member: int, change: float) -> list[float]:
    """One weight changed, not below 0, and all divided by their sum; unchanged where nothing would be left."""
    moved = list(weights)
    moved[member] = max(0.0, moved[member] + change)
    return [weight / sum(moved) for weight in moved] if sum(moved) > 0 else list(weights)
