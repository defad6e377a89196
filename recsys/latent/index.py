"""An index of nearest neighbors: many searches among very many vectors, in a small part of the time.

Up to 200,000 vectors it compares with all of them, which is exact. Beyond, it looks at the vectors of the nearest of
many clusters, first by codes of two bits an element, then by the vectors themselves (Jegou, Douze, Schmid: Product
Quantization for Nearest Neighbor Search, IEEE TPAMI 33, 2011; Andre, Kermarrec, Le Scouarnec: Quicker ADC, IEEE TPAMI
43, 2021). Both are those of faiss: it has wheels for Python 3.11 to 3.13 (hnswlib has none), needs NumPy alone, uses
what the processor can do, and builds such an index in minutes, where graphs such as voyager's take longer. A single
search compares with a million vectors in a fraction of a second: an index is for many of them.

An index is two files: what faiss wrote, and beside it, with `.json` at the end of the name, what it is of.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.errors import ArtifactError, ConfigError
from recsys.system.atomic import parse_json, write_json
from recsys.system.files import new_file, sha256
from recsys.system.hardware import usable_cores
from recsys.system.packages import missing_package
from recsys.types import FloatArray

Metric = Literal["cosine", "inner product"]

PACKAGE = "faiss"
EXACT_UP_TO = 200_000  # vectors: comparing with all of them takes milliseconds

_CLUSTERS = 4  # times the root of the number of vectors
_TRAINED_ON = 39  # vectors for each cluster; faiss warns below
_LOOKED_AT = 64  # clusters looked at in a search
_COMPARED = 2000  # vectors compared in full in a search, 20 for each that is asked for at least
_SEED = 1
_BLOCK = 100_000  # vectors compared at once in an exact search


@dataclass(frozen=True)
class IndexQuality:
    """How an index compares with exact search.

    Attributes
    ----------
    recall : float
        Share of the exact 100 nearest vectors that the index finds, mean over the queries.
    milliseconds, exact_milliseconds : float
        Of a search, on one thread each; exact search with all queries at once.
    queries : int
        Vectors searched for, drawn from those of the index.
    """

    recall: float
    milliseconds: float
    exact_milliseconds: float
    queries: int

    def __str__(self) -> str:
        return (
            f"recall@100 {self.recall:.3f} against exact search, on {self.queries} vectors; {self.milliseconds:.2f} ms "
            f"a search, {self.exact_milliseconds:.2f} ms exact"
        )


class VectorIndex:
    """An index of vectors, which are known by their positions.

    Parameters
    ----------
    inner : faiss.Index
        Of the vectors at length 1. Those of inner products are divided by the largest length and get an element more
        that makes their length 1, so that the cosine with a query, where it is 0, has the order of inner products
        (Bachrach et al.: Speeding Up the Xbox Recommender System Using a Euclidean Transformation for Inner-Product
        Spaces, RecSys 2014).
    metric : {"cosine", "inner product"}
    longest : float
        The largest length of a vector.
    about : mapping
        What the vectors are: what `save` was given.
    """

    def __init__(self, inner: Any, metric: Metric, longest: float, about: Mapping[str, Any]):
        self.inner, self.metric, self.longest, self.about = inner, metric, longest, about

    def __len__(self) -> int:
        return int(self.inner.ntotal)

    @classmethod
    def build(cls, vectors: FloatArray, metric: Metric = "cosine", exact_up_to: int = EXACT_UP_TO) -> VectorIndex:
        """Build an index.

        Parameters
        ----------
        vectors : ndarray of float32, shape (n, size)
        metric : {"cosine", "inner product"}
            What is largest for the nearest.
        exact_up_to : int
            Number of vectors up to which all of them are compared.

        Raises
        ------
        ConfigError
            If the package faiss is missing, or there are no vectors.
        """
        faiss = require_index()
        if not len(vectors):
            raise ConfigError("Expected vectors to index, found none.")
        longest = float(np.linalg.norm(vectors, axis=1).max()) or 1.0
        units = _units(vectors, metric, longest)
        size, clusters = units.shape[1], int(_CLUSTERS * len(vectors) ** 0.5)
        exact = len(vectors) <= max(exact_up_to, _TRAINED_ON * clusters)
        kind = "Flat" if exact else f"IVF{clusters},PQ{size // 2}x4fs,RFlat"
        inner = faiss.index_factory(size, kind, faiss.METRIC_INNER_PRODUCT)
        with _threads(faiss, usable_cores()):
            if not exact:
                rows = np.random.default_rng(_SEED).choice(len(units), _TRAINED_ON * clusters, replace=False)
                inner.train(units[np.sort(rows)])
            inner.add(units)
        return cls(inner, metric, longest, {})

    @property
    def is_exact(self) -> bool:
        """Whether all vectors are compared in a search."""
        return not hasattr(self.inner, "k_factor")

    def search(self, queries: FloatArray, n: int, threads: int | None = None) -> tuple[NDArray[np.int64], FloatArray]:
        """Find the n nearest vectors of each query.

        Parameters
        ----------
        queries : ndarray of float32, shape (m, size)
        n : int
            Cut to the number of vectors.
        threads : int, optional
            All cores by default.

        Returns
        -------
        positions : ndarray of int64, shape (m, n)
            Nearest first; -1 where an approximate search found fewer.
        similarities : ndarray of float32, shape (m, n)
            Cosine or inner product.
        """
        faiss, n = require_index(), min(n, len(self))
        asked = _widened(unit_vectors(queries) if self.metric == "cosine" else queries, self.inner.d)
        if not self.is_exact:
            faiss.extract_index_ivf(self.inner).nprobe = _LOOKED_AT
            self.inner.k_factor = max(20, _COMPARED / n)
        with _threads(faiss, threads or usable_cores()):
            values, positions = self.inner.search(asked, n)
        return positions, values if self.metric == "cosine" else values * np.float32(self.longest)

    def compare(self, vectors: FloatArray, queries: int = 200, n: int = 100) -> IndexQuality:
        """Compare with exact search.

        Parameters
        ----------
        vectors : ndarray of float32, shape (count, size)
            Those of the index.
        queries : int
            Vectors searched for, drawn.
        n : int
            Neighbors of each.

        Returns
        -------
        IndexQuality
        """
        rows = np.random.default_rng(_SEED).permutation(len(vectors))[:queries]
        asked, n = vectors[rows], min(n, len(vectors))
        compared = unit_vectors(vectors) if self.metric == "cosine" else vectors
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            started = time.perf_counter()
            exact = exact_nearest(compared, asked, n)
            between = time.perf_counter()
        finally:
            torch.set_num_threads(threads)
        found, _ = self.search(asked, n, threads=1)
        ended = time.perf_counter()
        recall = np.mean([len(np.intersect1d(one, other)) / n for one, other in zip(found, exact, strict=True)])
        per = 1000 / len(asked)
        return IndexQuality(float(recall), (ended - between) * per, (between - started) * per, len(asked))

    def save(self, path: Path, about: Mapping[str, Any]) -> None:
        """Write the index, and beside it what it is of.

        Parameters
        ----------
        path : Path
            Replaced if it is there. PATH.json is written too.
        about : mapping
            What the vectors are.
        """
        with new_file(path) as file:
            require_index().write_index(self.inner, str(file))
            checksum = sha256(file)
        facts = {"metric": self.metric, "longest": self.longest, "sha256": checksum, "about": dict(about)}
        with new_file(_beside(path)) as file:
            write_json(file, facts)

    @classmethod
    def load(cls, path: Path) -> VectorIndex:
        """Read an index that `save` wrote.

        Raises
        ------
        ArtifactError
            If the file is not there, is not an index of recsys, or is damaged.
        ConfigError
            If the package voyager is missing.
        """
        faiss = require_index()
        if not path.is_file() or not _beside(path).is_file():
            missing = _beside(path) if path.is_file() else path
            raise ArtifactError(f"Expected an index with a .json beside it, found no {missing}: encode writes both.")
        facts = parse_json(_beside(path).read_bytes(), _beside(path))
        metric, longest, about = facts.get("metric"), facts.get("longest"), facts.get("about")
        known = metric in ("cosine", "inner product") and isinstance(longest, float) and isinstance(about, dict)
        if not known or facts.get("sha256") != sha256(path):  # before faiss reads the file
            raise ArtifactError(
                f"{path} is not the index that {_beside(path).name} describes, or damaged: write it again."
            )
        return cls(faiss.read_index(str(path)), cast(Metric, metric), cast(float, longest), cast(dict[str, Any], about))


def exact_nearest(vectors: FloatArray, queries: FloatArray, n: int) -> NDArray[np.int64]:
    """Find the n vectors with the largest inner products with each query by comparing with all, in blocks of vectors.

    Parameters
    ----------
    vectors : ndarray of float32, shape (count, size)
        For cosines, `unit_vectors`.
    queries : ndarray of float32, shape (m, size)
    n : int
        At most `count`.

    Returns
    -------
    ndarray of int64, shape (m, n)
        Nearest first.
    """
    asked = torch.as_tensor(queries)
    best, places = torch.empty(len(asked), 0), torch.empty(len(asked), 0, dtype=torch.int64)
    for start in range(0, len(vectors), _BLOCK):
        block = torch.as_tensor(vectors[start : start + _BLOCK])
        values, positions = (asked @ block.T).topk(min(n, len(block)), dim=1)
        best, places = torch.cat([best, values], dim=1), torch.cat([places, positions + start], dim=1)
        best, order = best.topk(min(n, best.shape[1]), dim=1)
        places = places.gather(1, order)
    return places.numpy()


def unit_vectors(vectors: FloatArray) -> FloatArray:
    """Return the vectors at length 1; those of zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)


def require_index() -> Any:
    """Return the package faiss; ConfigError says how to install it where it is missing."""
    try:
        import faiss
    except ImportError as error:
        raise missing_package("faiss", "index") from error
    return faiss


@contextlib.contextmanager
def _threads(faiss: Any, count: int) -> Iterator[None]:
    """Let faiss use so many threads, for the length of a block."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _units(vectors: FloatArray, metric: Metric, longest: float) -> FloatArray:
    """What is indexed: see VectorIndex. The number of elements is even, as the codes of pairs want it."""
    if metric == "cosine":
        return _widened(unit_vectors(vectors), vectors.shape[1] + vectors.shape[1] % 2)
    short = vectors / longest
    wide = _widened(short, vectors.shape[1] + 2 - vectors.shape[1] % 2)
    wide[:, vectors.shape[1]] = np.sqrt(np.maximum(1 - np.square(short).sum(axis=1), 0))
    return wide


def _widened(vectors: FloatArray, size: int) -> FloatArray:
    """A copy with zeros as further elements."""
    wide = np.zeros((len(vectors), size), dtype=np.float32)
    wide[:, : vectors.shape[1]] = vectors
    return wide


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
