"""The peak memory of a piece of work, and whether there is enough for it."""

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
_KEPT_BLOCK, _KEPT_FREE = 128 << 20, 512 << 20  # larger blocks are better returned to the system
_USUAL = 32 << 20, 64 << 20  # where glibc's own rule ends after large blocks were freed

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Result of `peak_memory`.

    Attributes
    ----------
    megabytes : float or None
        Main memory that the block took at its peak, beyond what was taken before it, in 1e6 bytes; None where the
        system does not say.
    """

    megabytes: float | None = None


@contextmanager
def peak_memory() -> Iterator[PeakMemory]:
    """Measure the main memory that a block takes; its value is there after the block, on Linux only."""
    peak = PeakMemory()
    before = _start()
    yield peak
    after = _read("VmHWM")
    if before is not None and after is not None:
        peak.megabytes = max(0.0, after - before)


def _start() -> float | None:
    """Memory now, with the kernel's high-water mark reset to it."""
    try:
        _RESET.write_text("5")  # proc(5): resets VmHWM
    except OSError:
        return None
    return _read("VmRSS")


def _read(name: str) -> float | None:
    """A value of /proc/self/status in megabytes."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{name}:")), None)


def now_and_peak() -> tuple[int, int] | None:
    """Return the bytes of main memory that this process holds, and the most it ever held; None where unknown."""
    now, peak = _read("VmRSS"), _read("VmHWM")
    return None if now is None or peak is None else (round(now * 1e6), round(peak * 1e6))


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Keep the memory that the block frees with the process, to be used again, until the block ends.

    glibc returns larger blocks to the system at once. A training step that frees and takes the same hundreds of
    megabytes then waits for the system to clear them, a tenth of its time. This changes a setting of the whole process
    (mallopt(3)), so only programs should use it, never a library on its own. After the block, the limits are those that
    glibc itself reaches in a process that frees much; without glibc nothing happens.
    """
    _set_malloc_limits(_KEPT_BLOCK, _KEPT_FREE)
    try:
        yield
    finally:
        _set_malloc_limits(*_USUAL)


def _set_malloc_limits(largest_block: int, most_free: int) -> None:
    """Take blocks up to the one size from the heap, which returns to the system what is free beyond the other."""
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, largest_block)
    libc.mallopt(_M_TRIM_THRESHOLD, most_free)
    if (largest_block, most_free) == _USUAL:
        libc.malloc_trim(0)


def require_memory(name: str, needed: int, device: torch.device, instead: str) -> None:
    """Refuse work that needs more memory than is free; nothing happens where the system does not say what is free.

    Parameters
    ----------
    name : str
        What needs it, for the message.
    needed : int
        Bytes.
    device : torch.device
        A processor or a graphics card.
    instead : str
        What to use in its place.

    Raises
    ------
    UnsupportedError
        If the device has less free.
    """
    available = available_memory(device)
    if available is not None and needed > available:
        place = "memory" if device.type == "cpu" else f"memory of {device}"
        raise UnsupportedError(
            f"{name} needs {needed / 1e9:,.1f} GB of {place}, found {available / 1e9:,.1f} GB free: use {instead}."
        )


def available_memory(device: torch.device) -> int | None:
    """Return the free bytes of a device, the limit of a container considered; None where unknown."""
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    return memory_bytes()[1] if device.type == "cpu" else None
