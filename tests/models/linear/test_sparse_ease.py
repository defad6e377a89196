"""Sparse EASE against least squares on the chosen neighbors."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from recsys.models.linear.ease import EDLAE, EDLAEConfig
from recsys.models.linear.sparse_ease import SparseEASE, SparseEASEConfig, nearest

RIDGE = {"l2": 3.0, "dropout": 0.2, "item_power": 0.4, "user_power": 0.5}


def preferences(users=30, items=9):
    """Every two items have a user in common."""
    return csr_matrix((np.random.default_rng(0).random((users, items)) < 0.5).astype(np.float32))


def test_with_all_others_as_neighbors_it_is_the_full_model():
    x = preferences()
    full, sparse = EDLAE(EDLAEConfig(**RIDGE)).fit(x), SparseEASE(SparseEASEConfig(**RIDGE, neighbors=50)).fit(x)
    torch.testing.assert_close(sparse.embed_items(), full.embed_items(), rtol=1e-4, atol=1e-5)


def test_a_column_is_the_ridge_regression_of_its_item_on_its_neighbors():
    x = preferences()
    model = SparseEASE(SparseEASEConfig(l2=3.0, dropout=0.0, user_power=0.0, neighbors=4)).fit(x)
    dense, weights = x.toarray().astype(np.float64), model.embed_items().numpy()
    for item in range(9):
        near = np.flatnonzero(weights[:, item])
        assert len(near) <= 8 and item not in near  # four, and more where they tie
        gram = dense[:, near].T @ dense[:, near] + 3.0 * np.eye(len(near))
        expected = np.linalg.solve(gram, dense[:, near].T @ dense[:, item])
        np.testing.assert_allclose(weights[near, item], expected, rtol=1e-4)


def test_neighbors_are_the_items_that_predict_best_alone_and_never_the_item_itself():
    # With item 0: item 1 twice of its 2, item 2 twice of its 8, item 3 never. Twice of 2 explains more.
    gram = csr_matrix(np.float32([[4, 2, 2, 0], [2, 2, 0, 0], [2, 0, 8, 1], [0, 0, 1, 1]]))
    chosen, products = nearest(gram, 0, gram.diagonal(), 2, 3)
    assert chosen.tolist() == [[1, 2], [0, -1], [0, 3], [2, -1]]
    assert products.tolist() == [[2, 2], [2, 0], [2, 1], [1, 0]]
    # With item 2, items 0 (2^2 / 4) and 3 (1^2 / 1) explain as much: both are kept, though one is asked for.
    assert nearest(gram[2:], 2, gram.diagonal(), 1, 3)[0].tolist() == [[0, 3], [2, -1]]


def test_items_with_few_neighbors_and_items_without_users_do_not_change_the_others():
    x = csr_matrix(np.float32([[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 1, 0]]))
    weights = SparseEASE(SparseEASEConfig(l2=1.0, neighbors=3)).fit(x).embed_items()
    assert not weights[3:].any() and not weights[:, 3:].any()  # one shares no user, one has none
    full = EDLAE(EDLAEConfig(l2=1.0, dropout=0.5)).fit(x).embed_items()
    torch.testing.assert_close(weights, full)


@pytest.mark.parametrize(("of", "limit"), [("_GRAM", 20), ("_BATCH", 50)])
def test_weights_do_not_depend_on_the_batches_of_items(of, limit, monkeypatch):
    x, config = preferences(), SparseEASEConfig(l2=3.0, neighbors=4)
    whole = SparseEASE(config).fit(x).embed_items()
    monkeypatch.setattr(f"recsys.models.linear.sparse_ease.{of}", limit)
    torch.testing.assert_close(SparseEASE(config).fit(x).embed_items(), whole)
