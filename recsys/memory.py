"""How much memory a piece of work took at its peak."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
