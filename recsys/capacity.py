"""Estimates of what training and scoring will need, before either starts: memory, time, bytes over the network.

An estimate is a sum of operations whose times were measured one by one (benchmarks/constants.py writes constants.json).
How far the estimates are from whole trainings is in docs/scale.md; benchmarks/plan_check.py measures it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from recsys.errors import ConfigError
from recsys.models import create_model
from recsys.models.autoencoders.likelihood import logits_memory, loss_in_chunks
from recsys.models.autoencoders.network import NetworkRecommender
from recsys.models.autoencoders.training_memory import TrainingMemory

CONSTANTS = Path(__file__).with_name("system") / "constants.json"
MATRIX_LIMIT = 2**31 - 1  # interactions in one matrix, at most: its indices are int32
LARGEST = 1e12  # users, items and so on: beyond every data set, and products of them stay numbers

_RUNTIME = 0.4e9  # bytes of Python, torch and pandas before any data
_LIST_ROW = 12  # bytes of item, rank and score in a list, before compression

FORMULA = """\
rows = batch / machines        cells = rows x interactions / users
step, full     6 rows (items hidden + inner) / flops + rows items logit
               + 2 items hidden weight + cells hidden cell + sent / network
step, sampled  the same with candidates for items in the first line, and
               (candidates + distinct) hidden sparse_weight + items weight
               in the second
epoch          step x users / batch
sent           2 (machines - 1) / machines x 4 bytes x parameters, a step
ease           items^3 / solve + interactions^2 / users x pair
lists          users / machines x (2 items hidden / score_flops + items score)
memory         runtime + matrix (8 interactions + 20 users) + parameters,
               gradients, optimizer state, best weights + logits of a step;
               ease: 4 items^2"""


@dataclass(frozen=True)
class Speed:
    """Measured times of single operations on one machine.

    Attributes
    ----------
    machine, date : str
        Where and when they were measured.
    load : float
        Load of the machine during the measurement.
    flops : dict of str to float
        Operations per second in the three products of the output layer, by precision.
    logit : dict of str to float
        Seconds per logit apart from the products (softmax, loss, gradient), by precision.
    weight : float
        Seconds per weight of a dense gradient and Adam.
    cell : float
        Seconds per number in the input-layer row of one interaction, forward and backward.
    sparse_weight : float
        Seconds per weight of a gathered row: its sparse gradient and RowAdam.
    pair : float
        Seconds per pair of items of one user in the Gram matrix.
    solve : float
        items^3 per second when EASE inverts its matrix.
    score : float
        Seconds per score for masking and selecting the best.
    score_flops : float
        Operations per second of the product that makes scores.
    """

    machine: str
    date: str
    load: float
    flops: dict[str, float]
    logit: dict[str, float]
    weight: float
    cell: float
    sparse_weight: float
    pair: float
    solve: float
    score: float
    score_flops: float

    def scaled_by(self, factor: float) -> Speed:
        """Return the times of a machine that is `factor` times as fast in everything; `factor` is above 0."""
        if not 0 < factor < float("inf"):
            raise ConfigError(f"Expected a speedup above 0, found {factor}.")
        shorter = {name: getattr(self, name) / factor for name in ("weight", "cell", "sparse_weight", "pair", "score")}
        return replace(
            self,
            flops={kind: value * factor for kind, value in self.flops.items()},
            logit={kind: value / factor for kind, value in self.logit.items()},
            solve=self.solve * factor,
            score_flops=self.score_flops * factor,
            **shorter,
        )


def read_speed(device: Literal["cpu", "cuda"]) -> Speed:
    """Return the times of the measured machine of a kind.

    Parameters
    ----------
    device : {"cpu", "cuda"}
        Kind of machine.

    Raises
    ------
    ConfigError
        If no machine of that kind was measured.
    """
    known = json.loads(CONSTANTS.read_text(encoding="utf-8"))
    if device not in known:
        raise ConfigError(
            f"Expected measured constants of a {device} machine, found {', '.join(known)}: "
            f"run  python benchmarks/constants.py --device {device}  on one."
        )
    return Speed(**known[device])


@dataclass(frozen=True)
class Workload:
    """The size of the data, of the network and of the machines.

    Attributes
    ----------
    users, items, interactions : float
        Size of the data.
    machines : int
        Machines or GPUs that share the work.
    memory : float
        Bytes of memory in each machine.
    network : float
        Bytes per second between machines.
    hidden, latent : int
        Widths of the VAE.
    negatives : int
        Sampled items in a step, for the sampled softmax.
    batch_size : int
        Users in a training step, over all machines.
    precision : {"fp32", "bf16"}
        Precision of the training.
    n : int
        Length of a list.

    Raises
    ------
    ConfigError
        If a size is below 1 or infinite, or if there are more interactions than users x items.
    """

    users: float
    items: float
    interactions: float
    machines: int = 1
    memory: float = 16e9
    network: float = 10e9 / 8
    hidden: int = 600
    latent: int = 200
    negatives: int = 4000
    batch_size: int = 500
    precision: Literal["fp32", "bf16"] = "fp32"
    n: int = 100

    def __post_init__(self) -> None:
        for name in ("users", "items", "machines", "hidden", "latent", "negatives", "batch_size", "n"):
            if not 1 <= getattr(self, name) <= LARGEST:
                raise ConfigError(f"Expected {name} of 1 to {LARGEST:.0e}, found {getattr(self, name):g}.")
        for name in ("interactions", "memory", "network"):
            if not 1 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"Expected {name} of at least 1, found {getattr(self, name):g}.")
        if self.interactions > self.users * self.items:
            raise ConfigError(
                f"Expected at most users x items = {self.users * self.items:,.0f} interactions, "
                f"found {self.interactions:,.0f}."
            )

    @property
    def training_share(self) -> float:
        """Share of the users that fit into one matrix for training; the others are only scored."""
        return min(1.0, MATRIX_LIMIT / self.interactions)

    @property
    def history(self) -> float:
        """Interactions per user."""
        return self.interactions / self.users


@dataclass(frozen=True)
class TrainingEstimate:
    """What one way of training needs.

    Attributes
    ----------
    name : str
        The model and its output layer.
    bytes : float
        Memory on each machine.
    step_seconds : float
        Time of a training step.
    seconds : float
        Time of an epoch, or of the whole fit where `epochs` is False.
    sent : float
        Bytes that each machine sends in a step.
    machines : int
        Machines that can share the work.
    epochs : bool
        Whether the training has epochs.
    """

    name: str
    bytes: float
    step_seconds: float
    seconds: float
    sent: float
    machines: int
    epochs: bool = True


def training_estimates(work: Workload, speed: Speed) -> Iterator[TrainingEstimate]:
    """Estimate each way of training: a VAE with full and with sampled softmax, and EASE."""
    yield full_softmax(work, speed)
    yield sampled_softmax(work, speed)
    yield closed_form(work, speed)


def recommended(work: Workload, ways: list[TrainingEstimate]) -> TrainingEstimate | None:
    """Return the network with the shortest epoch of those that fit into a machine; None where none fits."""
    fit = [way for way in ways if way.bytes <= work.memory and way.epochs]
    return min(fit, key=lambda way: way.seconds, default=None)


def full_softmax(work: Workload, speed: Speed) -> TrainingEstimate:
    """Estimate a VAE with all items in the output layer."""
    held, rows = held_memory(work, "full"), work.batch_size / work.machines
    logits = rows * work.items
    sent = 2 * (work.machines - 1) / work.machines * held.parameters
    step = (
        6 * rows * (work.items * work.hidden + _inner(work)) / speed.flops[work.precision]
        + logits * speed.logit[work.precision]
        + 2 * work.items * work.hidden * speed.weight
        + rows * work.history * work.hidden * speed.cell
        + sent / work.network
    )
    more = logits_memory(rows, work.items, work.precision)
    more += 4 * work.items * work.hidden * loss_in_chunks(rows, work.items)
    return _with_epochs("vae, full softmax", work, held, more, step, sent, work.machines)


def sampled_softmax(work: Workload, speed: Speed) -> TrainingEstimate:
    """Estimate a VAE whose output layer has the items of the batch and sampled negatives; it trains in one process."""
    held, rows = held_memory(work, "sampled"), work.batch_size
    distinct = distinct_items(rows * work.history, work.items)
    candidates = distinct + work.negatives * (1 - distinct / work.items)
    step = (
        6 * rows * (candidates * work.hidden + _inner(work)) / speed.flops[work.precision]
        + rows * candidates * speed.logit[work.precision]
        + (candidates + distinct) * work.hidden * speed.sparse_weight
        + work.items * speed.weight
        + rows * work.history * work.hidden * speed.cell
    )
    touched = 4 * (candidates + distinct) * work.hidden * 6  # gathered, gradient, coalesced, RowAdam's three
    more = touched + logits_memory(rows, candidates)
    return _with_epochs("vae, sampled softmax", work, held, more, step, 0, 1)


def closed_form(work: Workload, speed: Speed) -> TrainingEstimate:
    """Estimate EASE, which inverts an items x items matrix on one machine."""
    pairs = work.interactions * work.training_share * work.history
    seconds = work.items**3 / speed.solve + pairs * speed.pair
    return TrainingEstimate("ease", _RUNTIME + _matrix(work) + 4 * work.items**2, seconds, seconds, 0, 1, epochs=False)


def _with_epochs(
    name: str, work: Workload, held: TrainingMemory, more: float, step: float, sent: float, machines: int
) -> TrainingEstimate:
    """The estimate of a network from the time of a step and the memory beyond that which training holds."""
    steps = max(1.0, work.users * work.training_share / work.batch_size)
    return TrainingEstimate(name, _RUNTIME + _matrix(work) + held.total + more, step, step * steps, sent, machines)


def held_memory(work: Workload, softmax: str) -> TrainingMemory:
    """Return the memory of the network in training, counted on the network itself."""
    model = create_model("vae", {"hidden": work.hidden, "latent": work.latent, "softmax": softmax})
    assert isinstance(model, NetworkRecommender)
    return model.training_memory(int(work.items))


def lists_seconds(work: Workload, speed: Speed) -> float:
    """Estimate the seconds in which a VAE makes the lists of all users, without writing the files."""
    per_user = (
        2 * (work.items * work.hidden + _inner(work)) / speed.score_flops
        + work.items * speed.score
        + work.history * work.hidden * speed.cell / 2
    )
    return work.users / work.machines * per_user


def lists_bytes(work: Workload) -> float:
    """Estimate the bytes of the lists of all users, before compression."""
    return work.users * min(work.n, work.items) * _LIST_ROW


def distinct_items(draws: float, items: float) -> float:
    """Estimate the number of different items in a number of interactions.

    Popularity falls with the rank r of an item as 1 / (r + 10)^0.9.

    Parameters
    ----------
    draws : float
        Interactions.
    items : float
        Items of the catalog.
    """
    edges = np.unique(np.round(np.geomspace(1, items + 1, 4000)))
    count, rank = np.diff(edges), (edges[:-1] + edges[1:] - 1) / 2
    chance = (rank + 10) ** -0.9
    chance /= (chance * count).sum()
    return float((count * -np.expm1(-draws * chance)).sum())


def _inner(work: Workload) -> float:
    """Weights of the two inner layers."""
    return work.hidden * 2 * work.latent + work.latent * work.hidden


def _matrix(work: Workload) -> float:
    """Bytes of the training matrix: indices and values, offsets twice, the order of the users."""
    return work.training_share * (8 * work.interactions + 20 * work.users)
