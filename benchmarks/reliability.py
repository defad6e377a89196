"""Disturb every command that writes, read damaged inputs of every kind, and write what was tried to a page of the docs.

    python benchmarks/reliability.py --output docs/reliability.md

takes the better part of an hour on two cores; --quick tries a tenth. It can be divided over processes, and joined:

    python benchmarks/reliability.py --parts faults --commands score --save 1.json
    python benchmarks/reliability.py --parts faults --commands train,tune --save 2.json
    python benchmarks/reliability.py --join 1.json 2.json --output docs/reliability.md
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
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


@dataclass(frozen=True)
class Tried:
    """What was tried on one thing.

    Attributes
    ----------
    what : str
        A command, or a kind of input.
    operations : int
        File operations of the command; 0 for inputs.
    disturbed : int
        How many of them were disturbed.
    faults, kills, inputs : int
        Faults before file operations, kills at random moments, inputs.
    refused : int
        Inputs that were refused with a message; the others were read right.
    problems : list of str
        What did not survive.
    """

    what: str
    operations: int = 0
    disturbed: int = 0
    faults: int = 0
    kills: int = 0
    inputs: int = 0
    refused: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def tried(self) -> int:
        """How much was tried in all."""
        return self.faults + self.kills + self.inputs


def main() -> None:
    """Try what is asked for, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="page to write")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--parts", default="faults,inputs,tests", help="what to try")
    parser.add_argument("--commands", default="", help="commands to disturb, all if not given")
    parser.add_argument("--inputs", type=int, default=21_000, help="damaged inputs in all")
    parser.add_argument("--kills", type=int, default=30, help="kills at random moments, of each command")
    parser.add_argument("--operations", type=int, default=10_000, help="file operations to disturb, of each command")
    parser.add_argument("--kinds", type=int, default=2, help="of the four faults before each operation")
    parser.add_argument("--minutes", type=float, default=60, help="time for faults; what is left out is counted")
    parser.add_argument("--save", type=Path, help="JSON file for what was tried, for --join")
    parser.add_argument("--join", type=Path, nargs="+", help="make the page of such files; nothing is tried")
    asked = parser.parse_args()
    if asked.join:
        tried = [Tried(**one) for file in asked.join for one in json.loads(file.read_text())]
    else:
        tried = []
        for one in try_all(asked, 10 if asked.quick else 1):
            tried.append(one)
            if asked.save:
                asked.save.write_text(json.dumps([asdict(each) for each in tried]))
    text = page(tried)
    print(text)
    if asked.output:
        asked.output.write_text(text, encoding="utf-8")
    sys.exit(any(one.problems for one in tried))


def try_all(asked: argparse.Namespace, part: int) -> Iterator[Tried]:
    """Try the parts that are asked for."""
    parts, names = asked.parts.split(","), [name for name in asked.commands.split(",") if name]
    with tempfile.TemporaryDirectory() as folder:
        if "faults" in parts:
            limits = asked.kills // part, asked.operations // part, asked.kinds, asked.minutes
            yield from disturb(Path(folder) / "laboratory", names, *limits)
        if "inputs" in parts:
            yield from damage(Path(folder) / "bench", asked.inputs // part)
        if "tests" in parts:
            yield from pytest_counts()


def disturb(folder: Path, names: list[str], kills: int, operations: int, kinds: int, minutes: float) -> Iterator[Tried]:
    """Faults before file operations, `kinds` before each, and kills at random moments; all within `minutes`."""
    import faults

    faults.import_everything()
    laboratory, chance = faults.Laboratory(folder, names), random.Random(0)
    commands, ends = laboratory.commands, time.monotonic() + 60 * minutes
    for place, command in enumerate(commands):
        until = time.monotonic() + (ends - time.monotonic()) / (len(commands) - place)  # what is left, in equal parts
        expected = laboratory.expected[command.name]
        places = _spread(expected["operations"], operations)
        trials: list[tuple[str, int | None, float | None]]
        trials = [(faults.KINDS[(at + 2 * turn) % 4], at, None) for at in places for turn in range(kinds)]
        trials += [("kill at a random moment", None, chance.uniform(0, expected["seconds"])) for _ in range(kills)]
        chance.shuffle(trials)  # what there is no time for is then of any kind
        problems: list[str] = []
        done: list[int | None] = []
        for kind, at, moment in trials:
            if time.monotonic() > until:
                break
            done.append(at)
            outcome = laboratory.trial(command, kind, at, moment, over_old=chance.random() < 0.5)
            if outcome.problem:
                problems.append(f"{command.name}, {kind}: {outcome.state}: {outcome.problem}")
                print(problems[-1], flush=True)
        print(f"{command.name}: {len(done)} disturbances of {len(trials)}", flush=True)
        faulty = [at for at in done if at is not None]
        yield Tried(
            f"`recsys {command.name}`",
            expected["operations"],
            len(set(faulty)),
            len(faulty),
            len(done) - len(faulty),
            problems=problems,
        )


def _spread(operations: int, most: int) -> list[int]:
    """Numbers from 1 to `operations`, all or `most` of them."""
    count = min(operations, most)
    return [1 + number * operations // count for number in range(count)]


def damage(folder: Path, inputs: int) -> Iterator[Tried]:
    """Damaged inputs of every kind."""
    import fuzzing

    folder.mkdir()
    bench, trials = fuzzing.Bench(folder), -(-inputs // len(fuzzing.TARGETS))
    for name in fuzzing.TARGETS:
        found, refused = fuzzing.run(name, bench, trials)
        print(f"{name}: {trials} inputs, {len(found)} findings", flush=True)
        yield Tried(name.replace("_", " "), inputs=trials, refused=refused, problems=list(found))


def pytest_counts() -> Iterator[Tried]:
    """Cases of the test suite that belong on the page."""
    for name, words in PYTEST.items():
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        passed = sum(map(int, re.findall(r"(\d+) passed", done.stdout)))
        failed = sum(map(int, re.findall(r"(\d+) (?:failed|error)", done.stdout)))
        problems = [f"{name}: {failed} failed"] if failed or not passed else []
        yield Tried(name, inputs=passed + failed, problems=problems)


def page(tried: list[Tried]) -> str:
    """The page in Markdown."""
    from recsys.system.hardware import cpu_name, usable_cores

    commands, others = [one for one in tried if one.operations], [one for one in tried if not one.operations]
    rows = [
        f"| {one.what} | {one.operations} | {one.disturbed} | {one.faults:,} | {one.kills} "
        f"| {one.tried - len(one.problems):,} of {one.tried:,} |"
        for one in commands
    ]
    inputs = [
        f"| {one.what} | {one.inputs:,} | {one.refused:,} | {one.inputs - len(one.problems):,} |" for one in others
    ]
    found = "\n".join(f"- {problem[:300]}" for one in tried for problem in one.problems) or "Nothing."
    total, lost = sum(one.tried for one in tried), sum(len(one.problems) for one in tried)
    return f"""# Reliability

What is promised, and tested:

- Every row of a ratings file is kept, or rejected with a reason.
- A command that is killed at any moment leaves the old result or the new one, never a part of either. `train --resume`,
  `score --resume`, `compare --resume` and `tune --resume` continue; `train` and `score` end with the same bytes.
- The same seed gives the same model and the same lists on the same machine; the lists of `score` do not depend on the
  number of workers, the batch size or the engine, and nothing depends on the order of the rows in a file.
- A damaged file is refused with the reason. No traceback is shown without `-v`.

What was tried, by `benchmarks/reliability.py` on {date.today()}, on {cpu_name()}, {usable_cores()} cores:

## Commands that are disturbed

Before a file operation of a command (opening, writing, flushing, renaming, removing) it is killed, interrupted, or the
operation fails as on a full or a failing disk: at least one of the four before each operation. Other runs are killed at
a random moment. Half of the runs replace an older output (`--overwrite`). What is left must be the old content, the new
content, nothing, or a job that can be resumed. Run again, the command must end with the bytes of an undisturbed run,
and leave nothing over.

| command | file operations | disturbed | faults | random kills | survived |
| --- | ---: | ---: | ---: | ---: | ---: |
{chr(10).join(rows)}

## Inputs

A damaged or made-up input must be read right or be refused with a message of ours: no traceback, no crash, no number
that is not finite.

| input | tried | refused | survived |
| --- | ---: | ---: | ---: |
{chr(10).join(inputs)}

The last two kinds are tests of the suite: what they refuse is not counted, and stands as 0.

In all: {total:,} tried, {total - lost:,} survived.

## What did not survive

{found}
"""


if __name__ == "__main__":
    main()
