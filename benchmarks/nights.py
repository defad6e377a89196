"""Nightly jobs that are killed, and nights with a planted worse model or a planted bad batch.

    python benchmarks/nights.py                        all of it, about ten minutes on two cores
    python benchmarks/nights.py --parts equal,kills    some of it

kills    the job is killed (SIGKILL) at a moment drawn evenly from the time of an undisturbed one, and run again; beside
         it the same nights run undisturbed. Triggers in the database count how often the alias moves.
quiet    nights of the same sample, each without another twentieth of the rows: what is refused or flagged is in error.
worse    after them, nights whose new model is worse than the champion.
bad      nights of faults upstream: in the ratings, or in the files and flags of `score`.
better   a first night of `popularity`, a second one of `ease`.
equal    nights of equal models: the settings are the same, the training is on other nine tenths of the users.

All run `recsys nightly` on the sample, each night in a fork; `equal` calls `challenge`, by which `promote` decides.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # forks and threads of libraries do not mix
    os.environ[name] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import numpy as np
import pandas as pd

from pipelines.cli.nights import STEPS
from pipelines.nightly import NightlyJob, run
from recsys import fit
from recsys.data.reading import read_interactions
from recsys.errors import GateError
from recsys.evaluation.challenge import challenge
from recsys.splitting.bucket import divide_by_bucket, in_bucket

SAMPLE = ROOT / "data" / "sample" / "ratings.csv"
FIRST = date(2026, 1, 1)
REFUSED = 3  # exit code of a night that a gate refused
GATES = {"coverage": (0.5, None), "overlap": (0.5, None), "score_shift": (None, 0.25), "item_shift": (None, 0.25)}
MOVES = """
CREATE TABLE moves (version TEXT);
CREATE TRIGGER made AFTER INSERT ON registered_model_aliases WHEN NEW.alias = 'champion'
    BEGIN INSERT INTO moves VALUES (NEW.version); END;
CREATE TRIGGER moved AFTER UPDATE ON registered_model_aliases WHEN NEW.alias = 'champion' AND NEW.version != OLD.version
    BEGIN INSERT INTO moves VALUES (NEW.version); END;
"""


# Imported once, for all forks.
for name in (
    *(f"pipelines.{step}" for step in STEPS),
    *("alembic.command", "filelock", "jinja2", "matplotlib.pyplot", "matplotlib.backends.backend_agg", "mlflow.pyfunc"),
    *("mlflow.store.tracking.sqlalchemy_store", "mlflow.store.model_registry.sqlalchemy_store"),
):
    importlib.import_module(name)


@dataclass
class Workplace:
    """A folder with ratings, a file of the job, a database and nights."""

    folder: Path
    name: str = "books"

    def configure(
        self, model: str = "ease", settings: str = "", rule: str = "min-gain = 0.002", score: str = ""
    ) -> None:
        """Write the file of the job, and its gates."""
        gates = "".join(
            f"{measure} = {{ {'min' if low is not None else 'max'} = {low if low is not None else high} }}\n"
            for measure, (low, high) in GATES.items()
        )
        (self.folder / "gates.toml").write_text(gates)
        (self.folder / "nightly.toml").write_text(
            f'ratings = "ratings.csv"\nname = "{self.name}"\n[train]\nmodel = "{model}"\nheld-out = 0\n'
            f'test-bucket = 0.2\n{settings}\n[promote]\n{rule}\n[score]\nn = 20\ngates = "gates.toml"\n{score}\n'
        )

    def night(self, number: int, ratings: pd.DataFrame, kill_after: float | None = None) -> tuple[int, float]:
        """Run the job of a night in a fork; its exit code (-9 where it was killed) and its seconds."""
        ratings.to_csv(self.folder / "ratings.csv", index=False)
        started = time.perf_counter()
        child = os.fork()
        if child == 0:
            os._exit(self._job(number))
        if kill_after is not None:
            while time.perf_counter() - started < kill_after:
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended:
                    return os.waitstatus_to_exitcode(status), time.perf_counter() - started
                time.sleep(0.002)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status), time.perf_counter() - started

    def _job(self, number: int) -> int:
        os.chdir(self.folder)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{self.folder / 'mlflow.db'}"
        log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        try:
            run(NightlyJob(Path("nightly.toml"), date=(FIRST + timedelta(number)).isoformat()))
        except Exception as error:
            print(f"{type(error).__name__}: {error}", flush=True)
            return REFUSED if isinstance(getattr(error.__cause__, "__cause__", None), GateError) else 1
        return 0

    @property
    def nights(self) -> Path:
        """The folder of the nights."""
        return self.folder / "nights"

    @property
    def current(self) -> str:
        """The night in use."""
        return (self.nights / "CURRENT").read_text().strip()

    def query(self, sql: str) -> list[tuple[str, ...]]:
        """Ask the database."""
        with closing(sqlite3.connect(self.folder / "mlflow.db")) as database:
            return database.execute(sql).fetchall()

    def alias(self, which: str = "champion") -> str | None:
        """The version that an alias names."""
        found = self.query(
            f"SELECT version FROM registered_model_aliases WHERE alias = '{which}' AND name = '{self.name}'"
        )
        return str(found[0][0]) if found else None

    def count_moves(self) -> None:
        """Count the moves of the champion from now on."""
        with closing(sqlite3.connect(self.folder / "mlflow.db")) as database:
            database.executescript(MOVES)

    def published(self) -> str:
        """A digest of the lists in use."""
        files = sorted((self.nights / self.current / "lists" / "recommendations").iterdir())
        return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()

    def state(self) -> dict[str, dict[str, object]]:
        """What the latest night has written down."""
        folders = sorted(path for path in self.nights.iterdir() if (path / "night.json").exists())
        found: dict[str, dict[str, object]] = json.loads((folders[-1] / "night.json").read_text()) if folders else {}
        return found


def sample() -> pd.DataFrame:
    """The ratings of the sample."""
    return pd.read_csv(SAMPLE)


def thinned(seed: int, share: float = 0.05) -> pd.DataFrame:
    """The sample without some of its rows."""
    return sample().sample(frac=1 - share, random_state=seed).sort_index()


def place(folder: Path, name: str) -> Workplace:
    """A new workplace; its database is a copy of an empty one, whose tables take seconds to make."""
    from recsys.tracking.mlflow_tracker import MLflowTracker

    (folder / name).mkdir()
    empty = folder / "empty.db"
    if not empty.exists():
        child = os.fork()
        if child == 0:
            with MLflowTracker(f"sqlite:///{empty}", "template").run("first", "train"):
                os._exit(0)
        os.waitpid(child, 0)
    shutil.copy(empty, folder / name / "mlflow.db")
    return Workplace(folder / name)


# Kills


def kills(folder: Path, count: int, seed: int) -> bool:
    """Print what became of nights that were killed; whether all is as without kills."""
    calm, killed = place(folder, "calm"), place(folder, "killed")
    rng, where, same, twice, moves = random.Random(seed), Counter[str](), 0, 0, 0
    for each in (calm, killed):
        each.configure(rule="non-inferior = 0.01")
        assert each.night(0, thinned(0))[0] == 0
        each.count_moves()
    versions = 0
    for number in range(1, count + 1):
        code, seconds = calm.night(number, thinned(number))
        assert code == 0, (calm.folder / "log.txt").read_text()
        before = len(killed.query("SELECT * FROM moves"))
        code, _ = killed.night(number, thinned(number), kill_after=rng.random() * seconds)
        done = killed.state().get("steps", {}) if killed.current != calm.current else dict.fromkeys(STEPS)
        where["before " + next((step for step in STEPS if step not in done), "the end")] += code == -signal.SIGKILL
        if killed.current != calm.current or code != 0:
            assert killed.night(number, thinned(number))[0] == 0, (killed.folder / "log.txt").read_text()
        moved = len(killed.query("SELECT * FROM moves")) - before
        moves, twice = moves + moved, twice + (moved > 1)
        same += killed.published() == calm.published() and killed.alias() == calm.alias()
        versions = len(killed.query("SELECT * FROM model_versions")) - number - 1
    points = ", ".join(f"{n} {point}" for point, n in where.items() if n)
    print(f"kills: {sum(where.values())} of {count} nights were killed ({points});")
    print(f"  run again: same bytes and same champion {same} of {count}; the alias moved {moves} times,")
    print(f"  twice in a night: {twice}; versions too many: {versions}")
    return same == count and not twice and not versions


# Plants


WORSE = (
    ("popularity", ""),
    ("item-knn", "settings = { neighbors = 1 }"),
    ("ease", "settings = { l2 = 0.01 }"),
    ("svd", "settings = { factors = 1 }"),
)


def plants(folder: Path, quiet: int, bad: int, worse: int, page: Path | None, seed: int) -> bool:
    """Print what became of quiet nights, and of planted bad batches and worse models after them."""
    work = place(folder, "plants")
    work.configure()
    first = 1000 * seed
    codes = [work.night(number, thinned(first + number))[0] for number in range(quiet)]
    print(
        f"quiet: {quiet} nights, refused {sum(code != 0 for code in codes)}; {int(work.alias() or 0) - 1} promotions;"
    )
    print(f"  {flagged(work)} of {sum(map(len, facts(work)))} measures flagged; {ranges(work)}", flush=True)
    refused, seen = bad_batches(work, range(quiet, quiet + bad), first, page)
    print(f"bad batches: planted {bad}, refused {refused}, shown as an alarm on the page {seen}", flush=True)
    champion, stayed, failed = work.alias(), 0, 0
    for number in range(quiet + bad, quiet + bad + worse):
        work.configure(*WORSE[number % len(WORSE)])
        code, _ = work.night(number, thinned(first + number))
        stayed, failed = stayed + (work.alias() == champion), failed + (code != 0)
    print(f"worse models: planted {worse}, refused {stayed}; nights without lists {failed}", flush=True)
    return not any(codes) and stayed == worse and refused == bad and not failed


def bad_batches(work: Workplace, numbers: range, seed: int, page: Path | None) -> tuple[int, int]:
    """Plant faults; how many nights were refused with CURRENT as it was, and how many of these the page flags."""
    (work.folder / "few.txt").write_text("item_id\n" + "\n".join(sample()["item_id"].value_counts().index[:25]) + "\n")
    faults: list[tuple[Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame], str]] = [
        (lambda rows, rng: rows.assign(item_id=rng.permutation(rows["item_id"])), ""),
        (renumbered, ""),
        (lambda rows, rng: rows, 'only-items = "few.txt"'),
        (lambda rows, rng: rows, "keep-seen = true"),
        (lambda rows, rng: rows.groupby("user_id").head(2), ""),
    ]
    current, refused, seen = work.current, 0, 0
    for number in numbers:
        fault, score = faults[number % len(faults)]
        work.configure(score=score)
        code, _ = work.night(number, fault(thinned(seed + number), np.random.default_rng(seed + number)))
        refused += code == REFUSED and work.current == current
        html = (work.nights / "trend.html").read_text()
        seen += 'class="summary alarm"' in html
        if page is not None and number == numbers[0]:
            page.write_text(html)
    return refused, seen


def renumbered(rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """The rows with every item under the id of another, as after a join with the wrong table."""
    names = rows["item_id"].unique()
    return rows.assign(item_id=rows["item_id"].map(dict(zip(names, rng.permutation(names), strict=True))))


def facts(work: Workplace) -> list[dict[str, float]]:
    """The measures of all nights, in the order of time."""
    records = [json.loads(file.read_text()) for file in sorted(work.nights.glob("*/night.json"))]
    return [one["steps"]["score"]["result"]["manifest"]["measures"] for one in records if "score" in one["steps"]]


def flagged(work: Workplace) -> int:
    """How many measures the page flags, over all nights."""
    from recsys.reporting.trend_page import NightFacts, find_flags

    nights = [NightFacts(f"2026-01-{i + 1:02d}", "published", measures=one) for i, one in enumerate(facts(work))]
    return sum(len(found) for found in find_flags(nights))


def ranges(work: Workplace) -> str:
    """Least and most of each measure with a gate."""
    table = pd.DataFrame(facts(work))
    return ", ".join(f"{name} {table[name].min():.3f} to {table[name].max():.3f}" for name in GATES)


def better(folder: Path, count: int) -> bool:
    """Print how often a better model took over."""
    taken = 0
    for number in range(count):
        work = place(folder, f"better{number}")
        gates = work.folder / "gates.toml"
        work.configure("popularity")
        gates.write_text("coverage = { min = 0.01 }\n")  # popular items are few
        first, _ = work.night(0, thinned(number))
        work.configure("ease")
        gates.write_text("coverage = { min = 0.1 }\n")  # other lists are what is wanted
        second, _ = work.night(1, thinned(100 + number))
        taken += first == second == 0 and work.alias() == "2"
    print(f"better: planted {count}, accepted {taken}")
    return taken == count


# Equal models


def equal(count: int) -> bool:
    """Print how often a model that is no better took over."""
    rows = sample()
    interactions = read_interactions(SAMPLE)
    _, judges = divide_by_bucket(interactions, 0.2)
    inside = dict(zip(interactions.users.to_list(), in_bucket(interactions.users, 0.2), strict=True))
    people = np.array([user for user, judge in inside.items() if not judge])
    rng = np.random.default_rng(0)

    def tonight() -> pd.DataFrame:
        chosen = rng.choice(people, int(0.9 * len(people)), replace=False)
        return rows[rows["user_id"].isin(chosen)]

    rules = {"a gain of at least 0.002": 0.002, "any gain": 0.0}
    reigning = dict.fromkeys(rules, fit(tonight(), "ease", held_out=0))
    taken = Counter[str]()
    for night in range(count):
        asking = fit(tonight(), "ease", held_out=0)
        for rule, least in rules.items():
            if challenge(reigning[rule], asking, judges, seed=night).is_won(least):
                taken[rule] += 1
                reigning[rule] = asking
    found = "; ".join(f"{rule}: {taken[rule]}" for rule in rules)
    print(f"equal: {count} nights, {len(judges.users)} users judge; promoted by the rule of {found}")
    return taken["a gain of at least 0.002"] * 20 <= count


# Size


def size(folder: Path) -> bool:
    """Print what a model costs in MLflow with the package, and without it."""
    from recsys import save_model
    from recsys.serving.pyfunc import pyfunc_arguments
    from recsys.tracking.mlflow_tracker import MLflowTracker

    model = save_model(folder / "small", fit(sample(), "popularity", held_out=0))
    tracker = MLflowTracker(f"sqlite:///{folder / 'size.db'}")
    for what in ("to warm up", "with the package", "without it"):
        arguments = pyfunc_arguments(model)
        if what == "without it":
            arguments.pop("code_paths", None)
        before = set(folder.rglob("*"))
        with tracker.run(what, "train") as tracked:
            started = time.perf_counter()
            tracked.log_model(lambda arguments=arguments: arguments)
            seconds = time.perf_counter() - started
        files = [file for file in set(folder.rglob("*")) - before if file.is_file()]
        total = sum(file.stat().st_size for file in files) / 1e6
        if what != "to warm up":
            print(f"size: a model {what}: {len(files)} files, {total:.2f} MB, kept in {seconds:.2f} s")
    return True


def main() -> None:
    """Do the parts that were asked for; exit code 1 where one is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="equal,kills,plants,better,size")
    parser.add_argument("--page", type=Path, help="where to copy the page of the first night with a bad batch")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--quiet", type=int, default=30)
    parser.add_argument("--bad", type=int, default=20)
    parser.add_argument("--worse", type=int, default=20)
    parser.add_argument("--better", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nights", type=int, default=100, help="of equal models")
    asked = parser.parse_args()
    good = True
    with tempfile.TemporaryDirectory() as folder:
        root, started = Path(folder), time.perf_counter()
        parts: dict[str, Callable[[], bool]] = {
            "equal": lambda: equal(asked.nights),
            "kills": lambda: kills(root, asked.kills, asked.seed),
            "plants": lambda: plants(root, asked.quiet, asked.bad, asked.worse, asked.page, asked.seed),
            "size": lambda: size(root),
            "better": lambda: better(root, asked.better),
        }
        for part in asked.parts.split(","):
            good = parts[part]() and good
        print(f"{time.perf_counter() - started:.0f} s, {os.cpu_count()} cores, {date.today()}")
    sys.exit(not good)


if __name__ == "__main__":
    main()
