"""What a command writes is tried before its work: hours of training must not end at a folder that cannot be made."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from recsys.system.disk import require_writable

FIELDS = ("output", "clean", "plots", "rejects")  # fields of jobs that name what is written


def try_destinations(job: Any) -> None:
    """Try every local path that a job will write to; object stores are tried by the jobs that write to them."""
    for item in dataclasses.fields(job):
        value = getattr(job, item.name)
        if dataclasses.is_dataclass(value):
            try_destinations(value)
        elif item.name in FIELDS and isinstance(value, Path):
            require_writable(value)
