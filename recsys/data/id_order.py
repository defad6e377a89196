"""The canonical order of ids, in which they are numbered when data are read.

It depends on the ids alone: not on where they stand in a file, and not on whether whole numbers came as text (from CSV)
or as integers (from a data frame). So the order of rows decides no position, and nothing that is drawn by positions.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

WHOLE_NUMBER = "^(0|-?[1-9][0-9]{0,19})$"  # as integers are written (not 007, +7 or -0), up to the length of 64 bits


def canonical_order(ids: pa.Array) -> NDArray[np.int64]:
    """Find the canonical order of distinct ids: whole numbers by value, then all other text by code point.

    Parameters
    ----------
    ids : Array of integers or text, shape (n,)
        Text that is a whole number as integers are written, of at most 20 digits, counts as one: "9" comes before "10",
        and both come before "007" and "a".

    Returns
    -------
    ndarray of int64, shape (n,)
        `ids.take(order)` is in order.
    """
    if pa.types.is_integer(ids.type):
        return np.argsort(ids.to_numpy(), kind="stable")
    is_number = pc.match_substring_regex(ids, WHOLE_NUMBER).to_numpy(zero_copy_only=False)
    numbers, others = np.flatnonzero(is_number), np.flatnonzero(~is_number)
    by_code_point = pc.sort_indices(ids.take(pa.array(others))).to_numpy()  # in UTF-8, that is the order of bytes
    return np.concatenate([numbers[_order_by_value(ids.take(pa.array(numbers)))], others[by_code_point]])


def _order_by_value(digits: pa.Array) -> NDArray[np.int64]:
    """The order of whole numbers that are text."""
    try:
        values = digits.cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid:  # beyond 64 bits, or unsigned
        values = np.array([int(number) for number in digits.to_pylist()], dtype=object)
    return np.argsort(values, kind="stable")
