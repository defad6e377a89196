"""How much memory a piece of work took at its peak, and whether there is enough for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.errors import UnsupportedError
from recsys.machine import memory_bytes

if TYPE_CHECKING:
    import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Megabytes (1e6 bytes) of main memory the block took beyond what was there before it; None where unknown."""

    megabytes: float | None = None


@contextmanager
def peak_memory() -> Iterator[PeakMemory]:
    """Measure the block. Only Linux says; memory of a GPU is not counted."""
    peak = PeakMemory()
    before = _start()
    yield peak
    after = _read("VmHWM")
    if before is not None and after is not None:
        peak.megabytes = max(0.0, after - before)


def _start() -> float | None:
    """Memory now, with the kernel's high-water mark set back to it."""
    try:
        _RESET.write_text("5")  # proc(5): resets VmHWM
    except OSError:
        return None
    return _read("VmRSS")


def _read(name: str) -> float | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{name}:")), None)


def now_and_peak() -> tuple[int, int] | None:
    """Bytes of main memory this process holds, and the most it ever held; None where the system does not say."""
    now, peak = _read("VmRSS"), _read("VmHWM")
    return None if now is None or peak is None else (round(now * 1e6), round(peak * 1e6))


def require_memory(who: str, needed: int, device: torch.device, instead: str) -> None:
    """Raise UnsupportedError where the device has less than the bytes needed; nothing where it does not say.

    `who` needs them; `instead` says what a person can take in its place.
    """
    available = available_memory(device)
    if available is not None and needed > available:
        place = "memory" if device.type == "cpu" else f"memory of {device}"
        raise UnsupportedError(
            f"{who} needs {needed / 1e9:,.1f} GB of {place}, found {available / 1e9:,.1f} GB free: use {instead}."
        )


def available_memory(device: torch.device) -> int | None:
    """Bytes free on a device, the limit of a container considered; None where unknown."""
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    return memory_bytes()[1] if device.type == "cpu" else None
