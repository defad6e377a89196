"""What it changes that rows below min_rating count as seen: rows of lists on items their user rated low, and NDCG.

    python benchmarks/liked_and_seen.py --data ../shared/data

Lists are those of EASE for every user, 10 items; NDCG@100 is of the strong protocol. "history" masks what was liked, as
version 0.1 and many publications do; "seen" masks everything the user has rated.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

import recsys
from recsys.inference.topn import recommend

SETS = {  # file and the lowest rating that is a preference
    "ml-latest-small": ("ml-latest-small/ratings.csv", 4),
    "filmtrust": ("filmtrust/ratings.txt", 3),
    "ml-1m": ("ml-1m/ratings.csv", 4),
}


def main() -> None:
    """Print a row a data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    folder = parser.parse_args().data
    print("| data, lowest rating liked | rows on items rated low: history | seen | NDCG@100: history | seen |")
    print("| --- | --- | --- | --- | --- |")
    for name, (file, least) in SETS.items():
        if not (folder / file).is_file():
            print(f"| {name} | no {folder / file} | | | |")
            continue
        interactions = recsys.read_interactions(folder / file, recsys.ReadingOptions(min_rating=least))
        shares = [share_rated_low(interactions, mask) for mask in ("history", "seen")]
        quality = [ndcg(interactions, mask) for mask in ("history", "seen")]
        cells = [f"{share:.1%}" for share in shares] + [f"{value:.4f}" for value in quality]
        print(f"| {name}, {least} | {' | '.join(cells)} |", flush=True)


def share_rated_low(interactions: recsys.Interactions, mask: str) -> float:
    """Share of the rows of all users' lists that are on items their user rated below the minimum."""
    data = interactions.to_matrix()
    assert data.seen is not None
    model = recsys.create_model("ease").fit(data.matrix)
    seen = data.seen if mask == "seen" else data.matrix
    low = (data.seen - data.seen.multiply(data.matrix.astype(bool))).tocsr()
    rows = hits = 0
    for batch in recommend(model.score, data.matrix, 10, seen=seen):
        user, place = np.nonzero(batch.positions >= 0)
        rows += len(user)
        hits += int((np.asarray(low[batch.start + user, batch.positions[user, place]]) > 0).sum())
    return hits / rows


def ndcg(interactions: recsys.Interactions, mask: str) -> float:
    """NDCG@100 of EASE on held-out users."""
    split = recsys.split(interactions if mask == "seen" else replace(interactions, seen_only=None), "strong")
    model = recsys.create_model("ease").fit(split.train.matrix)
    assert split.test is not None
    return recsys.evaluate(model, split.test, ["ndcg@100"]).means()["ndcg@100"]


if __name__ == "__main__":
    main()
