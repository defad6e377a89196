"""Which precision the matrix products of a training have: `auto` is bfloat16 where that is faster and as good.

On a processor that has no instructions for products of bfloat16 they are several times slower than float32. Whether a
model learns as well in bfloat16 was measured for each (benchmarks/precision.py); where it was not, `auto` is float32,
and for small catalogs too, whose products take little time. Lists are scored in float32 unless asked otherwise: in
bfloat16 items of nearly equal score change places.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch

from recsys.system.hardware import has_bf16, matmul_gflops

Asked = Literal["auto", "fp32", "bf16"]
Precision = Literal["fp32", "bf16"]
FEWEST_ITEMS = 2000  # for bfloat16 to save time
LEAST_GAIN = 1.3  # of products in bfloat16, for `auto`


def choose_precision(asked: Asked, device: torch.device, items: int, as_good: bool, processes: int = 1) -> Precision:
    """Return the precision to train in.

    Parameters
    ----------
    asked : {"auto", "fp32", "bf16"}
        Anything but `auto` is returned as it is.
    device : torch.device
    items : int
        Size of the catalog.
    as_good : bool
        Whether the model was measured to learn as well in bfloat16.
    processes : int
        Several may be on different chips: then `auto` is fp32.

    Returns
    -------
    {"fp32", "bf16"}
    """
    if asked != "auto":
        return asked
    worth = as_good and items >= FEWEST_ITEMS and processes == 1
    return "bf16" if worth and is_native(device) and bf16_gain(device) >= LEAST_GAIN else "fp32"


def is_native(device: torch.device) -> bool:
    """Return whether a device has instructions for products of bfloat16 (GPUs since Ampere)."""
    if device.type == "cpu":
        return has_bf16()
    return device.type == "cuda" and torch.cuda.get_device_properties(device).major >= 8


@cache
def bf16_gain(device: torch.device) -> float:
    """Measure how many times as fast products in bfloat16 are as in float32, in a tenth of a second; kept."""
    speed = {kind: matmul_gflops(kind, str(device), seconds=0.05) for kind in ("float32", "bfloat16")}
    return speed["bfloat16"] / speed["float32"]


def bf16_warning(device: torch.device) -> str:
    """Return what to say to somebody who asks for bfloat16 on this device; empty where it is fast."""
    if is_native(device):
        return ""
    return (
        f"This {'processor' if device.type == 'cpu' else 'card'} has no instructions for products of bfloat16: they "
        f"run at {bf16_gain(device):.2f} times the speed of fp32 here. Use precision fp32."
    )
