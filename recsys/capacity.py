"""What a training and a scoring will need, before either starts: memory, minutes, bytes over the network.

Sums of pieces whose times were measured one by one (benchmarks/constants.py writes constants.json). How far the sums
are from whole trainings is in docs/scale.md; benchmarks/plan_check.py measures it.
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
from recsys.models.autoencoders.layers import logits_memory, loss_in_chunks
from recsys.models.autoencoders.network import NetworkRecommender, TrainingMemory

CONSTANTS = Path(__file__).with_name("system") / "constants.json"
MATRIX_LIMIT = 2**31 - 1  # interactions one matrix holds: its positions are int32

_RUNTIME = 0.4e9  # bytes of Python, torch and pandas before any data
_LIST_ROW = 12  # bytes of item, rank and score in a list, before compression

FORMULA = """\
rows = batch / machines        cells = rows x interactions / users
step, full     6 rows (items hidden + inner) / flops + rows items logit
               + 2 items hidden weight + cells hidden cell + sent / network
step, sampled  the same with candidates for items in the first line, and
               (candidates + distinct) hidden sparse_weight + items weight in the second
epoch          step x users / batch
sent           2 (machines - 1) / machines x 4 bytes x parameters, a step
ease           items^3 / solve + interactions^2 / users x pair
lists          users / machines x (2 items hidden / score_flops + items score)
memory         runtime + matrix (8 interactions + 20 users) + parameters, gradients,
               optimizer state, best weights + logits of a step; ease: 4 items^2"""


@dataclass(frozen=True)
class Speed:
    """Times of one machine's pieces, in seconds or operations a second. `load`: of the machine while measured."""

    machine: str
    date: str
    load: float
    flops: dict[str, float]  # operations a second in the output layer's three products, by precision
    logit: dict[str, float]  # seconds a logit beside the products: softmax, loss, slopes
    weight: float  # seconds a weight of a step's fresh gradient and Adam
    cell: float  # seconds a number of a cell's row of input weights, there and back
    sparse_weight: float  # seconds a weight of a touched row: gathered, its sparse gradient, RowAdam
    pair: float  # seconds a pair of items of one user in the Gram matrix
    solve: float  # items^3 a second in EASE's inversion
    score: float  # seconds a score of masking and choosing the best
    score_flops: float  # operations a second of scoring's product

    def times(self, factor: float) -> Speed:
        """A machine so many times as fast in everything."""
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
    """The measured machine of that kind; raises ConfigError where none was measured."""
    known = json.loads(CONSTANTS.read_text(encoding="utf-8"))
    if device not in known:
        raise ConfigError(
            f"Expected measured constants of a {device} machine, found {', '.join(known)}: "
            f"run  python benchmarks/constants.py --device {device}  on one."
        )
    return Speed(**known[device])


@dataclass(frozen=True)
class Workload:
    """How much, with which network, on how many machines of which memory. Raises ConfigError for what cannot be."""

    users: float
    items: float
    interactions: float
    machines: int = 1
    memory: float = 16e9  # bytes a machine
    network: float = 10e9 / 8  # bytes a second between machines
    hidden: int = 600
    latent: int = 200
    negatives: int = 4000
    batch_size: int = 500
    precision: Literal["fp32", "bf16"] = "fp32"
    n: int = 100

    def __post_init__(self) -> None:
        for name in ("users", "items", "interactions", "machines", "memory", "network", "batch_size", "n"):
            if not 1 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"Expected {name} of at least 1, found {getattr(self, name)}.")
        if self.interactions > self.users * self.items:
            raise ConfigError(
                f"Expected at most users x items = {self.users * self.items:,.0f} interactions, "
                f"found {self.interactions:,.0f}."
            )

    @property
    def training_share(self) -> float:
        """Share of the users a model can be trained on; the others are only scored."""
        return min(1.0, MATRIX_LIMIT / self.interactions)

    @property
    def history(self) -> float:
        """Interactions a user."""
        return self.interactions / self.users


@dataclass(frozen=True)
class Need:
    """What one way of training takes. seconds: of an epoch, or of the whole closed form (epochs is False).

    bytes: of memory on each machine; sent: by each machine in a step; machines: how many can share the work.
    """

    name: str
    bytes: float
    step_seconds: float
    seconds: float
    sent: float
    machines: int
    epochs: bool = True


def needs(work: Workload, speed: Speed) -> Iterator[Need]:
    """The ways to train, the dearest output layer first."""
    yield full_softmax(work, speed)
    yield sampled_softmax(work, speed)
    yield closed_form(work, speed)


def recommended(work: Workload, ways: list[Need]) -> Need | None:
    """Of the networks that fit a machine's memory, the one with the shorter epoch."""
    fit = [way for way in ways if way.bytes <= work.memory and way.epochs]
    return min(fit, key=lambda way: way.seconds, default=None)


def full_softmax(work: Workload, speed: Speed) -> Need:
    """VAE with all items in the output."""
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
    return _epochs("vae, full softmax", work, held, more, step, sent, work.machines)


def sampled_softmax(work: Workload, speed: Speed) -> Need:
    """VAE with a batch's items and some negatives in the output; in one process."""
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
    return _epochs("vae, sampled softmax", work, held, more, step, 0, 1)


def closed_form(work: Workload, speed: Speed) -> Need:
    """EASE: an items x items matrix inverted on one machine."""
    pairs = work.interactions * work.training_share * work.history
    seconds = work.items**3 / speed.solve + pairs * speed.pair
    return Need("ease", _RUNTIME + _matrix(work) + 4 * work.items**2, seconds, seconds, 0, 1, epochs=False)


def _epochs(
    name: str, work: Workload, held: TrainingMemory, more: float, step: float, sent: float, machines: int
) -> Need:
    steps = max(1.0, work.users * work.training_share / work.batch_size)
    return Need(name, _RUNTIME + _matrix(work) + held.total + more, step, step * steps, sent, machines)


def held_memory(work: Workload, softmax: str) -> TrainingMemory:
    """What training holds for the network, counted on the network itself."""
    model = create_model("vae", {"hidden": work.hidden, "latent": work.latent, "softmax": softmax})
    assert isinstance(model, NetworkRecommender)
    return model.training_memory(int(work.items))


def lists_seconds(work: Workload, speed: Speed) -> float:
    """Seconds until everybody has a list, with the VAE: products and choosing, not the files."""
    a_user = (
        2 * (work.items * work.hidden + _inner(work)) / speed.score_flops
        + work.items * speed.score
        + work.history * work.hidden * speed.cell / 2
    )
    return work.users / work.machines * a_user


def lists_bytes(work: Workload) -> float:
    """Bytes of everybody's lists before compression."""
    return work.users * min(work.n, work.items) * _LIST_ROW


def distinct_items(draws: float, items: float) -> float:
    """Items met in so many interactions, when popularity falls with the rank r as 1 / (r + 10)^0.9."""
    edges = np.unique(np.round(np.geomspace(1, items + 1, 4000)))
    count, rank = np.diff(edges), (edges[:-1] + edges[1:] - 1) / 2
    chance = (rank + 10) ** -0.9
    chance /= (chance * count).sum()
    return float((count * -np.expm1(-draws * chance)).sum())


def _inner(work: Workload) -> float:
    """Weights of the two small layers."""
    return work.hidden * 2 * work.latent + work.latent * work.hidden


def _matrix(work: Workload) -> float:
    """Bytes of the histories that are trained on: items and values, offsets twice, the order."""
    return work.training_share * (8 * work.interactions + 20 * work.users)
