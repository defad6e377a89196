"""MovieLens-1M, ratings of 4 and 5, held-out people: models are fitted on others (strong generalisation).

python benchmarks/accuracy/ml1m_strong.py [RATINGS]
"""

from __future__ import annotations

from accuracy import DATA, HERE, Division, parse, ranked, read_table, run

from recsys import splitting
from recsys.reading import ReadingOptions, read_interactions

NAME = "ml1m_strong"


def main() -> None:
    """Make the table."""
    flags = parse(__doc__.splitlines()[0], DATA / "ml-1m" / "ratings.csv")
    split = splitting.strong(read_interactions(flags.folder, ReadingOptions(min_rating=4)))
    assert split.test is not None
    run(NAME, Division(split, ranked(split.test, read_table(HERE / f"{NAME}.toml").metrics)), flags)


if __name__ == "__main__":
    main()
