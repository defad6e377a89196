"""An approximate index of nearest neighbors: many searches among many vectors, in a small part of the time.

A graph in which each vector is linked to near ones (Malkov, Yashunin: Efficient and Robust Approximate Nearest Neighbor
Search Using Hierarchical Navigable Small World Graphs, IEEE TPAMI 42, 2020), by the package voyager: it has wheels for
Python 3.11 to 3.13 without further requirements, unlike hnswlib (sources only), and on vectors like learned codes it
answers faster at equal recall than the inverted lists of faiss (docs/guides/embeddings.md). A single search among a
million vectors takes an exact search a fraction of a second, and building an index takes minutes: an index is for many.

An index is two files: what voyager wrote, and beside it, with `.json` at the end of the name, what it is of.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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

_LINKS = 16  # of a vector in the graph, on each side
_BUILD_DEPTH = 128  # candidates kept while a vector is linked
_SEARCH_DEPTH = 400  # candidates kept in a search, at least: recall against time
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
    graph : voyager.Index
    metric : {"cosine", "inner product"}
    about : mapping
        What the vectors are: what `save` was given.
    """

    def __init__(self, graph: Any, metric: Metric, about: Mapping[str, Any]):
        self.graph, self.metric, self.about = graph, metric, about

    def __len__(self) -> int:
        return int(self.graph.num_elements)

    @classmethod
    def build(cls, vectors: FloatArray, metric: Metric = "cosine", threads: int | None = None) -> VectorIndex:
        """Build an index.

        Parameters
        ----------
        vectors : ndarray of float32, shape (n, size)
        metric : {"cosine", "inner product"}
            What is largest for the nearest.
        threads : int, optional
            All cores by default; with 1 the same vectors give the same index.

        Raises
        ------
        ConfigError
            If the package voyager is missing, or there are no vectors.
        """
        voyager = require_index()
        if not len(vectors):
            raise ConfigError("Expected vectors to index, found none.")
        space = voyager.Space.Cosine if metric == "cosine" else voyager.Space.InnerProduct
        graph = voyager.Index(
            space,
            num_dimensions=vectors.shape[1],
            M=_LINKS,
            ef_construction=_BUILD_DEPTH,
            random_seed=_SEED,
            max_elements=len(vectors),
        )
        graph.add_items(vectors, np.arange(len(vectors)), num_threads=threads or usable_cores())
        return cls(graph, metric, {})

    def search(
        self, queries: FloatArray, n: int, threads: int | None = None, depth: int = _SEARCH_DEPTH
    ) -> tuple[NDArray[np.int64], FloatArray]:
        """Find the n nearest vectors of each query.

        Parameters
        ----------
        queries : ndarray of float32, shape (m, size)
        n : int
            Cut to the number of vectors.
        threads : int, optional
            All cores by default.
        depth : int
            Candidates kept, at least n: more of them find more.

        Returns
        -------
        positions : ndarray of int64, shape (m, n)
            Nearest first.
        similarities : ndarray of float32, shape (m, n)
            Cosine or inner product.
        """
        n = min(n, len(self))
        found, distances = self.graph.query(
            np.array(queries, dtype=np.float32, order="C"),
            n,
            num_threads=threads or usable_cores(),
            query_ef=min(max(depth, 2 * n), len(self)),
        )
        return found.astype(np.int64), (1 - distances).astype(np.float32)

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
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            started = time.perf_counter()
            exact = exact_nearest(vectors, asked, n, self.metric)
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
            self.graph.save(str(file))
            checksum = sha256(file)
        facts = {"metric": self.metric, "vectors": len(self), "sha256": checksum, "about": dict(about)}
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
        voyager = require_index()
        if not path.is_file() or not _beside(path).is_file():
            missing = _beside(path) if path.is_file() else path
            raise ArtifactError(f"Expected an index with a .json beside it, found no {missing}: encode writes both.")
        facts = parse_json(_beside(path).read_bytes(), _beside(path))
        if facts.get("sha256") != sha256(path) or facts.get("metric") not in ("cosine", "inner product"):
            raise ArtifactError(
                f"{path} is not the index that {_beside(path).name} speaks of, or damaged: write it again."
            )
        about = facts.get("about")
        return cls(voyager.Index.load(str(path)), facts["metric"], about if isinstance(about, dict) else {})


def exact_nearest(vectors: FloatArray, queries: FloatArray, n: int, metric: Metric = "cosine") -> NDArray[np.int64]:
    """Find the n nearest vectors of each query by comparing with all, in blocks of vectors.

    Parameters
    ----------
    vectors : ndarray of float32, shape (count, size)
    queries : ndarray of float32, shape (m, size)
    n : int
        At most `count`.
    metric : {"cosine", "inner product"}

    Returns
    -------
    ndarray of int64, shape (m, n)
        Nearest first.
    """
    asked = torch.as_tensor(queries)
    best, places = torch.empty(len(asked), 0), torch.empty(len(asked), 0, dtype=torch.int64)
    for start in range(0, len(vectors), _BLOCK):
        block = torch.as_tensor(vectors[start : start + _BLOCK])
        if metric == "cosine":  # the length of a query changes no order
            block = torch.nn.functional.normalize(block, dim=1)
        values, positions = (asked @ block.T).topk(min(n, len(block)), dim=1)
        best, places = torch.cat([best, values], dim=1), torch.cat([places, positions + start], dim=1)
        best, order = best.topk(min(n, best.shape[1]), dim=1)
        places = places.gather(1, order)
    return places.numpy()


def require_index() -> Any:
    """Return the package voyager; ConfigError says how to install it where it is missing."""
    try:
        import voyager
    except ImportError as error:
        raise missing_package("voyager", "index") from error
    return voyager


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
