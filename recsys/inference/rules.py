"""Rules for the lists of a model: which items may be in them, which are lifted, and how many of a kind there may be.

`recsys.inference.rule_file` reads them from a file, `recsys.inference.reranking` makes lists by them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.data.interactions import Vocabulary
from recsys.inference.topn import GroupCap
from recsys.inference.variety import Variety

RuleKind = Literal["exclude", "only", "boost", "promote", "cap"]
REACH = 50  # place of the item that a boost of strength 1 lifts to the first
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

    def applies(self, users: pa.Array) -> NDArray[np.bool_]:
        """Return for which of these users the rule is, bool (users,); a null is not known."""
        if self.users is None:
            return np.ones(len(users), dtype=bool)
        return np.asarray(self.users.positions(users) >= 0)

    def claims(self, place: int, listed: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return for which users a promotion has a place, from 1, where `listed` of its items are before it."""
        return (place in self.places) | (listed < math.floor(self.share * place + 1e-9))


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
    listed = lists >= 0
    if rule.kind != "cap" or rule.groups is None:
        return int((rule.items[lists] & listed).sum())
    row, place = np.nonzero(listed)
    items = rule.groups[lists[row, place]]
    groups = csr_matrix((np.ones(items.nnz), items.indices, items.indptr), shape=items.shape)
    lists_of = csr_matrix((np.ones(len(row)), (row, np.arange(len(row)))), shape=(len(lists), len(row)))
    counts = (lists_of @ groups).data
    return int((counts - rule.most).clip(min=0).sum())
