"""The model to train if none is named: as many kinds of members as the time and the memory of this machine allow.

| what fits the time budget | model |
| --- | --- |
| `edlae`, `ials` and `dae`, and finding their weights | a blend of the three |
| `edlae` and `ials` | a blend of the two: a network would take too long |
| `edlae` alone, or no validation users to choose weights on | `edlae` |
| not even that, or it does not fit into half of the free memory | `sparse-ease` |
| several processes | `vae`, which supports data-parallel training |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from recsys.models.cost import Machine, Size, cost_of, this_machine
from recsys.system.memory import available_memory

TIME_BUDGET = 600.0  # seconds, if none is given
_MEMBERS = ("edlae", "ials", "dae")


@dataclass(frozen=True)
class DefaultModel:
    """The name of a model, its settings, the reason for it in words, and the seconds that it is estimated to take."""

    model: str
    settings: Mapping[str, str] = field(default_factory=dict)
    why: str = ""
    seconds: float | None = None


def choose_model(
    size: Size,
    validated: bool,
    device: torch.device,
    processes: int = 1,
    budget: float = TIME_BUDGET,
    machine: Machine | None = None,
) -> DefaultModel:
    """Choose a ranking model for the data and this machine.

    Parameters
    ----------
    size : Size
        Of the training data.
    validated : bool
        Whether there are validation users.
    device : torch.device
        Its free memory is considered.
    processes : int
        Number of processes that train together.
    budget : float
        Seconds that the fit may take, by estimate.
    machine : Machine, optional
        Measured if not given.

    Returns
    -------
    DefaultModel
    """
    if processes > 1:
        return DefaultModel("vae", why=f"{processes} processes can train it together")
    speed = machine or this_machine()
    costs = {name: cost_of(name, size, speed) for name in (*_MEMBERS, "blend")}
    free = available_memory(device)
    if free is not None and costs["edlae"].bytes > free / 2:
        return DefaultModel(
            "sparse-ease", why=f"{size.items:,} items are too many for a full item-item model in the memory here"
        )
    if costs["edlae"].seconds > budget:
        return DefaultModel(
            "sparse-ease", why=f"edlae would take about {in_words(costs['edlae'].seconds)} on this machine"
        )
    linear = costs["edlae"].seconds
    if not validated:
        why = "there are no validation users to choose the weights of a blend on"
        return DefaultModel("edlae", why=f"{why}; about {in_words(linear)} on this machine", seconds=linear)
    for count in (3, 2):
        members = _MEMBERS[:count]
        seconds = sum(costs[name].seconds for name in (*members, "blend"))
        if seconds <= budget and (free is None or max(costs[name].bytes for name in members) <= free / 2):
            parts = ", ".join(f"{name} {in_words(costs[name].seconds)}" for name in members)
            why = f"about {in_words(seconds)} on this machine ({parts}), of {in_words(budget)} allowed"
            return DefaultModel("blend", {"members": ",".join(members)}, why, seconds)
    why = f"about {in_words(linear)} on this machine; a blend would take longer than the {in_words(budget)} allowed"
    return DefaultModel("edlae", why=why, seconds=linear)


def in_words(seconds: float) -> str:
    """`0.4` -> `1 s`, `75` -> `75 s`, `600` -> `10 min`, `9000` -> `2.5 h`."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
