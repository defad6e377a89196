"""What a command writes is tried before its work: nothing is read, fitted or scored for a place that refuses."""

import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.cli.main import main

# Every command that writes, with the option that names what it writes. The inputs are not there: an error about them
# would show that the place was tried too late.
WRITERS = {
    "prepare": "prepare nothing.csv -o",
    "train": "train nothing.csv -m ease -o",
    "evaluate": "evaluate no-model nothing.csv -o",
    "compare": "compare nothing.csv -m popularity -o",
    "compare --tune": "compare nothing.csv -m popularity --tune 2 -o",
    "tune": "tune nothing.csv -m ease -o",
    "predict": "predict no-model nothing.csv --ratings nothing.csv -o",
    "score": "score no-model nothing.csv -o",
    "check --plots": "check nothing.csv --plots",
    "check --rejects": "check nothing.csv --rejects",
    "train --rejects": "train nothing.csv -m ease -o model --rejects",
    "download": "download ml-latest-small -o",
    "demo": "demo --ratings nothing.csv -o",
}

every_writer = pytest.mark.parametrize("writer", WRITERS)


@pytest.fixture(autouse=True)
def somewhere_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refused(writer, place):
    result = CliRunner().invoke(main, [*WRITERS[writer].split(), str(place)])
    assert result.exit_code == 1, result.output
    assert "nothing.csv" not in result.output and "no-model" not in result.output
    assert "Traceback" not in result.output and "Internal error" not in result.output
    return " ".join(result.output.split())


@every_writer
def test_a_name_that_is_not_utf_8(writer):
    assert "Expected a path in UTF-8" in refused(writer, "bad\udcff.csv")


@every_writer
def test_a_file_in_place_of_a_folder(writer):
    Path("file").write_text("")
    assert "found a file" in refused(writer, "file/below/out.csv") or "file" in refused(writer, "file/below/out.csv")


@every_writer
def test_a_name_that_is_too_long(writer):
    assert "at most 255 bytes" in refused(writer, "n" * 300 + ".csv")


@every_writer
def test_a_place_where_nothing_can_be_written(writer):
    assert "/proc/out.csv" in refused(writer, "/proc/out.csv")


@pytest.mark.slow
def test_a_disk_that_is_full_is_named_with_the_file(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mount.stderr.strip()}")
    try:
        (disk / "filler").write_bytes(b"\0" * 60_000)
        for writer in WRITERS:
            message = refused(writer, disk / "out.csv")
            assert f"Expected room for {disk}/out.csv, found the disk at {disk} full" in message
        assert [file.name for file in disk.iterdir()] == ["filler"]
    finally:
        subprocess.run(["umount", disk], check=True)
