"""How one column of a table of items becomes features, and what is remembered of it.

```
categories   Drama|War, Comedy     a feature for each value of enough items    1 where an item has it
text         "a man walks ..."     a feature for each term of enough items     TF-IDF (scikit-learn), rows of length 1
number       9.5                   a feature for each of up to 11 quantiles    shares of the two that are nearest
date         2001-05-03            the same for log(1 + age in years)          the same
embedding    [.3, -.1, ...]        a feature for each place                    rows of length 1
```
A number between two quantiles is the mean of both, weighed by its distance: 9.5 between 8 and 10 is .25 and .75. So
items of like numbers are like each other, wherever on the scale they are. What an item has no value for has no cell.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.data.item_features.options import KINDS, FeatureOptions, Kind
from recsys.data.item_features.table import Column
from recsys.errors import DataError
from recsys.system.packages import missing_package

QUANTILES = 11  # of numbers, the least and the greatest among them
YEAR = 365.25 * 86_400_000  # milliseconds
COMMON, FEW = 0.5, 100  # terms of more than half of the items say nothing, unless there are fewer than 100 items
TOKENS = r"(?u)\b\w\w+\b"


@dataclass(frozen=True)
class Encoding:
    """What the features of one column are.

    Attributes
    ----------
    name : str
        Of the column.
    kind : str
        What it holds.
    values : tuple of str
        The categories, or the terms of a text, sorted.
    numbers : ndarray of float64
        Of a text the IDF of each term; of a number its quantiles, rising; of a date the latest, in milliseconds, then
        quantiles of log(1 + age in years). Empty for the others.
    width : int
        Number of features.
    """

    name: str
    kind: Kind
    values: tuple[str, ...] = ()
    numbers: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    width: int = 0

    def __post_init__(self) -> None:
        sizes = {"text": len(self.values), "number": self.width, "date": self.width + 1}
        if self.kind not in KINDS:
            raise DataError(f"Expected a column of {', '.join(KINDS)}, found {self.kind!r:.40}.")
        if self.numbers.shape != (sizes.get(self.kind, 0),) or not np.isfinite(self.numbers).all():
            raise DataError(f"Expected {sizes.get(self.kind, 0)} finite numbers of the column {self.name!r}.")
        if self.kind in ("number", "date") and (self.width == 1 or (np.diff(self.quantiles) <= 0).any()):
            raise DataError(f"Expected rising quantiles of the column {self.name!r}.")
        if len(set(self.values)) < len(self.values) or (self.kind == "text" and (self.numbers < 0).any()):
            raise DataError(f"Expected distinct values and IDFs of 0 or more in the column {self.name!r}.")
        expected = {"categories": len(self.values), "text": len(self.values), "embedding": self.width}
        if self.width < 0 or self.width != expected.get(self.kind, self.width):
            raise DataError(f"Expected another number of features of the column {self.name!r} than {self.width}.")

    @property
    def quantiles(self) -> NDArray[np.float64]:
        """Those of a number, or of the age of a date, rising."""
        return self.numbers[1:] if self.kind == "date" else self.numbers

    @property
    def names(self) -> list[str]:
        """Names of the features."""
        if self.kind == "categories":
            return [f"{self.name}={value}" for value in self.values]
        if self.kind == "text":
            return [f"{self.name}: {term}" for term in self.values]
        if self.kind == "embedding":
            return [f"{self.name}[{place}]" for place in range(self.width)]
        if self.kind == "date":
            return [f"{self.name} (age of {years:.3g} years)" for years in np.expm1(self.quantiles)]
        return [f"{self.name} ({value:g})" for value in self.quantiles]


def fit_column(name: str, column: Column, options: FeatureOptions) -> Encoding:
    """Find the features of a column.

    Parameters
    ----------
    name : str
    column : Column
    options : FeatureOptions
        Least number of items of a value, most terms.

    Returns
    -------
    Encoding
        Of no features where nothing in the column tells items apart.
    """
    if column.kind == "categories":
        cells, values = column.labels()
        counts = np.bincount(cells.indices, minlength=len(values))
        kept = tuple(value for value, count in zip(values, counts, strict=True) if count >= options.min_items)
        return Encoding(name, "categories", kept, width=len(kept))
    if column.kind == "embedding":
        return Encoding(name, "embedding", width=column.values.type.list_size)
    if column.kind == "text":
        return _fit_text(name, column, options)
    numbers, latest = column.numbers(), []
    if column.kind == "date":
        latest = [float(np.nanmax(numbers))] if column.missing < len(column) else [0.0]
        numbers = _log_years(numbers, latest[0])
    held = numbers[np.isfinite(numbers)]
    quantiles = np.unique(np.quantile(held, np.linspace(0, 1, QUANTILES), method="nearest")) if len(held) else held
    if len(quantiles) < 2 or not np.isfinite(np.diff(quantiles)).all():
        quantiles = quantiles[:0]
    return Encoding(name, column.kind, numbers=np.array([*latest, *quantiles], dtype=np.float64), width=len(quantiles))


def encode_column(encoding: Encoding, column: Column) -> csr_matrix:
    """Return the features of the items of a column, CSR float32 (items, width).

    Parameters
    ----------
    encoding : Encoding
    column : Column
        Of the same kind.

    Raises
    ------
    DataError
        If the column holds something else.
    """
    if column.kind != encoding.kind:
        raise DataError(f"Expected {encoding.kind} in the column {encoding.name!r}, found {column.kind}.")
    if encoding.kind == "categories":
        return _categories(encoding, column)
    if encoding.kind == "text":
        return _text(encoding, column)
    if encoding.kind == "embedding":
        return _embedding(encoding, column)
    numbers = column.numbers()
    if encoding.kind == "date":
        numbers = _log_years(numbers, encoding.numbers[0])
    return _between(numbers, encoding.quantiles) if encoding.width else _nothing(len(numbers))


def _between(numbers: NDArray[np.float64], quantiles: NDArray[np.float64]) -> csr_matrix:
    """The shares of the nearest quantiles, CSR (items, quantiles); nothing for NaN."""
    held = np.flatnonzero(~np.isnan(numbers))
    places = np.interp(numbers[held], quantiles, np.arange(len(quantiles)))
    lower = np.minimum(places.astype(np.int64), len(quantiles) - 2)
    shares = np.stack([1 - (places - lower), places - lower], axis=1).ravel()
    cells = np.repeat(held, 2), np.stack([lower, lower + 1], axis=1).ravel()
    found = csr_matrix((shares.astype(np.float32), cells), shape=(len(numbers), len(quantiles)))
    found.eliminate_zeros()
    return found


def _categories(encoding: Encoding, column: Column) -> csr_matrix:
    cells, values = column.labels()
    place = {value: at for at, value in enumerate(encoding.values)}
    target = np.array([place.get(value, -1) for value in values], dtype=np.int64)
    row = np.repeat(np.arange(cells.shape[0]), np.diff(cells.indptr))
    where = target[cells.indices] if len(values) else np.empty(0, dtype=np.int64)
    known = where >= 0
    shape = (cells.shape[0], encoding.width)
    return csr_matrix((cells.data[known], (row[known], where[known])), shape=shape, dtype=np.float32)


def _texts(column: Column) -> list[str]:
    return [text or "" for text in column.values.to_pylist()]


def _vectorizer(**more: Any) -> Any:
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError:
        raise missing_package("scikit-learn", "features") from None
    return TfidfVectorizer(strip_accents="unicode", token_pattern=TOKENS, sublinear_tf=True, dtype=np.float32, **more)


def _fit_text(name: str, column: Column, options: FeatureOptions) -> Encoding:
    texts = _texts(column)
    most = COMMON if len(texts) >= FEW else 1.0
    vectorizer = _vectorizer(min_df=options.min_items, max_df=most, max_features=options.max_terms)
    try:
        vectorizer.fit(texts)
    except ValueError:  # no term is left
        return Encoding(name, "text")
    terms = tuple(map(str, vectorizer.get_feature_names_out()))
    return Encoding(name, "text", terms, np.asarray(vectorizer.idf_, dtype=np.float64), len(terms))


def _text(encoding: Encoding, column: Column) -> csr_matrix:
    if not encoding.width:
        return _nothing(len(column))
    vectorizer = _vectorizer(vocabulary={term: place for place, term in enumerate(encoding.values)})
    vectorizer.idf_ = encoding.numbers.astype(np.float32)
    return csr_matrix(vectorizer.transform(_texts(column)), dtype=np.float32)


def _embedding(encoding: Encoding, column: Column) -> csr_matrix:
    width = column.values.type.list_size
    if width != encoding.width:
        raise DataError(f"Expected embeddings of {encoding.width} numbers in {encoding.name!r}, found {width}.")
    held = column.values.is_valid().to_numpy(zero_copy_only=False)
    vectors = np.zeros((len(column), width))  # squares of float32 may be beyond its range
    vectors[held] = column.values.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return _stored(vectors / np.where(lengths > 0, lengths, 1))


def _log_years(times: NDArray[np.float64], latest: float) -> NDArray[np.float64]:
    """log(1 + age in years); what is later than the latest of the fit has age 0."""
    return np.asarray(np.log1p(np.maximum(latest - times, 0) / YEAR))


def _nothing(items: int) -> csr_matrix:
    """No features of so many items."""
    return _stored(np.empty((items, 0)))


def _stored(values: NDArray[Any]) -> csr_matrix:
    return csr_matrix(values.astype(np.float32))
