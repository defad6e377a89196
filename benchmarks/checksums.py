"""Train ease, vae, als and autorec on the sample, score every user, and print the sha256 of weights and lists.

    python benchmarks/checksums.py                     this checkout
    python benchmarks/checksums.py ../other/checkout   another one, of version 0.1 or later

The same seed gives the same bytes on the same machine. Run it before and after a change that should not move results,
and compare what is printed:

    python benchmarks/checksums.py > before; git switch change; python benchmarks/checksums.py | diff before -
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

MODELS = ("ease", "vae", "als", "autorec")
RATINGS = Path("data") / "sample" / "ratings.csv"


def run(checkout: Path, *words: object) -> None:
    """Run a command of the checkout, tracking off."""
    command = [sys.executable, "-m", "pipelines.cli", *map(str, words), "--no-track"]
    done = subprocess.run(command, cwd=checkout, env=os.environ | {"PYTHONPATH": str(checkout)}, capture_output=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} in {checkout}:\n{done.stderr.decode()}")


def outputs(checkout: Path, model: str, folder: Path) -> Iterator[Path]:
    """Weights and lists of one model, in the order of their names."""
    run(checkout, "train", RATINGS, "-m", model, "-o", folder / model)
    yield folder / model / "weights.safetensors"
    run(checkout, "score", folder / model, RATINGS, "-n", 20, "-o", folder / f"lists-{model}")
    yield from sorted((folder / f"lists-{model}" / "recommendations").iterdir())


def main() -> None:
    """Train, score and print a line for each file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", nargs="?", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--models", default=",".join(MODELS))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for model in asked.models.split(","):
            for file in outputs(asked.checkout.resolve(), model, Path(name)):
                digest = hashlib.sha256(file.read_bytes()).hexdigest()
                print(f"{digest}  {file.relative_to(name).as_posix()}", flush=True)


if __name__ == "__main__":
    main()
