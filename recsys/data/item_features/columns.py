"""How one column of a table of items becomes features, and what is remembered of it.

```
categories   Drama|War, Comedy     a feature for each value of enough items    1 where an item has it
text         "a man walks ..."     a feature for each term of enough items     TF-IDF (scikit-learn), rows of length 1
number       9.5                   one feature                                 standard deviations from the mean
date         2001-05-03            one feature                                 the same of log(1 + age in years)
embedding    [.3, -.1, ...]        a feature for each place                    rows of length 1
```
What an item has no value for has no cell, so that it counts as the mean of a number.
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

FARTHEST = 3.0  # standard deviations
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
        Of a text the IDF of each term; of a number mean and standard deviation; of a date the latest, in milliseconds,
        then mean and standard deviation of log(1 + age in years). Empty for the others.
    width : int
        Number of features.
    """

    name: str
    kind: Kind
    values: tuple[str, ...] = ()
    numbers: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    width: int = 0

    def __post_init__(self) -> None:
        sizes = {"text": len(self.values), "number": 2, "date": 3}
        if self.kind not in KINDS:
            raise DataError(f"Expected a column of {', '.join(KINDS)}, found {self.kind!r:.40}.")
        if self.numbers.shape != (sizes.get(self.kind, 0),) or not np.isfinite(self.numbers).all():
            raise DataError(f"Expected {sizes.get(self.kind, 0)} finite numbers of the column {self.name!r}.")
        if len(set(self.values)) < len(self.values) or (self.kind == "text" and (self.numbers < 0).any()):
            raise DataError(f"Expected distinct values and IDFs of 0 or more in the column {self.name!r}.")
        expected = {"categories": len(self.values), "text": len(self.values), "embedding": self.width}
        if self.width < 0 or self.width != expected.get(self.kind, min(1, max(0, self.width))):
            raise DataError(f"Expected another number of features of the column {self.name!r} than {self.width}.")

    @property
    def names(self) -> list[str]:
        """Names of the features."""
        if self.kind == "categories":
            return [f"{self.name}={value}" for value in self.values]
        if self.kind == "text":
            return [f"{self.name}: {term}" for term in self.values]
        if self.kind == "embedding":
            return [f"{self.name}[{place}]" for place in range(self.width)]
        return [self.name if self.kind == "number" else f"{self.name} (age)"][: self.width]


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
    held = numbers[~np.isnan(numbers)]
    mean, spread = (float(held.mean()), float(held.std())) if len(held) else (0.0, 0.0)
    tells = bool(np.isfinite([mean, spread]).all()) and spread > 0
    kept_numbers = np.array([*latest, mean if tells else 0, spread if tells else 0], dtype=np.float64)
    return Encoding(name, column.kind, numbers=kept_numbers, width=int(tells))


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
    *latest, mean, spread = encoding.numbers
    numbers = column.numbers()
    if latest:
        numbers = _log_years(numbers, latest[0])
    if not encoding.width:
        return _nothing(len(numbers))
    scaled = np.clip((numbers - mean) / spread, -FARTHEST, FARTHEST)
    return _stored(np.nan_to_num(scaled, nan=0.0)[:, None])


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
    vectors = np.zeros((len(column), width), dtype=np.float32)
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
