"""The model to train if none is named: a rule by size; weights of a blend are chosen on the validation users.

| data | model |
| --- | --- |
| up to 200 million cells of users x items | a blend of `edlae`, `ials` and `dae` |
| more | a blend of `edlae` and `ials`: a network would take hours on a CPU |
| too many items for a full item-item model | `sparse-ease` |
| no validation users to choose weights on | `edlae` |
| several processes | `vae`, which supports data-parallel training |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from recsys.models.linear.ease import closed_form_bytes
from recsys.system.memory import available_memory

# Items beyond which inverting the Gram matrix takes minutes on two cores: its cost grows with their cube.
_MOST_ITEMS = 20_000
# Users x items up to which a denoising autoencoder is trained in a minute or two on two cores.
_MOST_CELLS = 200_000_000


@dataclass(frozen=True)
class DefaultModel:
    """The name of a model, its settings, and the reason for it in words."""

    model: str
    settings: Mapping[str, str] = field(default_factory=dict)
    why: str = ""


def choose_model(users: int, items: int, validated: bool, device: torch.device, processes: int = 1) -> DefaultModel:
    """Choose a ranking model for the size of the data.

    Parameters
    ----------
    users, items : int
        Size of the training matrix.
    validated : bool
        Whether there are validation users.
    device : torch.device
        Its free memory is considered.
    processes : int
        Number of processes that train together.

    Returns
    -------
    DefaultModel
    """
    if processes > 1:
        return DefaultModel("vae", why=f"{processes} processes can train it together")
    needed, free = closed_form_bytes(items, device), available_memory(device)
    if items > _MOST_ITEMS or (free is not None and needed > free / 2):
        return DefaultModel(
            "sparse-ease", why=f"{items:,} items are too many for a full item-item model on this machine"
        )
    if not validated:
        return DefaultModel("edlae", why="there are no validation users to choose the weights of a blend on")
    cells = f"{users:,} users x {items:,} items"
    if users * items > _MOST_CELLS:
        return DefaultModel(
            "blend", {"members": "edlae,ials"}, f"{cells}: a linear model and a matrix factorization, both fast"
        )
    return DefaultModel("blend", {"members": "edlae,ials,dae"}, f"{cells}: small enough to blend three kinds of models")
