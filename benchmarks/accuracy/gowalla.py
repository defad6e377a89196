"""Gowalla, the division of LightGCN: all items ranked, recall over all held-out items.

    python benchmarks/accuracy/gowalla.py [FOLDER]

FOLDER holds train.csv and test.csv. There is no validation file: a tenth of every user's training rows is
validation, then models are refitted on all of train. Such a random tenth is not like the test rows: of some items far
more rows are in the test part than a random draw takes, of others far fewer, as with a division by time (`spread`). The
random tenth therefore favors models of near neighbors, and does not choose the weights of the blend, which are equal.
"""

from __future__ import annotations

import numpy as np
from accuracy import Division, parse, ranked, run
from scipy.sparse import csr_matrix

from recsys import splitting
from recsys.data.reading import read_interactions

NAME = "gowalla"


def main() -> None:
    """Make the table."""
    flags = parse(__doc__.splitlines()[0], "gowalla")
    train, tested = (read_interactions(flags.folder / f"{part}.csv") for part in ("train", "test"))
    choosing, final = splitting.weak(train, test=False), splitting.given(train, tested)
    assert choosing.validation is not None and final.test is not None
    validation = spread(choosing.train.matrix, choosing.validation.held_out)
    test = spread(final.train.matrix, final.test.held_out)
    note = (
        "Share of an item's rows that is held out, items of 50 to 99 rows: its standard deviation is "
        f"{validation:.2f} times that of a random draw in the validation part, {test:.2f} times in the test part. "
    )
    run(NAME, Division(choosing, ranked(final.test), final.train, note), flags)


def spread(train: csr_matrix, held_out: csr_matrix) -> float:
    """Standard deviation over items of the share of their rows that is held out, over that of a random draw."""
    kept, held = (np.asarray((part != 0).sum(axis=0)).ravel() for part in (train, held_out))
    rows = kept + held
    some = (rows >= 50) & (rows < 100)
    share = held.sum() / rows.sum()
    drawn = np.sqrt(np.mean(share * (1 - share) / rows[some]))
    return float(np.std(held[some] / rows[some]) / drawn)


if __name__ == "__main__":
    main()
