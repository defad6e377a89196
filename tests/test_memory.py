import sys

import numpy as np
import pytest

from recsys.memory import peak_memory


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says")
def test_memory_that_was_given_back_counts_and_what_was_there_before_does_not():
    before = np.ones(8_000_000)  # 64 MB
    with peak_memory() as peak:
        during = np.ones(5_000_000)  # 40 MB
        del during
    assert len(before) and 35 <= peak.megabytes <= 60


def test_it_is_unknown_where_the_system_does_not_say(monkeypatch, tmp_path):
    monkeypatch.setattr("recsys.memory._RESET", tmp_path / "none" / "clear_refs")
    with peak_memory() as peak:
        pass
    assert peak.megabytes is None
