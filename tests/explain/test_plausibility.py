"""Cross-fitted plausibility: what is held out, what it is compared with, and what is uniform."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from tastes import two_tastes

from recsys.data.interactions import Vocabulary
from recsys.data.matrix import UserItemMatrix
from recsys.errors import ConfigError, DataError
from recsys.explain.plausibility import (
    assign_folds,
    group_by_popularity,
    judge_cells,
    keep_cells,
    rank_among_ratings,
    rank_among_unseen,
    rows_of,
)
from recsys.models import create_model


def wrap(rows):
    matrix = csr_matrix(np.asarray(rows, dtype=np.float32))
    names = (Vocabulary.of(np.arange(size)) for size in matrix.shape)
    return UserItemMatrix(matrix, *names)


def test_a_cell_is_ranked_among_the_unseen_items_of_its_group():
    scores = np.float32([[0.9, 0.1, 0.5, 0.95, 2.0]])
    seen = csr_matrix([[1, 0, 0, 0, 0]])
    found = rank_among_unseen(scores, seen, np.array([0]), np.array([0]), np.array([0, 0, 0, 0, 1]), np.array([0.5]))
    assert found.tolist() == [(2 + 0.5) / (3 + 1)]  # .1 and .5 are less, .95 is not, 2.0 is of another group


def test_seen_items_are_no_alternatives_and_among_equal_scores_the_place_is_drawn():
    scores = np.float32([[0.5, 0.1, 0.5, 0.1]])
    seen = csr_matrix([[1, 1, 0, 0]])
    group = np.zeros(4, dtype=int)
    found = rank_among_unseen(scores, seen, np.array([0]), np.array([0]), group, np.array([0.25]))
    assert found.tolist() == [(1 + 0.25 * (1 + 1)) / (2 + 1)]


def test_where_nothing_is_unseen_nothing_can_be_said():
    found = rank_among_unseen(
        np.float32([[1, 2]]), csr_matrix([[1, 1]]), np.array([0]), np.array([0]), np.array([0, 0]), np.array([0.5])
    )
    assert np.isnan(found).all()


def test_a_rating_is_compared_with_all_ratings_beside_all_predictions():
    rating, expected = np.float32([1, 2]), np.float32([1.2, 1.9])  # pairs are off by .2, .8, .9 and .1
    assert rank_among_ratings(rating, expected, np.full(2, 0.5)) == pytest.approx([1 / 2 + 1 / 8, 3 / 4 + 1 / 8])


def test_ratings_that_have_nothing_to_do_with_the_predictions_are_uniform():
    rng = np.random.default_rng(0)
    rating, expected = (rng.choice([1, 2, 3, 4, 5], 20_000, p=[0.1, 0.1, 0.2, 0.3, 0.3]) for _ in range(2))
    found = rank_among_ratings(rating.astype(np.float32), expected + np.float32(0.3), rng.random(20_000))
    assert np.histogram(found, 10, (0, 1))[0] / 20_000 == pytest.approx(0.1, abs=0.01)


def test_the_folds_divide_the_cells_of_every_user_evenly():
    row = np.repeat(np.arange(3), [10, 4, 1])
    fold = assign_folds(row, 3, 5, seed=0)
    assert np.bincount(fold[row == 0]).tolist() == [2] * 5
    assert len(set(fold[row == 1])) == 4


def test_items_are_grouped_by_popularity_and_those_without_users_are_in_no_group():
    assert group_by_popularity(np.array([5, 0, 1, 3, 9]), 2).tolist() == [1, -1, 0, 0, 1]


def test_keeping_cells_keeps_stored_zeros():
    matrix = csr_matrix((np.float32([0, 2, 3]), np.array([0, 1, 0]), np.array([0, 2, 3])), shape=(2, 2))
    kept = keep_cells(matrix, np.array([True, False, True]))
    assert (kept.data.tolist(), kept.indices.tolist(), kept.indptr.tolist()) == ([0, 3], [0, 0], [0, 1, 2])


def test_no_fit_sees_a_cell_that_it_judges(monkeypatch):
    model, data, seen = create_model("popularity"), two_tastes(users=12, items=8).to_matrix(), []
    monkeypatch.setattr(type(model), "refit", lambda self, matrix, context: seen.append(matrix) or self.fit(matrix))
    judge_cells(model, data, folds=3)
    held = [data.matrix - each for each in seen]
    assert all((part.multiply(fitted)).nnz == 0 for part, fitted in zip(held, seen, strict=True))
    assert (sum(held) != data.matrix).nnz == 0  # each cell is held out once


def test_random_interactions_are_uniform_though_each_adds_to_the_popularity_of_its_item():
    rng = np.random.default_rng(0)
    rows = rng.random((300, 100)) < np.linspace(0.01, 0.3, 100)
    random = ~rows & (rng.random(rows.shape) < 0.02)
    data = wrap(rows | random)
    found = judge_cells(create_model("popularity"), data, folds=5)
    values = found.value[random[rows_of(data.matrix), data.matrix.indices]]
    assert found.strata == 2
    assert np.histogram(values[~np.isnan(values)], 4, (0, 1))[0] / len(values) == pytest.approx(0.25, abs=0.06)


def test_what_follows_a_taste_is_near_one_and_what_is_random_is_uniform():
    rng = np.random.default_rng(0)
    data = two_tastes(users=300, items=40, seed=1)
    rows = data.to_matrix().matrix.toarray()
    strange = (rng.random(rows.shape) < 0.02) & (rows == 0)
    rows[strange] = 1
    noisy = wrap(rows)
    found = judge_cells(create_model("ease", {"l2": 20}), noisy, folds=5)
    is_strange = strange[rows_of(noisy.matrix), noisy.matrix.indices]
    assert np.median(found.value[~is_strange]) > 0.9
    assert np.median(found.value[is_strange]) < 0.6


def test_the_only_item_of_a_user_and_the_only_user_of_an_item_are_not_judged():
    rows = [[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 1, 0, 0, 0], *[[0, 0, 0, 1, 1]] * 3]
    found = judge_cells(create_model("popularity"), wrap(rows), folds=2)
    judged = ~np.isnan(found.value)
    assert np.flatnonzero(~judged).tolist() == [4, 5]  # item 2 of user 1, item 1 of user 2
    assert (found.stratum[~judged] == -1).all() and (found.stratum[judged] >= 0).all()


def test_a_table_in_which_nothing_can_be_judged_is_refused():
    with pytest.raises(DataError, match="can be judged, found none among 6"):
        judge_cells(create_model("popularity"), wrap(np.eye(6)), folds=3)


def test_fewer_than_two_folds_are_refused():
    with pytest.raises(ConfigError, match="folds of at least 2"):
        judge_cells(create_model("popularity"), wrap([[1, 1]]), folds=1)


def test_the_same_seed_gives_the_same_values_and_leaves_the_random_stream_alone(own_random_stream):
    data, before = two_tastes().to_matrix(), torch.get_rng_state()
    first, again = (judge_cells(create_model("ease"), data, seed=3).value for _ in range(2))
    assert np.array_equal(first, again, equal_nan=True)
    assert torch.equal(torch.get_rng_state(), before)
