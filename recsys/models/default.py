"""Which model to train where nobody named one: a rule by size, and the validation users decide the rest.

| the data | model |
| --- | --- |
| up to 200 million cells of users x items | a blend of `edlae`, `ials` and `dae`, weights by validation |
| more | a blend of `edlae` and `ials`: a network would take hours without a GPU |
| too many items for a full item-item model | `sparse-ease` |
| nobody held out to choose weights on | `edlae` |
| several processes | `vae`, which they can train together |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from recsys.models.linear.ease import closed_form_bytes
from recsys.system.memory import available_memory

# Items beyond which inverting their Gram matrix takes minutes on two cores: its cost grows with their cube.
_MOST_ITEMS = 20_000
# Users x items up to which the epochs of a denoising autoencoder are over in a minute or two on two cores.
_MOST_CELLS = 200_000_000


@dataclass(frozen=True)
class Choice:
    """A model with settings, and why it was taken, in words."""

    model: str
    settings: Mapping[str, str] = field(default_factory=dict)
    why: str = ""


def choose_model(users: int, items: int, validated: bool, device: torch.device, processes: int = 1) -> Choice:
    """The model for lists. `validated`: whether anybody is held out to choose by. Nothing is drawn or measured."""
    if processes > 1:
        return Choice("vae", why=f"{processes} processes can train a network together")
    needed, free = closed_form_bytes(items, device), available_memory(device)
    if items > _MOST_ITEMS or (free is not None and needed > free / 2):
        return Choice("sparse-ease", why=f"{items:,} items are too many for a full item-item model in short time here")
    if not validated:
        return Choice("edlae", why="nobody is held out to choose a blend's weights on")
    cells = f"{users:,} users x {items:,} items"
    if users * items > _MOST_CELLS:
        return Choice("blend", {"members": "edlae,ials"}, f"{cells}: a linear model and a factorization, both quick")
    return Choice("blend", {"members": "edlae,ials,dae"}, f"{cells}: small enough to fit three kinds and weigh them")
