"""The model that is trained if none is named beside its members, each tuned for as long as the default took.

    python benchmarks/default_quality.py --data FOLDER [--sets NAME,NAME] [--work DIR]

Users are held out (strong). On each data set the default is fitted as by `recsys train`; then each member, `als` and
`vae` are tuned on the validation users for as many seconds, at least one trial, the defaults first. The best member is
that of the best validation value. All are tested once on other users: NDCG@100, and the paired difference of the
default from the best member and from `als`, with a 95 % interval. Trials lie in --work, where the script goes on.
"""

from __future__ import annotations

import argparse
import os
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch
from als_defaults import SETS
from default_time import METRIC, all_sets, context_of

from recsys.data.interactions import Interactions
from recsys.evaluation.averages import Average
from recsys.evaluation.evaluate import evaluate
from recsys.models import Recommender, create_model
from recsys.models.blend import Blend
from recsys.models.cost import Size
from recsys.models.default import choose_model
from recsys.splitting.by_user import strong
from recsys.splitting.holdout import Split
from recsys.system.hardware import describe_machine
from recsys.tuning.search import tune
from recsys.tuning.trials import Budget, Search

BESIDE = ("als", "vae")  # tuned too, besides the members


def fit(model: Recommender, split: Split) -> Recommender:
    """Fit on the training part, validated as by `recsys train`."""
    return model.fit(split.train.matrix, context_of(split))


def tested(model: Recommender, split: Split) -> Average:
    """NDCG@100 of the test users."""
    return evaluate(model.score, split.test, (METRIC,)).averages[METRIC]


def tuned(name: str, split: Split, minutes: float, storage: Path) -> tuple[float, int, Average]:
    """Tune a model: its validation value, the number of trials, and the test of the best."""
    search = Search(name, {}, split, METRIC)
    found = tune(search, Budget(minutes=minutes), storage, {}, context_of(split))
    model = fit(create_model(name, found.best.settings), split)
    return found.best.value or 0.0, len(found.trials), tested(model, split)


def row(name: str, interactions: Interactions, work: Path) -> list[str]:
    """The cells of a data set."""
    split = strong(interactions)
    choice = choose_model(Size.of(interactions.user, interactions.item), True, torch.device("cpu"))
    started = time.perf_counter()
    model = fit(create_model(choice.model, choice.settings), split)
    seconds = time.perf_counter() - started
    default = tested(model, split)
    members = [member.name for member in model.members] if isinstance(model, Blend) else [model.name]
    names = dict.fromkeys((*members, *BESIDE))
    beside = {one: tuned(one, split, seconds / 60, work / f"{name}.sqlite") for one in names}
    best = max(members, key=lambda one: beside[one][0])
    tries = ", ".join(f"{one} {trials}" for one, (_, trials, _) in beside.items())
    cells = [name, ",".join(members), f"{seconds:.0f} s", f"{default.mean:.4f}", f"{best} {beside[best][2].mean:.4f}"]
    cells += [difference(default, beside[best][2]), *(f"{beside[one][2].mean:.4f}" for one in BESIDE)]
    return [*cells, difference(default, beside["als"][2]), tries]


def difference(first: Average, second: Average) -> str:
    """The paired difference in words."""
    found: Any = first.difference(second)
    return f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def main() -> None:
    """Print a row for each data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with one folder per data set")
    parser.add_argument("--sets", default=f"sample,{','.join(SETS)}")
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "cache" / "default_quality")
    chosen = parser.parse_args()
    machine = describe_machine()
    print(f"{date.today()}, {machine['cpu']}, {machine['cores']} cores, load {os.getloadavg()[0]:.1f}\n")
    columns = ("data", "default", "time", METRIC, "best member, tuned", "default less it", *BESIDE)
    print(f"| {' | '.join((*columns, 'default less als', 'trials'))} |\n|{' --- |' * (len(columns) + 2)}", flush=True)
    for name, interactions in all_sets(chosen.data, chosen.sets.split(",")):
        print(f"| {' | '.join(row(name, interactions, chosen.work))} |", flush=True)


if __name__ == "__main__":
    main()
