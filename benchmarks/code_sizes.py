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
from recsys.reporting import svg
from recsys.splitting.by_user import strong
from recsys.system.hardware import describe_machine
from recsys.training.context import TrainingContext

SIZES = (2, 8, 32, 128, 512)
METRIC, SEED = "ndcg@100", 1
FILES = {"ml-100k": "ml-100k/u.data", "ml-1m": "ml-1m/ratings.csv"}
TITLES = {"ml-100k": "MovieLens-100K", "ml-1m": "MovieLens-1M"}
DATA = Path(__file__).parents[2] / "shared" / "data"


def grid(data_set: str) -> dict[str, list[dict[str, Any]]]:
    """Return what is tried on the validation part, at each size; of `vae` on MovieLens-1M one setting, for time."""
    batches = {"batch_size": 128} if data_set == "ml-1m" else {}
    if data_set == "ml-1m":
        deep = [{"gamma": 0.002, "learning_rate": 4e-3, "epochs": 12, **batches}]
    else:
        deep = [{"gamma": gamma, "learning_rate": 2e-3, "epochs": 60} for gamma in (0.002, 0.006)]
    shallow = {"learning_rate": 1e-2, "epochs": 60, **batches}
    return {
        "svd": [{"item_power": power} for power in (0.0, 0.3, 0.6, 0.9)],
        "ae": [{"l2": l2, **shallow} for l2 in (1e-4, 1e-3, 1e-2)],
        "dae": [{"dropout": dropout, **shallow} for dropout in (0.3, 0.6)],
        "vae": [{"hidden": 600, "anneal": 0.0, **each} for each in deep],
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


def minus_svd(row: Row, rows: Mapping[str, Row], label: str) -> str:
    """The difference to svd of the same size, paired by user, with its 95 % interval; empty for svd."""
    other = rows.get(f"svd-{row['size']}")
    if other is None or other is row:
        return ""
    ours, theirs = (Average.of(np.array(each["values"][label], dtype=float)) for each in (row, other))
    found = ours.difference(theirs)
    return f"{found.mean:+.4f} [{found.low:+.3f}, {found.high:+.3f}]"


def table(rows: Mapping[str, Row]) -> str:
    """Rows of a Markdown table, by model and size."""
    columns = f"| model | size | {METRIC} | minus svd | {RECONSTRUCTION} | minus svd | chosen on validation |"
    lines = [columns, "|" + " --- |" * 7]
    for row in rows.values():
        chosen = ", ".join(f"{key}={value:g}" for key, value in row["settings"].items())
        cells = [row["model"], str(row["size"])]
        for label, one in intervals(row).items():
            cells += [f"{one.mean:.4f} [{one.low:.3f}, {one.high:.3f}]", minus_svd(row, rows, label)]
        lines.append(f"| {' | '.join([*cells, chosen])} |")
    return "\n".join(lines)


STYLE = """svg{font-family:system-ui,sans-serif;background:var(--page)}
:root{--page:#fff;--ink:#1d1d1f;--soft:#5c5c62;--rule:#e2e2de;--s0:#0072b2;--s1:#d55e00;--s2:#009e73;--s3:#b0569a}
@media(prefers-color-scheme:dark){:root{--page:#16171a;--ink:#ececec;--soft:#a2a5ad;--rule:#34373d;--s0:#56b4e9;
--s1:#f0904a;--s2:#3cc49c;--s3:#dd92c8}}
.s0{--c:var(--s0)}.s1{--c:var(--s1)}.s2{--c:var(--s2)}.s3{--c:var(--s3)}
.grid{stroke:var(--rule)}.base{stroke:var(--soft)}.line{fill:none;stroke:var(--c);stroke-width:2}
.band{fill:var(--c);opacity:.13}.dot{fill:var(--c);stroke:var(--page)}text{font-size:11px;fill:var(--soft)}
.name{fill:var(--c);font-weight:600}.title{fill:var(--ink);font-weight:600;font-size:13px}"""


def figure(rows: Mapping[str, Row], title: str) -> str:
    """Draw both measures against the size, as one SVG that follows light and dark mode."""
    models = list(dict.fromkeys(row["model"] for row in rows.values()))
    parts = []
    for place, label in enumerate((METRIC, RECONSTRUCTION)):
        series = []
        for color, model in enumerate(models):
            found = {row["size"]: intervals(row)[label] for row in rows.values() if row["model"] == model}
            points = [(size, one.mean) for size, one in found.items()]
            series.append(svg.Series(model, color, points, [(one.low, one.high) for one in found.values()]))
        sizes = sorted({size for one in series for size, _ in one.points})
        chart = svg.line_chart(series, "size of the code", sizes, log=True, title=f"{label} by size of the code")
        chart = chart.replace(
            "<svg ", f'<svg x="{12 + place * 384}" y="30" width="{svg.WIDTH}" height="{svg.HEIGHT}" ', 1
        )
        parts.append(f'<text class="title" x="{12 + place * 384}" y="20">{title}: {label}</text>{chart}')
    size = f'width="768" height="{svg.HEIGHT + 36}" viewBox="0 0 768 {svg.HEIGHT + 36}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{STYLE}</style>{"".join(parts)}</svg>\n'


def main() -> None:
    """Fit what is missing in the cache, print the table, draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=FILES, help="data set")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with one folder per data set")
    parser.add_argument("--only", default="svd,ae,dae,vae", help="models, separated by commas")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="sizes of the code, separated by commas")
    parser.add_argument("--cache", type=Path, default=Path("code_sizes"), help="folder of the rows measured so far")
    parser.add_argument("--figure", type=Path, help="SVG to write")
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
    where = f"{date.today()}, {machine['cpu']}, {machine['cores']} cores"
    print(f"{TITLES[chosen.set]}, seed {SEED}; {where}\n\n{table(rows)}")
    if chosen.figure is not None:
        chosen.figure.write_text(figure(rows, TITLES[chosen.set]), encoding="utf-8")


if __name__ == "__main__":
    main()
