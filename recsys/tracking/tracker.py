"""The protocol by which jobs record what they did, and a tracker that keeps nothing.

A job has a Tracker and does not know which: one that keeps runs in MLflow, or one that keeps nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Run(Protocol):
    """A record of one job.

    Names of parameters and metrics are changed to what MLflow takes: `ndcg@100` becomes `ndcg_at_100`.

    Attributes
    ----------
    id : str or None
        Id in MLflow; None where nothing is kept.
    """

    id: str | None

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record settings; nested ones are flattened with dots, values are cut at 6000 characters."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record numbers, of an epoch if `step` is given. NaN is kept; infinite values are left out with a warning."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record labels to search by."""

    def log_dataset(self, name: str, fingerprint: str, facts: Mapping[str, Any], context: str = "training") -> None:
        """Record which data were used: their hash and facts about them, never the data themselves."""

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file or a directory into the run, under `folder`."""

    def log_figure(self, figure: Figure | Callable[[], Figure], name: str) -> None:
        """Keep a figure as an image.

        Parameters
        ----------
        figure : Figure or callable
            A callable is called only where figures are kept; an error in it is a failure of tracking.
        name : str
            Name of the file; without a suffix it is a PNG.
        """

    def log_model(self, arguments: Callable[[], Mapping[str, Any]], name: str = "model") -> None:
        """Keep an MLflow model; metrics from now on are also those of the model, on the data of the run.

        Parameters
        ----------
        arguments : callable
            Returns what `mlflow.pyfunc.save_model` takes; called only where models are kept.
        name : str
            Name of the model.
        """

    def use_model(self, training_run: str | None) -> None:
        """Record that the run uses the model kept by a run of training; metrics from now on are those of that model.

        Nothing happens where there is no such model: it was trained without tracking, or is kept elsewhere.
        """


class Tracker(Protocol):
    """Open runs.

    Attributes
    ----------
    uri : str or None
        Where runs are kept; None where they are not.
    """

    uri: str | None

    def run(self, name: str, kind: str, earlier: str | None = None) -> AbstractContextManager[Run]:
        """Open a run for the length of a block, as the child of the innermost open run.

        Parameters
        ----------
        name : str
            Name of the run.
        kind : str
            What the job does: train, score, ...
        earlier : str, optional
            Id of the run of an interrupted job, which goes on: nothing in it is recorded twice.
        """


class NullTracker:
    """A tracker that keeps nothing."""

    uri: str | None = None

    @contextmanager
    def run(self, name: str, kind: str, earlier: str | None = None) -> Iterator[Run]:
        """Open a run that keeps nothing."""
        yield _NullRun()


class _NullRun:
    """A run that keeps nothing."""

    id: str | None = None

    def log_params(self, params: Mapping[str, Any]) -> None: ...
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None: ...
    def set_tags(self, tags: Mapping[str, str]) -> None: ...
    def log_dataset(self, name: str, fingerprint: str, facts: Mapping[str, Any], context: str = "training") -> None: ...
    def log_artifact(self, path: Path, folder: str | None = None) -> None: ...
    def log_figure(self, figure: Figure | Callable[[], Figure], name: str) -> None: ...
    def log_model(self, arguments: Callable[[], Mapping[str, Any]], name: str = "model") -> None: ...
    def use_model(self, training_run: str | None) -> None: ...
