"""Adam without the import of torch's compiler, which takes one to four seconds and is not used here."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import torch

_STEP = inspect.unwrap(torch.optim.Adam.step)


class Adam(torch.optim.Adam):
    """torch's Adam, whose first step does not import the compiler."""

    def __init__(self, *args: Any, **kwargs: Any):
        if "torch._dynamo" not in sys.modules:
            _leave_methods_alone()
        super().__init__(*args, **kwargs)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Do one step, as torch's Adam does it where nothing is compiled."""
        _STEP(self, closure)


def _leave_methods_alone() -> None:
    """Make the methods of optimizers what the compiler would make of them: themselves.

    torch wraps them so that they are never compiled. The wrapper imports the compiler for a version of the method that
    is not compiled, unless it finds one in an attribute of the method.
    """
    wrapper = torch._disable_dynamo(_leave_methods_alone).__code__  # type: ignore[attr-defined]
    for method in vars(torch.optim.Optimizer).values():
        if getattr(method, "__code__", None) is wrapper:
            method.__wrapped__.__dynamo_disable = method.__wrapped__
