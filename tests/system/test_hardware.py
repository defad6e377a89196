"""What the machine says about itself, read from made-up system files."""

import json
import os
import subprocess
from importlib import metadata
from types import SimpleNamespace

import pytest
import torch

from recsys.system import hardware

KB = 1024


@pytest.fixture
def meminfo(tmp_path):
    path = tmp_path / "meminfo"
    path.write_text("MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    600 kB\n")
    return path


def limit_memory(folder, limit: str, current: int, cache: int) -> None:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{current}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cache}\nactive_file 7\n")


def test_the_description_is_plain_json():
    described = hardware.describe_machine()
    assert json.loads(json.dumps(described)) == described
    assert described["packages"]["torch"] == metadata.version("torch")
    assert 1 <= described["cores"] <= os.cpu_count()


def test_without_a_container_memory_is_the_machines(meminfo, tmp_path):
    assert hardware.memory_bytes(meminfo, tmp_path) == (1000 * KB, 600 * KB)


def test_a_containers_limit_is_its_memory_and_its_file_cache_counts_as_available(meminfo, tmp_path):
    limit_memory(tmp_path, str(500 * KB), current=300 * KB, cache=100 * KB)
    assert hardware.memory_bytes(meminfo, tmp_path) == (500 * KB, 300 * KB)  # 500 - (300 - 100)


def test_a_container_has_no_more_available_than_the_machine(meminfo, tmp_path):
    limit_memory(tmp_path, str(900 * KB), current=0, cache=0)
    assert hardware.memory_bytes(meminfo, tmp_path) == (900 * KB, 600 * KB)


@pytest.mark.parametrize("limit", ["max", str(2000 * KB)])
def test_no_limit_or_one_above_the_machine_changes_nothing(meminfo, tmp_path, limit):
    limit_memory(tmp_path, limit, current=0, cache=0)
    assert hardware.memory_bytes(meminfo, tmp_path) == (1000 * KB, 600 * KB)


def test_memory_available_is_unknown_where_the_system_does_not_tell(tmp_path):
    assert hardware.memory_bytes(tmp_path / "absent", tmp_path)[1] is None


@pytest.mark.parametrize(("cpu_max", "cores"), [("max 100000", 4), ("150000 100000", 2), ("1000 100000", 1)])
def test_a_share_of_processors_is_rounded_up(tmp_path, monkeypatch, cpu_max, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    (tmp_path / "cpu.max").write_text(f"{cpu_max}\n")
    assert hardware.usable_cores(tmp_path) == cores


def test_the_processor_is_named_and_bf16_recognized(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nmodel name\t: Quick 9000\nflags\t\t: sse avx512_bf16 fma\n")
    assert hardware.cpu_name(cpuinfo) == "Quick 9000"
    assert hardware.has_bf16(cpuinfo)
    cpuinfo.write_text("flags\t\t: sse avx512bw fma\n")
    assert hardware.cpu_name(cpuinfo)
    assert not hardware.has_bf16(cpuinfo)


def test_each_graphics_card_has_a_line(monkeypatch):
    card = SimpleNamespace(name="Card", total_memory=80_000_000_000, major=8)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    assert hardware.gpus() == [{"name": "Card", "memory_gb": 80.0, "bf16": True}] * 2


def git(folder, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_is_marked_when_files_differ_from_it(tmp_path):
    git(tmp_path, "init")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert hardware.git_commit(tmp_path) == commit
    (tmp_path / "a").write_text("2")
    assert hardware.git_commit(tmp_path) == f"{commit}-dirty"


def test_outside_a_repository_or_without_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert hardware.git_commit(tmp_path) is None
    monkeypatch.setenv("PATH", "")
    assert hardware.git_commit(tmp_path) is None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_matrix_products_are_counted(dtype):
    assert hardware.matmul_gflops(dtype, size=16, seconds=0.001) > 0
