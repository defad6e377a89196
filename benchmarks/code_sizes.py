"""How many numbers a user's code needs: reconstruction and NDCG of ae, dae, vae and svd (PCA) against its size.

Ratings of 4 and 5, divided as by `recsys compare` (a tenth of the users validation, a tenth test), seed 1. For each
model and size every setting of the grid is fitted; the best on the validation part is measured on the test part, once.
Rows are kept in --cache, so that the script can be stopped and goes on; --only measures some of the models.

    python benchmarks/code_sizes.py ml-100k [--data FOLDER] [--only svd,ae] [--figure FILE.svg]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from recsys.data.reading import ReadingOptions, read_interactions
from recsys.evaluation.averages import Average, Interval
from recsys.evaluation.code_sizes import reconstruction
from recsys.evaluation.metrics import RECONSTRUCTION
from recsys.evaluation.plan import ComparisonPlan, PlannedFit
from recsys.evaluation.study import Study, prepare
from recsys.models import create_model
from recsys.splitting.by_user import strong
from recsys.system.hardware import describe_machine
from recsys.training.context import TrainingContext

SIZES = (2, 8, 32, 128, 512)
METRIC, SEED = "ndcg@100", 1
FILES = {"ml-100k": "ml-100k/u.data", "ml-1m": "ml-1m/ratings.csv"}
DATA = Path(__file__).parents[2] / "shared" / "data"


def grid(data_set: str) -> dict[str, list[dict[str, Any]]]:
    """Return what is tried on the validation part, at each size; for MovieLens-1M, what was best on MovieLens-100K."""
    if data_set == "ml-1m":
        return {
            "svd": [{"item_power": power} for power in (0.0, 0.3)],
            "ae": [{"l2": 1e-3, "learning_rate": 1e-2, "epochs": 15}],
            "dae": [{"dropout": 0.4, "learning_rate": 1e-2, "epochs": 15}],
            "vae": [{"gamma": 0.002, "anneal": 0.0, "learning_rate": 4e-3, "epochs": 12}],
        }
    return {
        "svd": [{"item_power": power} for power in (0.0, 0.3, 0.6)],
        "ae": [{"l2": l2, "learning_rate": 1e-2, "epochs": 60} for l2 in (1e-4, 1e-3, 1e-2)],
        "dae": [{"dropout": dropout, "learning_rate": 1e-2, "epochs": 60} for dropout in (0.3, 0.6)],
        "vae": [{"gamma": g, "anneal": 0.0, "learning_rate": 2e-3, "epochs": 60} for g in (0.002, 0.006)],
    }


Row = dict[str, Any]


def study_of(ratings: Path, models: Sequence[str], sizes: Sequence[int]) -> Study:
    """Prepare the comparison."""
    split = strong(read_interactions(ratings, ReadingOptions(min_rating=4)), seed=SEED)
    context = TrainingContext(seed=SEED, device="cpu", patience=5)
    plan = ComparisonPlan(METRIC, (METRIC,), seed=SEED, baselines=False, latent_sizes=tuple(sizes), context=context)
    return prepare(split, [create_model(name) for name in models], plan)


def measure(planned: PlannedFit, settings_to_try: Sequence[Mapping[str, Any]]) -> Row:
    """Fit every setting of the grid, choose on the validation part, measure the best on the test part."""
    started, best = time.perf_counter(), None
    tried = {}
    for settings in settings_to_try:
        candidate = replace(planned, model=type(planned.model)(replace(planned.model.config, **settings)))
        fitted = candidate.fit()
        value = candidate.validate(fitted)
        tried[json.dumps(settings)] = value
        if best is None or value > best[0]:
            best = value, settings, fitted
    assert best is not None and planned.final.test is not None
    value, settings, fitted = best
    averages = dict(planned.task.evaluate(fitted, planned.final.test, (METRIC,)).averages)
    averages[RECONSTRUCTION] = reconstruction(fitted.score, planned.final.test)
    return {
        "name": planned.name,
        "model": planned.model.name,
        "size": getattr(planned.model.config, planned.model.size_setting),
        "settings": settings,
        "tried": tried,
        "epochs": len(fitted.epochs),
        "seconds": time.perf_counter() - started,
        "values": {label: average.each.round(6).tolist() for label, average in averages.items()},
    }


def intervals(row: Row) -> dict[str, Interval]:
    """The two measures of a row with their 95 % intervals."""
    return {label: Average.of(np.array(values, dtype=float)).interval() for label, values in row["values"].items()}


def table(rows: Mapping[str, Row]) -> str:
    """Rows of a Markdown table, by model and size."""
    lines = [f"| model | size | {METRIC} | {RECONSTRUCTION} | chosen on validation | fits, s |", "|" + " --- |" * 6]
    for row in rows.values():
        found = intervals(row)
        chosen = ", ".join(f"{key}={value:g}" for key, value in row["settings"].items())
        measures = " | ".join(f"{m.mean:.4f} [{m.low:.3f}, {m.high:.3f}]" for m in found.values())
        lines.append(f"| {row['model']} | {row['size']} | {measures} | {chosen} | {row['seconds']:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Fit what is missing in the cache, print the table, draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=FILES, help="data set")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with one folder per data set")
    parser.add_argument("--only", default="svd,ae,dae,vae", help="models, separated by commas")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="sizes of the code, separated by commas")
    parser.add_argument("--cache", type=Path, default=Path("code_sizes"), help="folder of the rows measured so far")
    chosen = parser.parse_args()
    folder, tried = chosen.cache / chosen.set, grid(chosen.set)
    folder.mkdir(parents=True, exist_ok=True)
    sizes = [int(size) for size in chosen.sizes.split(",")]
    study = study_of(chosen.data / FILES[chosen.set], chosen.only.split(","), sizes)
    rows = {}
    for name, model in study.models.items():
        file = folder / f"{name}.json"
        if not file.is_file():
            [[planned]] = study.fits(name)
            file.write_text(json.dumps(measure(planned, tried[model.name])), encoding="utf-8")
            print(f"{name} measured", file=sys.stderr, flush=True)
        rows[name] = json.loads(file.read_text(encoding="utf-8"))
    machine = describe_machine()
    print(f"{chosen.set}, {date.today()}, {machine['cpu']}, {machine['cores']} cores\n\n{table(rows)}")


if __name__ == "__main__":
    main()
