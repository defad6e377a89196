"""Each fuzz target, briefly; `make fuzz` runs them for long."""

import fuzzing
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    pytest.importorskip("implicit")
    return fuzzing.Bench(tmp_path_factory.mktemp("bench"))


@pytest.mark.parametrize("target", fuzzing.TARGETS)
def test_nothing_is_found_in_some_trials(target, bench):
    found, refused = fuzzing.run(target, bench, trials=60, seed=1)
    assert found == []
    if target not in ("settings", "reading_paths"):  # where nothing is raised
        assert 0 < refused < 60
