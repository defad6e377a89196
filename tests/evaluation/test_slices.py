import numpy as np
import pyarrow as pa
import torch
from scipy.sparse import csr_matrix

from recsys.data.matrix import sparse_rows
from recsys.evaluation.evaluate import evaluate_ratings
from recsys.evaluation.slices import average_on_items, error_on_items, item_slices, user_slices
from recsys.splitting.holdout import Holdout


def test_users_are_cut_in_thirds_by_the_length_of_their_history():
    slices = user_slices(np.array([1, 2, 3, 4, 5, 6]))
    assert [int(inside.sum()) for inside in slices.values()] == [2, 2, 2]
    assert np.sum(list(slices.values()), axis=0).tolist() == [1] * 6  # each user in one slice


def test_users_with_equal_histories_make_one_slice():
    assert list(user_slices(np.array([3, 3, 3]))) == ["up to 3 items"]


def test_each_slice_of_items_holds_about_a_third_of_the_rows():
    counts = np.array([60, 30, 30, 20, 20, 20])
    slices = item_slices(counts)
    assert {name: counts[inside].sum() for name, inside in slices.items()} == {
        "popular items": 60,
        "items between": 60,
        "rare items": 60,
    }


def test_new_items_have_one_to_five_training_users():
    inside = item_slices(np.array([100, 6, 5, 1, 0]))["new items (at most 5 training users)"]
    assert inside.tolist() == [False, False, True, True, False]


def test_on_a_slice_only_its_items_are_to_be_found():
    held_out = csr_matrix(np.float32([[0, 1, 1, 1], [0, 1, 0, 0]]))
    holdout = Holdout(
        csr_matrix(np.float32([[1, 0, 0, 0]] * 2)),
        held_out,
        pa.array([7, 8]),
        np.zeros(2, np.int64),
        -np.ones(2, np.int64),
    )
    lists = np.int32([[1, 2], [1, 3]])
    rare = np.array([False, False, True, True])
    found = average_on_items(lists, holdout, rare, "recall@2")
    assert found.each[0] == 1 / 2  # item 2 of items 2 and 3
    assert np.isnan(found.each[1])  # nothing rare was held out of the second


def test_errors_on_a_slice_are_those_of_its_cells_a_rating_of_zero_among_them():
    held_out = sparse_rows(np.array([0, 0, 1]), np.array([1, 2, 1]), np.array([5.0, 0.0, 1.0]), (2, 4))
    history = csr_matrix(np.float32([[3, 0, 0, 0]] * 2))
    holdout = Holdout(history, held_out, pa.array([7, 8]), np.zeros(2, np.int64), -np.ones(2, np.int64))
    found = evaluate_ratings(lambda rows: torch.full(rows.shape, 2.0), holdout)
    rare = np.array([False, False, True, True])
    assert error_on_items(rare, found, holdout, "rmse").mean == 2  # of the zero alone
    assert error_on_items(~rare, found, holdout, "mae").mean == (3 + 1) / 2
