"""Averages over users: means, roots of means over cells, their intervals and differences."""

import numpy as np
import pytest

from recsys.errors import DataError
from recsys.evaluation.averages import Average, Interval


def difference(ours, theirs, seed=0):
    return Average.of(ours).difference(Average.of(theirs), seed)


# Intervals


def noise(seed, users):
    return np.random.default_rng(seed).random(users)


@pytest.mark.parametrize("seed", range(5))
def test_the_interval_covers_the_mean(seed):
    values = noise(seed, 30)
    found = Average.of(values).interval()
    assert found.low < found.mean < found.high
    assert (found.mean, found.n_users) == (values.mean(), 30)


def test_the_interval_is_that_of_the_normal_approximation_for_many_users():
    values = noise(0, 5000)
    found, error = Average.of(values).interval(), values.std() / np.sqrt(5000)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_a_hundred_times_the_users_is_a_tenth_of_the_width():
    few, many = Average.of(noise(0, 100)).interval(), Average.of(noise(1, 10_000)).interval()
    assert (many.high - many.low) / (few.high - few.low) == pytest.approx(1 / 10, rel=0.25)


def test_missing_values_are_left_out_of_the_interval():
    values = noise(0, 20)
    assert Average.of(np.append(values, [np.nan] * 5)).interval() == Average.of(values).interval()


def test_the_same_seed_gives_the_same_interval_and_another_a_slightly_different_one():
    values = noise(0, 50)
    assert Average.of(values).interval(1) == Average.of(values).interval(1)
    assert Average.of(values).interval(1).low != Average.of(values).interval(2).low
    assert Average.of(values).interval(1).low == pytest.approx(Average.of(values).interval(2).low, abs=0.02)


def test_equal_values_give_an_interval_of_width_zero():
    assert Average.of(np.full(7, 0.25)).interval() == Interval(0.25, 0.25, 0.25, 7)


@pytest.mark.parametrize("values", [[], [np.nan, np.nan]])
def test_an_interval_without_users_is_refused(values):
    with pytest.raises(DataError, match="at least one user with held-out items"):
        Average.of(np.array(values, dtype=np.float64)).interval()


@pytest.mark.parametrize(("low", "high", "excludes"), [(-1, 1, False), (0.1, 1, True), (-1, -0.1, True), (0, 1, False)])
def test_an_interval_excludes_zero_when_zero_is_outside(low, high, excludes):
    assert Interval((low + high) / 2, low, high, 9).excludes_zero == excludes


def test_an_interval_reads_as_its_mean_and_ends():
    assert str(Interval(0.25, 0.125, 0.5, 9)) == "0.2500 [0.1250, 0.5000]"


# Differences


def test_a_model_does_not_differ_from_itself():
    values = np.append(noise(0, 40), np.nan)
    assert difference(values, values) == Interval(0, 0, 0, 40)
    assert not difference(values, values).excludes_zero


def test_a_small_steady_improvement_is_found_though_users_differ_far_more():
    theirs = noise(0, 200)
    ours = theirs + 0.01 + 0.02 * (noise(1, 200) - 0.5)
    found = difference(ours, theirs)
    assert found.excludes_zero
    assert found.mean == pytest.approx(0.01, abs=0.002)
    assert found.low == pytest.approx(-difference(theirs, ours).high, abs=1e-3)
    apart = Average.of(ours).interval(), Average.of(theirs).interval()
    assert apart[0].low < apart[1].high  # seen apart, nothing could be claimed


def test_between_equal_models_a_difference_is_claimed_about_one_time_in_twenty():
    rng = np.random.default_rng(0)
    claims = sum(difference(rng.random(100), rng.random(100), seed).excludes_zero for seed in range(200))
    assert 2 <= claims <= 0.08 * 200


def test_different_users_cannot_be_compared():
    with pytest.raises(DataError, match="found 3 and 2"):
        difference(np.zeros(3), np.zeros(2))


# Sums over cells


# Squared errors and cells of three users: the first has two cells.
ERRORS = Average(np.array([8.0, 1.0, 0.0]), np.array([2.0, 1.0, 0.0]), root=True)


def test_the_root_is_of_all_errors_over_all_cells_and_users_without_cells_do_not_count():
    assert ERRORS.mean == np.sqrt((8 + 1) / (2 + 1))
    assert ERRORS.n_users == 2
    assert ERRORS.each == pytest.approx([np.sqrt(8 / 2), 1, np.nan], nan_ok=True)


def test_the_interval_is_of_the_root_itself():
    found = ERRORS.interval()
    assert (found.low, found.mean, found.high) == (1, np.sqrt(3), 2)  # twice the second user, both, twice the first


def test_the_interval_of_a_root_has_the_width_theory_gives():
    squares = np.random.default_rng(0).normal(size=4000) ** 2  # mean 1, variance 2: the root has 2 / (4 x 4000)
    found = Average(squares, np.ones(4000), root=True).interval()
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.sqrt(2 / 4 / 4000), rel=0.08)


def test_the_difference_of_two_roots_is_not_the_root_of_the_difference():
    theirs = Average(np.array([0.0, 3.0, 0.0]), ERRORS.weights, root=True)
    assert ERRORS.difference(theirs).mean == np.sqrt(3) - np.sqrt(3 / 3)


def test_a_users_share_of_a_difference_is_the_difference_of_totals():
    theirs = Average(np.array([6.0, 3.0, 0.0]), ERRORS.weights, root=True)
    assert ERRORS.differences(theirs) == pytest.approx([8 - 6, 1 - 3, np.nan], nan_ok=True)


def test_parts_follow_one_another_and_seeds_are_averaged():
    half = ERRORS.of_users(np.array([True, False, False]))
    assert Average.joined([half, half]).mean == half.mean == 2
    assert Average.joined([ERRORS, half]).mean == np.sqrt((8 + 1 + 8) / 5)
    other = Average(np.array([2.0, 1.0, 0.0]), ERRORS.weights, root=True)
    assert Average.over_seeds([ERRORS, other]).mean == np.sqrt(((8 + 2) / 2 + 1) / 3)


def test_an_interval_can_be_negated():
    assert Interval(1, 0, 3, 9).negated() == Interval(-1, -3, 0, 9)
