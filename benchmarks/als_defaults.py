"""How far are the default weights of als and ials, which scale with the data, from the best of a grid?

Every data set is divided as by `recsys compare --protocol strong`, and only validation users are looked at: NDCG@100
with the scaled defaults, with the fixed ones of version 0.1 (als: alpha 8, l2 80; ials: unobserved 0.3, l2 0.007), and
with the best of a grid, all at 128 factors. Data sets that do not exist are left out.

    python benchmarks/als_defaults.py --data FOLDER [--model ials] [--sets NAME,NAME] [--no-grid]
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from recsys.data.interactions import Interactions
from recsys.data.reading import ReadingOptions, read_interactions
from recsys.evaluation.evaluate import Validator
from recsys.models import create_model
from recsys.splitting.by_user import strong
from recsys.splitting.holdout import Split
from recsys.system.hardware import describe_machine
from recsys.training.context import TrainingContext

METRIC = "ndcg@100"
FIXED = {"als": {"alpha": 8.0, "l2": 80.0}, "ials": {"unobserved": 0.3, "l2": 0.007}}  # the defaults of version 0.1
GRIDS = {
    "als": [
        {"alpha": alpha, "l2": alpha * ratio}
        for alpha, ratio in itertools.product((2.0, 4.0, 8.0, 16.0, 32.0), (1.0, 2.0, 4.0, 8.0, 16.0))
    ],
    "ials": [
        {"unobserved": unobserved, "l2": l2}
        for unobserved, l2 in itertools.product((0.03, 0.1, 0.3), (0.001, 0.003, 0.01, 0.03))
    ],
}
MOST_USERS = 2000  # validation users of a data set

_IDS = ReadingOptions(rating_column="none", timestamp_column="none")
_LIKED = ReadingOptions(min_rating=4)
SETS: dict[str, tuple[str, ReadingOptions]] = {
    "ml-100k": ("ml-100k/u.data", _LIKED),
    "ml-latest-small": ("ml-latest-small/ratings.csv", _LIKED),
    "ml-1m": ("ml-1m/ratings.csv", _LIKED),
    "filmtrust": ("filmtrust/ratings.txt", _IDS),
    "lastfm-hetrec2011": ("lastfm-hetrec2011/user_artists.dat", replace(_IDS, item_column="artistID")),
    "amazon-musical-instruments": ("amazon-musical-instruments/ratings.csv", _IDS),
    "steam-200k": (
        "steam-200k/game_purchase.dat",
        replace(_IDS, user_column="User_ID", item_column="Game_ID"),
    ),
    "jester-1": ("jester-1/ratings.csv.gz", _LIKED),
    "citeulike-a": ("citeulike-a-cold/train.csv", _IDS),
    "amazon-beauty": ("amazon-beauty/sequences.csv", _IDS),
}
SAMPLE = Path(__file__).parents[1] / "data" / "sample" / "ratings.csv"


@dataclass(frozen=True)
class Result:
    """Validation values of a data set: scaled and fixed defaults, and the best of the grid with its settings."""

    scaled: float
    fixed: float
    best: tuple[float, dict[str, float]] | None


def data_sets(folder: Path | None, names: list[str]) -> Iterator[tuple[str, Interactions]]:
    """Yield the sample and the data sets of the folder that exist, by name."""
    yield "sample", read_interactions(SAMPLE)
    for name in names:
        file, options = SETS[name]
        if folder is not None and (folder / file).is_file():
            yield name, read_interactions(folder / file, options)


def validation_value(split: Split, name: str, settings: dict[str, float]) -> float:
    """Return the validation value of a model with some settings."""
    assert split.validation is not None
    model = create_model(name, settings).fit(split.train.matrix, TrainingContext(device="cpu"))
    return Validator(split.validation, METRIC)(model.score)


def measure(split: Split, name: str, grid: bool) -> Result:
    """Return the validation values of a data set."""
    tried = [(validation_value(split, name, settings), settings) for settings in (GRIDS[name] if grid else ())]
    best = max(tried, key=lambda one: one[0], default=None)
    return Result(validation_value(split, name, {}), validation_value(split, name, FIXED[name]), best)


def in_words(settings: dict[str, float]) -> str:
    """Return settings as a cell of the table."""
    return ", ".join(f"{name} {value:.3g}" for name, value in settings.items())


def main() -> None:
    """Print a table, a row for each data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with one folder per data set")
    parser.add_argument("--sets", default=",".join(SETS), help="names of data sets, separated by commas")
    parser.add_argument("--model", choices=list(FIXED), default="als")
    parser.add_argument("--no-grid", action="store_true", help="measure the defaults only")
    chosen = parser.parse_args()
    columns = ("data", "users x items", "per user", "per item", "scaled to", "scaled", "0.1", "best", "of grid")
    machine = describe_machine()
    print(f"{METRIC} on validation users, {date.today()}, {machine['cpu']}, {machine['cores']} cores\n")
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for name, interactions in data_sets(chosen.data, chosen.sets.split(",")):
        split = strong(interactions, at_most=MOST_USERS)
        matrix, result = split.train.matrix, measure(split, chosen.model, not chosen.no_grid)
        n_users, n_items = matrix.shape
        scaled = vars(create_model(chosen.model).scaled_config(matrix))
        best = ("", "") if result.best is None else (f"{result.best[0]:.4f}", in_words(result.best[1]))
        cells = (
            name,
            f"{n_users:,} x {n_items:,}",
            f"{matrix.nnz / n_users:.1f}",
            f"{matrix.nnz / n_items:.1f}",
            in_words({name: scaled[name] for name in FIXED[chosen.model]}),
            f"{result.scaled:.4f}",
            f"{result.fixed:.4f}",
            *best,
        )
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
