"""How fast an epoch of Mult-VAE 600-200-600 is, compared with its lower bound and with the usual implementation.

floor    the matrix products of the dense layers alone in the same precision: a lower bound
dense    Mult-VAE as it is usually written: dense batches, nn.Linear, log_softmax, Adam
recsys   this package, in float32, in bfloat16, and with a sampled softmax

All are measured in one run, alternately, a few steps each; the table gives the minimum.

    python benchmarks/training.py --ratings TRAIN.csv      on a file
    python benchmarks/training.py --users 116677 --items 20108 --interactions 9990000      on generated data
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the jobs are imported as `pipelines`, from this checkout

from pipelines.cli import main

main.set_environment()  # as the recsys command does, before torch is imported

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_matrix
from torch import nn

from recsys.data.matrix import UserItemMatrix
from recsys.data.reading import read_interactions
from recsys.models.autoencoders.mult_vae import VAEConfig, VAENetwork
from recsys.models.autoencoders.optimizers import make_optimizer
from recsys.system.hardware import describe_machine
from recsys.system.memory import keep_freed_memory
from recsys.training.batches import SparseRows
from recsys.training.loop import steps_per_epoch
from recsys.training.precision import bf16_warning, is_native

HIDDEN, LATENT = 600, 200


class UsualVAE(nn.Module):
    """Mult-VAE as most repositories implement it."""

    def __init__(self, items: int):
        super().__init__()
        self.encoder, self.posterior = nn.Linear(items, HIDDEN), nn.Linear(HIDDEN, 2 * LATENT)
        self.hidden, self.decoder = nn.Linear(LATENT, HIDDEN), nn.Linear(HIDDEN, items)

    def loss(self, x: torch.Tensor, beta: float) -> torch.Tensor:
        """Negative evidence lower bound of a dense batch (users, items)."""
        h = torch.tanh(self.encoder(F.dropout(F.normalize(x), 0.5)))
        mean, log_variance = self.posterior(h).chunk(2, dim=1)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        logits = self.decoder(torch.tanh(self.hidden(z)))
        likelihood = -(F.log_softmax(logits, 1) * x).sum(1).mean()
        kl = -0.5 * (1 + log_variance - mean.pow(2) - log_variance.exp()).sum(1).mean()
        return likelihood + beta * kl


def usual_step(matrix: csr_matrix, batch: int, device: torch.device) -> Callable[[], None]:
    """A step of the usual kind: dense rows, copied to the device and passed through the network."""
    network = UsualVAE(matrix.shape[1]).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    rng = np.random.default_rng(0)

    def step() -> None:
        rows = rng.choice(matrix.shape[0], batch, replace=False)
        x = torch.from_numpy(matrix[rows].toarray()).to(device)
        optimizer.zero_grad()
        network.loss(x, 0.2).backward()
        optimizer.step()

    return step


def our_step(
    matrix: csr_matrix, batch: int, device: torch.device, bf16: bool = False, sampled: bool = False
) -> Callable[[], None]:
    """A step of recsys: batches are sliced from the CSR matrix on the device."""
    items = matrix.shape[1]
    config = VAEConfig(hidden=HIDDEN, latent=LATENT, softmax="sampled" if sampled else "full")
    network = VAENetwork(items, config).to(device)
    rows = SparseRows(matrix, device)
    tables = network.sample_output(rows, items, batch)
    optimizer = make_optimizer(network, tables, 1e-3, 0.0, mixed=bf16 and device.type == "cpu")

    def step() -> None:
        cut = rows.cut(torch.randperm(len(rows))[:batch].to(device))
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = network.loss(cut, 0.5)
        loss.backward()
        optimizer.step()

    return step


def floor_step(items: int, batch: int, device: torch.device, kind: torch.dtype) -> Callable[[], None]:
    """Forward and both backward products of every dense layer; the sparse input layer has none."""
    shapes = [(HIDDEN, 2 * LATENT), (LATENT, HIDDEN), (HIDDEN, items)]
    layers = [
        tuple(torch.randn(*shape, device=device, dtype=kind) for shape in ((batch, a), (b, a), (batch, b)))
        for a, b in shapes
    ]

    def step() -> None:
        for x, weight, slopes in layers:
            x @ weight.T
            slopes @ weight
            slopes.T @ x

    return step


def measure(steps: dict[str, Callable[[], None]], turns: int, count: int, device: torch.device) -> dict[str, float]:
    """Seconds per step of each variant, the minimum over several turns."""
    best = dict.fromkeys(steps, float("inf"))
    for _ in range(turns):
        for name, step in steps.items():
            step()  # warm up in every turn: other variants have evicted this one from the caches
            wait(device)
            started = time.perf_counter()
            for _ in range(count):
                step()
            wait(device)
            best[name] = min(best[name], (time.perf_counter() - started) / count)
    return best


def wait(device: torch.device) -> None:
    """Wait until the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def profile_step(step: Callable[[], None], device: torch.device) -> None:
    """Print the ten operations that take most of a bfloat16 step."""
    from torch.profiler import ProfilerActivity, profile

    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=kinds) as found:
        for _ in range(5):
            step()
        wait(device)
    key = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    parts = sorted(found.key_averages(), key=lambda part: -getattr(part, key))[:10]
    print("\nbfloat16, milliseconds a step: ", end="")
    print(", ".join(f"{part.key[:40]} {getattr(part, key) / 5000:.3f}" for part in parts))


def generated(users: int, items: int, interactions: int, seed: int = 0) -> csr_matrix:
    """Random histories with a popularity tail."""
    rng = np.random.default_rng(seed)
    chance = 1 / np.arange(10, items + 10) ** 0.9
    cells = rng.choice(items, interactions, p=chance / chance.sum())
    rows = np.sort(rng.integers(0, users, interactions))
    matrix = csr_matrix((np.ones(interactions, dtype=np.float32), (rows, cells)), shape=(users, items))
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def report(seconds: dict[str, float], users: int, batch: int) -> str:
    """The table."""
    steps = steps_per_epoch(users, batch)
    lines = [
        "| | ms a step | s an epoch | users/s | times faster than dense | times its floor |",
        "| --- |" + " ---: |" * 5,
    ]
    for name, value in seconds.items():
        floor = seconds["floor bf16" if "bf16" in name else "floor fp32"]
        of_floor = "" if "sampled" in name else f"{value / floor:.2f}"
        faster = f"{seconds['dense fp32'] / value:.2f}" if "dense fp32" in seconds else ""
        lines.append(
            f"| {name} | {value * 1000:.1f} | {value * steps:.2f} | {batch / value:,.0f} | {faster} | {of_floor} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratings", help="ratings file; else data are generated")
    parser.add_argument("--users", type=int, default=29_858)
    parser.add_argument("--items", type=int, default=40_981)
    parser.add_argument("--interactions", type=int, default=810_128)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args()
    device = torch.device(asked.device)
    matrix = (
        UserItemMatrix.from_interactions(read_interactions(asked.ratings)).matrix
        if asked.ratings
        else generated(asked.users, asked.items, asked.interactions)
    )
    users, items = matrix.shape
    steps = {
        "floor fp32": floor_step(items, asked.batch, device, torch.float32),
        "floor bf16": floor_step(items, asked.batch, device, torch.bfloat16),
        "dense fp32": usual_step(matrix, asked.batch, device),
        "recsys fp32": our_step(matrix, asked.batch, device),
        "recsys bf16": our_step(matrix, asked.batch, device, bf16=True),
        "recsys sampled fp32": our_step(matrix, asked.batch, device, sampled=True),
        "recsys sampled bf16": our_step(matrix, asked.batch, device, bf16=True, sampled=True),
    }
    if not is_native(device):  # it would run for an hour
        steps = {name: step for name, step in steps.items() if "bf16" not in name}
        print(bf16_warning(device))
    machine = describe_machine()
    gpus = ", ".join(map(str, machine["gpus"])) or "no GPU"
    print(f"{date.today()}, {machine['cpu']}, {machine['cores']} cores, {gpus}")
    print(f"torch {torch.__version__.split('+')[0]}, {users:,} users x {items:,} items, {matrix.nnz:,} interactions, ")
    print(f"batch {asked.batch}, load {os.getloadavg()[0]:.1f}\n")
    with keep_freed_memory():  # as in training; all ways alike
        print(report(measure(steps, asked.turns, asked.steps, device), users, asked.batch))
        profile_step(steps.get("recsys bf16", steps["recsys fp32"]), device)


if __name__ == "__main__":
    main()
