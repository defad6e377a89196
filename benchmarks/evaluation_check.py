"""Known scores on public data: does `compare`, from CSV to leaderboard, give the figures that others published?

    python benchmarks/evaluation_check.py [--data DIR]     half a minute

DIR/ml-1m/random-80-10-10 holds train.csv, validation.csv and test.csv: a random 80/10/10 split of MovieLens-1M.
The exit code is 1 when a figure is off.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the jobs are imported as `pipelines`, from this checkout

from pipelines import compare
from pipelines.cli.output import table
from pipelines.cli.settings import FittingOptions, SplitOptions, TrackingOptions
from pipelines.compare import Compared, CompareJob
from recsys.system.hardware import describe_machine

# Sachdeva et al., Infinite Recommendation Networks, NeurIPS 2022 (repository infinite_ae_cf): every rating is a
# positive; models learn on train; at test the history is train and validation; all 6,040 users, all items ranked.
DATA = Path(__file__).parents[2] / "shared" / "data"  # where --data looks if it is not given
DIVISION = Path("ml-1m") / "random-80-10-10"
EASE_L2 = 1000

# Found on this division by a separate evaluation in plain NumPy; their HR@k is our capped recall.
EXPECTED = {
    "popularity": {"ndcg@10": 0.1435, "ndcg@100": 0.1999, "capped_recall@10": 0.1351, "capped_recall@100": 0.3083},
    "ease": {"ndcg@10": 0.3407, "ndcg@100": 0.4317, "capped_recall@10": 0.3226, "capped_recall@100": 0.5998},
}
TOLERANCE = {"popularity": 0.0005, "ease": 0.002}

Row = tuple[str, str, float, float, bool]


def measure(folder: Path) -> Compared:
    """Compare the models of EXPECTED with the `compare` job."""
    with tempfile.TemporaryDirectory() as place:
        return compare.run(
            CompareJob(
                ratings=(folder / "train.csv",),
                output=Path(place) / "comparison",
                models=",".join(EXPECTED),
                settings=(f"ease.l2={EASE_L2}",),
                metrics=",".join(EXPECTED["ease"]),
                baselines=False,
                probes=0,
                who=SplitOptions("given", test=folder / "test.csv", validation=folder / "validation.csv"),
                fitting=FittingOptions(metric="ndcg@10"),
                tracking=TrackingOptions(track=False),
            )
        )


def judge(found: Compared) -> list[Row]:
    """One row for each figure: model, metric, expected, found, whether the difference is within the tolerance."""
    board = found.leaderboard.set_index("model")
    return [
        (
            model,
            metric,
            expected,
            board.loc[model, metric],
            abs(board.loc[model, metric] - expected) <= TOLERANCE[model],
        )
        for model, metrics in EXPECTED.items()
        for metric, expected in metrics.items()
    ]


def report(found: Compared, rows: list[Row]) -> str:
    """The table, the data that was read, and the machine."""
    machine = describe_machine()
    commit, *changed = str(machine["git_commit"]).split("-")
    texts = [
        (model, metric, f"{expected:.4f}", f"{value:.4f}", f"{value - expected:+.4f}", "OK" if right else "NOT")
        for model, metric, expected, value, right in rows
    ]
    facts = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in found.comparison.split.items())
    return "\n".join(
        [
            table(texts, ("model", "metric", "expected", "found", "difference", ""), left=2),
            "",
            f"Data: MovieLens-1M, random 80/10/10; {facts}.",
            f"Within {TOLERANCE['popularity']} (popularity) and {TOLERANCE['ease']} (ease, l2={EASE_L2}).",
            f"{date.today()}, commit {'-'.join([commit[:7], *changed])}, {machine['cpu']}, {machine['cores']} cores, "
            f"{machine['memory_gb']} GB, Python {machine['python']}, torch {machine['packages']['torch']}.",
        ]
    )


def main() -> int:
    """Print the table. Return 0 if all figures are as expected, 1 if one is off or the data are missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets, with ml-1m/random-80-10-10")
    folder = parser.parse_args().data / DIVISION
    if not (folder / "train.csv").is_file():
        print(
            f"Expected train.csv, validation.csv and test.csv in {folder}, found no train.csv there.", file=sys.stderr
        )
        return 1
    found = measure(folder)
    rows = judge(found)
    print(report(found, rows))
    return 0 if all(right for *_, right in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
