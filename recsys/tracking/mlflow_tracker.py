"""What a job did, kept: parameters, metrics, data, figures and models of a run, in MLflow or nowhere.

A job speaks to a Tracker and never knows which. A failure of tracking is one warning: it neither stops the job nor
hides the job's own error. MLflow is imported when a run opens, since that takes over a second.
"""

from __future__ import annotations

import getpass
import importlib.util
import json
import logging
import math
import os
import platform
import re
import shlex
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from recsys.system.hardware import git_commit
from recsys.system.packages import install_hint, versions
from recsys.system.text import mask_secrets
from recsys.tracking.tracker import NullTracker, Run, Tracker

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

SCHEMA_VERSION = "1"  # of the names used here; raised when a tag, parameter or metric changes its meaning
DEFAULT_URI = "sqlite:///mlflow.db"

# Limits of MLflow: longer values are refused, or cut with a warning of its own.
_LONGEST_PARAMETER = 6000
_LONGEST_TAG = 5000
_LONGEST_DIGEST = 36
_PARAMETERS_A_BATCH = 100
_METRICS_A_BATCH = 1000

_REPLY_SECONDS = 4  # for an answer; asked twice, so a dead server costs about 8 seconds, once
_UPLOAD_SECONDS = 120
_PATIENCE_SECONDS = 5.0  # lost in failed calls before a tracker stops trying


def open_tracker(enabled: bool, experiment: str = "recsys", uri: str | None = None) -> Tracker:
    """The tracker a job asked for: MLflow's, or one that keeps nothing where tracking is off or MLflow absent."""
    if not enabled:
        return NullTracker()
    if importlib.util.find_spec("mlflow") is None:
        logger.warning("MLflow is not installed, this run is not tracked: run  %s", install_hint("mlflow"))
        return NullTracker()
    return MLflowTracker(uri, experiment)


class MLflowTracker:
    """Keeps runs in MLflow: at `uri`, else at MLFLOW_TRACKING_URI, else in mlflow.db in the working directory.

    Uses MLflow's client and none of its global state, so a notebook with runs of its own is not disturbed.
    """

    def __init__(self, uri: str | None = None, experiment: str = "recsys"):
        self.uri: str | None = _absolute(uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI)
        self.experiment = experiment
        self.experiment_id = ""
        self._client: Any = None
        self._open_runs: list[_MLflowRun] = []
        self._seconds_lost = 0.0

    @contextmanager
    def run(self, name: str, kind: str) -> Iterator[Run]:
        """A run that ends FINISHED, FAILED with the error as a tag, or KILLED after Ctrl-C."""
        run = _MLflowRun(self)
        run.start(name, kind, parent=self._open_runs[-1] if self._open_runs else None)
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
        return self._seconds_lost > _PATIENCE_SECONDS

    def lose(self, seconds: float) -> None:
        """Account for a failed call."""
        self._seconds_lost += seconds

    def connect(self) -> Any:
        """MLflow's client, the database and the experiment made where absent; call it inside `_quiet_mlflow`."""
        if self._client is None:
            from mlflow import MlflowClient

            database = _database(self.uri)
            with _alone_with(database):
                client = MlflowClient(tracking_uri=self.uri)
                self.experiment_id = _find_or_create(client, self.experiment, database)
            self._client = client
        return self._client


class _MLflowRun:
    """A run whose every call to MLflow may fail without harm."""

    def __init__(self, tracker: MLflowTracker):
        self.id: str | None = None
        self._tracker = tracker
        self._has_warned = False

    def start(self, name: str, kind: str, parent: _MLflowRun | None) -> None:
        def create(client: Any) -> None:
            tags = {**_environment_tags(), "recsys.kind": kind}
            if parent:
                tags["mlflow.parentRunId"] = str(parent.id)
            self.id = client.create_run(self._tracker.experiment_id, tags=tags, run_name=name).info.run_id

        if not self._tracker.has_given_up and (parent is None or parent.id):
            self._guard("opening the run", create)

    def end(self, status: str, error: BaseException | None = None) -> None:
        def close(client: Any) -> None:
            try:
                if error is not None:
                    client.set_tag(
                        self.id, "recsys.error", mask_secrets(f"{type(error).__name__}: {error}")[:_LONGEST_TAG]
                    )
            finally:
                client.set_terminated(self.id, status)

        if self.id:  # even after giving up: a run left open would look alive for ever
            self._guard("closing the run", close)

    def log_params(self, params: Mapping[str, Any]) -> None:
        def log(client: Any) -> None:
            from mlflow.entities import Param

            entries = [Param(_fit_name(key), _cut(str(value))) for key, value in _flatten(params).items()]
            for batch in _batches(entries, _PARAMETERS_A_BATCH):
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
            entries = [Metric(_fit_name(name), value, now, step or 0) for name, value in kept.items()]
            for batch in _batches(entries, _METRICS_A_BATCH):
                client.log_batch(self.id, metrics=batch)

        self._log("logging metrics", log)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        def log(client: Any) -> None:
            from mlflow.entities import RunTag

            entries = [RunTag(_fit_name(key), str(value)[:_LONGEST_TAG]) for key, value in tags.items()]
            for batch in _batches(entries, _PARAMETERS_A_BATCH):
                client.log_batch(self.id, tags=batch)

        self._log("setting tags", log)

    def log_dataset(self, name: str, fingerprint: str, facts: Mapping[str, Any], context: str = "training") -> None:
        def log(client: Any) -> None:
            from mlflow.entities import Dataset, DatasetInput, InputTag

            profile = json.dumps({"fingerprint": fingerprint, **facts}, default=str)
            dataset = Dataset(name, fingerprint[:_LONGEST_DIGEST], "code", '{"tags": {}}', profile=profile)
            client.log_inputs(self.id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])

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
            _log_model(client, self._tracker.experiment_id, str(self.id), arguments(), name)

        self._log("keeping the model", log, upload=True)

    def _log(self, what: str, call: Callable[[Any], None], upload: bool = False) -> None:
        if self.id and not self._tracker.has_given_up:
            self._guard(what, call, upload)

    def _guard(self, what: str, call: Callable[[Any], None], upload: bool = False) -> None:
        """Call MLflow; turn any failure into one warning a run."""
        started = time.monotonic()
        try:
            with _quiet_mlflow(_UPLOAD_SECONDS if upload else _REPLY_SECONDS):
                call(self._tracker.connect())
        except Exception as error:  # whatever it is: a trained model is worth more than its record
            self._tracker.lose(time.monotonic() - started)
            if not self._has_warned:
                self._has_warned = True
                reason = mask_secrets(" ".join(str(error).split()))[:300]
                where = mask_secrets(str(self._tracker.uri))
                logger.warning("MLflow at %s failed in %s; the job goes on. %s", where, what, reason)
            logger.debug("MLflow failed in %s", what, exc_info=True)


@contextmanager
def _quiet_mlflow(seconds: int) -> Iterator[None]:
    """MLflow imported, its patience short, its prints, logs and warnings kept off the person's terminal.

    What the person set in the environment wins, and everything is put back on leaving.
    """
    defaults = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(seconds),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    added = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(added)
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", "sqlalchemy", "urllib3")]
    levels = [each.level for each in loggers]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mlflow  # noqa: F401  (sets the levels of its loggers, so it comes first)

            for each in loggers:
                each.setLevel(logging.CRITICAL)
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
        for name in added:
            os.environ.pop(name, None)


def _absolute(uri: str) -> str:
    """The URI with the path of an SQLite file made absolute, so that a later chdir splits no run in two."""
    database = _database(uri)
    return f"sqlite:///{database.absolute().as_posix()}" if database else uri


def _database(uri: str | None) -> Path | None:
    """The SQLite file behind a URI, None for any other store."""
    path = (uri or "").removeprefix("sqlite:///")
    return Path(path) if path and path != uri and path != ":memory:" else None


def _artifacts(database: Path) -> Path:
    """Where files of the runs go: beside the SQLite file, in the folder MLflow itself would choose."""
    return database.parent / "mlruns"


@contextmanager
def _alone_with(database: Path | None) -> Iterator[None]:
    """Hold a lock on an SQLite file: two processes that create its tables at once damage each other's work."""
    if database is None:
        yield
        return
    from filelock import FileLock  # comes with torch

    folder = _artifacts(database)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{database.name}.lock", timeout=60):
        yield


def _find_or_create(client: Any, experiment: str, database: Path | None) -> str:
    from mlflow.exceptions import MlflowException

    artifacts = (_artifacts(database) / quote(experiment, safe="")).as_uri() if database else None
    found = client.get_experiment_by_name(experiment)
    if found is None:
        try:
            return str(client.create_experiment(experiment, artifact_location=artifacts))
        except MlflowException:  # another process was faster
            found = client.get_experiment_by_name(experiment)
            if found is None:
                raise
    return str(found.experiment_id)


def _log_model(client: Any, experiment: str, run: str, arguments: Mapping[str, Any], name: str) -> None:
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model
    from mlflow.pyfunc import save_model

    logged = client.create_logged_model(experiment, name=name, source_run_id=run)
    client.log_outputs(run, [LoggedModelOutput(logged.model_id, step=0)])
    try:
        with tempfile.TemporaryDirectory() as folder:
            target = str(Path(folder) / "model")
            described = Model(run_id=run, model_id=logged.model_id, artifact_path=logged.artifact_location)
            save_model(target, mlflow_model=described, **arguments)
            client.log_model_artifacts(logged.model_id, target)
    except BaseException:
        with suppress(Exception):  # the first error is the one to hear about
            client.finalize_logged_model(logged.model_id, "FAILED")
        raise
    client.finalize_logged_model(logged.model_id, "READY")


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


def _fit_name(name: str) -> str:
    return re.sub(r"[^\w\-. /:]", "_", name.replace("@", "_at_"))


def _cut(value: str) -> str:
    if len(value) <= _LONGEST_PARAMETER:
        return value
    note = f" ... ({len(value)} characters, cut)"
    return value[: _LONGEST_PARAMETER - len(note)] + note


def _flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in params.items():
        flat.update(_flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return flat


def _batches(entries: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (entries[start : start + size] for start in range(0, len(entries), size))
