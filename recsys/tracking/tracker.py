"""What a job may say about a run, and the tracker that keeps nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Run(Protocol):
    """One run. Names of parameters and metrics are made fit for MLflow: `ndcg@100` becomes `ndcg_at_100`."""

    id: str | None

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Settings of the run; nested ones are flattened with dots, values beyond 6000 characters cut."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Numbers, at an epoch if `step` is given. NaN is kept; an infinite value is left out with a warning."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Labels to search by."""

    def log_dataset(self, name: str, fingerprint: str, facts: Mapping[str, Any], context: str = "training") -> None:
        """Which data went in: its hash and facts about it, never the data themselves."""

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file or a directory into the run, under `folder`."""

    def log_figure(self, figure: Figure | Callable[[], Figure], name: str) -> None:
        """Keep a figure as an image; `name` without suffix becomes a PNG.

        A function is called only where figures are kept, and what goes wrong in it is a failure of tracking.
        """

    def log_model(self, arguments: Callable[[], Mapping[str, Any]], name: str = "model") -> None:
        """Keep an MLflow model; the function, called only where models are kept, gives what pyfunc.save_model takes."""


class Tracker(Protocol):
    """Opens runs. `uri` is where they go, None if nowhere."""

    uri: str | None

    def run(self, name: str, kind: str) -> AbstractContextManager[Run]:
        """A run as a context, the child of this tracker's innermost open run. `kind`: train, compare, score, ..."""


class NullTracker:
    """Keeps nothing."""

    uri: str | None = None

    @contextmanager
    def run(self, name: str, kind: str) -> Iterator[Run]:
        """A run that forgets."""
        yield _NullRun()


class _NullRun:
    id: str | None = None

    def log_params(self, params: Mapping[str, Any]) -> None: ...
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None: ...
    def set_tags(self, tags: Mapping[str, str]) -> None: ...
    def log_dataset(self, name: str, fingerprint: str, facts: Mapping[str, Any], context: str = "training") -> None: ...
    def log_artifact(self, path: Path, folder: str | None = None) -> None: ...
    def log_figure(self, figure: Figure | Callable[[], Figure], name: str) -> None: ...
    def log_model(self, arguments: Callable[[], Mapping[str, Any]], name: str = "model") -> None: ...
