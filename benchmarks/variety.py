"""Rules and variety of lists on MovieLens-1M: what they cost in accuracy and in time, and whether all rules are kept.

    python benchmarks/variety.py [--data ../shared/data] [--only curve,speed,rules]

curve   users held out from training (protocol strong): NDCG@100 of lists of 100, NDCG@10 of lists of 10, and the mean
        distance of the first ten items by their genres, for several weights of diversity
speed   lists of 10 for all users, written by `recsys score`, with one kind of rule, with variety, and with all of them,
        beside none; each the median of several runs in turn
rules   random rules and requests: every list beside that of a slow, obvious implementation (tests/rule_case.py)
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from table import measured_on

from pipelines import score
from pipelines.cli.rules import RuleFlags
from pipelines.cli.settings import TrackingOptions
from recsys.artifacts import save_model
from recsys.data.reading import ReadingOptions, read_interactions
from recsys.evaluation.fitting import fit
from recsys.evaluation.ruled import measure_rules
from recsys.inference.reranking import ruled_lists
from recsys.inference.rule_file import read_rules
from recsys.models import create_model
from recsys.splitting import strong

KINDS = {
    "exclude": '[[rule]]\nexclude = { genres = "Horror" }\n',
    "only": "[[rule]]\nonly = { year = { min = 1950 } }\n",
    "boost": "[[rule]]\nboost = { year = { min = 1999 } }\nstrength = 0.3\n",
    "promote": '[[rule]]\npromote = { directors = ["Woody Allen", "Alfred Hitchcock"] }\nshare = 0.1\n',
    "cap": '[[rule]]\ncap = "directors"\nmost = 2\n',
    "diversity": '[variety]\nby = "genres"\ndiversity = 0.5\n',
    "calibration": '[variety]\nby = "genres"\ncalibration = 0.5\n',
}


def write_rules(folder: Path, data: Path, *kinds: str) -> Path:
    """A file of these kinds of rules."""
    file = folder / f"{'-'.join(kinds)}.toml"
    items = json.dumps(str((data / "ml-1m" / "item_features.csv").resolve()))
    file.write_text(f"items = {items}\n{''.join(KINDS[kind] for kind in kinds)}")
    return file


def curve(data: Path, folder: Path) -> None:
    """Accuracy against distance."""
    split = strong(read_interactions(data / "ml-1m" / "ratings.csv", ReadingOptions()), seed=0)
    assert split.test is not None
    print("\n| model | diversity | NDCG@100 | NDCG@10 | distance, lists of 100 | distance, lists of 10 |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in ("ease", "edlae"):
        model = create_model(name).fit(split.train.matrix)
        rules = read_rules(write_rules(folder, data, "diversity"), split.train.items, lambda: np.empty((0, 0)))
        assert rules.variety is not None
        rules = replace(rules, variety=replace(rules.variety, weight=0.55))
        long, short = (measure_rules(model, split.test, rules, metric) for metric in ("ndcg@100", "ndcg@10"))
        for one, other in zip(long, short, strict=True):
            figures = [
                f"{now:.4f} ({now / then - 1:+.1%})"
                for now, then in (
                    (one.accuracy.mean, long[0].accuracy.mean),
                    (other.accuracy.mean, short[0].accuracy.mean),
                    (one.distance or 0, long[0].distance or 1),
                    (other.distance or 0, short[0].distance or 1),
                )
            ]
            print(f"| `{name}` | {one.name.removeprefix('diversity ')} | {' | '.join(figures)} |", flush=True)


def speed(data: Path, folder: Path, runs: int = 7) -> None:
    """Seconds of `recsys score` beside those without rules."""
    ratings = data / "ml-1m" / "ratings.csv"
    settings = {"ease": {}, "vae": {"epochs": 3}}
    print("\n| lists by | " + " | ".join(f"`{name}`" for name in settings) + " |")
    print("| --- |" + " ---: |" * len(settings))
    ways = {"no rules": (), **{kind: (kind,) for kind in KINDS}, "the first six together": tuple(KINDS)[:6]}
    seconds: dict[tuple[str, str], list[float]] = {}
    for name, own in settings.items():
        save_model(folder / name, fit(read_interactions(ratings, ReadingOptions()), name, own, held_out=0))
        for _ in range(runs):
            for way, kinds in ways.items():
                rules = RuleFlags(write_rules(folder, data, *kinds)) if kinds else RuleFlags()
                job = score.ScoreJob(
                    folder / name,
                    (ratings,),
                    folder / "lists",
                    choice=score.Choice(ruling=rules),
                    overwrite=True,
                    device="cpu",
                    tracking=TrackingOptions(False),
                )
                seconds.setdefault((name, way), []).append(score.run(job).speed["seconds"])
    medians = {key: statistics.median(found) for key, found in seconds.items()}
    for way in ways:
        cells = [f"{medians[name, way] / medians[name, 'no rules']:.2f}" for name in settings]
        if way == "no rules":
            cells = [f"{medians[name, way]:.2f} s" for name in settings]
        print(f"| {way} | {' | '.join(cells)} |", flush=True)


def rules(data: Path, folder: Path, sets: int = 1000) -> None:
    """Lists by random rules against the slow implementation."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from rule_case import random_rules, slow_list

    lists = differing = 0
    kinds: dict[str, int] = {}
    for seed in range(10_000, 10_000 + sets):
        case = random_rules(np.random.default_rng(seed))
        for rule in case.rules.rules:
            kinds[str(rule.kind)] = kinds.get(str(rule.kind), 0) + 1
        kinds["variety"] = kinds.get("variety", 0) + (case.rules.variety is not None)
        table = torch.from_numpy(case.scores)
        found = ruled_lists(
            lambda t=table, w=case.width: (b.clone() for b in t.split(w, dim=1)), case.rules, case.request
        )
        for user, positions in enumerate(found.positions):
            lists += 1
            differing += positions.tolist() != slow_list(case, user, positions)
    print(
        f"\n{sets:,} random rule sets ({kinds}): {differing} of {lists:,} lists differ from the slow implementation's"
    )


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", default="curve,speed,rules")
    flags = parser.parse_args()
    print(measured_on())
    with tempfile.TemporaryDirectory() as folder:
        for part in flags.only.split(","):
            {"curve": curve, "speed": speed, "rules": rules}[part](flags.data, Path(folder))


if __name__ == "__main__":
    main()
