"""A real `mlflow server` with an SQLite database, for tests."""

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest


def free_port():
    """A port that nothing listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@contextmanager
def mlflow_server(folder):
    """The address of a server whose database and artifacts are in `folder`, for the length of a block."""
    command = ["server", "--host", "127.0.0.1", "--backend-store-uri", "sqlite:///mlflow.db"]
    with served([*command, "--artifacts-destination", "artifacts", "--workers", "1"], folder) as address:
        yield address


@contextmanager
def served(arguments, folder, program=("mlflow",), environment=None, port_flag="--port", name="server"):
    """The address where a program listens that takes a port, for the length of a block."""
    port = free_port()
    command = [sys.executable, "-m", *program, *arguments, port_flag, str(port)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "PYTEST"))}
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # MLflow starts uvicorn by name
    clean |= {"MLFLOW_DISABLE_TELEMETRY": "true", "PATH": programs, **(environment or {})}
    log = folder / f"{name}.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=folder, env=clean, stdout=output, stderr=output, start_new_session=True)
    try:
        wait_for(port, process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(process)


def stop(process):
    """End a process and the workers it has started."""
    import signal

    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=20)
    except ProcessLookupError:
        pass


def wait_for(port, process, log, seconds=120):
    """Wait until something listens."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as caller:
            if caller.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    pytest.fail(f"the server did not start: {log.read_text()[-2000:]}")
