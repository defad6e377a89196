"""`recsys doctor`: report what this machine can do, and which packages are missing."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from recsys.system import hardware
from recsys.system.packages import install_hint, packages
from recsys.system.text import mask_secrets, plural
from recsys.tracking.mlflow_tracker import MLflowTracker

from .cli.options import options_from, setting
from .cli.output import WIDTH, as_json, print_json, say

_INDENT = 12


@dataclass(frozen=True)
class DoctorJob:
    """Whether speed is measured."""

    measure: bool = setting(True, "Measure the speed of matrix products, about half a second.")


def run(job: DoctorJob) -> dict[str, Any]:
    """Examine the machine; return what was found as plain values."""
    import torch

    disk = shutil.disk_usage(Path.cwd())
    return {
        **hardware.describe_machine(),
        "bf16": hardware.has_bf16(),
        "disk_free_gb": round(disk.free / hardware.GIGA, 1),
        "torch_threads": torch.get_num_threads(),
        "tracking_uri": mask_secrets(MLflowTracker().uri or ""),
        "gflops": _speeds() if job.measure else {},
        "missing": {name: extra for name, version, extra in packages() if extra and version is None},
    }


def _speeds() -> dict[str, float]:
    """Speed of matrix products by device and type, in GFLOP/s; large ones on a GPU, which small ones leave idle."""
    sizes = {"cpu": 512} | ({"cuda": 8192} if hardware.gpus() else {})
    return {
        f"{device} {dtype}": round(hardware.matmul_gflops(dtype, device, size))
        for device, size in sizes.items()
        for dtype in ("float32", "bfloat16")
    }


@click.command("doctor")
@options_from(DoctorJob)
def command(job: DoctorJob) -> None:
    """Report what this machine can do: processor, memory, GPUs, packages, speed."""
    found = run(job)
    if as_json():
        print_json(found)
        return
    for name, value in _lines(found):
        say(_wrap(name, value))


def _wrap(name: str, value: str) -> str:
    return textwrap.fill(
        value, WIDTH, initial_indent=name.ljust(_INDENT), subsequent_indent=" " * _INDENT, break_on_hyphens=False
    )


def _lines(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "system", f"Python {found['python']}, {found['os']}"
    yield (
        "processor",
        f"{found['cpu']}, {plural(found['cores'], 'usable core')}, {'' if found['bf16'] else 'no '}native bf16",
    )
    yield "memory", f"{_gb(found['memory_gb'])}, {_gb(found['memory_available_gb'])} available"
    yield "disk", f"{_gb(found['disk_free_gb'])} free here"
    for card in found["gpus"] or [None]:
        yield "gpu", _card(card)
    yield "torch", f"{found['packages'].get('torch')}, {plural(found['torch_threads'], 'thread')}"
    for kind, speed in found["gflops"].items():
        yield "speed", f"{kind} matrix product {speed:,.0f} GFLOP/s"
    yield "tracking", f"MLflow at {found['tracking_uri']}"
    yield "commit", found["git_commit"] or "not in a git repository"
    yield "packages", ", ".join(f"{name}=={version}" for name, version in found["packages"].items())
    for package, extra in found["missing"].items():
        yield "missing", f"{package}: {install_hint(extra)}"


def _gb(size: float | None) -> str:
    return "unknown" if size is None else f"{size:,.1f} GB"


def _card(card: dict[str, Any] | None) -> str:
    if card is None:
        return "none that torch can use; the processor is used"
    return f"{card['name']}, {_gb(card['memory_gb'])}, {'' if card['bf16'] else 'no '}native bf16"
