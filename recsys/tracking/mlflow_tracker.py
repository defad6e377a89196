"""The tracker that keeps runs in MLflow.

A failure of tracking is one warning: it neither stops the job nor hides the job's own error. MLflow is imported when a
run opens, since that takes over a second. Secrets in addresses and commands are masked.
"""

from __future__ import annotations

import getpass
import importlib.util
import json
import logging
import math
import platform
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.system.hardware import git_commit
from recsys.system.packages import install_hint, versions
from recsys.system.text import mask_secrets
from recsys.tracking.mlflow_client import (
    absolute_uri,
    connect,
    kept_model,
    log_pyfunc_model,
    quiet_mlflow,
    tracking_uri,
)
from recsys.tracking.tracker import NullTracker, Run, Tracker

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

# Id of the run whose children are opened next, where another tracker of this process keeps it.
parent_run: ContextVar[str | None] = ContextVar("parent_run", default=None)

SCHEMA_VERSION = "1"  # of the names used here; raised when a tag, parameter or metric changes its meaning

# Limits of MLflow: longer values are refused, or cut with a warning of its own.
_LONGEST_PARAMETER = 6000
_LONGEST_TAG = 5000
_LONGEST_DIGEST = 36
_PARAMETERS_PER_CALL = 100
_METRICS_PER_CALL = 1000

_REPLY_SECONDS = 4  # timeout of a request, tried twice: a dead server costs about 8 seconds, once
_UPLOAD_SECONDS = 120
_MOST_LOST_SECONDS = 5.0  # in failed calls, before a tracker stops trying


def open_tracker(enabled: bool, experiment: str = "recsys", uri: str | None = None) -> Tracker:
    """Make the tracker of a job.

    Parameters
    ----------
    enabled : bool
        Whether runs are kept.
    experiment : str
        Name of the experiment in MLflow.
    uri : str, optional
        Where runs are kept: see `MLflowTracker`.

    Returns
    -------
    Tracker
        One that keeps nothing where tracking is off, or (with a warning) MLflow is not installed.
    """
    if not enabled:
        return NullTracker()
    if importlib.util.find_spec("mlflow") is None:
        logger.warning("MLflow is not installed, this run is not tracked: run  %s", install_hint("mlflow"))
        return NullTracker()
    return MLflowTracker(uri, experiment)


class MLflowTracker:
    """Keep runs in MLflow.

    It uses MLflow's client and none of its global state, so that a notebook with runs of its own is not disturbed.

    Parameters
    ----------
    uri : str, optional
        Where runs are kept; MLFLOW_TRACKING_URI if None, and without it mlflow.db in the working directory.
    experiment : str
        Name of the experiment; it is made where it does not exist.
    """

    def __init__(self, uri: str | None = None, experiment: str = "recsys"):
        self.uri: str | None = absolute_uri(tracking_uri(uri))
        self.experiment = experiment
        self.experiment_id = ""
        self._client: Any = None
        self._open_runs: list[_MLflowRun] = []
        self._seconds_lost = 0.0

    @contextmanager
    def run(self, name: str, kind: str, earlier: str | None = None) -> Iterator[Run]:
        """Open a run for the length of a block.

        It ends FINISHED, FAILED with the error as a tag, or KILLED after Ctrl-C.

        Parameters
        ----------
        name : str
            Name of the run.
        kind : str
            What the job does: train, compare, score, ...
        earlier : str, optional
            Id of the run of an interrupted job, which goes on: what is recorded in it is not recorded again. Where it
            is not found, a new run has its id in the tag `recsys.resumed_from`.

        Yields
        ------
        Run
            A child of the innermost open run of this tracker.
        """
        run = _MLflowRun(self)
        run.start(name, kind, self._open_runs[-1] if self._open_runs else None, earlier)
        self._open_runs.append(run)
        try:
            yield run
        except BaseException as error:
            run.end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED", error)
            raise
        else:
            run.end("FINISHED")
        finally:
            self._open_runs.remove(run)

    @property
    def has_given_up(self) -> bool:
        """Whether failures have cost so much time that nothing more is tried."""
        return self._seconds_lost > _MOST_LOST_SECONDS

    def add_lost_seconds(self, seconds: float) -> None:
        """Count the time of a failed call."""
        self._seconds_lost += seconds

    def connect(self) -> Any:
        """Return MLflow's client, connected at the first call; call it inside `quiet_mlflow`."""
        if self._client is None:
            self._client, self.experiment_id = connect(str(self.uri), self.experiment)
        return self._client


class _MLflowRun:
    """A run of which every call to MLflow may fail without harm."""

    def __init__(self, tracker: MLflowTracker):
        self.id: str | None = None
        self._tracker = tracker
        self._has_warned = False
        self._earlier: Any = None  # the run as an interrupted job left it
        self._steps: dict[str, set[int]] = {}  # recorded by that job, by metric
        self._about: dict[str, str] = {}  # of the metrics that follow: their model, and the data
        self._data: dict[str, str] = {}

    def start(self, name: str, kind: str, parent: _MLflowRun | None, earlier: str | None) -> None:
        def create(client: Any) -> None:
            if earlier is not None and self._reopen(client, earlier):
                return
            tags = {**_environment_tags(), "recsys.kind": kind}
            above = parent_run.get() if parent is None else parent.id
            if above is not None:
                tags["mlflow.parentRunId"] = above
            if earlier is not None:
                tags["recsys.resumed_from"] = earlier
            self.id = client.create_run(self._tracker.experiment_id, tags=tags, run_name=name).info.run_id

        if not self._tracker.has_given_up and (parent is None or parent.id):
            self._call("opening the run", create)

    def _reopen(self, client: Any, earlier: str) -> bool:
        """Go on with the run of an interrupted job; whether it is there."""
        from mlflow.exceptions import MlflowException

        try:
            found = client.get_run(earlier)
            if found.info.lifecycle_stage != "active":
                return False
            client.update_run(earlier, status="RUNNING")
            inside = f"tags.`mlflow.parentRunId` = '{earlier}' AND attributes.status = 'RUNNING'"
            for child in client.search_runs([found.info.experiment_id], inside):  # died with the job
                client.set_terminated(child.info.run_id, "KILLED")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        self.id, self._earlier = earlier, found
        return True

    def _is_recorded(self, client: Any, metric: Any) -> bool:
        """Whether the interrupted job has recorded a metric for its step."""
        if self._earlier is None:
            return False
        if metric.key not in self._steps:
            self._steps[metric.key] = {one.step for one in client.get_metric_history(self.id, metric.key)}
        return metric.step in self._steps[metric.key]

    def end(self, status: str, error: BaseException | None = None) -> None:
        def close(client: Any) -> None:
            try:
                if error is not None:
                    client.set_tag(
                        self.id, "recsys.error", mask_secrets(f"{type(error).__name__}: {error}")[:_LONGEST_TAG]
                    )
            finally:
                client.set_terminated(self.id, status)

        if self.id:  # even after giving up: a run left open would look as if it were running
            self._call("closing the run", close)

    def log_params(self, params: Mapping[str, Any]) -> None:
        def log(client: Any) -> None:
            from mlflow.entities import Param

            entries = [
                Param(_valid_name(key), _shortened(mask_secrets(str(value)))) for key, value in _flatten(params).items()
            ]
            for batch in _batches(entries, _PARAMETERS_PER_CALL):
                client.log_batch(self.id, params=batch)

        self._log("logging parameters", log)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        infinite = sorted(name for name, value in metrics.items() if math.isinf(value))
        if infinite and self.id:
            logger.warning("Expected finite metrics, found infinite %s: not tracked.", ", ".join(infinite))

        def log(client: Any) -> None:
            from mlflow.entities import Metric

            now = int(time.time() * 1000)
            kept = {name: float(value) for name, value in metrics.items() if name not in infinite}
            about = {**self._about, **self._data} if self._about else {}
            every = [Metric(_valid_name(name), value, now, step or 0, **about) for name, value in kept.items()]
            entries = [metric for metric in every if not self._is_recorded(client, metric)]
            for batch in _batches(entries, _METRICS_PER_CALL):
                client.log_batch(self.id, metrics=batch)

        self._log("logging metrics", log)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        def log(client: Any) -> None:
            from mlflow.entities import RunTag

            entries = [RunTag(_valid_name(key), mask_secrets(str(value))[:_LONGEST_TAG]) for key, value in tags.items()]
            for batch in _batches(entries, _PARAMETERS_PER_CALL):
                client.log_batch(self.id, tags=batch)

        self._log("setting tags", log)

    def log_dataset(self, name: str, fingerprint: str, facts: Mapping[str, Any], context: str = "training") -> None:
        def log(client: Any) -> None:
            from mlflow.entities import Dataset, DatasetInput, InputTag

            profile = mask_secrets(json.dumps({"fingerprint": fingerprint, **facts}, default=str))
            dataset = Dataset(
                mask_secrets(name), fingerprint[:_LONGEST_DIGEST], "code", '{"tags": {}}', profile=profile
            )
            client.log_inputs(self.id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])

        self._data = {"dataset_name": mask_secrets(name), "dataset_digest": fingerprint[:_LONGEST_DIGEST]}
        if self._earlier is None or not self._earlier.inputs.dataset_inputs:
            self._log("logging the dataset", log)

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        self._log(f"keeping {path.name}", lambda client: client.log_artifact(self.id, str(path), folder), upload=True)

    def log_figure(self, figure: Figure | Callable[[], Figure], name: str) -> None:
        file = name if Path(name).suffix in (".png", ".svg", ".pdf") else f"{name}.png"

        def log(client: Any) -> None:
            client.log_figure(self.id, figure() if callable(figure) else figure, file)

        self._log(f"keeping {file}", log, upload=True)

    def log_model(self, arguments: Callable[[], Mapping[str, Any]], name: str = "model") -> None:
        def log(client: Any) -> None:
            experiment = self._earlier.info.experiment_id if self._earlier else self._tracker.experiment_id
            found = kept_model(client, str(self.id)) if self._earlier else None
            found = found or log_pyfunc_model(client, experiment, str(self.id), arguments(), name)
            self._about = {"model_id": found}

        self._log("keeping the model", log, upload=True)

    def use_model(self, training_run: str | None) -> None:
        def link(client: Any) -> None:
            from mlflow.entities import LoggedModelInput

            found = kept_model(client, training_run) if training_run else None
            self._about = {"model_id": found} if found else {}
            if found:
                client.log_inputs(self.id, models=[LoggedModelInput(found)])

        self._log("linking the model", link)

    def _log(self, what: str, call: Callable[[Any], None], upload: bool = False) -> None:
        if self.id and not self._tracker.has_given_up:
            self._call(what, call, upload)

    def _call(self, what: str, call: Callable[[Any], None], upload: bool = False) -> None:
        """Call MLflow; any failures of a run become one warning."""
        started = time.monotonic()
        try:
            with quiet_mlflow(_UPLOAD_SECONDS if upload else _REPLY_SECONDS):
                call(self._tracker.connect())
        except Exception as error:  # of any kind: a trained model is worth more than its record
            self._tracker.add_lost_seconds(time.monotonic() - started)
            if not self._has_warned:
                self._has_warned = True
                reason = mask_secrets(" ".join(str(error).split()))[:300]
                where = mask_secrets(str(self._tracker.uri))
                logger.warning("MLflow at %s failed in %s; the job goes on. %s", where, what, reason)
            logger.debug("MLflow failed in %s", what, exc_info=True)


def _environment_tags() -> dict[str, str]:
    """Who ran what, with which code."""
    program, found = Path(sys.argv[0]).name, versions()
    tags = {
        "recsys.schema_version": SCHEMA_VERSION,
        "recsys.version": found.get("recsys", "unknown"),
        "recsys.python": platform.python_version(),
        "recsys.torch": found.get("torch", "unknown"),
        "recsys.command": _command_line()[:_LONGEST_TAG],
        "mlflow.source.name": program,
        "mlflow.source.type": "LOCAL",
    }
    with suppress(Exception):  # a container's user may have no name
        tags["mlflow.user"] = getpass.getuser()
    commit = git_commit()
    return {**tags, "mlflow.source.git.commit": commit} if commit else tags


def _command_line() -> str:
    """The command that runs, without its secrets, quoted as a shell needs it."""
    words = [masked if (masked := mask_secrets(word)) != word else shlex.quote(word) for word in sys.argv[1:]]
    return mask_secrets(" ".join([Path(sys.argv[0]).name, *words]))


def _valid_name(name: str) -> str:
    """A name that MLflow takes: `ndcg@100` becomes `ndcg_at_100`."""
    return re.sub(r"[^\w\-. /:]", "_", name.replace("@", "_at_"))


def _shortened(value: str) -> str:
    """A parameter of at most the length MLflow takes, which says that it was cut."""
    if len(value) <= _LONGEST_PARAMETER:
        return value
    note = f" ... ({len(value)} characters, cut)"
    return value[: _LONGEST_PARAMETER - len(note)] + note


def _flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested parameters by names with dots."""
    flat: dict[str, Any] = {}
    for key, value in params.items():
        flat.update(_flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return flat


def _batches(entries: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """The entries in parts of at most `size`."""
    return (entries[start : start + size] for start in range(0, len(entries), size))
