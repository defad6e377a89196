"""What equal scores are worth: NDCG@10 with ties by position, as in 0.1, and by hashed ids, as now.

Positions may follow popularity: a score that says nothing then finds popular items. The same split is measured as it is
and with all positions reversed; evaluation is timed both ways.

    python benchmarks/ties.py --data ../shared/data
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import click
import numpy as np
import pyarrow as pa
import torch
from scipy.sparse import csr_matrix

from recsys.data.interactions import Vocabulary
from recsys.data.matrix import UserItemMatrix
from recsys.data.reading import ReadingOptions, read_interactions
from recsys.evaluation.evaluate import evaluate_lists
from recsys.evaluation.metrics import METRICS, find_hits
from recsys.inference.topn import recommend
from recsys.models import create_model
from recsys.splitting import strong
from recsys.splitting.holdout import Holdout, Split
from recsys.types import ScoreFunction

SETS = {
    "ml-latest-small": ("ml-latest-small/ratings.csv", None),
    "FilmTrust": ("filmtrust/ratings.txt", None),
    "ML-1M, 4 and 5": ("ml-1m/ratings.csv", 4.0),
}
MODELS = {"popularity": {}, "item-knn": {"neighbors": 2}, "item-knn, 100": {"neighbors": 100}, "ease": {}}
CHANCE_SEEDS = 20


def reversed_input(split: Split) -> Split:
    """The split that the same division of a file read backwards would be: positions run the other way."""
    train, test = split.train, split.test
    assert test is not None
    items = Vocabulary(_backwards(train.items.ids))
    matrix = UserItemMatrix(_flipped(train.matrix), Vocabulary(_backwards(train.users.ids)), items)
    part = replace(
        test,
        history=_flipped(test.history),
        held_out=_flipped(test.held_out),
        users=_backwards(test.users),
        unknown=test.unknown[::-1],
        train_rows=np.where(test.train_rows >= 0, len(train.users) - 1 - test.train_rows, -1)[::-1],
        seen=None if test.seen is None else _flipped(test.seen),
        items=items,
    )
    return Split(split.protocol, matrix, None, part)


def _backwards(ids: pa.Array) -> pa.Array:
    return ids.take(pa.array(np.arange(len(ids))[::-1]))


def _flipped(matrix: csr_matrix) -> csr_matrix:
    found = csr_matrix(matrix[::-1][:, ::-1])
    found.sort_indices()
    return found


def by_position(score: ScoreFunction, test: Holdout) -> float:
    """NDCG@10 with equal scores in order of position."""
    lists = np.concatenate([batch.positions for batch in recommend(score, test.history, 10, seen=test.seen)])
    return float(np.nanmean(METRICS["ndcg"](find_hits(lists, test.held_out), test.relevant, 10)))


def by_hash(score: ScoreFunction, test: Holdout) -> float:
    """NDCG@10 with equal scores in the order of hashed ids."""
    return evaluate_lists(score, test, ("ndcg@10",)).means()["ndcg@10"]


def constant(history: csr_matrix, **_: object) -> torch.Tensor:
    """The same score for everything."""
    return torch.zeros(history.shape)


def chance(test: Holdout) -> tuple[float, float]:
    """Mean and standard deviation of NDCG@10 of lists drawn at random."""
    values = []
    for seed in range(CHANCE_SEEDS):
        generator = torch.Generator().manual_seed(seed)
        values.append(by_position(lambda rows, **_: torch.rand(rows.shape, generator=generator), test))  # noqa: B023
    return float(np.mean(values)), float(np.std(values, ddof=1))


def scorers(split: Split) -> Iterator[tuple[str, ScoreFunction]]:
    """A constant, and the models fitted on the training part."""
    yield "constant", constant
    for label, settings in MODELS.items():
        yield label, create_model(label.partition(",")[0], settings).fit(split.train.matrix).score


def seconds(measure: Callable[[], object], rounds: int = 5) -> float:
    """The median processor time of a call."""
    measure()
    times = []
    for _ in range(rounds):
        started = time.process_time()
        measure()
        times.append(time.process_time() - started)
    return median(times)


def rows(name: str, split: Split) -> Iterator[str]:
    """The lines of a data set."""
    backwards = reversed_input(split)
    assert split.test is not None and backwards.test is not None
    mean, deviation = chance(split.test)
    yield f"| {name} | chance, {CHANCE_SEEDS} draws | {mean:.4f} ± {deviation:.4f} | | | | |"
    for (label, score), (_, other) in zip(scorers(split), scorers(backwards), strict=True):
        before = by_position(score, split.test), by_position(other, backwards.test)
        now = by_hash(score, split.test), by_hash(other, backwards.test)
        time_before = seconds(lambda score=score: by_position(score, split.test))
        time_now = seconds(lambda score=score: by_hash(score, split.test))
        yield (
            f"| {name} | {label} | {before[0]:.4f} | {before[1]:.4f} | {now[0]:.4f} | {now[1]:.4f} | "
            f"{time_now / time_before - 1:+.0%} |"
        )


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True, help="Folder of the data sets.")
@click.option("--only", help="One of the data sets.")
def main(data: Path, only: str | None) -> None:
    """Print NDCG@10 before and now for each data set in DATA."""
    print("| data | scores | by position | the same, reversed | by hash | the same, reversed | time |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for name, (file, min_rating) in SETS.items():
        if only in (None, name) and (data / file).exists():
            interactions = read_interactions(data / file, ReadingOptions(min_rating=min_rating))
            for line in rows(name, strong(interactions, share=0.1)):
                print(line, flush=True)


if __name__ == "__main__":
    main()
