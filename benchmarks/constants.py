"""Measure the constants that `recsys plan` uses, and write them to recsys/system/constants.json with machine and date.

Each is the time of one operation alone, at one or two sizes. benchmarks/plan_check.py tests whether their sums predict
whole training runs of other sizes.

    python benchmarks/constants.py                      this machine's processor
    python benchmarks/constants.py --device cuda        its GPU, a second entry in the file
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the jobs are imported as `pipelines`, from this checkout

from pipelines.cli import main

main.set_environment()  # as the recsys command does, before torch is imported

import torch
from scipy.sparse import random as random_sparse
from torch import nn

from recsys.capacity import CONSTANTS, Speed
from recsys.inference.topn import top_n
from recsys.models.autoencoders.likelihood import log_loss
from recsys.models.autoencoders.sampled_softmax import ItemTable, RowAdam, gather_rows
from recsys.system.hardware import describe_machine
from recsys.system.memory import keep_freed_memory
from recsys.training.batches import SparseBatch, SparseRows, weighted_sum

TURNS = 15


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """The minimum over several runs, after one to warm up."""
    best = float("inf")
    for turn in range(TURNS + 1):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if turn:
            best = min(best, time.perf_counter() - started)
    return best


def some_rows(rows: int, items: int, each: int, device: torch.device) -> SparseBatch:
    """Rows of about `each` random items."""
    return SparseRows(random_sparse(rows, items, each / items, format="csr", random_state=0), device).everything()


def output_loss(width: int, batch: SparseBatch, items: int, device: torch.device, bf16: bool) -> float:
    """Seconds of the multinomial loss with its three matrix products."""
    codes = torch.randn(len(batch), width, device=device, requires_grad=True)
    kind = (
        torch.bfloat16 if bf16 else torch.float32
    )  # as the optimizer keeps it (recsys.models.autoencoders.mixed_precision)
    weight = torch.randn(items, width, device=device).to(kind).requires_grad_()  # without, one product is left out
    bias = torch.zeros(items, device=device)

    def work() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            log_loss("multinomial", codes, weight, bias, batch)

    return seconds(work, device)


def products_and_logits(device: torch.device, bf16: bool) -> tuple[float, float]:
    """(FLOP/s of the output layer's products, other seconds per logit), solved from two widths."""
    rows, items, narrow, wide = 500, 20_000, 100, 600
    batch = some_rows(rows, items, 30, device)
    thin, thick = (output_loss(width, batch, items, device, bf16) for width in (narrow, wide))
    flops = 6 * rows * items * (wide - narrow) / (thick - thin)
    return flops, max(0.0, thin / (rows * items) - 6 * narrow / flops)


def weight_and_cell(device: torch.device) -> tuple[float, float]:
    """(seconds per weight of a new gradient and Adam, seconds per number in a cell's row of weights)."""
    items, width, rows = 50_000, 400, 500
    times = []
    for each in (5, 500):
        batch = some_rows(rows, items, each, device)
        table = nn.Parameter(torch.randn(items, width, device=device))
        adam = torch.optim.Adam([table], fused=True)

        def step(batch: SparseBatch = batch, table: nn.Parameter = table, adam: torch.optim.Adam = adam) -> None:
            adam.zero_grad()
            weighted_sum(batch, table).sum().backward()
            adam.step()

        times.append((len(batch.items), seconds(step, device)))
    (few, short), (many, long) = times
    cell = (long - short) / ((many - few) * width)
    return short / (items * width) - cell * few / items, cell


def sparse_weight(device: torch.device) -> float:
    """Seconds per weight of rows that are gathered, get a sparse gradient and are updated by RowAdam."""
    items, width, touched = 200_000, 300, 10_000
    table = nn.Parameter(torch.randn(items, width, device=device))
    rows, adam = torch.randperm(items, device=device)[:touched], RowAdam([ItemTable(table)], 1e-3)

    def step() -> None:
        adam.zero_grad()
        gather_rows(table, rows).sum().backward()
        adam.step()

    return seconds(step, device) / (touched * width)


def score_seconds(device: torch.device) -> float:
    """Seconds per score of masking and selecting the best hundred."""
    rows, items = 256, 40_000
    seen = random_sparse(rows, items, 30 / items, format="csr", random_state=0)
    scores = torch.randn(rows, items, device=device)
    return seconds(lambda: top_n(scores, 100, seen, overwrite=True), device) / (rows * items)


def forward_flops(device: torch.device) -> float:
    """FLOP/s of the last matrix product of scoring."""
    rows, width, items = 256, 600, 40_000
    codes, weight = torch.randn(rows, width, device=device), torch.randn(items, width, device=device)
    return 2 * rows * width * items / seconds(lambda: codes @ weight.T, device)


def pair_seconds() -> float:
    """Seconds per pair of items of one user in the Gram matrix of EASE."""
    users, items, each = 5_000, 5_000, 100
    matrix = random_sparse(users, items, each / items, format="csr", dtype="float32", random_state=0)
    return seconds(lambda: (matrix.T @ matrix).toarray(), torch.device("cpu")) / (users * each**2)


def solve_flops(device: torch.device, size: int = 3000) -> float:
    """items^3 per second in the matrix inversion of EASE."""
    matrix = torch.eye(size, device=device) * 10
    return size**3 / seconds(lambda: torch.cholesky_inverse(torch.linalg.cholesky(matrix)), device)


def measure(device: torch.device) -> Speed:
    """Measure all constants."""
    machine = describe_machine()
    fp32, logit = products_and_logits(device, bf16=False)
    bf16, logit_bf16 = products_and_logits(device, bf16=True)
    weight, cell = weight_and_cell(device)
    name = machine["cpu"] if device.type == "cpu" else torch.cuda.get_device_name(device)
    return Speed(
        machine=f"{name}, {machine['cores']} cores, torch {torch.__version__.split('+')[0]}",
        date=str(date.today()),
        load=round(os.getloadavg()[0], 1),
        flops={"fp32": fp32, "bf16": bf16},
        logit={"fp32": logit, "bf16": logit_bf16},
        weight=weight,
        cell=cell,
        sparse_weight=sparse_weight(device),
        score=score_seconds(device),
        score_flops=forward_flops(device),
        pair=pair_seconds(),
        solve=solve_flops(device),
    )


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    device = torch.device(parser.parse_args().device)
    with keep_freed_memory():  # as in training
        found = asdict(measure(device))
    known = json.loads(CONSTANTS.read_text()) if CONSTANTS.exists() else {}
    known[device.type] = rounded(found)
    CONSTANTS.write_text(json.dumps(known, indent=2) + "\n")
    print(json.dumps(known[device.type], indent=2))


def rounded(value: object) -> object:
    """Round to three significant digits, which is more than a measured time is worth."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return float(f"{value:.3g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
