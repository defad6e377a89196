"""What this machine can do: processor, memory, graphics cards, and how fast it multiplies.

In a container (cgroup v2) its limits of processors and memory are reported, not those of the host.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recsys.system.packages import packages

GIGA = 1e9
_CGROUP = Path("/sys/fs/cgroup")


def describe_machine() -> dict[str, Any]:
    """Return plain values, ready for JSON: what a benchmark or a tracked run should say about where it ran."""
    total, available = memory_bytes()
    return {
        "python": platform.python_version(),
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "memory_gb": _giga(total),
        "memory_available_gb": _giga(available),
        "gpus": gpus(),
        "packages": {name: version for name, version, _ in packages() if version},
        "git_commit": git_commit(),
    }


def _giga(size: int | None) -> float | None:
    """Bytes in 1e9."""
    return None if size is None else round(size / GIGA, 1)


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's name, or its architecture where the system does not say."""
    names = re.findall(r"^model name\s*:\s*(.+)$", _text(cpuinfo), re.MULTILINE)
    return names[0].strip() if names else platform.processor() or platform.machine()


def has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether the processor has instructions for products of bfloat16."""
    return bool(re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", _text(cpuinfo)))


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """Return the number of processors this process may use, at least 1: its affinity and the container's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _text(cgroup / "cpu.max").strip().partition(" ")
    if quota.isdigit() and period.isdigit():
        allowed = min(allowed, -(-int(quota) // int(period)))
    return max(1, allowed)


def memory_bytes(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = _CGROUP) -> tuple[int | None, int | None]:
    """Return total and available memory in bytes, the container's limit considered; None where unknown."""
    kilobytes = dict(re.findall(r"^(\w+):\s+(\d+) kB$", _text(meminfo), re.MULTILINE))
    if "MemTotal" not in kilobytes:
        return _physical_memory(), None
    total = int(kilobytes["MemTotal"]) * 1024
    available = int(kilobytes.get("MemAvailable", 0)) * 1024 or None
    limit = _text(cgroup / "memory.max").strip()
    if not limit.isdigit() or int(limit) >= total:
        return total, available
    cache = re.search(r"^inactive_file (\d+)$", _text(cgroup / "memory.stat"), re.MULTILINE)
    used = int(_text(cgroup / "memory.current").strip() or 0) - int(cache[1] if cache else 0)
    left = max(0, int(limit) - used)
    return int(limit), left if available is None else min(left, available)


def _physical_memory() -> int | None:
    """Total memory on systems without /proc."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return None


def gpus() -> list[dict[str, Any]]:
    """Return name, memory and native bfloat16 of each CUDA device that torch sees."""
    import torch

    if not torch.cuda.is_available():
        return []
    return [
        {"name": card.name, "memory_gb": _giga(card.total_memory), "bf16": card.major >= 8}  # since Ampere
        for card in map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    ]


def git_commit(folder: Path = Path()) -> str | None:
    """Return the commit checked out around a folder, with `-dirty` where files differ; None outside a repository."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def matmul_gflops(dtype: str, device: str = "cpu", size: int = 512, seconds: float = 0.15) -> float:
    """Measure the speed of square matrix products.

    Parameters
    ----------
    dtype : str
        Name of a torch type: float32 or bfloat16.
    device : str
        A torch device.
    size : int
        Rows and columns of the matrices.
    seconds : float
        Time to measure for; the best product counts.

    Returns
    -------
    float
        Billions of operations per second.
    """
    import torch

    left, right = torch.ones(2, size, size, dtype=getattr(torch, dtype), device=device)

    def product() -> None:
        torch.mm(left, right)
        if device != "cpu":
            torch.cuda.synchronize()

    return 2 * size**3 / _best_time(product, seconds) / GIGA


def _best_time(work: Callable[[], None], seconds: float) -> float:
    """Shortest time of `work`, repeated for about `seconds`, after one call to warm up."""
    work()
    times: list[float] = []
    while sum(times) < seconds:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def _text(path: Path) -> str:
    """Content of a file of the system; empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
