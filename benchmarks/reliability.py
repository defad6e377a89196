"""Disturb every command that writes, read damaged inputs of every kind, and write what was tried to a page of the docs.

    python benchmarks/reliability.py --output docs/reliability.md

takes the better part of an hour on two cores; --quick tries a tenth.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
from collections import Counter
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # forks and threads of libraries do not mix
    os.environ[name] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

PYTEST = {
    "malformed ratings files": ["tests/pipelines/test_check.py", "-k", "useless_file or bad_rows"],
    "degenerate sets x models": ["tests/models/test_degenerate.py"],
}


def main() -> None:
    """Try everything and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="page to write")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--inputs", type=int, default=21_000, help="damaged inputs in all")
    parser.add_argument("--kills", type=int, default=30, help="kills at random moments, of each command")
    parser.add_argument(
        "--operations", type=int, default=200, help="file operations of each command to disturb, at most"
    )
    asked = parser.parse_args()
    part = 10 if asked.quick else 1
    rows, problems = [], []
    with tempfile.TemporaryDirectory() as folder:
        for found_rows, found_problems in (
            disturb(Path(folder) / "laboratory", max(2, asked.kills // part), max(3, asked.operations // part)),
            damage(Path(folder) / "bench", asked.inputs // part),
            pytest_counts(),
        ):
            rows += found_rows
            problems += found_problems
    text = page(rows, problems)
    print(text)
    if asked.output:
        asked.output.write_text(text, encoding="utf-8")
    sys.exit(bool(problems))


def disturb(folder: Path, kills: int, operations: int) -> tuple[list[tuple[str, str, int, int]], list[str]]:
    """Faults before file operations, spread over all of a command, and kills at random moments."""
    import faults

    faults.import_everything()
    laboratory, chance = faults.Laboratory(folder), random.Random(0)
    tried: Counter[tuple[str, str]] = Counter()
    problems = []
    for command in laboratory.commands:
        expected = laboratory.expected[command.name]
        trials = [
            (kind, at, None) for at in _spread(expected["operations"], operations) for kind in faults.KINDS[at % 2 :: 2]
        ]
        trials += [("kill at a random moment", None, chance.uniform(0, expected["seconds"])) for _ in range(kills)]
        for number, (kind, at, moment) in enumerate(trials):
            outcome = laboratory.trial(command, kind, at, moment, over_old=bool(number // 4 % 2))
            tried[command.name, kind] += 1
            if outcome.problem:
                problems.append(f"{command.name}, {kind}: {outcome.state}: {outcome.problem}")
                print(problems[-1], flush=True)
        print(f"{command.name}: {len(trials)} disturbances", flush=True)
    bad = Counter((problem.split(", ")[0], problem.split(", ")[1].split(":")[0]) for problem in problems)
    rows = [(f"`recsys {name}`", kind, count, count - bad[name, kind]) for (name, kind), count in tried.items()]
    return rows, problems


def _spread(operations: int, most: int) -> list[int]:
    """Numbers from 1 to `operations`, all or `most` of them."""
    count = min(operations, most)
    return [1 + number * operations // count for number in range(count)]


def damage(folder: Path, inputs: int) -> tuple[list[tuple[str, str, int, int]], list[str]]:
    """Damaged inputs of every kind."""
    import fuzzing

    folder.mkdir()
    bench, trials = fuzzing.Bench(folder), -(-inputs // len(fuzzing.TARGETS))
    rows, problems = [], []
    for name in fuzzing.TARGETS:
        found, refused = fuzzing.run(name, bench, trials)
        problems += found
        kind = f"damaged or made-up input ({refused:,} refused, the others read right)"
        rows.append((name.replace("_", " "), kind, trials, trials - len(found)))
        print(f"{name}: {trials} inputs, {len(found)} findings", flush=True)
    return rows, problems


def pytest_counts() -> tuple[list[tuple[str, str, int, int]], list[str]]:
    """Cases of the test suite that belong on the page."""
    rows, problems = [], []
    for name, words in PYTEST.items():
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        passed = sum(map(int, re.findall(r"(\d+) passed", done.stdout)))
        failed = sum(map(int, re.findall(r"(\d+) (?:failed|error)", done.stdout)))
        rows.append((name, "test cases", passed + failed, passed))
        problems += [f"{name}: {failed} failed"] if failed or not passed else []
    return rows, problems


def page(rows: list[tuple[str, str, int, int]], problems: list[str]) -> str:
    """The page in Markdown."""
    from recsys.system.hardware import cpu_name, usable_cores

    table = "\n".join(f"| {what} | {kind} | {tried:,} | {survived:,} |" for what, kind, tried, survived in rows)
    found = "\n".join(f"- {problem[:300]}" for problem in problems) or "None."
    return f"""# Reliability

What is promised, and tested:

- Every row of a ratings file is kept, or rejected with a reason.
- A command that is killed at any moment leaves the old result or the new one, never a part of either. `score --resume`,
  `compare --resume` and `tune --resume` continue, and `score` ends with the same bytes.
- The same seed gives the same model and the same lists on the same machine; the lists of `score` do not depend on the
  number of workers, the batch size or the engine.
- A damaged file is refused with the reason. No traceback is shown without `-v`.

What was tried, by `benchmarks/reliability.py` on {date.today()}, on {cpu_name()}, {usable_cores()} cores:

A disturbed command must leave the old content, the new content, nothing, or a job that can be resumed. Run again, it
must end with the bytes of an undisturbed run and leave nothing over. "Kill", "full disk", "error" and "interrupt"
happen before a file operation of the command, two of them before each; half of the runs replace an older output
(`--overwrite`). A damaged input must be read right or be refused with a message of ours: no traceback, no crash, no
number that is not finite.

| what | disturbance or input | tried | survived |
| --- | --- | --- | --- |
{table}

In all: {sum(row[2] for row in rows):,} tried, {sum(row[3] for row in rows):,} survived.

What did not survive:

{found}
"""


if __name__ == "__main__":
    main()
