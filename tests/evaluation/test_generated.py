import numpy as np
import pytest
from scipy.sparse import csr_matrix, vstack
from tastes import two_tastes

import recsys
from recsys import splitting
from recsys.errors import DataError
from recsys.evaluation.generated import (
    check_membership,
    compare_training,
    compare_users,
    nearest_distances,
    wilson,
)
from recsys.training.context import TrainingContext


def users(*rows):
    return csr_matrix(np.float32(rows))


def crowd(count, seed, items=60):
    """Users of a random number of random items."""
    rng = np.random.default_rng(seed)
    return csr_matrix((rng.random((count, items)) < rng.uniform(0.1, 0.5, (count, 1))).astype(np.float32))


def test_the_distance_is_one_minus_shared_items_over_items_of_either():
    real = users([1, 1, 0, 0], [0, 0, 1, 1])
    found = nearest_distances(users([1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]), real)
    np.testing.assert_allclose(found, [0, 1 / 2, 1 / 2, 1])


def test_nobody_is_nearest_to_themselves_but_a_double_is():
    real = users([1, 1, 0], [1, 1, 0], [0, 1, 1])
    np.testing.assert_allclose(nearest_distances(real, real, itself=np.arange(3)), [0, 0, 2 / 3])


def test_ratings_do_not_change_distances():
    assert nearest_distances(users([4, 0, 2]), users([1, 0, 5])).tolist() == [0]


def test_people_like_the_real_ones_pass_the_check_and_a_few_planted_copies_fail_it():
    real, others = crowd(800, 0), crowd(800, 1)
    assert check_membership(real, others).passed
    planted = csr_matrix(vstack([real[:32], others[32:]]))
    found = check_membership(real, planted)
    assert not found.passed
    assert found.copies >= 32 and found.generated == pytest.approx(0.04 + 0.01, abs=0.01)
    assert found.low <= found.generated <= found.high


def test_where_real_people_are_doubles_copies_of_doubles_are_nothing_unusual():
    real = csr_matrix(vstack([users([1, 0, 0, 1])] * 50))
    found = check_membership(real, real)
    assert (found.threshold, found.real, found.passed) == (0, 1, True)


def test_the_interval_of_a_share_is_wilsons():
    assert wilson(0, 10) == (0, pytest.approx(0.2775, abs=1e-4))
    assert wilson(5, 10) == (pytest.approx(0.2366, abs=1e-4), pytest.approx(0.7634, abs=1e-4))


def test_the_same_users_are_alike_in_everything():
    real = crowd(100, 0)
    found = compare_users(real, real)
    assert (found.popularity, found.together) == (pytest.approx(1), pytest.approx(1))
    assert found.mean_items[0] == found.mean_items[1] == real.nnz / 100
    assert all(mine == its for _, mine, its in (*found.tail, *found.activity))
    assert all(mine == its for mine, its in found.pairs)


def test_figures_of_a_small_case_are_those_by_hand():
    real, generated = users([1, 1, 0], [1, 1, 0], [1, 0, 1], [1, 0, 0]), users([1, 0, 0], [0, 1, 0])
    found = compare_users(real, generated)
    assert found.catalog == (1, pytest.approx(2 / 3))
    assert found.mean_items == (7 / 4, 1)
    assert found.tail[0] == (1, 1, 0.5)
    assert found.pairs[-1] == (0.5, 0)  # items 0 and 1: two of four real users, no generated one
    assert found.popularity == pytest.approx(np.corrcoef([1, 0.5, 0.25], [0.5, 0.5, 0])[0, 1])
    assert found.together == 0  # no generated user has two items


def test_one_item_has_no_pairs():
    found = compare_users(users([1], [1]), users([1]))
    assert (found.pairs, found.together, found.popularity) == ([], 0, 0)


def test_a_model_learns_as_much_from_the_same_users_and_less_from_nobody_in_particular():
    split = splitting.strong(two_tastes(users=60, items=12), test=False)
    real = split.train.matrix
    chance = csr_matrix((np.random.default_rng(0).random(real.shape) < 0.4).astype(np.float32))
    context = TrainingContext()
    same = compare_training("ease", real, real, split.validation, "ndcg@5", context)
    assert (same.ratio, same.low, same.high) == (1, 1, 1)
    worse = compare_training("ease", real, chance, split.validation, "ndcg@5", context)
    assert worse.ratio < 0.9 and worse.low < worse.ratio < worse.high
    model = recsys.create_model("ease").fit(real)
    assert same.real == recsys.evaluate(model, split.validation, ("ndcg@5",)).means()["ndcg@5"]


def test_users_over_other_items_and_nobody_are_refused():
    with pytest.raises(DataError, match="3 and 2 columns"):
        compare_users(users([1, 0, 1], [1, 0, 1]), users([1, 0]))
    with pytest.raises(DataError, match="2 real users"):
        check_membership(users([1, 0]), users([1, 0]))
