"""A scoring job that is stopped, by whatever, says so and can be resumed to the same bytes."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scoring_case import bytes_of, save_vae, score

# More of them for a longer trial: RECSYS_KILLS=20.
KILLS = int(os.environ.get("RECSYS_KILLS", "2"))


def command(case, output, *more):
    return [
        *(sys.executable, "-m", "pipelines.cli", "score", case[0], case[1], "-o", output),
        *("-n", "20", "--shard-users", "10", "--device", "cpu", "--no-track", *more),
    ]


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """Seventy small shards, so that a job is worth stopping."""
    folder = tmp_path_factory.mktemp("stops")
    model, ratings = save_vae(folder)
    score(model, ratings, folder / "whole", n=20, shard_users=10)
    return model, ratings, bytes_of(folder / "whole")


def until_begun(process, output):
    """Wait for the first file of lists."""
    while not list(output.glob("recommendations/part-*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def resume(case, output, *more):
    done = subprocess.run(command(case, output, "--resume", *more), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (output / "manifest.json").is_file()
    return bytes_of(output)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_job_killed_at_any_moment_resumes_to_the_same_bytes(case, tmp_path, engine):
    if engine == "ray":
        pytest.importorskip("ray", reason="the extra ray is not installed")
    chance, output, killed = random.Random(0), tmp_path / "lists", 0
    while killed < KILLS:
        begun = len(bytes_of(output))
        process = subprocess.Popen(
            command(case, output, "--resume", "--engine", engine, "--workers", "2"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        while process.poll() is None and len(bytes_of(output)) == begun:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.15))
        if process.poll() is None:
            process.kill()
            killed += 1
        if process.wait() == 0:  # it was faster: a whole output, and a new one to kill
            assert bytes_of(output) == case[2]
            shutil.rmtree(output)
    assert resume(case, output) == case[2]
    assert not list(output.glob("*/.part-*"))


@pytest.mark.slow
@pytest.mark.parametrize("wish", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_or_a_request_to_end_says_how_to_go_on(case, tmp_path, wish):
    for attempt in range(5):  # on a busy machine a job may be through before the signal reaches it
        output = tmp_path / f"lists-{attempt}"
        process = subprocess.Popen(command(case, output), stderr=subprocess.PIPE, text=True)
        until_begun(process, output)
        process.send_signal(wish)
        message = process.communicate(timeout=60)[1]
        if process.returncode != 0:
            break
    assert process.returncode == 1, message
    assert "Interrupted. " in message and "--resume" in message and "Traceback" not in message
    assert not (output / "manifest.json").exists()
    assert resume(case, output) == case[2]


@pytest.mark.slow
def test_a_full_disk_is_named_and_the_job_resumed_when_there_is_room(case, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", disk], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mount.stderr.strip()}")
    try:
        failed = subprocess.run(command(case, disk / "lists"), capture_output=True, text=True)
        assert failed.returncode == 1
        assert f"found the disk at {disk} full" in failed.stderr and "--resume" in failed.stderr
        assert "Traceback" not in failed.stderr
        subprocess.run(["mount", "-o", "remount,size=50m", disk], check=True)
        assert resume(case, disk / "lists") == case[2]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_folder_that_cannot_be_written_is_named(case, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("the superuser may write everywhere")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    failed = subprocess.run(command(case, closed / "lists"), capture_output=True, text=True)
    assert failed.returncode == 1
    assert "Expected permission to write" in failed.stderr and str(closed) in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.slow
def test_a_read_only_disk_is_named(case, tmp_path):
    disk: Path = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", disk], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"a read-only disk cannot be mounted here: {mount.stderr.strip()}")
    try:
        failed = subprocess.run(command(case, disk / "lists"), capture_output=True, text=True)
        assert failed.returncode == 1
        assert f"found the disk at {disk} read-only" in failed.stderr and "Traceback" not in failed.stderr
    finally:
        subprocess.run(["umount", disk], check=True)
