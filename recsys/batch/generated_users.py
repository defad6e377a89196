"""Generated users as a file of ratings, written block by block."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from scipy.sparse import csr_matrix, vstack

from recsys.data.interactions import Vocabulary

PREFIX = "g"  # of the ids of generated users: g1, g2, ...


@dataclass(frozen=True)
class WrittenUsers:
    """What was written.

    Attributes
    ----------
    users, rows : int
        Numbers of users and of interactions.
    first : csr_matrix, shape (users, items)
        The first users.
    """

    users: int
    rows: int
    first: csr_matrix


def write_users(
    file: Path,
    format: Literal["csv", "parquet"],
    blocks: Iterable[csr_matrix],
    items: Vocabulary,
    has_ratings: bool = False,
    keep: int = 20_000,
) -> WrittenUsers:
    """Write a row for every interaction of generated users: user_id, item_id, and perhaps rating.

    Parameters
    ----------
    file : Path
        File to write.
    format : {"csv", "parquet"}
        Its format.
    blocks : iterable of csr_matrix, shape (some users, items)
        At least one.
    items : Vocabulary
        Ids of the columns, which are written in their own type.
    has_ratings : bool
        Whether cells are ratings.
    keep : int
        How many users to return.

    Returns
    -------
    WrittenUsers
    """
    writer, users, rows = None, 0, 0
    first: list[csr_matrix] = []
    try:
        for block in blocks:
            table = _table(block, users, items, has_ratings)
            if writer is None:
                writer = (
                    pa_csv.CSVWriter(file, table.schema, write_options=pa_csv.WriteOptions(quoting_style="needed"))
                    if format == "csv"
                    else pq.ParquetWriter(file, table.schema, compression="zstd")
                )
            writer.write_table(table)
            if users < keep:
                first.append(csr_matrix(block[: keep - users]))
            users, rows = users + block.shape[0], rows + block.nnz
    finally:
        if writer is not None:
            writer.close()
    return WrittenUsers(users, rows, csr_matrix(vstack(first)))


def _table(block: csr_matrix, before: int, items: Vocabulary, has_ratings: bool) -> pa.Table:
    """The rows of a block whose first user follows `before` others."""
    ids = pa.array([f"{PREFIX}{before + 1 + row}" for row in range(block.shape[0])], pa.string())
    columns: dict[str, Any] = {
        "user_id": ids.take(pa.array(np.repeat(np.arange(block.shape[0]), np.diff(block.indptr)))),
        "item_id": items.take(block.indices),
    }
    if has_ratings:
        columns["rating"] = pa.array(block.data)
    return pa.table(columns)
