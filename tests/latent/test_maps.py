import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

import recsys
from recsys.latent.maps import MapSettings, map_items, map_users
from recsys.models.embeddings import Embedder, Embeddings


class Vectors:
    """A model whose embeddings are given."""

    def embed_users(self, history, users=None):
        return Embeddings(torch.as_tensor(history.toarray()).float())


def embedder(items):
    return Embedder(Vectors(), torch.as_tensor(items).float())


VECTORS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0], [0.9, 0.1, 0], [0, 0, 1]])


def test_points_come_by_popularity_and_those_without_a_direction_are_left_out():
    drawn = map_items(embedder(VECTORS), np.array([1, 5, 9, 7, 3]))
    assert drawn.rows.tolist() == [3, 1, 4, 0]
    assert drawn.popularity.tolist() == [7, 5, 3, 1]
    assert drawn.left_out == 1
    assert drawn.cluster_sizes.sum() == 4
    assert drawn.neighbors[0, 0] == 3  # rows 3 and 0 of VECTORS are near each other


def test_the_most_popular_points_are_drawn_where_there_are_too_many():
    drawn = map_items(embedder(VECTORS), np.array([1, 5, 9, 7, 3]), MapSettings(most_points=4))
    assert (drawn.rows.tolist(), drawn.left_out) == ([3, 1, 4], 2)


def test_users_without_a_known_item_are_left_out():
    history = csr_matrix([[1, 0, 0], [0, 0, 0], [1, 1, 0], [0, 0, 1]], dtype=np.float32)
    drawn = map_users(embedder(VECTORS), history)
    assert (drawn.rows.tolist(), drawn.popularity.tolist(), drawn.left_out) == ([2, 0, 3], [2, 1, 1], 1)


def test_of_a_model_of_training_users_only_these_are_drawn():
    history = csr_matrix(np.eye(3, dtype=np.float32)[[0, 1, 2, 0]])
    drawn = map_users(embedder(VECTORS), history, users=np.array([4, -1, 2, 0]))
    assert drawn.rows.tolist() == [0, 2, 3]


@pytest.mark.parametrize("name", ["svd", "item-knn", "dae"])
def test_models_with_embeddings_or_weights_can_be_drawn(name):
    history = csr_matrix((np.random.default_rng(0).random((30, 8)) < 0.5).astype(np.float32))
    settings = {"svd": {"factors": 3}, "dae": {"epochs": 1, "latent": 4}}.get(name, {})
    model = recsys.create_model(name, settings).fit(history)
    assert map_items(Embedder.of(model), np.arange(8)).plane.shape == (8, 2)
