"""Embeddings of all users or items, written in shards by the machinery that writes lists.

```
embeddings/part-*     user_id (or item_id), embedding[, scale][, deviation[, deviation_scale]]
left_out/part-*       user_id, reason: users without an embedding
```
Vectors are fixed-size lists of float32; of int8 where compressed, with a scale each: vector = scale x embedding. With
vectors of scores the column is named `vector`. What the file holds stands in the metadata of its schema, as JSON under
the key `recsys`. A shard depends on its rows alone: see recsys.batch.shards.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from recsys.batch.output import ShardSummary
from recsys.batch.plan import ENCODING_FOLDERS, TILE, BatchPlan
from recsys.batch.shards import NO_HISTORY, NOT_TRAINED, ShardInput, on_one_thread, one_thread_each, padded
from recsys.batch.targets import Targets
from recsys.data.interactions import Vocabulary
from recsys.data.matrix import empty_history
from recsys.errors import ArtifactError, ConfigError
from recsys.latent.compression import from_int8, to_int8
from recsys.models.embeddings import Embedder, Embeddings
from recsys.models.trained import TrainedModel
from recsys.system.files import new_file, sha256
from recsys.system.storage import Location, as_location, folder_at
from recsys.system.threads import map_in_order
from recsys.types import FloatArray

_GROUP = 4_000_000  # numbers in a Parquet row group, about (16 MB)
_ABOUT = b"recsys"  # key of the metadata


@dataclass(frozen=True)
class EncodingPlan(BatchPlan):
    """Everything that decides the bytes of embeddings.

    Parameters
    ----------
    model, inputs : str
        Digest of the model directory, fingerprint of the users and their histories.
    users : int
        Number of users, or of items.
    of : {"users", "items"}
        Whose embeddings.
    vectors : {"embeddings", "scores"}
        Embeddings, or vectors whose inner products are the scores of the model.
    size : int, optional
        Of the factorization of items x items weights; see `Embedder.of`.
    compress : {"none", "int8"}
        Type of the elements.
    shard_users : int
        Rows in one file.
    device : str
        Kind of device, "cpu" or "cuda": they round differently.
    tile : int
        Users encoded in one product.

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """

    folders = ENCODING_FOLDERS
    counts = ("users", "rows", "left_out")

    model: str
    inputs: str
    users: int
    of: Literal["users", "items"] = "users"
    vectors: Literal["embeddings", "scores"] = "embeddings"
    size: int | None = None
    compress: Literal["none", "int8"] = "none"
    shard_users: int = 65_536
    device: str = "cpu"
    tile: int = TILE

    def __post_init__(self) -> None:
        for name in ("shard_users", "tile", "size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"Expected {name} of at least 1, found {value}.")
        if self.size is not None and self.vectors == "scores":
            raise ConfigError("Expected no size for vectors of scores, whose size the model decides; found one.")

    @property
    def id_column(self) -> str:
        """Name of the column of ids."""
        return "user_id" if self.of == "users" else "item_id"

    @property
    def vector_column(self) -> str:
        """Name of the column of vectors."""
        return "embedding" if self.vectors == "embeddings" else "vector"


class EncodingWriter:
    """Write the files of a shard of embeddings; the parameters are those of ShardWriter, `rules` has no effect."""

    def __init__(
        self, directory: Location, plan: EncodingPlan, saved: TrainedModel, rules: Any = None, threads: int = 1
    ):
        self.folder, self.plan, self.saved, self.threads = folder_at(directory), plan, saved, threads
        with one_thread_each():  # a factorization has the same last bits wherever it is made
            self.embedder = Embedder.of(saved.model, plan.size) if plan.vectors == "embeddings" else None
            self.items = saved.model.item_scoring_vectors() if self.embedder is None else self.embedder.items
        self.metadata = {_ABOUT: json.dumps(self._about(), sort_keys=True).encode()}

    def _about(self) -> dict[str, Any]:
        factorized = self.embedder is not None and self.embedder.is_factorized
        return {
            "model": self.saved.model.name,
            "model_digest": self.plan.model,
            "plan_hash": self.plan.hash,
            "of": self.plan.of,
            "vectors": self.plan.vectors,
            "size": self.items.shape[1] if self.plan.of == "items" else self._none().mean.shape[1],
            "compress": self.plan.compress,
            "factorized": factorized,
        }

    def __call__(self, shard_input: ShardInput) -> tuple[str, ShardSummary]:
        """Write a shard; return its name and summary."""
        shard, targets = shard_input
        names = self.plan.files(shard)
        checksums, rows = {}, 0
        with one_thread_each(), self.folder.new_file(names[0]) as file:
            with pq.ParquetWriter(
                file, self._table(targets.rows(0, 0), self._none()).schema, compression="zstd"
            ) as out:
                for table in self._groups(targets, shard.start):
                    rows += table.num_rows
                    out.write_table(table)
            checksums[names[0]] = sha256(file)
        left_out = self._left_out(targets)
        with self.folder.new_file(names[1]) as file:
            pq.write_table(left_out, file, compression="zstd")
            checksums[names[1]] = sha256(file)
        counts = {"users": len(targets), "rows": rows, "left_out": left_out.num_rows}
        return shard.name, {**counts, "sha256": checksums}

    def _groups(self, targets: Targets, first: int) -> Iterator[pa.Table]:
        """The rows of a shard, in tables of about _GROUP numbers; threads work ahead."""
        tile = self.plan.tile
        count = max(1, _GROUP // self.items.shape[1] // tile)

        def encoded(start: int) -> pa.Table:
            some = targets.rows(start, start + tile)
            return self._table(some, self._vectors(some, first + start))

        starts = range(0, len(targets), tile)
        tables = map_in_order(encoded, starts, self.threads, self.threads + count, on_one_thread)
        while group := list(islice(tables, count)):
            yield pa.concat_tables(group).combine_chunks()

    def _vectors(self, targets: Targets, first: int) -> Embeddings:
        """The vectors of a tile; its histories are padded, because last bits depend on the shape of a product."""
        if self.plan.of == "items":
            return Embeddings(self.items[first : first + len(targets)])
        users, tile = len(targets), self.plan.tile
        history = padded(targets.history, tile)
        rows = None if targets.training_rows is None else np.pad(targets.training_rows.clip(0), (0, tile - users))
        with torch.inference_mode():
            if self.embedder is None:
                return Embeddings(self.saved.model.user_scoring_vectors(history, rows)[:users])
            found = self.embedder.users(history, rows)
            return Embeddings(found.mean[:users], None if found.deviation is None else found.deviation[:users])

    def _none(self) -> Embeddings:
        """Vectors of no users, for the schema of a file."""
        if self.plan.of == "items":
            return Embeddings(self.items[:0])
        rows = np.zeros(0, dtype=np.int64) if self.saved.model.needs_training_users else None
        return self._vectors(Targets(pa.array([]), empty_history(len(self.saved.items))[:0], None, rows), 0)

    def _table(self, targets: Targets, vectors: Embeddings) -> pa.Table:
        """Ids and vectors of those of a tile who have one."""
        kept = np.flatnonzero(~targets.cold)
        columns: dict[str, Any] = {self.plan.id_column: Vocabulary(targets.ids).take(kept)}
        columns |= self._columns(self.plan.vector_column, vectors.mean, kept)
        if vectors.deviation is not None:
            columns |= self._columns("deviation", vectors.deviation, kept)
        return pa.table(columns).replace_schema_metadata(self.metadata)

    def _columns(self, name: str, vectors: Tensor, kept: Any) -> dict[str, Any]:
        """A column of vectors, and one of scales where they are compressed."""
        values = vectors.numpy(force=True)[kept]
        if not np.isfinite(values).all():
            raise ArtifactError(
                f"Expected finite embeddings, found NaN or infinity: {self.saved.model.name} is damaged."
            )
        if self.plan.compress == "none":
            return {name: _fixed(values)}
        codes, scales = to_int8(values)
        return {name: _fixed(codes), "scale" if name != "deviation" else "deviation_scale": pa.array(scales)}

    def _left_out(self, targets: Targets) -> pa.Table:
        """Who has no embedding, and why."""
        rows = np.flatnonzero(targets.cold)
        trained = None if targets.training_rows is None else targets.training_rows[rows] >= 0
        reasons = [NO_HISTORY if trained is None or trained[place] else NOT_TRAINED for place in range(len(rows))]
        return pa.table(
            {self.plan.id_column: Vocabulary(targets.ids).take(rows), "reason": pa.array(reasons, pa.string())}
        )


def _fixed(values: Any) -> pa.Array:
    """A column of vectors (n, size) as lists of a fixed size."""
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), kind), values.shape[1])


def join_shards(directory: Location, plan: EncodingPlan, target: Location) -> None:
    """Write the embeddings of all shards to one Parquet file, a row group at a time.

    Parameters
    ----------
    directory : Path or str
        Folder of a complete output.
    plan : EncodingPlan
        Its plan.
    target : Path or str
        The file; it appears whole or not at all.
    """
    source, target = folder_at(directory), as_location(target)
    parent, name = parent_of(target)
    writer: Any = None
    # on a disk also what a killed joining left is removed: the folder around the file is not the job's own
    draft = new_file(target) if isinstance(target, Path) else folder_at(parent).new_file(name)
    with draft as file:
        for shard in plan.shards:
            with source.local(plan.files(shard)[0]) as part, pq.ParquetFile(part) as opened:
                writer = writer or pq.ParquetWriter(file, opened.schema_arrow, compression="zstd")
                for group in range(opened.num_row_groups):
                    writer.write_table(opened.read_row_group(group))
        if writer is not None:
            writer.close()


def parent_of(target: Location) -> tuple[Location, str]:
    """Return the folder of a file and its name in it."""
    target = as_location(target)
    if isinstance(target, Path):
        return target.parent, target.name
    folder, _, name = target.rpartition("/")
    return folder, name


def read_vectors(file: Path) -> Iterator[tuple[pa.Array, FloatArray]]:
    """Read a Parquet file of `encode` a row group at a time.

    Parameters
    ----------
    file : Path

    Yields
    ------
    ids : pyarrow.Array, length n
    vectors : ndarray of float32, shape (n, size)
        Compressed ones are restored.
    """
    with pq.ParquetFile(file) as opened:
        for group in range(opened.num_row_groups):
            table = opened.read_row_group(group).combine_chunks()
            yield table.column(0).combine_chunks(), _restored(table)


def _restored(table: pa.Table) -> FloatArray:
    column = table.column(1).combine_chunks()
    column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    values = column.flatten().to_numpy().reshape(len(column), column.type.list_size)
    if values.dtype == np.int8:
        return from_int8(values, table.column("scale").to_numpy())
    return np.asarray(values, dtype=np.float32)


def about(file: Path) -> Mapping[str, Any]:
    """Return what `encode` noted in a Parquet file; empty for another file."""
    try:
        found = (pq.read_schema(file).metadata or {}).get(_ABOUT)
    except (pa.ArrowException, OSError):
        return {}
    return {} if found is None else dict(json.loads(found))
