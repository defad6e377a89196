"""MODEL of a command: a model folder, its address, or models:/NAME@ALIAS of MLflow's registry, which is downloaded."""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recsys.system.storage import Location

from .options import LocationType
from .output import note
from .progress import activity

if TYPE_CHECKING:
    from recsys.tracking.registry import ModelAddress


class ModelType(LocationType):
    """The folder of a registered model is downloaded when it is named, and removed when the process ends."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Location:
        """Turn what was typed into the path or the address of a model folder."""
        if registered(value) is None:
            return super().convert(value, param, ctx)
        copy = tempfile.TemporaryDirectory(prefix="recsys-model-", ignore_cleanup_errors=True)
        atexit.register(copy.cleanup)
        return _fetched(value, Path(copy.name))


def registered(model: Location) -> ModelAddress | None:
    """The address of a registered model; None for a folder."""
    from recsys.tracking.registry import ModelAddress

    return ModelAddress.parse(str(model))


@contextmanager
def downloaded(model: Location) -> Iterator[Location]:
    """The folder of a model for the length of a block."""
    if registered(model) is None:
        yield model
        return
    with tempfile.TemporaryDirectory(prefix="recsys-model-", ignore_cleanup_errors=True) as copy:
        yield _fetched(model, Path(copy))


def _fetched(model: Location, folder: Path) -> Path:
    from recsys.tracking.registry import ModelAddress, ModelRegistry

    address = registered(model)
    assert address is not None  # callers have asked
    registry = ModelRegistry()
    version = registry.version(address)
    with activity(f"downloading {address}"):
        fetched = registry.fetch(ModelAddress(address.name, version) if version else address, folder)
    note(f"{address} is version {version}.")
    return fetched
