import numpy as np
import pytest
from scipy.sparse import csr_matrix

from recsys.evaluation import beyond_accuracy

LISTS = np.int32([[0, 1], [0, -1]])  # two users; the second list ran short; catalog of four


def test_coverage_counts_items_in_at_least_one_list():
    assert beyond_accuracy.coverage(LISTS, 4, k=2) == 2 / 4
    assert beyond_accuracy.coverage(LISTS, 4, k=1) == 1 / 4


def test_gini_is_0_for_equal_exposure_and_near_1_when_one_item_has_all_places():
    assert beyond_accuracy.gini(np.int32([[0, 1], [2, 3]]), 4, k=2) == 0
    assert beyond_accuracy.gini(np.int32([[0], [0]]), 4, k=1) == (2 * 4 - 4 - 1) * 2 / (4 * 2)


def test_gini_of_empty_lists_is_0():
    assert beyond_accuracy.gini(np.int32([[-1]]), 4, k=1) == 0


def test_novelty_is_the_mean_information_of_the_items_in_the_list():
    counts = np.array([8, 2, 1, 1])  # of 8 users: 0 bits, 2 bits
    assert beyond_accuracy.novelty(LISTS, counts, n_users=8, k=2).tolist() == [(0 + 2) / 2, 0]


def test_the_head_is_the_fewest_items_with_half_of_the_rows():
    assert beyond_accuracy.short_head(np.array([1, 5, 3, 1])).tolist() == [False, True, False, False]
    assert beyond_accuracy.short_head(np.array([1, 4, 3, 2])).tolist() == [False, True, True, False]


def test_popularity_share_counts_items_of_the_head():
    assert beyond_accuracy.popularity_share(LISTS, np.array([6, 2, 1, 1]), k=2).tolist() == [1 / 2, 1]


def test_an_empty_list_has_no_novelty():
    assert np.isnan(beyond_accuracy.novelty(np.int32([[-1, -1]]), np.array([1]), n_users=1, k=2)).all()


@pytest.mark.parametrize(("second", "expected"), [([1, 1, 0], 0.0), ([0, 0, 1], 1.0), ([1, 0, 0], 1 - 1 / np.sqrt(2))])
def test_diversity_of_two_items_is_1_minus_the_cosine_of_their_users(second, expected):
    train = csr_matrix(np.float32([[1, 1, 0], second]).T)
    assert beyond_accuracy.diversity(np.int32([[0, 1]]), train, k=2)[0] == pytest.approx(expected, abs=1e-6)


def test_diversity_of_three_items_is_the_mean_over_pairs_whatever_the_batch():
    train = csr_matrix(np.float32([[1, 1, 0], [1, 0, 1]]))
    lists = np.int32([[0, 1, 2], [1, 2, -1], [0, -1, -1]])
    cosine = 1 / np.sqrt(2)  # of items 0, 1 and of items 0, 2; items 1, 2 share no user
    for batch in (1, 2, 10):
        found = beyond_accuracy.diversity(lists, train, k=3, batch_size=batch)
        assert found[:2] == pytest.approx([1 - 2 * cosine / 3, 1], abs=1e-6)
        assert np.isnan(found[2])


def test_diversity_by_dense_vectors_is_one_less_the_mean_cosine():
    vectors = csr_matrix(np.array([[2, 0], [0, 1], [1, 1]], dtype=np.float32).T)
    lists = np.array([[0, 1, -1], [0, 1, 2], [2, -1, -1]], dtype=np.int32)
    found = beyond_accuracy.diversity(lists, vectors, 3)
    assert found[0] == pytest.approx(1)
    assert found[1] == pytest.approx(1 - 2 * np.sqrt(0.5) / 3)
    assert np.isnan(found[2])


def test_an_item_that_no_training_user_has_is_at_distance_1_from_all_others():
    train = csr_matrix(np.array([[1, 1, 0, 0], [1, 1, 0, 0]], dtype=np.float32))  # 0 and 1 are alike
    lists = np.array([[0, 1, -1], [0, 2, -1], [2, 3, -1], [0, 1, 2]], dtype=np.int32)
    np.testing.assert_allclose(beyond_accuracy.diversity(lists, train, 3), [0, 1, 1, 2 / 3], atol=1e-6)
