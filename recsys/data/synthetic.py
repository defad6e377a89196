"""Generated ratings in the shape of MovieLens, of any size, from a seed: for measuring speed, not quality."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from recsys.errors import ConfigError

USERS_AT_ONCE = 2_000
LEVELS = np.arange(1, 11) / 2  # half stars
LEVEL_SHARES = np.array([1.2, 3.4, 1.4, 7.1, 4.4, 21.4, 11.0, 27.8, 7.7, 14.6]) / 100  # about as in ML-20M


def write_shaped_ratings(path: Path, users: int, items: int, rows: int, seed: int = 0) -> Path:
    """Write generated ratings to a CSV with the columns userId, movieId, rating, timestamp, sorted by user and item.

    Parameters
    ----------
    path : Path
    users, items, rows, seed : int
        See `shaped_ratings`.

    Returns
    -------
    Path
        The same path.
    """
    batches = shaped_ratings(users, items, rows, seed)
    first = next(batches)
    with pyarrow.csv.CSVWriter(path, first.schema, write_options=pyarrow.csv.WriteOptions(quoting_style="none")) as out:
        out.write_batch(first)
        for batch in batches:
            out.write_batch(batch)
    return path


def shaped_ratings(users: int, items: int, rows: int, seed: int = 0) -> Iterator[pa.RecordBatch]:
    """Generate ratings, some users at a time.

    Activity is log-normal with 20 items or more where rows allow, popularity follows a Zipf law, ids of items have
    gaps, and a user's rows are within hours.

    Parameters
    ----------
    users, items, rows : int
        Exact counts: every user and every item occurs, and no pair twice. At most 30 % of all pairs.
    seed : int

    Yields
    ------
    RecordBatch

    Raises
    ------
    ConfigError
        If the counts cannot be met.
    """
    if not (0 < users <= rows and 0 < items <= rows and rows <= users * items * 0.3):
        raise ConfigError(
            f"Expected rows >= users, items and at most 0.3 x users x items, found {(users, items, rows)}."
        )
    rng = np.random.default_rng(seed)
    sizes = _activity(users, items, rows, rng)
    popularity = np.cumsum(1 / (np.arange(items) + 10.0))
    item_ids = np.sort(rng.choice(np.arange(1, 5 * items), items, replace=False))[rng.permutation(items)]
    must = np.repeat(np.arange(users), sizes)[rng.choice(rows, items, replace=False)]  # one sure user of each item
    starts = rng.integers(800_000_000, 1_430_000_000, users)
    for first in range(0, users, USERS_AT_ONCE):
        some = slice(first, first + USERS_AT_ONCE)
        taken = np.flatnonzero((must >= first) & (must < first + USERS_AT_ONCE))
        given = (must[taken] - first) * items + taken
        pairs = _fill(np.sort(given), sizes[some], popularity / popularity[-1], rng)
        user, item = pairs // items, item_ids[pairs % items]
        order = np.lexsort((item, user))
        user, item = user[order] + first, item[order]
        columns = {
            "userId": user + 1,
            "movieId": item,
            "rating": rng.choice(LEVELS, len(user), p=LEVEL_SHARES / LEVEL_SHARES.sum()),
            "timestamp": starts[user] + rng.integers(0, 20_000, len(user)),
        }
        yield pa.RecordBatch.from_pydict(columns)


def _activity(users: int, items: int, rows: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Number of rows of each user, `rows` in all, none above 40 % of the items."""
    least, most = min(20, rows // users), max(1, int(0.4 * items))
    sizes = np.full(users, min(least, most))
    weights = rng.lognormal(0, 1.3, users)
    while (missing := rows - int(sizes.sum())) > 0:
        open_weights = np.where(sizes < most, weights, 0)
        sizes = np.minimum(most, sizes + rng.multinomial(missing, open_weights / open_weights.sum()))
    return sizes


def _fill(
    pairs: NDArray[np.int64], sizes: NDArray[np.int64], popularity: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Add popular items to the given pairs (user * items + item) until each user has as many as `sizes` says."""
    items = len(popularity)
    while (missing := sizes - np.bincount(pairs // items, minlength=len(sizes))).any():
        wanted = np.repeat(np.arange(len(sizes)), missing * 2)
        drawn = np.minimum(np.searchsorted(popularity, rng.random(len(wanted))), items - 1)
        evenly = rng.random(len(wanted)) < 0.1  # else heavy users would wait for rare items for a long time
        drawn[evenly] = rng.integers(0, items, int(evenly.sum()))
        new = rng.permutation(np.setdiff1d(wanted * items + drawn, pairs))
        new = new[np.argsort(new // items, kind="stable")]
        user = new // items
        rank = np.arange(len(new)) - np.searchsorted(user, user)
        pairs = np.concatenate([pairs, new[rank < missing[user]]])
    return pairs
