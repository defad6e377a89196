"""MLflow's client: quiet, with short timeouts, and safe where several processes create a database at the same time."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote


@contextmanager
def quiet_mlflow(seconds: int) -> Iterator[None]:
    """Use MLflow in a block with short timeouts, and without its prints, logs and warnings.

    Settings of the environment win; everything is restored at the end.

    Parameters
    ----------
    seconds : int
        Timeout of a request.
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


DEFAULT_URI = "sqlite:///mlflow.db"


def tracking_uri(uri: str | None = None) -> str:
    """Return the address given, else that of MLFLOW_TRACKING_URI, else of mlflow.db in the working directory."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def absolute_uri(uri: str) -> str:
    """Return the address with the path of an SQLite file made absolute, valid in any working directory."""
    database = _database(uri)
    return f"sqlite:///{database.absolute().as_posix()}" if database else uri


def _database(uri: str | None) -> Path | None:
    """The SQLite file of an address; None for any other store."""
    path = (uri or "").removeprefix("sqlite:///")
    return Path(path) if path and path != uri and path != ":memory:" else None


def _artifacts(database: Path) -> Path:
    """Where files of the runs go: beside the SQLite file, in the folder MLflow itself would choose."""
    return database.parent / "mlruns"


@contextmanager
def _locked(database: Path | None) -> Iterator[None]:
    """Hold a lock on an SQLite file: two processes that create its tables at the same time disturb each other."""
    if database is None:
        yield
        return
    from filelock import FileLock  # comes with torch

    folder = _artifacts(database)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{database.name}.lock", timeout=60):
        yield


def connect(uri: str, experiment: str) -> tuple[Any, str]:
    """Connect to MLflow; the database and the experiment are made where they do not exist.

    Parameters
    ----------
    uri : str
        Address of the tracking store.
    experiment : str
        Name of the experiment.

    Returns
    -------
    client : MlflowClient
        A client without global state.
    experiment_id : str
        Id of the experiment.
    """
    from mlflow import MlflowClient

    database = _database(uri)
    with _locked(database):
        client = MlflowClient(tracking_uri=uri)
        return client, _find_or_create(client, experiment, database)


def _find_or_create(client: Any, experiment: str, database: Path | None) -> str:
    """Id of an experiment."""
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


def kept_model(client: Any, run_id: str) -> str | None:
    """Find the model that a run has kept.

    Parameters
    ----------
    client : MlflowClient
        See `connect`.
    run_id : str
        Run of a training.

    Returns
    -------
    str or None
        Id of the last model of the run that is complete; None where there is no such model, or no such run.
    """
    from mlflow.exceptions import MlflowException

    try:
        outputs = client.get_run(run_id).outputs
        ids = [output.model_id for output in getattr(outputs, "model_outputs", None) or ()]
        ready = [model_id for model_id in ids if client.get_logged_model(model_id).status == "READY"]
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return ready[-1] if ready else None


def log_pyfunc_model(client: Any, experiment_id: str, run_id: str, arguments: Mapping[str, Any], name: str) -> str:
    """Keep an MLflow model as an output of a run.

    Parameters
    ----------
    client : MlflowClient
        See `connect`.
    experiment_id, run_id : str
        Where it is kept.
    arguments : mapping
        What `mlflow.pyfunc.save_model` takes besides the path.
    name : str
        Name of the model.

    Returns
    -------
    str
        Id of the model.
    """
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model
    from mlflow.pyfunc import save_model

    logged = client.create_logged_model(experiment_id, name=name, source_run_id=run_id)
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    try:
        with tempfile.TemporaryDirectory() as folder:
            directory = str(Path(folder) / "model")
            described = Model(run_id=run_id, model_id=logged.model_id, artifact_path=logged.artifact_location)
            save_model(directory, mlflow_model=described, **arguments)
            client.log_model_artifacts(logged.model_id, directory)
    except BaseException:
        with suppress(Exception):  # the first error is the one to report
            client.finalize_logged_model(logged.model_id, "FAILED")
        raise
    client.finalize_logged_model(logged.model_id, "READY")
    return str(logged.model_id)
