"""What fitting a default model will take on this machine, in seconds and bytes, before it starts.

A time is a sum of operations whose speeds were measured on one machine (recsys/system/constants.json, see
benchmarks/constants.py), times how much faster that machine multiplies matrices than this one, which is measured in a
quarter of a second. How far the estimates are off is in benchmarks/README.md; benchmarks/default_time.py measures it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.models.autoencoders.network import default_batch_size
from recsys.models.linear.dual import dual_bytes, over_users
from recsys.models.linear.ease import closed_form_bytes
from recsys.system import hardware

_CONSTANTS = Path(hardware.__file__).with_name("constants.json")
_EPOCHS = 60  # of the 100 planned, that early stopping leaves
_TRIALS = 80  # of weights of a blend
_MOST_VALIDATED = 10_000  # validation users
_LATENT = 200  # of dae
_FACTORS, _ITERATIONS = 128, 8  # of ials
_HALF_RATE = 0.5  # of float64 products beside float32
_SMALL_RATE = 0.12  # of the small systems of a matrix factorization beside large products
_SPARSE = 1.2e-9  # seconds for a cell of a sparse matrix times a number


@dataclass(frozen=True)
class Size:
    """Of the training data, with the pairs of items of each user and the pairs of users of each item, summed up."""

    users: int
    items: int
    interactions: int
    item_pairs: float
    user_pairs: float

    @classmethod
    def of(cls, users: NDArray[Any], items: NDArray[Any]) -> Size:
        """Count interactions, given the position of the user and of the item of each."""
        by_user, by_item = (np.bincount(rows).astype(np.float64) for rows in (users, items))
        return cls(len(by_user), len(by_item), len(users), float(by_user @ by_user), float(by_item @ by_item))


@dataclass(frozen=True)
class Machine:
    """Speeds of single operations; see `recsys.capacity.Speed`."""

    flops: float
    logit: float
    weight: float
    cell: float
    pair: float
    solve: float
    score: float

    def scaled_by(self, factor: float) -> Machine:
        """Return a machine that is `factor` times as fast."""
        times = {name: getattr(self, name) / factor for name in ("logit", "weight", "cell", "pair", "score")}
        return replace(self, flops=self.flops * factor, solve=self.solve * factor, **times)


@cache
def this_machine() -> Machine:
    """Return the speeds of this machine, by a measurement of a quarter of a second.

    Its speed relative to the measured machine is rounded to a power of the root of 2, so that the choice of a model
    does not change from run to run with the load.
    """
    known = json.loads(_CONSTANTS.read_text(encoding="utf-8"))["cpu"]
    measured = Machine(
        known["flops"]["fp32"],
        known["logit"]["fp32"],
        *(known[name] for name in ("weight", "cell", "pair", "solve", "score")),
    )
    ratio = hardware.matmul_gflops("float32", size=1024, seconds=0.25) * hardware.GIGA / measured.flops
    return measured.scaled_by(2 ** (round(2 * math.log2(ratio)) / 2))


@dataclass(frozen=True)
class Cost:
    """Seconds and bytes."""

    seconds: float
    bytes: float


def cost_of(model: str, size: Size, machine: Machine) -> Cost:
    """Estimate the fit of a model with its default settings, its validation included.

    Parameters
    ----------
    model : {"edlae", "ials", "dae", "blend"}
        For `blend` what is beyond its members: finding their weights.
    size : Size
    machine : Machine

    Returns
    -------
    Cost
    """
    return {"edlae": _linear, "ials": _factors, "dae": _network, "blend": _weights}[model](size, machine)


def _validated(size: Size) -> float:
    """Scores of the validation users."""
    return min(0.1 * size.users, _MOST_VALIDATED) * size.items


def _linear(size: Size, machine: Machine) -> Cost:
    if over_users(size.users, size.items):
        solve = size.users**3 / (machine.solve * _HALF_RATE) + 2 * size.interactions * size.users * _SPARSE
        return Cost(solve + size.user_pairs * machine.pair, dual_bytes(size.users))
    seconds = size.items**3 / machine.solve + size.item_pairs * machine.pair
    return Cost(seconds, closed_form_bytes(size.items, torch.device("cpu")))


def _factors(size: Size, machine: Machine) -> Cost:
    """Each row and each column is a system of equations as large as its cells or the factors."""
    dense = 2 * size.interactions * 2 * _FACTORS * min(_FACTORS, size.interactions / min(size.users, size.items))
    systems = (size.users + size.items) * _FACTORS**2
    return Cost(
        _ITERATIONS * (dense + systems) / (machine.flops * _SMALL_RATE),
        4 * _FACTORS * (size.users + size.items) + 64e6,
    )


def _network(size: Size, machine: Machine) -> Cost:
    batch = default_batch_size(size.users)
    step = (
        6 * batch * size.items * _LATENT / machine.flops
        + batch * size.items * machine.logit
        + 2 * size.items * _LATENT * machine.weight
    )
    validation = _validated(size) * (machine.score + 2 * _LATENT / machine.flops)
    epoch = size.users / batch * step + size.interactions * _LATENT * machine.cell + validation
    return Cost(_EPOCHS * epoch, 4 * 5 * 2 * size.items * _LATENT + 8 * batch * size.items)


def _weights(size: Size, machine: Machine) -> Cost:
    return Cost(_TRIALS * _validated(size) * 2 * machine.score, 0)
