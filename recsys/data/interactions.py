"""Interactions of users with items, and the vocabularies that translate ids to positions 0..n-1 and back.

Ids keep the type and the spelling that they have in the source.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.errors import DataError
from recsys.types import FloatArray, IntArray

if TYPE_CHECKING:
    from recsys.data.item_features.features import ItemFeatures
    from recsys.data.matrix import UserItemMatrix


@dataclass(frozen=True)
class Vocabulary:
    """Distinct ids in order of their positions.

    Attributes
    ----------
    ids : Array, shape (n,)
        Arrow array of text or of integers, without nulls.
    """

    ids: pa.Array

    @classmethod
    def of(cls, ids: Iterable[Any]) -> Vocabulary:
        """Make a vocabulary of distinct ids, in the order given.

        Parameters
        ----------
        ids : iterable of str or int, or Array
            All of one type.

        Returns
        -------
        Vocabulary

        Raises
        ------
        DataError
            If an id is missing or occurs twice.
        """
        array = _as_array(ids)
        if array.null_count:
            raise DataError(f"Expected ids without gaps, found {array.null_count} missing.")
        if len(pc.unique(array)) != len(array):
            raise DataError("Expected distinct ids, found repeated ones.")
        return cls(array)

    def __len__(self) -> int:
        return len(self.ids)

    def positions(self, ids: Iterable[Any]) -> IntArray:
        """Find the positions of ids.

        Parameters
        ----------
        ids : iterable of str or int, or Array
            Text is compared with integers by spelling: "7" finds 7, "007" does not.

        Returns
        -------
        ndarray of int32, shape (n,)
            -1 where an id is unknown.
        """
        wanted = _as_array(ids)
        known = self.ids
        if wanted.type != known.type:
            wanted, known = wanted.cast(pa.large_string()), known.cast(pa.large_string())
        found = pc.fill_null(pc.index_in(wanted, value_set=known), -1)
        return np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.int32)

    def extended(self, ids: pa.Array) -> Vocabulary:
        """Append new ids, none of which is known yet; all become text where text meets integers."""
        parts = [self.ids, ids]
        if self.ids.type != ids.type:
            parts = [part.cast(pa.large_string()) for part in parts]
        return Vocabulary.of(pa.concat_arrays(parts))

    def take(self, positions: NDArray[Any]) -> pa.Array:
        """Return the ids at `positions` in their own type; null where a position is -1 (no item)."""
        places = np.atleast_1d(np.asarray(positions))
        if places.size == 0:
            places = places.astype(np.int64)  # of an empty list, numpy makes floats
        return self.ids.take(pa.array(places, mask=places == -1))

    def to_list(self) -> list[Any]:
        """Return all ids as Python objects."""
        return list(self.ids.to_pylist())


def _as_array(ids: Iterable[Any]) -> pa.Array:
    if isinstance(ids, pa.ChunkedArray):
        return ids.combine_chunks()
    if isinstance(ids, (str, bytes)):
        raise DataError(f"Expected a list of ids, found the single {ids!r}: write [{ids!r}].")
    try:
        array = ids if isinstance(ids, pa.Array) else pa.array(ids)
    except (pa.ArrowException, OverflowError, TypeError, UnicodeError, ValueError) as error:
        raise DataError(f"Expected ids of one type, text or integers of at most 64 bits, found: {error}.") from error
    if pa.types.is_nested(array.type):
        raise DataError(f"Expected ids as text or integers, found the type {array.type}.")
    if pa.types.is_null(array.type):  # an empty list has no type of its own
        return array.cast(pa.string())
    return array


@dataclass(frozen=True)
class Ledger:
    """The account of every input row: rows read = rows kept + rows rejected.

    Attributes
    ----------
    read : int
        Rows of the source.
    rejected : mapping of str to int
        Number of rows by the reason they were rejected or left out for.
    """

    read: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)

    @property
    def kept(self) -> int:
        """Number of rows that became interactions."""
        return self.read - sum(self.rejected.values())

    def line(self) -> str:
        """Return the account in one line: `rows read 12 = kept 9 + missing user id 1 + duplicate 2`."""
        parts = [f"kept {self.kept:,}"] + [f"{reason} {count:,}" for reason, count in self.rejected.items() if count]
        return f"rows read {self.read:,} = " + " + ".join(parts)


@dataclass(frozen=True)
class ColumnUse:
    """Which columns of a source were read, and which were not.

    Attributes
    ----------
    read : mapping of str to str
        Name of the column read as "user", "item", "rating" and "timestamp"; its number, as text, without a header.
    unread : tuple of str
        The other columns.
    """

    read: Mapping[str, str]
    unread: tuple[str, ...] = ()

    def line(self) -> str:
        """Return both in one line: `columns read: user = userId, item = movieId; not read: title`."""
        line = "columns read: " + ", ".join(f"{kind} = {name}" for kind, name in self.read.items())
        if not self.unread:
            return line
        more = f" and {len(self.unread) - 8} more" if len(self.unread) > 8 else ""
        return f"{line}; not read: {', '.join(self.unread[:8])}{more}"


@dataclass(frozen=True)
class RatingScale:
    """The values that ratings take.

    Attributes
    ----------
    min, max : float
        The lowest and the highest rating.
    step : float or None
        The difference that leads from the lowest to every other; None if there is no regular one.
    kind : {"rating", "count", "constant"}
        "count": plays, hours or clicks, from 0, with a few values far above the median. "constant": one value only,
        so that a rating says no more than that its row exists.
    """

    min: float
    max: float
    step: float | None
    kind: str

    @classmethod
    def of(cls, ratings: FloatArray) -> RatingScale:
        """Find the scale of ratings.

        Parameters
        ----------
        ratings : ndarray of float32, shape (rows,)
            One finite value or more.

        Returns
        -------
        RatingScale
        """
        table = pc.value_counts(pa.array(ratings))
        levels, counts = table.field("values").to_numpy(), table.field("counts").to_numpy()
        order = np.argsort(levels)
        levels, counts = levels[order], counts[order]
        low, median, high = (_shortest(levels[place]) for place in (0, _median_place(counts), -1))
        kind = "count" if low >= 0 and high >= 20 and high >= 10 * median else "rating"
        kind = "constant" if low == high else kind
        return cls(low, high, _step(levels.astype(np.float64)), kind)


def _median_place(counts: NDArray[Any]) -> int:
    return int(np.searchsorted(np.cumsum(counts), counts.sum() / 2))


def _shortest(number: np.float32) -> float:
    """The number as people write it: 0.1, and not 0.10000000149 as float32 has it."""
    return float(str(number))


def _step(levels: NDArray[np.float64]) -> float | None:
    """The largest step, of whole thousandths, that leads to every level from the lowest."""
    thousandths = levels * 1000
    whole = np.rint(thousandths)
    if len(levels) < 2 or np.abs(thousandths - whole).max() > 0.05 or whole[-1] - whole[0] > 1e9:
        return None
    step = float(np.gcd.reduce(np.diff(whole).astype(np.int64))) / 1000
    return step or None  # levels closer together than thousandths


@dataclass(frozen=True)
class Interactions:
    """The table of interactions: user, item, optional rating and timestamp; ids are positions in vocabularies.

    What `read_interactions` returns is sorted by user, then item.

    Attributes
    ----------
    users, items : Vocabulary
        The ids, each with a row; what is read has them in canonical order (`recsys.data.id_order`).
    user, item : ndarray of int32, shape (rows,)
        Positions in `users` and `items`. A (user, item) pair occurs once.
    rating : ndarray of float32, shape (rows,), or None
    timestamp : ndarray of int64, shape (rows,), or None
        Milliseconds since 1970 UTC.
    ledger : Ledger
        The account of the rows of the source.
    row : ndarray of int32, shape (rows,), or None
        Number of each row in the source; None where rows are in the order of the source.
    seen_only : Interactions or None
        Rows that are no preference but were seen: left out by `min_rating`, or as a rare user or item. Models do not
        learn from them, and lists do not offer them again. Its `users` begin with these users; those after them have
        no preference at all. It has items of its own.
    columns : ColumnUse or None
        Which columns of the source were read; None where it is not known.
    policies : mapping
        `min_rating` and `duplicates` as they were applied; empty where that is not known.
    order : {"time", "rows"} or None
        What decides the order of a user's rows, for models that use it: see `recsys.data.order`. Matrices of
        preferences then hold places in time; ones where this is None.
    features : ItemFeatures or None
        What is known of items, for models that use it: see `recsys.data.item_features`. Training matrices then have a
        column for each item that has features, also for those without a row here.

    Raises
    ------
    DataError
        If columns differ in length.
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
    columns: ColumnUse | None = None
    policies: Mapping[str, Any] = field(default_factory=dict)
    order: Literal["time", "rows"] | None = None
    features: ItemFeatures | None = None

    def __post_init__(self) -> None:
        for name in ("item", "rating", "timestamp", "row"):
            column = getattr(self, name)
            if column is not None and column.shape != self.user.shape:
                raise DataError(f"Expected one {name} for each of {len(self.user)} rows, found {column.shape}.")

    def __len__(self) -> int:
        return len(self.user)

    @cached_property
    def scale(self) -> RatingScale | None:
        """The values that the ratings take; None without ratings."""
        return None if self.rating is None or not len(self.rating) else RatingScale.of(self.rating)

    def with_all_users(self) -> Interactions:
        """Return the same rows, with the users who have no preference but have seen something as users too."""
        return self if self.seen_only is None else replace(self, users=self.seen_only.users)

    def fingerprint(self) -> str:
        """Return the SHA-256 of ids and values in their order: equal for equal data, also through a prepared store.

        The order of the rows in a source that was read does not count.
        """
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

    def to_matrix(self, ratings: bool = False) -> UserItemMatrix:
        """Make the sparse user-item matrix.

        Parameters
        ----------
        ratings : bool
            Whether cells hold the ratings, real zeros stored; else 1 for each interaction.

        Returns
        -------
        UserItemMatrix
            Its rows are `users`, its columns `items`.

        Raises
        ------
        DataError
            If ratings are wanted and there are none.

        Examples
        --------
        >>> read_interactions("ratings.csv").to_matrix().matrix  # scipy.sparse.csr_matrix  # doctest: +SKIP
        """
        from recsys.data.matrix import UserItemMatrix  # it stands on this module

        return UserItemMatrix.from_interactions(self, ratings=ratings)

    def describe(self) -> dict[str, Any]:
        """Describe the table by plain numbers and texts: sizes, density, scale, times, rows of a user and an item."""
        from recsys.data.order import tied_rows  # it stands on this module

        facts: dict[str, Any] = {
            "users": len(self.users),
            "items": len(self.items),
            "rows": len(self),
            "density": len(self) / max(1, len(self.users) * len(self.items)),
            "rows_per_user": _spread(np.bincount(self.user, minlength=len(self.users))),
            "rows_per_item": _spread(np.bincount(self.item, minlength=len(self.items))),
            "scale": None if self.scale is None else asdict(self.scale),
            **({} if self.order is None else {"order": self.order, "rows_at_equal_times": tied_rows(self)}),
            **({} if self.features is None else {"features": self.features.describe(self.items)}),
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
