"""How much memory a piece of work took at its peak, and whether there is enough for it."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.errors import UnsupportedError
from recsys.system.hardware import memory_bytes

if TYPE_CHECKING:
    import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_KEPT_PIECE, _KEPT_FREE = 128 << 20, 512 << 20  # larger ones are worth more given back
_USUAL = 32 << 20, 64 << 20  # what glibc comes to by itself where much is taken and freed

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


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Memory that the block frees stays with the process, to be used again, until the block ends.

    glibc gives larger pieces back to the system at once. A training step that frees and takes the same hundreds of
    megabytes then waits for the system to clear them, a tenth of its time. Elsewhere than with glibc nothing happens.
    """
    _say_to_glibc(_KEPT_PIECE, _KEPT_FREE)
    try:
        yield
    finally:
        _say_to_glibc(*_USUAL)


def _say_to_glibc(largest_piece: int, most_free: int) -> None:
    """Pieces up to the one size come from the heap (mallopt(3)), which gives back what is free beyond the other."""
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, largest_piece)
    libc.mallopt(_M_TRIM_THRESHOLD, most_free)
    if (largest_piece, most_free) == _USUAL:
        libc.malloc_trim(0)


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
