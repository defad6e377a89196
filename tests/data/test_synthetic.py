from __future__ import annotations

import numpy as np
import pytest

from recsys.data.reading import read_interactions
from recsys.data.synthetic import write_shaped_ratings
from recsys.errors import ConfigError


def test_the_counts_are_exactly_those_asked_for(tmp_path):
    found = read_interactions(write_shaped_ratings(tmp_path / "r.csv", users=300, items=200, rows=9_000))
    assert (len(found.users), len(found.items), len(found)) == (300, 200, 9_000)
    assert found.ledger.line() == "rows read 9,000 = kept 9,000"  # no pair twice
    assert (found.scale.min, found.scale.max, found.scale.step) == (0.5, 5, 0.5)


def test_few_are_active_and_few_are_popular(tmp_path):
    found = read_interactions(write_shaped_ratings(tmp_path / "r.csv", users=300, items=200, rows=9_000))
    for counts in (np.bincount(found.user), np.bincount(found.item)):
        top = np.sort(counts)[-len(counts) // 5 :].sum()
        assert 0.3 < top / len(found) < 0.9  # a fifth has more than its share


def test_the_seed_decides_every_byte(tmp_path):
    one, two, three = (
        write_shaped_ratings(tmp_path / f"{i}.csv", 30, 50, 400, seed).read_bytes() for i, seed in enumerate((1, 1, 2))
    )
    assert one == two != three


@pytest.mark.parametrize("counts", [(10, 10, 5), (10, 10, 90), (0, 10, 20)])
def test_impossible_counts_are_refused(tmp_path, counts):
    with pytest.raises(ConfigError, match="Expected rows"):
        write_shaped_ratings(tmp_path / "r.csv", *counts)
