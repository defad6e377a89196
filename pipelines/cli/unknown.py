"""Ids in files of items, users and titles that a model does not know are counted and named: one may be misspelt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from recsys.data.interactions import Vocabulary
from recsys.system.text import plural

from .output import listed, note

SHOWN = 3


@dataclass(frozen=True)
class UnknownIds:
    """How many different ids of a file are unknown, of how many, and the first few."""

    count: int
    total: int
    first: tuple[str, ...]


def find_unknown(ids: Iterable[Any], known: Vocabulary) -> UnknownIds:
    """Compare ids with those that are known."""
    named = Vocabulary(_array(ids).unique())
    missing = named.take((known.positions(named.ids) < 0).nonzero()[0])
    return UnknownIds(len(missing), len(named), tuple(str(one) for one in missing[: SHOWN + 1].to_pylist()))


def _array(ids: Iterable[Any]) -> pa.Array:
    return ids if isinstance(ids, pa.Array) else pa.array(ids)


def note_unknown(found: Mapping[str, UnknownIds], whose: str = "the model") -> None:
    """Say it in one line for each file; nothing where all are known."""
    for name, unknown in found.items():
        if unknown.count:
            ids = plural(unknown.total, "id")
            note(f"{unknown.count:,} of {ids} unknown to {whose}: {listed(unknown.first, SHOWN)}", name)
