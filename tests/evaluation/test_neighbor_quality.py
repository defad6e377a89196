"""How well nearest neighbors predict what held-out users took together."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.sparse import csr_matrix

from recsys.errors import UnsupportedError
from recsys.evaluation.neighbors import compare_neighbors, cosines_of, evaluate_neighbors
from recsys.models import create_model
from recsys.splitting.holdout import Holdout


def holdout_of(history, held_out):
    users = len(history)
    none = np.zeros(users, dtype=np.int64)
    sides = (csr_matrix(np.float32(side)) for side in (history, held_out))
    return Holdout(*sides, pa.array([f"u{row}" for row in range(users)]), none, none - 1)


# Items 0 and 1 point one way, 2 and 3 another, 4 between.
VECTORS = torch.tensor([[1.0, 0], [0.9, 0.1], [0, 1], [0.1, 0.9], [0.7, 0.7]])
COUNTS = np.array([4, 2, 10, 5, 1])


def test_each_item_of_the_history_is_asked_alone_and_a_user_counts_once():
    found = evaluate_neighbors(
        cosines_of(VECTORS), holdout_of([[1, 0, 1, 0, 0], [1, 0, 0, 0, 0]], [[0, 1, 0, 0, 0], [0, 0, 0, 1, 0]]), COUNTS
    )
    # User 0: nearest to item 0 outside of the history are 1, 4, 3: item 1 is first. To item 2: 3, 4, 1: it is third.
    # User 1: nearest to item 0 are 1, 4, 3, 2: item 3 is third.
    third = 1 / np.log2(4)
    assert found.averages["ndcg@100"].each == pytest.approx([(1 + third) / 2, third])
    assert found.averages["ndcg@100"].mean == pytest.approx(((1 + third) / 2 + third) / 2)


def test_a_rare_item_that_is_found_weighs_more_than_a_popular_one():
    items = 300
    vectors = torch.zeros(items, 2)
    vectors[:, 1] = 1
    vectors[:150] = torch.tensor([1.0, 0])  # item 0 is near items 1 to 149, of which 100 are listed
    counts = np.full(items, 10)
    counts[1:150], counts[200] = 2, 8
    history, held_out = np.zeros((1, items)), np.zeros((1, items))
    history[0, 0] = held_out[0, 200] = 1
    held_out[0, 1:150] = 1
    found = evaluate_neighbors(cosines_of(vectors), holdout_of(history, held_out), counts).averages
    assert found["rare_recall@100"].mean == pytest.approx(100 * (1 / 2) / (149 / 2 + 1 / 8))


def test_of_a_long_history_some_items_are_asked_and_the_seed_draws_them():
    history = np.ones((1, 60))
    history[0, 50:] = 0
    holdout = holdout_of(history, 1 - history)
    vectors = torch.as_tensor(np.random.default_rng(0).standard_normal((60, 3)))
    calls = []

    def similarity(histories, users=None):
        calls.extend(histories.indices.tolist())
        return cosines_of(vectors)(histories)

    for seed in (0, 0, 1):
        evaluate_neighbors(similarity, holdout, np.ones(60), queries=5, seed=seed)
    assert calls[:5] == calls[5:10] != calls[10:]
    assert len(set(calls[:5])) == 5


def two_tastes():
    same_taste = np.kron(np.eye(2), np.ones((20, 5)))
    same_taste[np.arange(40), np.arange(40) % 10] = 0
    return same_taste


def test_a_model_stands_beside_co_occurrence_a_factorization_of_its_size_and_popularity():
    train = csr_matrix(two_tastes(), dtype=np.float32)
    holdout = holdout_of([[1, 1, 0, 0, 0, 0, 0, 0, 0, 0]], [[0, 0, 1, 1, 1, 0, 0, 0, 0, 0]])
    for name, size in (("svd", 2), ("ease", 10)):
        model = create_model(name, {"factors": 2} if name == "svd" else {"l2": 1.0}).fit(train)
        found = compare_neighbors(model, train, holdout)
        assert list(found) == [name, "co-occurrence", f"svd of size {size}", "popularity"]
        assert [found[way].averages["ndcg@100"].mean for way in list(found)[:3]] == pytest.approx([1, 1, 1])
    with pytest.raises(UnsupportedError, match="popularity has no embeddings"):
        compare_neighbors(create_model("popularity").fit(train), train, holdout)


def test_singular_values_make_the_items_of_svd_as_near_as_the_columns_are():
    x = np.float32(np.random.default_rng(0).random((30, 6)) < 0.4) + np.eye(30, 6, dtype=np.float32)
    full = create_model("svd", {"factors": 6}).fit(csr_matrix(x)).embed_items().numpy()
    assert full @ full.T == pytest.approx(x.T @ x, abs=1e-4)
    powered = create_model("svd", {"factors": 6, "item_power": 1.0}).fit(csr_matrix(x)).embed_items().numpy()
    columns = x / np.sqrt(x.sum(axis=0))
    products, expected = powered @ powered.T, columns.T @ columns  # the same up to a factor
    assert products / products[0, 0] == pytest.approx(expected / expected[0, 0], abs=1e-4)
