"""The two-groups model: known mixtures, its limit, and false alarms that come true."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import ConfigError
from recsys.explain.two_groups import estimate_two_groups, rising_density


def mixture(share, size=40_000, seed=0):
    """Percentiles of which `share` are uniform; the others lean to 1, none near 0."""
    rng = np.random.default_rng(seed)
    unrelated = rng.random(size) < share
    return np.where(unrelated, rng.random(size), rng.beta(6, 1, size)), unrelated


def test_uniform_values_have_the_density_one():
    values = np.random.default_rng(0).random(50_000)
    assert rising_density(values) == pytest.approx(1, abs=0.15)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.001, 0.999), min_size=1, max_size=200))
def test_a_density_never_falls_and_is_above_zero(values):
    values = np.sort(values)
    density = rising_density(values)
    assert (np.diff(density) >= -1e-12).all()
    assert (density > 0).all()


def test_the_expected_false_alarms_are_those_that_come():
    values, unrelated = mixture(0.1)
    found = estimate_two_groups(values, np.zeros(len(values), dtype=int), 1, 0.1, even_share=0)
    order = np.argsort(-found.ratio, kind="stable")
    for count in (500, 2_000, 8_000):
        chosen = order[:count]
        assert found.suspicion[chosen].mean() == pytest.approx(unrelated[chosen].mean(), abs=0.05)


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_the_limit_is_the_share_where_the_least_plausible_are_all_unrelated(share):
    values, _ = mixture(share)
    found = estimate_two_groups(values, np.zeros(len(values), dtype=int), 1, 0.5, even_share=0)
    assert share <= found.limit < 1.25 * share
    assert found.share == found.limit  # more than the limit is not assumed


def test_among_rare_items_an_even_script_is_more_likely_than_taste():
    values, _ = mixture(0.1)
    stratum = (np.arange(len(values)) % 10 > 0).astype(int)  # as many items, nine times the interactions
    found = estimate_two_groups(values, stratum, 2, 0.05)
    assert found.evenness[0] == pytest.approx(0.5 + 0.5 / 0.2)
    assert found.evenness[1] == pytest.approx(0.5 + 0.5 / 1.8)


def test_a_user_of_random_items_has_the_largest_share_and_few_cells_prove_little():
    values, _ = mixture(0.01, 10_000)
    values[:100] = np.linspace(0.005, 0.995, 100)
    values[100] = 0.01
    whose = np.concatenate([np.zeros(100, dtype=int), [1], 2 + np.arange(9_899) % 100])
    shares = estimate_two_groups(values, np.zeros(10_000, dtype=int), 1, 0.01, even_share=0).share_within(whose, 103)
    assert shares[0] > 0.7
    assert shares[1] < 0.2
    assert shares[2:102].max() < 0.2
    assert shares[102] == pytest.approx(0.01)  # has none


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan")])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(ConfigError, match="noise above 0 and below 1"):
        estimate_two_groups(np.array([0.5]), np.array([0]), 1, share)
