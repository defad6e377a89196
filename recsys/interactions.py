"""Who took what: interactions, the vocabularies of ids, and the sparse user-item matrix.

The outside world speaks in ids, the models in positions 0..n-1. A Vocabulary translates; ids come back in the
type and the spelling they came in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.errors import DataError

IntArray = NDArray[np.int32]
FloatArray = NDArray[np.float32]


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
    """

    users: Vocabulary
    items: Vocabulary
    user: IntArray
    item: IntArray
    rating: FloatArray | None = None
    timestamp: NDArray[np.int64] | None = None
    ledger: Ledger = field(default_factory=Ledger)
    row: IntArray | None = None

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


@dataclass(frozen=True)
class UserItemMatrix:
    """CSR float32 (users, items) with int32 indices sorted within each row, and the ids of both sides.

    `unknown` counts the interactions left out because their item is not in a given vocabulary.
    """

    matrix: csr_matrix
    users: Vocabulary
    items: Vocabulary
    unknown: int = 0

    @classmethod
    def from_interactions(
        cls, interactions: Interactions, items: Vocabulary | None = None, ratings: bool = False
    ) -> UserItemMatrix:
        """Matrix of preferences (1 for each interaction), or of the ratings themselves, real zeros stored.

        With `items` (a model's vocabulary) the columns are that vocabulary's; every user keeps a row, empty perhaps.
        """
        values = interactions.rating if ratings else np.broadcast_to(np.float32(1), len(interactions))
        if values is None:
            raise DataError("Expected interactions with ratings, found none: name their column with --rating-column.")
        user, users = interactions.user, interactions.users
        if items is None:
            shape = len(users), len(interactions.items)
            return cls(sparse_rows(user, interactions.item, values, shape), users, interactions.items)
        column = items.positions(interactions.items.ids)[interactions.item]
        known = column >= 0
        matrix = sparse_rows(user[known], column[known], values[known], (len(users), len(items)))
        return cls(matrix, users, items, int((~known).sum()))

    @cached_property
    def item_counts(self) -> NDArray[np.int64]:
        """Number of users of each item, int64 (items,)."""
        return np.bincount(self.matrix.indices, minlength=len(self.items)).astype(np.int64)


def sparse_rows(row: NDArray[Any], column: NDArray[Any], values: NDArray[Any], shape: tuple[int, int]) -> csr_matrix:
    """CSR float32 of the given cells, each pair once. Real zeros stay stored, unlike in scipy's sums."""
    order = cell_order(row, column, shape)
    starts = np.arange(shape[0] + 1, dtype=row.dtype)
    indptr = np.searchsorted(row if order is None else row[order], starts).astype(np.int32)
    matrix = csr_matrix(cast(Any, shape), dtype=np.float32)  # the stubs know no shape alone
    matrix.data = np.array(values if order is None else values[order], dtype=np.float32)
    matrix.indices = np.array(column if order is None else column[order], dtype=np.int32)
    matrix.indptr = indptr
    matrix.has_sorted_indices = True
    return matrix


def cell_order(row: NDArray[Any], column: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.int64] | None:
    """The order of cells by row, then column, equal ones as they stand; None where they already stand so."""
    if ((row[1:] > row[:-1]) | ((row[1:] == row[:-1]) & (column[1:] >= column[:-1]))).all():
        return None
    bits = int(shape[1]).bit_length(), len(row).bit_length()
    if int(shape[0]).bit_length() + sum(bits) > 63:
        return np.lexsort((column, row))
    key = row.astype(np.int64)  # row, column and place in one number: one fast sort instead of a stable sort of three
    key <<= bits[0]
    key |= column
    key <<= bits[1]
    key |= np.arange(len(key), dtype=np.int32)
    key.sort()
    key &= (1 << bits[1]) - 1
    return key
