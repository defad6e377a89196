"""Who took what: interactions, the vocabularies of ids, and the sparse user-item matrix.

The outside world speaks in ids, the models in positions 0..n-1. A Vocabulary translates; ids come back in the
type and the spelling they came in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.errors import DataError
from recsys.types import FloatArray, IntArray


@dataclass(frozen=True)
class Vocabulary:
    """Distinct ids in order of their position. `ids` is an Arrow array without nulls, of text or of integers."""

    ids: pa.Array

    @classmethod
    def of(cls, ids: Iterable[Any]) -> Vocabulary:
        """Vocabulary of distinct ids, in the order given. Raises DataError for a missing or repeated id."""
        array = _as_array(ids)
        if array.null_count:
            raise DataError(f"Expected ids without gaps, found {array.null_count} missing.")
        if len(pc.unique(array)) != len(array):
            raise DataError("Expected distinct ids, found repeated ones.")
        return cls(array)

    def __len__(self) -> int:
        return len(self.ids)

    def positions(self, ids: Iterable[Any]) -> IntArray:
        """Positions of `ids`, int32 (n,); -1 where an id is unknown.

        Where text meets integers the spelling decides: "7" finds 7, "007" does not.
        """
        wanted = _as_array(ids)
        known = self.ids
        if wanted.type != known.type:
            wanted, known = wanted.cast(pa.large_string()), known.cast(pa.large_string())
        found = pc.fill_null(pc.index_in(wanted, value_set=known), -1)
        return np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.int32)

    def extended(self, ids: pa.Array) -> Vocabulary:
        """These ids and then `ids`, none of which is among them; where text meets integers, all as text."""
        parts = [self.ids, ids]
        if self.ids.type != ids.type:
            parts = [part.cast(pa.large_string()) for part in parts]
        return Vocabulary.of(pa.concat_arrays(parts))

    def take(self, positions: NDArray[Any]) -> pa.Array:
        """Ids at `positions` (every one within 0..n-1), in the type they came in."""
        return self.ids.take(pa.array(positions))

    def to_list(self) -> list[Any]:
        """All ids as Python objects."""
        return list(self.ids.to_pylist())


def _as_array(ids: Iterable[Any]) -> pa.Array:
    if isinstance(ids, pa.ChunkedArray):
        return ids.combine_chunks()
    array = ids if isinstance(ids, pa.Array) else pa.array(ids)
    if pa.types.is_null(array.type):  # an empty list has no type of its own
        return array.cast(pa.string())
    return array


@dataclass(frozen=True)
class Ledger:
    """The account of every input row: rows read = rows kept + rows rejected, by reason."""

    read: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)

    @property
    def kept(self) -> int:
        """Rows that became interactions."""
        return self.read - sum(self.rejected.values())

    def line(self) -> str:
        """The account in one line: `rows read 12 = kept 9 + missing user id 1 + duplicate 2`."""
        parts = [f"kept {self.kept:,}"] + [f"{reason} {count:,}" for reason, count in self.rejected.items() if count]
        return f"rows read {self.read:,} = " + " + ".join(parts)


@dataclass(frozen=True)
class RatingScale:
    """What values ratings take: the lowest, the highest, the step between them (None: no regular one), and the kind.

    kind is 'rating', 'count' (plays, hours, clicks: from 0, a few values far above the middle one) or 'constant'
    (one value only: the ratings say no more than that the row exists).
    """

    min: float
    max: float
    step: float | None
    kind: str

    @classmethod
    def of(cls, ratings: FloatArray) -> RatingScale:
        """The scale of one rating or more."""
        table = pc.value_counts(pa.array(ratings))
        levels, counts = table.field("values").to_numpy(), table.field("counts").to_numpy()
        order = np.argsort(levels)
        levels, counts = levels[order].astype(np.float64), counts[order]
        middle = levels[np.searchsorted(np.cumsum(counts), counts.sum() / 2)]
        low, high = float(levels[0]), float(levels[-1])
        kind = "count" if low >= 0 and high >= 20 and high >= 10 * middle else "rating"
        kind = "constant" if low == high else kind
        return cls(round(low, 6), round(high, 6), _step(levels), kind)


def _step(levels: NDArray[np.float64]) -> float | None:
    """The largest step, of whole thousandths, that leads to every level from the lowest."""
    thousandths = levels * 1000
    whole = np.rint(thousandths)
    if len(levels) < 2 or np.abs(thousandths - whole).max() > 0.05 or whole[-1] - whole[0] > 1e9:
        return None
    return float(np.gcd.reduce(np.diff(whole).astype(np.int64))) / 1000


@dataclass(frozen=True)
class Interactions:
    """The table user_id, item_id[, rating][, timestamp], its ids already translated to positions.

    `user` and `item` are int32 (rows,), positions in `users` and `items`; `rating` is float32 (rows,) or None;
    `timestamp` is int64 (rows,), milliseconds since 1970 UTC, or None. A (user, item) pair occurs once.
    Vocabularies hold no id without a row, in order of first appearance. What reading gives is sorted by user, then
    item; `row`, int32 (rows,), is then the place of each row in the input, and None where rows stand as they came.

    `seen_only` are rows that are no preference and still were seen: left out by `min_rating` or as a rare item. Models
    do not learn from them; lists do not offer them again. Its `users` are these users; it has items of its own.
    """

    users: Vocabulary
    items: Vocabulary
    user: IntArray
    item: IntArray
    rating: FloatArray | None = None
    timestamp: NDArray[np.int64] | None = None
    ledger: Ledger = field(default_factory=Ledger)
    row: IntArray | None = None
    seen_only: Interactions | None = None

    def __post_init__(self) -> None:
        for name in ("item", "rating", "timestamp", "row"):
            column = getattr(self, name)
            if column is not None and column.shape != self.user.shape:
                raise DataError(f"Expected one {name} for each of {len(self.user)} rows, found {column.shape}.")

    def __len__(self) -> int:
        return len(self.user)

    @cached_property
    def scale(self) -> RatingScale | None:
        """What values the ratings take; None without ratings."""
        return None if self.rating is None or not len(self.rating) else RatingScale.of(self.rating)

    def fingerprint(self) -> str:
        """SHA-256 over ids and values in their order: equal for equal data, also through a prepared store."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        for vocabulary in (self.users, self.items):
            _hash_ids(vocabulary.ids, digest)
        for column in (self.user, self.item, self.rating, self.timestamp):
            digest.update(b"-" if column is None else column.dtype.str.encode())
            digest.update(b"" if column is None else np.ascontiguousarray(column).data)
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """What is in the table, as plain numbers and texts: sizes, density, scale, times, rows a user and an item."""
        facts: dict[str, Any] = {
            "users": len(self.users),
            "items": len(self.items),
            "rows": len(self),
            "density": len(self) / max(1, len(self.users) * len(self.items)),
            "rows_per_user": _spread(np.bincount(self.user, minlength=len(self.users))),
            "rows_per_item": _spread(np.bincount(self.item, minlength=len(self.items))),
            "scale": None if self.scale is None else asdict(self.scale),
            "time": None if self.timestamp is None else [_date(self.timestamp.min()), _date(self.timestamp.max())],
            "ledger": {"read": self.ledger.read, "kept": self.ledger.kept, **self.ledger.rejected},
            "fingerprint": self.fingerprint(),
        }
        return facts


def _hash_ids(ids: pa.Array, digest: Any) -> None:
    if pa.types.is_integer(ids.type):
        digest.update(b"integers" + np.ascontiguousarray(ids.to_numpy()).astype(np.int64).tobytes())
        return
    texts = ids.cast(pa.large_binary())  # the same bytes whatever the width of the offsets
    digest.update(b"texts" + pc.binary_length(texts).to_numpy().astype(np.int64).tobytes())
    digest.update(b"".join(texts.to_pylist()))


def _spread(counts: NDArray[Any]) -> dict[str, float]:
    return {"min": int(counts.min()), "median": float(np.median(counts)), "max": int(counts.max())}


def _date(milliseconds: int) -> str:
    return str(np.datetime64(int(milliseconds), "ms").astype("datetime64[s]"))
