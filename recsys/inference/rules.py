"""Rules for the lists of a model: which items may be in them, which are lifted, and how many of a kind there may be.

`recsys.inference.rule_file` reads them from a file, `recsys.inference.reranking` makes lists by them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.data.interactions import Vocabulary
from recsys.inference.topn import GroupCap
from recsys.inference.variety import Variety

RuleKind = Literal["exclude", "only", "boost", "promote", "cap"]
RULE_KINDS: tuple[RuleKind, ...] = ("exclude", "only", "boost", "promote", "cap")


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes
    ----------
    name : str
        How reports call it.
    kind : {"exclude", "only", "boost", "promote", "cap"}
        Never list these items; list only these; add to their scores; give them places; at most so many of a group.
    items : ndarray of bool, shape (items,)
        The items that the rule speaks of; for a cap those with a group.
    users : Vocabulary, optional
        The users it is for; everybody if None.
    strength : float
        Of a boost: 1 lifts the user's fiftieth best item to the best one's score, whatever the unit of the scores;
        below 0 it lowers items.
    places : tuple of int
        Places in a list, from 1, of a promotion.
    share : float
        Of a promotion: of the first k places, for every k, at least floor(share k) are its items'.
    groups : csr_matrix, shape (items, groups), optional
        A stored cell where an item is in a group, for a cap.
    most : int
        Most items of a group in a list, for a cap.
    """

    name: str
    kind: RuleKind
    items: NDArray[np.bool_]
    users: Vocabulary | None = None
    strength: float = 0.0
    places: tuple[int, ...] = ()
    share: float = 0.0
    groups: csr_matrix | None = None
    most: int = 0

    @classmethod
    def of_cap(cls, name: str, cap: GroupCap) -> Rule:
        """Return a cap on groups, one an item, as a rule."""
        items = np.flatnonzero(cap.groups >= 0)
        cells = np.ones(len(items), dtype=np.float32), (items, cap.groups[items])
        groups = csr_matrix(cells, shape=(len(cap.groups), int(cap.groups.max(initial=0)) + 1))
        return cls(name, "cap", cap.groups >= 0, groups=groups, most=cap.most)

    @cached_property
    def table(self) -> NDArray[np.int32]:
        """The groups of each item of a cap, int32 (items, most groups of an item); -1 after the last one."""
        assert self.groups is not None
        sizes = np.diff(self.groups.indptr)
        table = np.full((len(sizes), max(1, int(sizes.max(initial=0)))), -1, dtype=np.int32)
        place = np.arange(self.groups.nnz) - np.repeat(self.groups.indptr[:-1], sizes)
        table[np.repeat(np.arange(len(sizes)), sizes), place] = self.groups.indices
        return table

    def applies(self, users: pa.Array) -> NDArray[np.bool_]:
        """Return for which of these users the rule is, bool (users,); a null is not known."""
        if self.users is None:
            return np.ones(len(users), dtype=bool)
        return np.asarray(self.users.positions(users) >= 0)

    def claims(self, place: int, listed: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return for which users a promotion has a place, from 1, where `listed` of its items are before it."""
        return (place in self.places) | (listed < math.floor(self.share * place + 1e-9))

    def broken_by(self, lists: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Return which lists of the best items, int32 (users, n), are not as the rule has them, bool (users,)."""
        if self.kind == "cap":
            return _beyond(self, lists) > 0
        own = self.items[lists] & (lists >= 0)
        if self.kind == "exclude":
            return np.asarray(own.any(axis=1))
        if self.kind == "only":
            return np.asarray((own != (lists >= 0)).any(axis=1))
        before: NDArray[np.int64] = np.cumsum(own, axis=1) - own
        wanted = [self.claims(at + 1, before[:, at]) & ~own[:, at] for at in range(lists.shape[1])]
        return np.asarray(np.any(wanted, axis=0))


@dataclass(frozen=True)
class RuleSet:
    """Rules that hold together.

    Attributes
    ----------
    rules : tuple of Rule
        In the order of the file; where two promotions want one place, the first has it.
    variety : Variety, optional
        How lists are made less alike within themselves.
    """

    rules: tuple[Rule, ...] = ()
    variety: Variety | None = None

    def of(self, *kinds: RuleKind) -> list[Rule]:
        """Return the rules of some kinds."""
        return [rule for rule in self.rules if rule.kind in kinds]

    def broken_by(self, users: pa.Array, lists: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Say which lists are not as the rules have them.

        Parameters
        ----------
        users : Array
            Whose lists they are.
        lists : ndarray of int32, shape (users, n)
            The best items without the rules; -1 for none.

        Returns
        -------
        ndarray of bool, shape (users,)
            All are True where the rules boost or vary, which may change any list.
        """
        if self.variety is not None or self.of("boost"):
            return np.ones(len(lists), dtype=bool)
        broken = np.zeros(len(lists), dtype=bool)
        for rule in self.rules:
            broken |= rule.applies(users) & rule.broken_by(lists)
        return broken

    def effects(self, users: pa.Array, without: NDArray[np.int32], lists: NDArray[np.int32]) -> list[tuple[int, int]]:
        """Count the places that the rules changed.

        Parameters
        ----------
        users : Array
            Whose lists they are.
        without, lists : ndarray of int32, shape (users, n)
            Positions listed without the rules and with them; -1 for none.

        Returns
        -------
        list of (int, int)
            For each rule the places of its items in the lists of its users, without the rules and with them. For a cap
            the places beyond what it allows.
        """
        return [
            tuple(_places_of(rule, some[rule.applies(users)]) for some in (without, lists))  # type: ignore[misc]
            for rule in self.rules
        ]


def _places_of(rule: Rule, lists: NDArray[np.int32]) -> int:
    """Places of the items that a rule speaks of; for a cap those above its limit."""
    if rule.kind == "cap":
        return int(_beyond(rule, lists).sum())
    return int((rule.items[lists] & (lists >= 0)).sum())


def _beyond(rule: Rule, lists: NDArray[np.int32]) -> NDArray[np.int64]:
    """How many items above its limit a cap finds in each list: in order, each is equal to the one `most` before it."""
    groups = np.where((lists >= 0)[:, :, None], rule.table[lists], np.int32(-1))
    groups = groups.reshape(len(lists), groups.shape[1] * groups.shape[2])
    groups.sort(axis=1)
    further = groups[:, rule.most :]
    return np.asarray(((further == groups[:, : further.shape[1]]) & (further >= 0)).sum(axis=1))
