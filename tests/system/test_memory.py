"""Peak memory, memory that is kept, and work that needs more than there is."""

import platform
import subprocess
import sys

import numpy as np
import pytest
import torch

from recsys.errors import UnsupportedError
from recsys.system.memory import peak_memory, require_memory


@pytest.mark.skipif(sys.platform != "linux", reason="measured on Linux only")
def test_memory_that_was_given_back_counts_and_what_was_there_before_does_not():
    before = np.ones(8_000_000)  # 64 MB
    with peak_memory() as peak:
        during = np.ones(5_000_000)  # 40 MB
        del during
    assert len(before) and 35 <= peak.megabytes <= 60


def test_the_peak_is_unknown_where_the_system_does_not_say(monkeypatch, tmp_path):
    monkeypatch.setattr("recsys.system.memory._RESET", tmp_path / "none" / "clear_refs")
    with peak_memory() as peak:
        pass
    assert peak.megabytes is None


FREED = """
import numpy as np
from recsys.system.memory import keep_freed_memory, now_and_peak

def held():
    return now_and_peak()[0] / 1e6

before = held()
with keep_freed_memory():
    table = np.ones(12_500_000)  # 100 MB
    del table
    assert held() > before + 75, held() - before
assert held() < before + 40, held() - before
table = np.ones(12_500_000)
del table
assert held() < before + 40, held() - before
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_freed_memory_is_kept_in_the_block_and_given_back_after_it():
    # In a process of its own: one that has run other tests holds free memory already, which the table would fill.
    found = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


CPU = torch.device("cpu")


def test_what_needs_more_than_is_free_is_refused_with_both_sizes_and_what_to_use_instead(monkeypatch):
    monkeypatch.setattr("recsys.system.memory.memory_bytes", lambda: (8 * 10**9, 5 * 10**9))
    require_memory("a model", 5 * 10**9, CPU, "another")
    with pytest.raises(UnsupportedError, match=r"a model needs 6\.7 GB of memory, found 5\.0 GB free: use another\."):
        require_memory("a model", 6_700_000_000, CPU, "another")


def test_nothing_is_refused_where_the_system_does_not_say_what_is_free(monkeypatch):
    monkeypatch.setattr("recsys.system.memory.memory_bytes", lambda: (None, None))
    require_memory("a model", 10**18, CPU, "another")
    require_memory("a model", 10**18, torch.device("meta"), "another")


def test_a_gpu_is_asked_for_its_own_memory(monkeypatch):
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (10**9, 2 * 10**9))
    with pytest.raises(UnsupportedError, match=r"2\.0 GB of memory of cuda:0, found 1\.0 GB free"):
        require_memory("a model", 2 * 10**9, torch.device("cuda:0"), "another")
