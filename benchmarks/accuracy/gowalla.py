"""Gowalla, the division of LightGCN: all items ranked, recall over all held-out items.

    python benchmarks/accuracy/gowalla.py [FOLDER]

FOLDER holds train.csv and test.csv. There is no validation file: a tenth of every user's training rows is
validation, then models are refitted on all of train.
"""

from __future__ import annotations

from accuracy import Division, parse, ranked, run

from recsys import splitting
from recsys.data.reading import read_interactions

NAME = "gowalla"


def main() -> None:
    """Make the table."""
    flags = parse(__doc__.splitlines()[0], "gowalla")
    train, test = (read_interactions(flags.folder / f"{part}.csv") for part in ("train", "test"))
    choosing, final = splitting.weak(train, test=False), splitting.given(train, test)
    run(NAME, Division(choosing, ranked(final.test), final.train), flags)


if __name__ == "__main__":
    main()
