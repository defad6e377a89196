"""The model in use by a service: loaded once, and again when what its address names has changed.

An address names a model folder, or a folder with a file CURRENT, whose one line is the name of the model folder inside
it: to publish a model, write its folder, then replace CURRENT.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recsys.errors import ArtifactError, RecsysError
from recsys.serving.lists import ListMaker
from recsys.system.storage import Location, folder_at

POINTER = "CURRENT"

logger = logging.getLogger(__name__)


def model_folder(place: Location) -> Location:
    """Return the model folder that a place names: the place itself, or the one that its CURRENT points to.

    Parameters
    ----------
    place : path or address

    Returns
    -------
    path or address

    Raises
    ------
    ArtifactError
        If CURRENT holds anything but the name of a folder beside it.
    """
    folder = folder_at(place)
    if not folder.is_file(POINTER):
        return place
    name = folder.read_text(POINTER).strip()
    if not name or name in (".", "..") or set(name) & set("/\\\0\n"):
        raise ArtifactError(f"Expected the name of a model folder in {folder}/{POINTER}, found {name[:80]!r}.")
    return place / name if isinstance(place, Path) else f"{place}/{name}"


def folder_stamp(place: Location) -> str:
    """Return a digest of the model.json that a place names, which changes whenever anything in the model does.

    Raises
    ------
    ArtifactError
        If there is none.
    """
    folder = folder_at(model_folder(place))
    if not folder.is_file("model.json"):
        raise ArtifactError(f"Expected a model directory with model.json, found none in {folder}: train one first.")
    return hashlib.sha256(folder.read_text("model.json").encode()).hexdigest()


@dataclass(frozen=True)
class Loaded:
    """A model that is ready to answer.

    Attributes
    ----------
    lists : ListMaker
    version : str
        The first 12 digits of the sha256 of model.json, which holds the checksums of all other files.
    stamp : str
        What is compared to notice a change.
    """

    lists: ListMaker
    version: str
    stamp: str


class CurrentModel:
    """The model that an address names now, replaced in one step when it names another.

    Parameters
    ----------
    stamp : callable
        Returns a text that differs for another model: `folder_stamp` of a folder, the version of a registered model.
    load : callable
        Loads the model, with the histories of the known users.
    on_reload : callable, optional
        Called with True after a new model took over, with False where it could not be loaded (the old one stays).
    """

    def __init__(
        self,
        stamp: Callable[[], str],
        load: Callable[[], ListMaker],
        on_reload: Callable[[bool], None] | None = None,
    ):
        self._stamp, self._load, self._on_reload = stamp, load, on_reload
        self._loaded = self._read(stamp())
        self._refused: str | None = None
        self._closed = threading.Event()

    @property
    def loaded(self) -> Loaded:
        """The model to make the next query on."""
        return self._loaded

    def _read(self, stamp: str) -> Loaded:
        lists = self._load()
        return Loaded(lists, lists.trained.digest[:12], stamp)

    def refresh(self) -> bool:
        """Load the model again if it is another; requests are answered by the old one meanwhile.

        Returns
        -------
        bool
            Whether another model took over. One that cannot be loaded is logged, once, and the old one stays.
        """
        stamp = ""
        try:
            stamp = self._stamp()
            if stamp == self._loaded.stamp:
                return False
            self._loaded = self._read(stamp)
        except (RecsysError, OSError) as error:
            if stamp != self._refused:
                logger.warning("The model %s stays: %s", self._loaded.version, error)
                self._report(False)
            self._refused = stamp
            return False
        self._refused = None
        self._report(True)
        return True

    def _report(self, is_loaded: bool) -> None:
        if self._on_reload is not None:
            self._on_reload(is_loaded)

    def watch(self, seconds: float) -> None:
        """Call `refresh` every so many seconds on a thread of its own, until `close`."""

        def repeat() -> None:
            while not self._closed.wait(seconds):
                self.refresh()

        threading.Thread(target=repeat, name="reload", daemon=True).start()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()
