"""A copy of a ratings file without some interactions: every other line, or row, as it stands there."""

from __future__ import annotations

import codecs
import gzip
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.data.interactions import Vocabulary
from recsys.data.reading.delimited import read_text, sniff
from recsys.data.reading.options import ReadingOptions
from recsys.data.reading.records import one_line_each
from recsys.data.reading.rows import Rows
from recsys.data.reading.streams import read_pieces, whole_lines
from recsys.data.reading.tables import BATCH, read_parquet
from recsys.data.store import is_store
from recsys.errors import DataError, UnsupportedError


class Pairs:
    """A set of (user, item) pairs, asked for the rows of a file that hold one.

    Parameters
    ----------
    users, items : Array
        Ids of each pair.
    """

    def __init__(self, users: pa.Array, items: pa.Array):
        self._users, self._items = Vocabulary(users.unique()), Vocabulary(items.unique())
        self._keys = self._key(self._users.positions(users), self._items.positions(items))

    def holds(self, rows: Rows) -> NDArray[np.bool_]:
        """Return whether each kept row of a piece is one of the pairs, bool (rows,)."""
        user, item = (
            known.positions(column.dictionary)[column.indices.to_numpy()]
            for known, column in ((self._users, rows.user), (self._items, rows.item))
        )
        held: NDArray[np.bool_] = (user >= 0) & (item >= 0) & np.isin(self._key(user, item), self._keys)
        return held

    def _key(self, user: NDArray[Any], item: NDArray[Any]) -> NDArray[np.int64]:
        return np.asarray(user.astype(np.int64) * max(1, len(self._items)) + item)


def copy_without(source: Path, target: Path, pairs: Pairs, options: ReadingOptions | None = None) -> int:
    """Copy a ratings file without the rows of some pairs of a user and an item.

    Parameters
    ----------
    source : Path
        Text, gzipped or not, or Parquet.
    target : Path
        Where to write. A text in its own encoding, gzipped where the name ends with .gz; a Parquet file as Parquet,
        with all its columns.
    pairs : Pairs
        Rows that repeat such a pair go too.
    options : ReadingOptions, optional
        How the file was read.

    Returns
    -------
    int
        Number of rows left out.

    Raises
    ------
    UnsupportedError
        For a folder or a store, and for lines that hold several interactions each.
    DataError
        If the file is damaged.
    """
    check_copyable(source, options)
    options = options or ReadingOptions()
    if _is_parquet(source):
        return _copy_parquet(source, target, pairs, options)
    return _copy_text(source, target, pairs, options)


def check_copyable(source: Path, options: ReadingOptions | None = None) -> None:
    """Refuse what `copy_without` cannot copy: call it before the work. Errors as there."""
    if source.is_dir() or is_store(source):
        kind = "a prepared store" if is_store(source) else "a folder"
        raise UnsupportedError(
            f"Expected a single ratings file to clean, found {kind}, {source}: give the file itself."
        )
    if not source.is_file():
        raise DataError(f"Expected a ratings file to clean, found nothing at {source}. Check the path.")
    if not _is_parquet(source) and sniff(source, options or ReadingOptions()).adjacency:
        raise UnsupportedError(
            f"Expected an interaction in each line of {source.name}, found several: convert it to user,item first."
        )


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def _dropped(parts: Iterator[Rows], pairs: Pairs) -> NDArray[np.int64]:
    """Numbers of the rows of a file that hold one of the pairs, in order."""
    found, start = [], 0
    for part in parts:
        places = np.flatnonzero(pairs.holds(part))
        found.append(start + (places if part.row is None else part.row[places]).astype(np.int64))
        start += part.length
    return np.concatenate(found) if found else np.empty(0, dtype=np.int64)


def _copy_parquet(source: Path, target: Path, pairs: Pairs, options: ReadingOptions) -> int:
    dropped = _dropped(read_parquet(source, options), pairs)
    with pq.ParquetFile(source) as file, pq.ParquetWriter(target, file.schema_arrow) as out:
        start = 0
        for batch in file.iter_batches(BATCH):
            inside = dropped[(dropped >= start) & (dropped < start + len(batch))] - start
            kept = np.ones(len(batch), dtype=bool)
            kept[inside] = False
            out.write_batch(batch.filter(pa.array(kept)))
            start += len(batch)
    return len(dropped)


def _copy_text(source: Path, target: Path, pairs: Pairs, options: ReadingOptions) -> int:
    layout = sniff(source, options)
    with closing(read_text(source, layout, options)) as parts:
        dropped = _dropped(parts, pairs) + layout.skip
    goes = set(dropped.tolist())
    plain = _lines(whole_lines(read_pieces(source, options.encoding)))
    joined = _lines(one_line_each(whole_lines(read_pieces(source, options.encoding)), layout))
    opened: Any = gzip.open if target.name.endswith(".gz") else open
    left = 0  # bytes of a record of several lines that goes, which its further lines hold
    encoder = codecs.getincrementalencoder(options.encoding)()
    with opened(target, "wb") as out:
        for number, (line, record) in enumerate(zip(plain, joined, strict=True)):
            if number in goes:
                left = len(_content(record)) - len(_content(line))
            elif left > 0:
                left -= 1 + len(_content(line))
            else:
                out.write(
                    line if options.encoding == "utf-8" else encoder.encode(line.decode("utf-8", "surrogatepass"))
                )
    return len(dropped)


def _content(line: bytes) -> bytes:
    return line.removesuffix(b"\n").removesuffix(b"\r")


def _lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Lines with their line feeds. A carriage return within a line is no end."""
    for block in blocks:
        for line in block.split(b"\n")[:-1]:
            yield line + b"\n"
