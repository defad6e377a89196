"""Neighbors of an item do not depend on the order in which users and items appear."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from recsys.models import create_model
from recsys.models.neighbors import strongest, strongest_of_rows


def test_values_equal_to_the_last_one_kept_are_kept_too():
    values = np.array([0.5, 0.9, 0.2, 0.5, 0.5])
    assert strongest(values, 1, 9).tolist() == [False, True, False, False, False]
    assert strongest(values, 2, 9).tolist() == [True, True, False, True, True]


def test_values_that_differ_by_rounding_are_equal():
    assert strongest(np.array([0.3, 0.1 + 0.2, 0.2]), 1, 9).tolist() == [True, True, False]
    assert strongest(np.float32([1, 1 + 1e-6, 0.9]), 1, 9).tolist() == [True, True, False]


def test_more_ties_than_the_limit_are_all_dropped():
    values = np.array([0.9, 0.5, 0.5, 0.5, 0.5])
    assert strongest(values, 2, 4).tolist() == [True, False, False, False, False]
    assert not strongest(values[1:], 2, 3).any()


def test_only_values_above_zero_are_kept():
    assert strongest(np.array([0.0, 0.4, -1.0]), 3, 9).tolist() == [False, True, False]


def test_each_row_keeps_its_own_strongest_values():
    dense = np.array([[0.1, 0.9, 0.9], [0.0, 0.0, 0.0], [0.3, 0.2, 0.1]])
    kept = strongest_of_rows(csr_matrix(dense), 1, 9)
    assert kept.toarray().tolist() == [[0, 0.9, 0.9], [0, 0, 0], [0.3, 0, 0]]
    assert kept.shape == (3, 3)


MODELS = [
    ("item-knn", {"similarity": "cosine"}),
    ("item-knn", {"similarity": "tfidf"}),
    ("item-knn", {"similarity": "bm25"}),
    ("sparse-ease", {"user_power": 0.0}),
    ("sparse-ease", {"user_power": 0.5}),
    ("rating-knn", {}),
]


@pytest.mark.parametrize(("name", "settings"), MODELS)
@pytest.mark.parametrize("neighbors", [1, 2, 5])
def test_shuffled_rows_and_items_have_the_same_neighbors(name, settings, neighbors):
    rng = np.random.default_rng(0)
    dense = (rng.random((30, 20)) < 0.15).astype(np.float32)  # sparse: many similarities are equal
    if name == "rating-knn":
        dense *= rng.integers(1, 4, dense.shape)
    settings = {**settings, "neighbors": neighbors}
    expected = create_model(name, settings).fit(csr_matrix(dense)).embed_items().numpy()
    for users, items in ((np.arange(30)[::-1], np.arange(20)), (rng.permutation(30), rng.permutation(20))):
        shuffled = create_model(name, settings).fit(csr_matrix(dense[users][:, items])).embed_items().numpy()
        back = np.argsort(items)
        np.testing.assert_allclose(shuffled[back][:, back], expected, rtol=1e-4, atol=1e-6)
