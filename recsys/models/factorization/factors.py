"""The factors of a model of `implicit` among checkpoints: its fit goes on from them."""

from __future__ import annotations

from typing import Any

import torch

from recsys.training.parts import State, copy_into


class Factors:
    """The factors of a model of `implicit`, and how many iterations are behind them: its fit goes on from both."""

    def __init__(self, model: Any, shape: tuple[int, int]):
        self._model, self._shape, self.done = model, shape, 0

    def get_state(self) -> State:
        """Return factors and iterations."""
        users, items = torch.as_tensor(self._model.user_factors), torch.as_tensor(self._model.item_factors)
        return {"done": torch.tensor(self.done), "users": users, "items": items}

    def set_state(self, state: State) -> None:
        """Take factors and iterations."""
        users, items = (torch.empty(rows, self._model.factors) for rows in self._shape)
        copy_into(own := {"done": torch.tensor(0), "users": users, "items": items}, state)
        self.done = int(own["done"])
        self._model.user_factors, self._model.item_factors = users.numpy(), items.numpy()
