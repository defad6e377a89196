"""Adjacency files, as of LightGCN: each line is a user followed by all of its items, separated by blanks."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pyarrow as pa

from recsys.data.reading.records import MAX_LINE
from recsys.data.reading.rows import UNDECODABLE, UNPARSABLE, Reject, Rows


def parse_adjacency(block: bytes) -> Rows:
    """Parse whole lines `user item item ...` into one row for each item.

    Parameters
    ----------
    block : bytes
        Lines in UTF-8, each with its line feed. A line with a user alone holds no row.

    Returns
    -------
    Rows
        All rows of a line have its number.
    """
    users: list[str] = []
    items: list[list[str]] = []
    numbers: list[int] = []
    rejects: list[Reject] = []
    lines = block.split(b"\n")[:-1]
    for number, line in enumerate(lines):
        try:
            fields = [field for field in line.rstrip(b"\r").decode().split(" ") if field]
        except UnicodeDecodeError:
            rejects.append(Reject(number, UNDECODABLE, "found other bytes", line.decode("utf-8", "replace")))
            continue
        if b"\0" in line or b"\r" in line[:-1] or len(line) > MAX_LINE:
            detail = f"found a control character, or more than {MAX_LINE:,} bytes"
            rejects.append(Reject(number, UNPARSABLE, detail, line.decode("utf-8", "replace")))
        elif fields:
            users.append(fields[0])
            items.append(fields[1:])
            numbers.append(number)
    sizes = np.array([len(some) for some in items], dtype=np.int64)
    rows = int(sizes.sum())
    codes = pa.array(np.repeat(np.arange(len(users), dtype=np.int32), sizes))
    user = pa.DictionaryArray.from_arrays(codes, pa.array(users, pa.string())).dictionary_decode()
    return Rows(
        user.dictionary_encode(),
        pa.array(chain.from_iterable(items), pa.string()).dictionary_encode(),
        None,
        None,
        np.repeat(np.array(numbers, dtype=np.int32), sizes),
        len(lines),
        rows + len(rejects),
        tuple(rejects),
    )
