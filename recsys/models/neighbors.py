"""Which neighbors of an item are kept: a rule that does not depend on the order of users or items.

Positions may follow popularity, so a tie must not be decided by them. Neighbors that are equal to the last one kept are
therefore all kept:

    k = 2      similarity  .9  .5  .5  .5  .2        kept  .9  .5  .5  .5

If such ties would give an item more than `most` neighbors, they are not informative and none of them is kept.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from recsys.training.context import TrainingContext

_BLOCK = 64_000_000  # numbers of a product of matrices held at once, were its rows full (768 MB)
_TIES = 1000  # a row may have this many neighbors, or 8 times those asked for, if they tie
# Values within this share of each other count as equal: sums in another order differ in their last digits.
_TOLERANCE = {np.dtype(np.float64): 1e-9, np.dtype(np.float32): 1e-5}


def strongest(values: NDArray[np.floating], count: int, most: int) -> NDArray[np.bool_]:
    """Select the `count` largest values above 0, and all that are equal to the last of them.

    Parameters
    ----------
    values : ndarray of float32 or float64, shape (n,)
    count : int
        Number of values to keep without ties, at least 1.
    most : int
        Largest number to keep with ties. Where they lead beyond it, only values above the tie are kept.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    positive: NDArray[np.bool_] = values > 0
    if np.count_nonzero(positive) <= count:
        return positive
    last = np.partition(values, len(values) - count)[len(values) - count]
    tolerance = _TOLERANCE[values.dtype]
    kept: NDArray[np.bool_] = positive & (values >= last * (1 - tolerance))
    return kept if np.count_nonzero(kept) <= most else positive & (values > last * (1 + tolerance))


def strongest_of_rows(matrix: csr_matrix, count: int, most: int) -> csr_matrix:
    """Keep the strongest values of each row of a CSR matrix, as `strongest` selects them; indices come out sorted."""
    kept = [
        strongest(matrix.data[start:stop], count, most)
        for start, stop in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True)
    ]
    mask = np.concatenate(kept) if kept else np.zeros(0, dtype=bool)
    pointers = np.concatenate([[0], np.cumsum([np.count_nonzero(row) for row in kept])])
    chosen = csr_matrix((matrix.data[mask], matrix.indices[mask], pointers), shape=matrix.shape)
    chosen.sort_indices()
    return chosen


def strongest_products(
    products: Callable[[slice], csr_matrix], rows: int, columns: int, count: int, context: TrainingContext
) -> csr_matrix:
    """Keep the strongest values of each row of a product of sparse matrices, which is never whole in memory.

    Parameters
    ----------
    products : callable
        From some rows to their products, CSR (rows of the slice, columns).
    rows, columns : int
        Shape of the product.
    count : int
        As in `strongest`; with ties up to 1,000, or 8 times the count.
    context : TrainingContext
        Its `on_phase` is called before every block, and at the end.

    Returns
    -------
    csr_matrix, shape (rows, columns)
    """
    step, parts = max(1, _BLOCK // columns), []
    for start in range(0, rows, step):
        context.on_phase("similarities of items", start, rows)
        block = csr_matrix(products(slice(start, start + step)))
        parts.append(strongest_of_rows(block, count, max(_TIES, 8 * count)))
    context.on_phase("similarities of items", rows, rows)
    return csr_matrix(vstack(parts, format="csr"))
