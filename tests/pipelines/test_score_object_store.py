"""Scoring from and to an object store: a real S3 server on this machine, the same bytes, whatever is killed."""

import os
import signal
import subprocess
import sys
import time

import pytest
from scoring_case import bytes_of, save_vae, score

from pipelines import score as score_job
from recsys.batch import output as batch_output
from recsys.errors import ArtifactError, DataError, StorageError

s3fs = pytest.importorskip("s3fs", reason="the extra object-stores is not installed")
server = pytest.importorskip("moto.server", reason="moto, a server of S3, is not installed")
pytestmark = pytest.mark.slow

MODEL, RATINGS = "s3://shop/models/vae", "s3://shop/ratings 2026/ratings.csv"


def started(host, port):
    here = server.ThreadedMotoServer(host, port, verbose=False)
    here.start()
    return here


@pytest.fixture(scope="module")
def s3():
    """A server, in a list for who wants another; its settings in the environment, for us and the commands we start."""
    s3fs.S3FileSystem.clear_instance_cache()
    servers = [started("127.0.0.1", 0)]
    host, port = servers[0].get_host_and_port()
    settings = {
        **{"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "us-east-1"},
        **{"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"},
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        yield servers
    servers[-1].stop()


@pytest.fixture(scope="module")
def shop(s3, tmp_path_factory):
    """The filesystem of a bucket with a model and ratings; the bytes of their lists."""
    folder = tmp_path_factory.mktemp("store")
    model, ratings = save_vae(folder)
    score(model, ratings, folder / "whole", n=20, shard_users=70)
    files = s3fs.S3FileSystem()
    if files.exists("shop"):  # the servers of a process share what they hold
        files.rm("shop", recursive=True)
    files.mkdir("shop")
    files.put(str(model), MODEL, recursive=True)
    files.put_file(str(ratings), RATINGS)
    return files, bytes_of(folder / "whole")


def stored(files, output):
    """Like `bytes_of`, read back from the store."""
    files.invalidate_cache()
    root = output.removeprefix("s3://")
    return {name.removeprefix(f"{root}/"): files.cat_file(name) for name in files.find(root) if "/part-" in name}


def command(output, *more, model=MODEL, ratings=RATINGS):
    return [
        *(sys.executable, "-m", "pipelines.cli", "score", model, ratings, "-o", output),
        *("-n", "20", "--shard-users", "70", "--device", "cpu", "--no-track", *more),
    ]


def refused(words):
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_lists_in_a_store_are_those_on_a_disk(shop):
    files, whole = shop
    scored = score(MODEL, RATINGS, "s3://shop/lists/all", n=20, shard_users=70)
    assert stored(files, "s3://shop/lists/all") == whole
    assert {name.rpartition("/")[2] for name in files.ls("shop/lists/all")} == {
        *("plan.json", "manifest.json", "recommendations", "short_lists")
    }
    again = score(MODEL, RATINGS, "s3://shop/lists/all", n=20, shard_users=70, resume=True)
    assert again.speed["files_resumed"] == 10
    assert again.manifest["shards"] == scored.manifest["shards"]


def test_what_is_damaged_in_the_store_is_written_again(shop):
    files, whole = shop
    output = "s3://shop/lists/damaged"
    score(MODEL, RATINGS, output, n=20, shard_users=70)
    files.pipe_file(f"{output}/recommendations/part-00003.parquet", b"damaged")
    files.rm_file(f"{output}/short_lists/part-00005.parquet")
    assert score(MODEL, RATINGS, output, n=20, shard_users=70, resume=True).speed["files_resumed"] == 8
    assert stored(files, output) == whole


def test_an_output_in_the_store_is_replaced_only_when_asked(shop):
    files, whole = shop
    output = "s3://shop/lists/replaced"
    score(MODEL, RATINGS, output, n=5, shard_users=300)
    with pytest.raises(ArtifactError, match="already holds something"):
        score(MODEL, RATINGS, output, n=20, shard_users=70)
    with pytest.raises(ArtifactError, match="another job"):
        score(MODEL, RATINGS, output, n=20, shard_users=70, resume=True)
    with pytest.raises(ArtifactError, match="that recsys did not write"):
        score(MODEL, RATINGS, "s3://shop/models", n=20, overwrite=True)
    score(MODEL, RATINGS, output, n=20, shard_users=70, overwrite=True)
    assert stored(files, output) == whole
    assert not files.find("shop/lists/replaced.draft")


@pytest.mark.parametrize("stopped_in", ["write_manifest", "_clear"])
def test_earlier_lists_in_the_store_stay_until_the_new_ones_are_complete(shop, monkeypatch, stopped_in):
    files, whole = shop
    output = f"s3://shop/lists/kept-{stopped_in.strip('_')}"
    score(MODEL, RATINGS, output, n=5, shard_users=300)
    before = stored(files, output)
    calls = []

    def stop(*folders, **_):
        calls.append(folders)
        if stopped_in != "_clear" or len(calls) == 2:  # the first clears the draft before anything is written
            raise StorageError("away")

    with monkeypatch.context() as patched, pytest.raises(StorageError, match="away"):
        patched.setattr(score_job if stopped_in == "write_manifest" else batch_output, stopped_in, stop)
        score(MODEL, RATINGS, output, n=20, shard_users=70, overwrite=True)
    assert stored(files, output) == before
    assert files.isfile(f"{output}/manifest.json")
    score(MODEL, RATINGS, output, n=20, shard_users=70, resume=True)
    assert stored(files, output) == whole
    assert not files.find(f"{output.removeprefix('s3://')}.draft")


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_job_killed_at_a_store_resumes_to_the_same_bytes(shop, engine):
    if engine == "ray":
        pytest.importorskip("ray", reason="the extra ray is not installed")
    files, whole = shop
    output, more = f"s3://shop/lists/killed-{engine}", ("--resume", "--engine", engine, "--workers", "2")
    process = subprocess.Popen(command(output, *more), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(stored(files, output)) < 4:
        time.sleep(0.05)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not files.exists(f"{output}/manifest.json")
    done = subprocess.run(command(output, *more), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert stored(files, output) == whole
    assert files.exists(f"{output}/manifest.json") and not files.exists(f"{output}/progress.jsonl")


def test_a_store_that_goes_away_is_named_and_gone_on_with_when_it_is_back(shop, s3):
    files, whole = shop
    output = "s3://shop/lists/away"
    process = subprocess.Popen(command(output), stderr=subprocess.PIPE, text=True)
    while process.poll() is None and len(stored(files, output)) < 4:
        time.sleep(0.05)
    address = s3[-1].get_host_and_port()
    s3[-1].stop()
    try:
        message = process.communicate(timeout=120)[1]
    finally:
        s3.append(started(*address))  # with what was in it: moto keeps it in this process
    assert process.returncode == 1
    assert f"{output}/" in message and "Could not connect" in message and "--resume" in message
    assert "Traceback" not in message
    done = subprocess.run(command(output, "--resume"), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert stored(files, output) == whole


def test_a_bucket_that_is_not_there_is_named(shop):
    with pytest.raises(StorageError, match=r"s3://none/lists/plan\.json, found: The specified bucket does not exist"):
        score(MODEL, RATINGS, "s3://none/lists")


def test_who_is_unknown_to_the_store_is_told_where_to_look(shop, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", os.devnull)
    assert "Unable to locate credentials. Check the address, and the credentials" in refused(
        command("s3://shop/lists/new")
    )


def test_what_is_not_in_the_store_is_named_by_its_address(shop):
    with pytest.raises(DataError, match=r"at s3://shop/models/none, found none"):
        score("s3://shop/models/none", RATINGS, "s3://shop/lists/new")
    with pytest.raises(DataError, match=r"at s3://shop/none\.csv, found none"):
        score(MODEL, "s3://shop/none.csv", "s3://shop/lists/new")
