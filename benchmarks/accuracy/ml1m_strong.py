"""MovieLens-1M, ratings of 4 and 5, held-out users: models are fitted on the other users (strong generalization).

As in the publications, lists leave out the history alone: items that a user rated below 4 may be in them.

python benchmarks/accuracy/ml1m_strong.py [RATINGS]
"""

from __future__ import annotations

from dataclasses import replace

from accuracy import Division, parse, ranked, run

from recsys import splitting
from recsys.data.reading import ReadingOptions, read_interactions

NAME = "ml1m_strong"


def main() -> None:
    """Make the table."""
    flags = parse(__doc__.splitlines()[0], "ml-1m/ratings.csv")
    interactions = read_interactions(flags.folder, ReadingOptions(min_rating=4))
    split = splitting.strong(replace(interactions, seen_only=None))
    run(NAME, Division(split, ranked(split.test)), flags)


if __name__ == "__main__":
    main()
