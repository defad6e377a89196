"""Scoring on a real Ray of two workers on this machine: the same bytes, also when a worker is killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from paths import ROOT
from scoring_case import bytes_of, save_vae, score

from pipelines import encode
from recsys.batch.engines import map_on_ray
from recsys.errors import ConfigError, DataError

ray = pytest.importorskip("ray", reason="the extra ray is not installed")
# Ray's own start-up: it leaves sockets and processes to the interpreter, and names features it will change.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def refuse(number):
    raise DataError(f"Expected nothing, found {number}.")


def test_a_cluster_that_does_not_answer_is_named():
    assert not ray.is_initialized()
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:1,"):
        list(map_on_ray(partial(partial, refuse), [7], workers=1, address="127.0.0.1:1", gpu=False))


@pytest.fixture(scope="module")
def cluster():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ray")
    model, ratings = save_vae(folder)
    score(model, ratings, folder / "local", n=20, shard_users=50)
    return model, ratings, folder


def test_ray_writes_the_bytes_of_the_local_engine(cluster, case, tmp_path):
    scored = score(*case[:2], tmp_path / "lists", n=20, shard_users=50, engine="ray", workers=2)
    assert bytes_of(tmp_path / "lists") == bytes_of(case[2] / "local")
    assert scored.manifest["memory"]["peak_bytes_of_an_actor"] > 10**8
    assert not any("peak_bytes" in note for note in scored.manifest["shards"].values())


def test_reasons_on_ray_have_the_bytes_of_the_local_engine(cluster, case, tmp_path):
    for engine in ("local", "ray"):
        score(*case[:2], tmp_path / engine, n=3, reasons=2, shard_users=300, engine=engine, workers=2)
    assert bytes_of(tmp_path / "ray") == bytes_of(tmp_path / "local")
    first = pq.read_table(next((tmp_path / "ray").glob("recommendations/part-*")))
    assert first.column_names[-4:] == ["reason_1", "share_1", "reason_2", "share_2"]


def test_embeddings_on_ray_have_the_bytes_of_the_local_engine(cluster, case, tmp_path):
    for engine in ("local", "ray"):
        output = tmp_path / f"{engine}.parquet"
        encode.run(encode.EncodeJob(case[0], (case[1],), output, shard_users=300, engine=engine, workers=2))
    assert (tmp_path / "ray.parquet").read_bytes() == (tmp_path / "local.parquet").read_bytes()
    assert pq.read_metadata(tmp_path / "ray.parquet").num_rows == 700


def wait_and_double(folder, number):
    (folder / f"{os.getpid()}").touch()
    time.sleep(0.2)
    return 2 * number


def test_the_work_of_a_killed_worker_is_done_by_another(cluster, tmp_path):
    make = partial(partial, wait_and_double, tmp_path)
    doubled = map_on_ray(make, range(20), workers=2, address=None, gpu=False)
    results = [next(doubled)]
    first, *_ = tmp_path.iterdir()
    os.kill(int(first.name), signal.SIGKILL)
    results += doubled
    assert sorted(results) == list(range(0, 40, 2))
    assert len(list(tmp_path.iterdir())) == 3  # two workers, and the one that came instead


def kill_when_it_writes(output):
    """Kill the first worker that is seen with a file of the output open."""
    while True:
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and int(process.name) != os.getpid() and has_open(process, output):
                os.kill(int(process.name), signal.SIGKILL)
                return
        time.sleep(0.001)


def has_open(process, folder):
    try:
        return any(file.readlink().is_relative_to(folder) for file in (process / "fd").iterdir())
    except OSError:  # it has ended, or is not ours
        return False


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to find the worker that is writing")
def test_a_worker_killed_while_it_writes_does_not_change_the_output(cluster, case, tmp_path):
    killer = threading.Thread(target=kill_when_it_writes, args=(tmp_path / "lists",), daemon=True)
    killer.start()
    score(*case[:2], tmp_path / "lists", n=20, shard_users=50, engine="ray", workers=2)
    killer.join(timeout=1)
    assert not killer.is_alive(), "no worker was killed"
    assert bytes_of(tmp_path / "lists") == bytes_of(case[2] / "local")
    assert not list((tmp_path / "lists").glob("*/.part-*"))


def test_an_error_of_the_function_is_raised_unchanged(cluster):
    with pytest.raises(DataError, match="found 7"):
        list(map_on_ray(partial(partial, refuse), [7], workers=1, address=None, gpu=False))


LOST_NODE = """
import os, signal, time
from functools import partial
from pathlib import Path
from recsys.batch.engines import map_on_ray
from recsys.errors import EngineError

def slow(number):
    time.sleep(0.5)
    return number

results = map_on_ray(partial(partial, slow), range(1000), 1, None, False)
next(results)
children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
(raylet,) = [int(child) for child in children if Path(f"/proc/{child}/comm").read_text() == "raylet\\n"]
os.kill(raylet, signal.SIGKILL)
try:
    list(results)
except EngineError as error:
    print(f"raised: {error}")
"""


@pytest.mark.skipif(not Path("/proc/self/comm").is_file(), reason="needs /proc to find the node of Ray")
def test_the_death_of_a_local_node_is_an_error_that_says_so():
    done = subprocess.run([sys.executable, "-c", LOST_NODE], cwd=ROOT, capture_output=True, text=True, timeout=180)
    # Ray may end the process itself: then the exit notice of the command line says how to continue.
    assert done.returncode == 1 or "raised: Ray stopped working: " in done.stdout, done.stderr
    assert "Traceback" not in done.stderr
