"""Item neighbors: similarities as `implicit` computes them."""

import importlib
import warnings

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from recsys.errors import ConfigError
from recsys.models import create_model
from recsys.training.context import TrainingContext


def preferences(users=40, items=25, seed=0):
    return csr_matrix((np.random.default_rng(seed).random((users, items)) < 0.25).astype(np.float32))


def with_values(matrix):
    return csr_matrix(matrix.multiply(1 + np.arange(matrix.shape[1])), dtype=np.float32)


@pytest.mark.parametrize("matrix", [preferences(), with_values(preferences())], ids=["ones", "values"])
@pytest.mark.parametrize(
    ("similarity", "kind"),
    [("cosine", "CosineRecommender"), ("tfidf", "TFIDFRecommender"), ("bm25", "BM25Recommender")],
)
def test_similarities_are_those_of_implicit(similarity, kind, matrix):
    pytest.importorskip("implicit")
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = getattr(importlib.import_module("implicit.nearest_neighbours"), kind)(K=25)
        theirs.fit(matrix, show_progress=False)
    ours = create_model("item-knn", {"neighbors": 25, "similarity": similarity}).fit(matrix)
    np.testing.assert_allclose(ours.similarity.toarray(), theirs.similarity.toarray(), rtol=1e-6)


def test_the_cosine_is_the_cosine():
    x = preferences().toarray().astype(np.float64)
    cosine = x.T @ x / np.outer(np.linalg.norm(x, axis=0), np.linalg.norm(x, axis=0))
    model = create_model("item-knn", {"neighbors": 25}).fit(preferences())
    np.testing.assert_allclose(model.score(preferences()), x @ cosine, rtol=1e-5)


def test_an_item_keeps_its_nearest_neighbors():
    full = create_model("item-knn", {"neighbors": 25}).fit(preferences()).embed_items().numpy()
    few = create_model("item-knn", {"neighbors": 3}).fit(preferences()).embed_items().numpy()
    for item in range(25):
        third = np.sort(full[item])[-3]
        np.testing.assert_array_equal(few[item], np.where(full[item] >= third - 1e-9, full[item], 0))


def test_blocks_of_items_give_the_same_similarities(monkeypatch):
    whole = create_model("item-knn").fit(preferences()).get_state()
    monkeypatch.setattr("recsys.models.neighbors._BLOCK", 25 * 7)
    reported = []
    context = TrainingContext(on_phase=lambda name, done, total: reported.append(done))
    blocks = create_model("item-knn").fit(preferences(), context).get_state()
    assert all(torch.equal(whole[name], blocks[name]) for name in whole)
    assert reported == [0, 7, 14, 21, 25]


def test_more_neighbors_than_items_are_all_items():
    many, all_items = (create_model("item-knn", {"neighbors": count}).fit(preferences()) for count in (999, 25))
    assert torch.equal(many.score(preferences()), all_items.score(preferences()))


@pytest.mark.parametrize(("setting", "value"), [("neighbors", 0), ("similarity", "euclid")])
def test_settings_out_of_range_are_refused(setting, value):
    with pytest.raises(ConfigError, match=f"Expected {setting}"):
        create_model("item-knn", {setting: value})
