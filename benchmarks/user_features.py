"""Users without a history on MovieLens-1M: popularity beside what users of the same age, gender, occupation take.

    python benchmarks/user_features.py [--data ../shared/data]

Ratings of 4 and 5; a fifth of the users is left out, and each gets one list of 100 by attributes alone, which must find
all that they liked. Means over the users of five random divisions, with the 95 % interval of the paired difference.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix
from table import measured_on

from recsys.batch.cold_users import TasteByAttributes
from recsys.data.item_features import FeatureOptions
from recsys.data.item_features.features import read_item_features
from recsys.data.matrix import UserItemMatrix
from recsys.data.reading import ReadingOptions, read_interactions
from recsys.evaluation.averages import Average
from recsys.evaluation.metrics import METRICS, find_hits
from recsys.inference.topn import top_n

COLUMNS = ("gender:categories", "age:categories", "occupation:categories")
DIVISIONS = 5


def main() -> None:
    """Print a table, a row for each choice of attributes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    folder = parser.parse_args().data / "ml-1m"
    data = UserItemMatrix.from_interactions(read_interactions(folder / "ratings.csv", ReadingOptions(min_rating=4)))
    print(f"{measured_on()}\n")
    print("| attributes | NDCG@100 | more than popularity |\n| --- | ---: | --- |")
    tables = {"none: popularity": None, **{", ".join(COLUMNS[:count]): COLUMNS[:count] for count in (1, 2, 3)}}
    values = {name: measure(data, attributes(folder, data, columns)) for name, columns in tables.items()}
    plain = values["none: popularity"]
    for name, found in values.items():
        gain = Average.of(found - plain).interval(0)
        more = "" if found is plain else f"{gain.mean:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})"
        print(f"| {name.replace(':categories', '')} | {np.nanmean(found):.4f} | {more} |")


def attributes(folder: Path, data: UserItemMatrix, columns: tuple[str, ...] | None) -> csr_matrix:
    """The attributes of the users; no column at all for None."""
    if columns is None:
        return csr_matrix((len(data.users), 0), dtype=np.float32)
    lines = (folder / "users.dat").read_text(encoding="latin-1").splitlines()
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "users.csv"
        rows = [line.split("::")[:4] for line in lines]
        file.write_text("\n".join(map(",".join, [["user_id", "gender", "age", "occupation"], *rows])))
        found = read_item_features(file, FeatureOptions(columns), "user").over(data.users)
    assert found is not None
    return found


def measure(data: UserItemMatrix, known: csr_matrix) -> np.ndarray:
    """NDCG@100 of the users left out, of all divisions."""
    values = []
    for seed in range(DIVISIONS):
        order = np.random.default_rng(seed).permutation(len(data.users))
        left_out, others = np.split(order, [len(order) // 5])
        taste = TasteByAttributes.fit(known[others], data.matrix[others])
        lists, _ = top_n(taste.scores(known[left_out]), 100)
        wanted = data.matrix[left_out]
        values.append(METRICS["ndcg"](find_hits(lists, wanted), np.diff(wanted.indptr), 100))
    return np.concatenate(values)


if __name__ == "__main__":
    main()
