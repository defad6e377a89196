"""Warm start: a state over old ids becomes a state over new ids, from which a fit goes on.

```
old items   a b c        known items keep their rows, in every tensor and along every axis that is over items;
new items   b c d        a new item gets the weighted mean of the rows of the items it is taken with
            | | |
rows        b c (b+c)/2  d was taken by users of b and of c
```
Which axes are over items is read from the model's own declaration (`recsys.models.state`): those that grow when the
catalog does. Axes of the size "users" are over the training users.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags
from torch import Tensor

from recsys.data.interactions import Vocabulary
from recsys.data.matrix import UserItemMatrix
from recsys.errors import ConfigError, DataError
from recsys.models.base import Recommender
from recsys.models.factorization.known_users import KNOWN
from recsys.models.neighbors import strongest_of_rows
from recsys.models.state import USERS
from recsys.models.trained import TrainedModel
from recsys.training.context import WarmStart

NEIGHBORS = 20  # known items whose rows a new item is made of
_TIES = 200  # there may be as many if they tie; beyond that they say nothing

# How long and how fast a model is trained: these may differ from the settings of the model to start from.
FREE_SETTINGS = ("epochs", "iterations", "learning_rate", "batch_size")


@dataclass(frozen=True)
class IdMap:
    """Which old rows each new row is made of.

    Attributes
    ----------
    old : int
        Number of old ids.
    source : ndarray of int64, shape (new,)
        Position of each id among the old ones; -1 for ids that were not there.
    near : csr_matrix, shape (new, old), optional
        Weights, of sum 1, of the old rows that a row without a source is made of. A row without weights, and every one
        without this matrix, is made of all old rows alike. `taken_together` makes it of histories; similarities of item
        features would fit too.
    """

    old: int
    source: NDArray[np.int64]
    near: csr_matrix | None = None

    @classmethod
    def of(cls, old: Vocabulary, new: Vocabulary, near: csr_matrix | None = None) -> IdMap:
        """Map by the ids."""
        return cls(len(old), old.positions(new.ids).astype(np.int64), near)

    def carry(self, table: Tensor, axis: int = 0) -> Tensor:
        """Return a table whose axis is over the new ids.

        Parameters
        ----------
        table : Tensor
            Along the axis it has one place for each old id, or several next to each other (levels of ratings).
        axis : int

        Returns
        -------
        Tensor
            Of the same type.
        """
        rows = table.movedim(axis, 0)
        grouped = rows.reshape(self.old, -1)
        carried = grouped[torch.as_tensor(self.source.clip(0))]
        fresh = np.flatnonzero(self.source < 0)
        if len(fresh):
            carried[torch.as_tensor(fresh)] = self._made(grouped, fresh).to(carried.dtype)
        places = len(self.source) * (len(rows) // self.old)
        return carried.reshape(places, *rows.shape[1:]).movedim(0, axis).contiguous()

    def _made(self, rows: Tensor, fresh: NDArray[np.int64]) -> Tensor:
        """The rows of new ids, float64 (fresh, width)."""
        values = rows.numpy(force=True).astype(np.float64)
        made = np.repeat(values.mean(axis=0, keepdims=True), len(fresh), axis=0)
        if self.near is not None:
            weights = csr_matrix(self.near[fresh])
            placed = np.flatnonzero(np.diff(weights.indptr))
            made[placed] = weights[placed] @ values
        return torch.as_tensor(made)


def taken_together(matrix: csr_matrix, source: NDArray[np.int64], old: int) -> csr_matrix:
    """Find the known items that new items are taken with.

    Parameters
    ----------
    matrix : csr_matrix, shape (users, new)
        The user-item matrix of the new fit.
    source : ndarray of int64, shape (new,)
        Old position of each item; -1 for new items.
    old : int
        Number of old items.

    Returns
    -------
    csr_matrix, shape (new, old)
        In the rows of new items: the cosines of the columns of the nearest known items, divided by their sum.
    """
    fresh, known = np.flatnonzero(source < 0), np.flatnonzero(source >= 0)
    ones = csr_matrix((np.ones(matrix.nnz), matrix.indices, matrix.indptr), shape=matrix.shape).tocsc()
    lengths = np.sqrt(np.maximum(np.diff(ones.indptr), 1))
    together = diags(1 / lengths[fresh]) @ (ones[:, fresh].T @ ones[:, known]) @ diags(1 / lengths[known])
    nearest = strongest_of_rows(csr_matrix(together), NEIGHBORS, _TIES)
    sums = np.asarray(nearest.sum(axis=1)).ravel()
    weights = (diags(1 / np.where(sums > 0, sums, 1)) @ nearest).tocoo()
    cells = fresh[weights.row], source[known][weights.col]
    return csr_matrix((weights.data, cells), shape=(len(source), old))


def items_between(old: Vocabulary, train: UserItemMatrix) -> IdMap:
    """Map old items to those of a new fit; new ones are made of the known items they are taken with.

    Parameters
    ----------
    old : Vocabulary
    train : UserItemMatrix
        Of the new fit.

    Returns
    -------
    IdMap

    Raises
    ------
    DataError
        If there are no old items among the new.
    """
    items = IdMap.of(old, train.items)
    if (items.source < 0).all():
        raise DataError(
            f"Expected items that the model to start from knows, found none among {len(train.items):,}: are the ids of "
            "the same kind? Else train without it."
        )
    if (items.source >= 0).all():
        return items
    return dataclasses.replace(items, near=taken_together(train.matrix, items.source, items.old))


def carry_state(
    model: Recommender, state: Mapping[str, Tensor], items: IdMap, users: IdMap | None = None
) -> dict[str, Tensor]:
    """Return what a fit can begin with, over new ids.

    Parameters
    ----------
    model : Recommender
        Its declaration says which axes are over items, and which tensors a fit begins with.
    state : mapping of str to Tensor
        Of a fitted model of its kind, over the old ids.
    items : IdMap
    users : IdMap, optional
        Of training users, where the state has rows of them.

    Returns
    -------
    dict of str to Tensor
        Empty for a model whose every fit begins with nothing.
    """
    carried = {name: state[name] for name in model._start_spec(items.old, state).tensors}
    for name, axes in item_axes(model, items.old, state).items():
        for axis, _ in axes:
            carried[name] = items.carry(carried[name], axis)
    for name, declared in model._start_spec(items.old, state).tensors.items():
        for axis, size in enumerate(declared.shape):
            if isinstance(size, str) and size.rpartition(".")[2] == USERS:
                assert users is not None  # models with rows of users know their ids
                carried[name] = users.carry(carried[name], axis)
    return carried


def item_axes(model: Recommender, items: int, state: Mapping[str, Tensor]) -> dict[str, list[tuple[int, int]]]:
    """Find the axes over items of what a fit begins with: those that grow when the catalog has one item more.

    Parameters
    ----------
    model : Recommender
    items : int
        Number of items.
    state : mapping of str to Tensor
        For sizes that only a state tells.

    Returns
    -------
    dict of str to list of (int, int)
        By the name of a tensor: its axes, each with the number of places that an item has along it.
    """
    spec, larger = model._start_spec(items, state), model._start_spec(items + 1, state)
    found = {}
    for name, declared in spec.tensors.items():
        sizes = zip(declared.shape, larger.tensors[name].shape, strict=True)
        more = [0 if isinstance(b, str) or isinstance(a, str) else b - a for a, b in sizes]
        found[name] = [(axis, places) for axis, places in enumerate(more) if places]
    return found


@dataclass(frozen=True)
class Earlier:
    """A trained model that a new fit goes on from.

    Attributes
    ----------
    trained : TrainedModel
        Saved or just fitted.
    grow : bool
        Keep its items in the new catalog, at their positions, also where no user has them any more; new items follow.
    """

    trained: TrainedModel
    grow: bool = False

    def create(self, name: str = "", settings: Mapping[str, Any] | None = None) -> Recommender:
        """Create the model to fit: of the same kind, with the same settings.

        Parameters
        ----------
        name : str
            What was asked for; that of the earlier model if empty.
        settings : mapping, optional
            What was asked for. Those of FREE_SETTINGS may differ from the earlier ones, others may not.

        Returns
        -------
        Recommender
            Not fitted.

        Raises
        ------
        ConfigError
            If the model or a setting is another one; the message says which and how.
        """
        earlier = self.trained.model
        if name not in ("", earlier.name):
            raise ConfigError(f"Expected {earlier.name}, the model to start from, found {name}: leave the model out.")
        before = dataclasses.asdict(earlier.config)
        model = type(earlier).create({**before, **(settings or {})})
        self.check(model)
        return model

    def check(self, model: Recommender) -> None:
        """Raise ConfigError where a model is of another kind than the earlier one, or has other settings."""
        earlier = self.trained.model
        if type(model) is not type(earlier):
            raise ConfigError(f"Expected {earlier.name}, the model to start from, found {model.name}.")
        before, after = dataclasses.asdict(earlier.config), dataclasses.asdict(model.config)
        differ = [name for name in before if before[name] != after[name] and name not in FREE_SETTINGS]
        if differ:
            told = ", ".join(f"{name} {before[name]} (now {after[name]})" for name in differ)
            raise ConfigError(
                f"Expected the settings of the model to start from, found others: {told}. Leave them out, or train "
                "without a model to start from."
            )

    def items_of(self, train: UserItemMatrix) -> Vocabulary:
        """Return the items of a new fit: those of its matrix, after all earlier ones if the catalog only grows."""
        if not self.grow:
            return train.items
        fresh = np.flatnonzero(self.trained.items.positions(train.items.ids) < 0)
        return self.trained.items.extended(train.items.take(fresh)) if len(fresh) else self.trained.items

    def start(self, model: Recommender, train: UserItemMatrix) -> WarmStart | None:
        """Return what the fit of a model on a matrix begins with.

        Parameters
        ----------
        model : Recommender
            From `create`.
        train : UserItemMatrix
            What it will be fitted on.

        Returns
        -------
        WarmStart or None
            None for a model whose every fit begins with nothing.

        Raises
        ------
        DataError
            If the model knows none of the items.
        """
        earlier = self.trained
        items = items_between(earlier.items, train)
        users = None if earlier.users is None else IdMap.of(earlier.users, train.users)
        state = carry_state(model, earlier.model.get_state(), items, users)
        return WarmStart(state) if state else None

    def keep_vanished(
        self, model: Recommender, start: WarmStart | None, train: UserItemMatrix, device: str = "auto"
    ) -> None:
        """Give a fitted model back what the earlier one knew of items that no user has any more, if the catalog grows.

        A fit has nothing to say of them: networks learn only that no user takes them, and factorizations set them to 0.

        Parameters
        ----------
        model : Recommender
            Fitted on `train`.
        start : WarmStart or None
            What its fit began with; nothing happens without it.
        train : UserItemMatrix
        device : str
            Where the model goes on scoring.
        """
        vanished = np.flatnonzero(train.item_counts == 0)
        if not self.grow or start is None or not len(vanished):
            return
        # Factors of known users were solved without what comes back.
        state, epochs = {name: part for name, part in model.get_state().items() if KNOWN not in name}, model.epochs
        for name, axes in item_axes(model, len(train.items), start.state).items():
            for axis, places in axes:
                rows = (vanished[:, None] * places + np.arange(places)).ravel()
                kept = start.state[name].index_select(axis, torch.as_tensor(rows))
                state[name] = state[name].index_copy(axis, torch.as_tensor(rows), kept)
        model.set_state(state, len(train.items), device).epochs = epochs

    def record(self, train: UserItemMatrix) -> dict[str, Any]:
        """Return what a model's record says of where it started, plain texts and numbers.

        `chain` holds the digests of the earlier model and of those that one came from, the nearest first; models that
        were not loaded have none.
        """
        about, source = self.trained.about, self.trained.items.positions(train.items.ids)
        before = about.get("started_from")
        chain = before.get("chain") if isinstance(before, Mapping) else None
        digests = [self.trained.digest, *map(str, chain if isinstance(chain, list) else [])]
        data = about.get("data")
        facts = {
            "model": self.trained.digest or None,
            "data": data.get("fingerprint") if isinstance(data, Mapping) else None,
            "created": about.get("created"),
            "known_items": int((source >= 0).sum()),
            "new_items": int((source < 0).sum()),
            "items_left_out": len(self.trained.items) - int((source >= 0).sum()),
            "grow": self.grow,
            "chain": [digest for digest in digests if digest],
        }
        return {"started_from": facts}
