import math

import numpy as np
import pytest

from recsys.batch.shift import LARGE, SLIGHT, is_unusual, item_shift, score_shift, stability_index


def test_the_index_is_that_of_the_formula():
    # half a value is added to each of both: (1 + .5) / 5 = .3 and (3 + .5) / 5 = .7, and the other way round
    assert stability_index([1, 3], [3, 1]) == pytest.approx(2 * (0.7 - 0.3) * math.log(0.7 / 0.3))
    assert stability_index([20, 30, 50], [2, 3, 5]) == pytest.approx(0, abs=0.02)
    assert stability_index([4, 4], [4, 4]) == 0


def test_without_values_there_is_nothing_to_compare():
    assert math.isnan(stability_index([0, 0], [1, 2]))
    assert math.isnan(score_shift(np.empty(0), np.ones(3)))


def test_new_scores_of_the_same_kind_are_no_shift_and_others_are():
    rng = np.random.default_rng(0)
    earlier = rng.normal(size=5000)
    assert score_shift(earlier, rng.normal(size=5000)) < SLIGHT / 5
    assert score_shift(earlier, rng.normal(0.1, size=5000)) < SLIGHT
    assert score_shift(earlier, rng.normal(1, size=5000)) > LARGE


def test_equal_scores_are_one_group():
    assert score_shift(np.ones(100), np.ones(50)) == pytest.approx(0, abs=0.01)


def test_lists_of_other_items_are_a_shift_however_many_rows_there_are():
    earlier = np.array([50, 40, 30, 20, 10, 0, 0])
    assert item_shift(earlier, 2 * earlier) < 0.01
    assert item_shift(earlier, earlier[::-1].copy()) > LARGE
    assert item_shift(earlier, np.array([0, 0, 0, 0, 0, 75, 75])) > LARGE  # in no list before


def test_items_that_are_gone_are_a_shift():
    counts = np.full(20, 10)
    assert item_shift(counts, counts) == 0
    assert item_shift(counts, counts, vanished=200) > LARGE


def test_a_value_is_unusual_where_it_is_far_from_the_median_of_enough_others():
    earlier = [10.0, 11, 9, 10, 12, 8, 10]  # median 10, deviations 0 1 1 0 2 2 0: median 1, so 4 x 1.4826
    assert not is_unusual(earlier, 15.9) and is_unusual(earlier, 16)
    assert not is_unusual(earlier, 4.1) and is_unusual(earlier, 4)
    assert not is_unusual(earlier[1:], 1000)  # six are too few
    assert not is_unusual([math.nan, *earlier[1:]], 1000)
    assert not is_unusual(earlier, math.nan)


def test_measures_that_never_move_may_move_a_little():
    assert not is_unusual([50.0] * 10, 50.9)
    assert is_unusual([50.0] * 10, 51.1)
