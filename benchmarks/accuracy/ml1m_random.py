"""MovieLens-1M, random 80/10/10 of every user's rows (Sachdeva et al. 2022): all items ranked.

    python benchmarks/accuracy/ml1m_random.py [FOLDER]

FOLDER holds train.csv, validation.csv and test.csv. Models learn on train; at test the history is train
and validation.
"""

from __future__ import annotations

from accuracy import Division, parse, ranked, run

from recsys import splitting
from recsys.data.reading import read_interactions

NAME = "ml1m_random"


def main() -> None:
    """Make the table."""
    flags = parse(__doc__.splitlines()[0], "ml-1m/random-80-10-10")
    train, validation, test = (
        read_interactions(flags.folder / f"{part}.csv") for part in ("train", "validation", "test")
    )
    split = splitting.given(train, test, validation)
    run(NAME, Division(split, ranked(split.test)), flags)


if __name__ == "__main__":
    main()
