"""Do networks learn as well in bfloat16? NDCG@100 on validation users in both precisions, with early stopping.

Divided as by `recsys compare --protocol strong`, several times. `recsys train --precision auto` uses bfloat16 for the
models for which this table shows no loss (`learns_in_bf16`).

    python benchmarks/precision.py --data FOLDER [--sets NAME,NAME] [--models NAME,NAME] [--seeds 2]
"""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path

import numpy as np
import torch
from als_defaults import SETS, data_sets
from vae_defaults import METRIC, MOST_USERS, fit

from recsys.splitting.by_user import strong
from recsys.system.hardware import describe_machine
from recsys.training.precision import bf16_gain, bf16_warning, is_native


def main() -> None:
    """Print a row for each data set and model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with one folder per data set")
    parser.add_argument("--sets", default="ml-1m,ml-latest-small")
    parser.add_argument("--models", default="dae,vae")
    parser.add_argument("--seeds", type=int, default=2, help="divisions of each data set")
    parser.add_argument("--epochs", type=int, default=100)
    chosen = parser.parse_args()
    cpu, machine = torch.device("cpu"), describe_machine()
    print(f"{date.today()}, {machine['cpu']}, {machine['cores']} cores; products: {bf16_gain(cpu):.2f} times fp32")
    if not is_native(cpu):
        print(bf16_warning(cpu))
        return
    print(f"\n| data | model | {METRIC}, fp32 | bf16 | difference, each division | s a fit, fp32 | bf16 |")
    print("| --- | --- | ---: | ---: | --- | ---: | ---: |", flush=True)
    for name, interactions in data_sets(chosen.data, [name for name in chosen.sets.split(",") if name in SETS]):
        if name not in chosen.sets.split(","):
            continue
        splits = [strong(interactions, at_most=MOST_USERS, seed=seed) for seed in range(chosen.seeds)]
        for model in chosen.models.split(","):
            fits = {
                kind: [fit(split, model, {"epochs": chosen.epochs}, seed, kind) for seed, split in enumerate(splits)]
                for kind in ("fp32", "bf16")
            }
            means = {kind: np.mean([found.value for found in ours]) for kind, ours in fits.items()}
            seconds = {kind: np.mean([found.seconds for found in ours]) for kind, ours in fits.items()}
            gaps = [low.value - full.value for full, low in zip(fits["fp32"], fits["bf16"], strict=True)]
            cells = (
                name,
                model,
                f"{means['fp32']:.4f}",
                f"{means['bf16']:.4f}",
                ", ".join(f"{gap:+.4f}" for gap in gaps),
                f"{seconds['fp32']:.0f}",
                f"{seconds['bf16']:.0f}",
            )
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
