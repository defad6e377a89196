"""Kill `recsys train` at random moments and resume it, until every training has the bytes of one without a break.

    python benchmarks/resume.py                   100 kills over five models on the sample
    python benchmarks/resume.py --cost            what checkpoints cost: `vae` on MovieLens-1M, with the defaults

Each training runs in a fork and is killed (SIGKILL) at a moment drawn evenly from its undisturbed time; so is every
second run that resumes it. Those trainings are short, so that they write a checkpoint every tenth of a second.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # forks and threads of libraries do not mix
    os.environ[name] = "1"

DATA = ROOT.parent / "shared" / "data"
SAMPLE = ROOT / "data" / "sample" / "ratings.csv"

TRAININGS = {
    "vae": ("epochs=12",),
    "recvae": ("epochs=3", "hidden=200", "latent=100"),
    "autorec": ("epochs=10", "hidden=100"),
    "ials": ("iterations=30", "factors=32"),
    "als": ("iterations=30", "factors=64"),
}


def main() -> None:
    """Print what was asked for; exit code 1 where other bytes came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="in all")
    parser.add_argument("--models", default=",".join(TRAININGS), help="those to kill")
    parser.add_argument("--cost", action="store_true", help="measure the cost of checkpoints instead")
    parser.add_argument("--epochs", type=int, default=40, help="of the training that is measured")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with ml-1m")
    asked = parser.parse_args()
    sys.exit(measure_cost(asked.data, asked.epochs) if asked.cost else kill(asked.kills, asked.models.split(",")))


# Kills


@dataclass
class Tally:
    """What happened to the trainings of a model."""

    trainings: int = 0
    kills: int = 0
    resumed: int = 0  # runs that found a checkpoint
    most: int = 0
    wrong: int = 0


def kill(wanted: int, models: list[str]) -> int:
    """Kill and resume trainings of some models; 1 where one ended with other bytes, else 0."""
    import faults

    faults.import_everything()
    chance, every = random.Random(0), -(-wanted // len(models))
    print("| model | seconds | kills | trainings | resumed from a checkpoint | most kills of one | other bytes |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    total, wrong = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            settings = TRAININGS[model]
            words = ["train", str(SAMPLE), "-m", model, "--no-track", "--device", "cpu", "--checkpoint-every", "0.1"]
            words += [word for setting in settings for word in ("-s", setting)]
            whole, tally = Path(folder) / model, Tally()
            started = time.perf_counter()
            code, said = faults.run_in_fork([*words, "-o", str(whole)])
            seconds = time.perf_counter() - started
            assert code == 0, said
            while tally.kills < every:
                disturb(words, Path(folder) / f"{model}-{tally.trainings}", seconds, content(whole), tally, chance)
            row = (tally.kills, tally.trainings, tally.resumed, tally.most, tally.wrong)
            print(f"| `{model}` | {seconds:.1f} | {' | '.join(map(str, row))} |", flush=True)
            total, wrong = total + tally.kills, wrong + tally.wrong
    print(f"\n{total} kills, {wrong} trainings with other bytes; {os.cpu_count()} cores, {date.today()}")
    return int(wrong > 0)


def disturb(words: list[str], output: Path, seconds: float, expected: Any, tally: Tally, chance: random.Random) -> None:
    """Kill a training, and every second run that resumes it, until it is complete; look at what it made."""
    import faults

    kills = 0
    again: list[str] = []
    while True:
        left = output.with_name(f"{output.name}.checkpoint")
        tally.resumed += bool(again) and any(left.glob("*.safetensors"))
        moment = chance.uniform(0, seconds) if not again or chance.random() < 0.5 else None
        code, said = faults.run_in_fork([*words, "-o", str(output), *again], kill_after=moment)
        if code == 0:
            break
        assert code == -9, said
        kills, again = kills + 1, ["--resume"]
    tally.trainings, tally.kills, tally.most = tally.trainings + 1, tally.kills + kills, max(tally.most, kills)
    if content(output) != expected or left.exists():
        tally.wrong += 1


def content(model: Path) -> Any:
    """The files of a model directory by their checksums; of model.json all but when it was made."""
    about = json.loads((model / "model.json").read_text())
    files = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in model.iterdir()}
    return {**files, "model.json": {key: value for key, value in about.items() if key != "created"}}


# Cost


def measure_cost(data: Path, epochs: int) -> int:
    """Train `vae` on MovieLens-1M with the default checkpoints; then what keeping the Gram matrix of `ease` would."""
    from recsys import read_interactions
    from recsys.data.reading import ReadingOptions
    from recsys.evaluation.evaluate import Validator
    from recsys.evaluation.fitting import validation_split
    from recsys.models import create_model
    from recsys.training.checkpoint import Checkpoints
    from recsys.training.context import TrainingContext

    interactions = read_interactions(data / "ml-1m" / "ratings.csv", ReadingOptions(min_rating=4))
    model = create_model("vae")
    split = validation_split(interactions, model, 0.1, 0)
    assert split.validation is not None
    matrix, validate = split.train.matrix, Validator(split.validation, "ndcg@100")
    print(f"ml-1m, ratings of 4 and 5: {matrix.shape[0]:,} users, {matrix.shape[1]:,} items, {matrix.nnz:,} cells")
    with tempfile.TemporaryDirectory() as folder:
        kept, written = Checkpoints(Path(folder) / "kept"), []
        context = TrainingContext(
            device="cpu",
            validate=validate,
            patience=epochs,
            stop_after=epochs,
            checkpoints=kept,
            keep_freed_memory=True,
            on_epoch=lambda epoch, planned: written.append(kept.spent),
        )
        started = time.perf_counter()
        model.fit(matrix, context)
        seconds = time.perf_counter() - started
        size = max(file.stat().st_size for file in (Path(folder) / "kept").iterdir())
    count = sum(later > earlier for earlier, later in pairwise([0.0, *written, kept.spent]))
    print(
        f"vae: {epochs} epochs of {seconds / epochs:.1f} s; {count} checkpoints of {size / 1e6:.0f} MB took "
        f"{kept.spent:.2f} s of {seconds:.0f} s: {kept.spent / seconds:.2%}"
    )
    moments: list[tuple[str, int, float]] = []
    started = time.perf_counter()
    create_model("ease").fit(matrix, TrainingContext(on_phase=lambda *p: moments.append((*p[:2], time.perf_counter()))))
    gram = max(moment for phase, _, moment in moments if phase != "matrix inverse") - started
    whole, bytes_of_gram = time.perf_counter() - started, 4 * matrix.shape[1] ** 2
    print(
        f"ease: Gram matrix {gram:.1f} s of {whole:.1f} s; to write its {bytes_of_gram / 1e6:.0f} MB would take about "
        f"{kept.spent / max(count, 1) * bytes_of_gram / size:.1f} s"
    )
    print(f"{os.cpu_count()} cores, one thread, {date.today()}")
    return 0


if __name__ == "__main__":
    main()
