import numpy as np
import pytest

from recsys.errors import DataError
from recsys.evaluation.averages import Average, Interval
from recsys.evaluation.significance import Difference, differences, effect_size, holm, sign_flip


def test_holm_multiplies_the_smallest_by_the_most_and_never_falls():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])  # .01 x 3, .03 x 2, .04 x 1 raised to .06
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([]) == []


def test_two_users_who_agree_are_as_extreme_in_half_of_all_flips():
    # The four flips of (1, 1) have means 1, 0, 0, -1: two as extreme.
    assert sign_flip(np.array([1.0, 1.0])) == pytest.approx(0.5, abs=0.02)


def test_ten_users_who_agree_are_as_extreme_in_2_of_1024_flips():
    assert sign_flip(np.ones(10)) == pytest.approx(2 / 1024, abs=0.002)


def test_no_difference_at_all_has_a_p_of_1():
    assert sign_flip(np.zeros(5)) == 1


def test_users_without_a_value_are_left_out_and_no_user_left_is_an_error():
    assert sign_flip(np.array([1.0, 1.0, np.nan])) == sign_flip(np.array([1.0, 1.0]))
    with pytest.raises(DataError, match="at least one user"):
        sign_flip(np.array([np.nan]))


def test_effect_size_is_the_mean_in_standard_deviations():
    assert effect_size(np.array([1.0, 3.0])) == 2 / np.sqrt(2)
    assert effect_size(np.zeros(3)) == 0


def models(users, gains, seed):
    """Values in 0..1 with the same users behind all, each model better by its gain on average."""
    rng = np.random.default_rng(seed)
    base = rng.uniform(0.2, 0.6, users)
    return {name: Average.of(base + gain + rng.normal(0, 0.1, users)) for name, gain in gains.items()}


def test_a_planted_improvement_is_found_with_its_size_inside_the_interval():
    [found] = differences(models(1000, {"ours": 0.03, "theirs": 0.0}, seed=1), "ndcg@10")
    assert found.is_claimed
    assert found.interval.low < 0.03 < found.interval.high
    assert str(found).startswith("ours beats theirs by 0.0")
    assert "1,000 users" in str(found)


def test_models_that_differ_by_chance_claim_a_difference_in_at_most_8_of_100_tables():
    claims = [differences(models(200, {"a": 0, "b": 0}, seed), "ndcg@10")[0].is_claimed for seed in range(200)]
    assert sum(claims) <= 16


def test_the_whole_table_keeps_the_significance_level():
    tables = [differences(models(100, dict.fromkeys("abcde", 0.0), seed), "ndcg@10") for seed in range(40)]
    assert sum(any(pair.is_claimed for pair in table) for table in tables) <= 5


def test_the_better_one_is_named_first():
    [found] = differences(models(1000, {"worse": 0.0, "better": 0.1}, seed=0), "ndcg@10")
    assert str(found).startswith("better beats worse by 0.")
    assert found.reversed().interval.mean == -found.interval.mean


def test_a_difference_that_may_be_chance_is_called_not_significant():
    [found] = differences(models(30, {"a": 0.0, "b": 0.0}, seed=0), "ndcg@10")
    assert "no significant difference" in str(found)


def test_a_lower_error_is_better_and_reported_as_a_gain():
    cells = np.full(200, 10.0)
    rng = np.random.default_rng(0)
    squares = rng.chisquare(10, 200)
    worse, better = (Average(squares * factor, cells, root=True) for factor in (1.1, 1.0))
    [found] = differences({"worse": worse, "better": better}, "rmse")
    gain = worse.mean - better.mean
    assert found.interval.mean == pytest.approx(gain)
    assert found.gain.mean == pytest.approx(-gain)
    assert str(found).startswith(f"better beats worse by {gain:.4f} rmse [0.0")
    assert found.reversed().gain.mean == pytest.approx(gain)


def test_the_sentence_names_the_correction_where_the_interval_alone_excludes_zero():
    interval = Interval(0.01, 0.001, 0.02, 1)
    found = str(Difference("a", "b", "ndcg@10", interval, effect=0.2, p=0.02, adjusted=0.3, n_pairs=15))
    assert found.startswith("a and b: no significant difference, 0.0100 ndcg@10 [0.0010, 0.0200] (p = .300 with Holm's")
    assert "correction over 15 pairs, effect size 0.20, 1 user); the interval, which is of this pair alone," in found
    assert found.endswith("excludes zero, but the corrected p-value does not allow a claim")


def test_no_number_is_minus_zero():
    found = Difference("a", "b", "rmse", Interval(-0.0, -0.00001, 0.00001, 9), effect=0, p=1, adjusted=1)
    assert "-0.0000" not in str(found)
    assert "0.0000 rmse [0.0000, 0.0000] (p = 1.000, effect size 0.00, 9 users)" in str(found)
