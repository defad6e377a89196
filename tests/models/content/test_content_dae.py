"""Content DAE: vectors of items as the sum of their own and those of their features, and items that come later."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from feature_shop import NEW, shop
from model_contract import copy_state
from scipy.sparse import csr_matrix

from recsys.errors import ConfigError, DataError
from recsys.models.content.content_dae import ContentDAE, ContentDAEConfig, FeatureOutput
from recsys.models.content.weighing import rarity, weighed
from recsys.training.batches import SparseRows
from recsys.training.context import TrainingContext


def fitted(matrix, features, **settings):
    given = {"latent": 8, "epochs": 30, "learning_rate": 0.02, "feature_l2": 0.001, **settings}
    return ContentDAE.create(given).fit(matrix, TrainingContext(item_features=features))


def output(own_dropout):
    """A layer of 4 items and 2 features in training; the last item is never in the softmax."""
    torch.manual_seed(0)
    config = ContentDAEConfig(latent=3, own_dropout=own_dropout, feature_l2=0.1, temperature=0.5)
    layer = FeatureOutput(4, 2, config)
    layer.described = SparseRows(csr_matrix(np.float32([[1, 0], [0, 1], [0.6, 0.8], [1, 0]])), torch.device("cpu"))
    layer.described = layer.described.everything()
    layer.never = torch.tensor([0, 0, 0, -1e9])
    return layer


def test_the_loss_is_that_of_a_softmax_over_the_items_with_interactions_and_a_ridge():
    layer = output(own_dropout=0)
    rows = np.float32([[1, 0, 1, 0], [0, 1, 0, 0]])
    codes = F.normalize(torch.randn(2, 3), dim=1)
    target = SparseRows(csr_matrix(rows), torch.device("cpu")).everything()
    own, features = layer.weight[:3], torch.tensor([[1, 0], [0, 1], [0.6, 0.8]]) @ layer.tower
    logits = codes @ F.normalize(own + features, dim=1).T / 0.5
    likelihood = -(torch.tensor(rows[:, :3]) * torch.log_softmax(logits, dim=1)).sum(dim=1).mean()
    ridge = 0.5 * 0.1 * layer.tower.square().sum() * 1.5  # three interactions of two users
    torch.testing.assert_close(layer.loss(codes, target), likelihood + ridge)


def test_without_their_own_vectors_items_are_their_features_and_scoring_leaves_nothing_out():
    layer = output(own_dropout=1)
    table = torch.tensor([[1, 0], [0, 1], [0.6, 0.8], [1, 0]])
    torch.testing.assert_close(layer.vectors(), F.normalize(table @ layer.tower, dim=1) / 0.5)
    layer.eval()
    whole = F.normalize(layer.weight + table @ layer.tower, dim=1) / 0.5
    torch.testing.assert_close(layer.vectors(), whole)
    layer.settle()
    torch.testing.assert_close(layer.vectors(), whole)
    torch.testing.assert_close(torch.cat(list(layer.blocks(torch.eye(3), 3)), dim=1), whole.T)


def test_items_without_interactions_have_the_vectors_of_their_features_alone():
    matrix, table, _ = shop(users=60)
    layer = fitted(matrix, table).network.decoder
    known = np.asarray(matrix.sum(axis=0)).ravel() > 0
    weights = rarity(table, known)
    assert layer.rarity.tolist() == weights.tolist()
    expected = weighed(table, weights)[~known] @ layer.tower.detach().numpy()
    np.testing.assert_allclose(layer.weight.detach().numpy()[~known], expected, rtol=1e-5, atol=1e-6)


def test_users_get_new_items_of_their_taste():
    matrix, table, tastes = shop(users=60)
    has = table[-NEW:].toarray()[:, tastes].T > 0  # (users, new items)
    scores = fitted(matrix, table).score(matrix)[:, -NEW:].numpy()
    assert scores[has].mean() > scores[~has].mean() + 0.5


def test_items_that_come_later_are_as_those_that_training_knew_without_interactions():
    matrix, table, _ = shop(users=60)
    held = np.diff(table.indptr)[-NEW:] > 0
    grown = fitted(matrix, table).with_new_items(table[-NEW:][held])
    wide = csr_matrix((matrix.data, matrix.indices, matrix.indptr), shape=(60, 20 + held.sum()))
    scores = grown.score(wide)
    torch.testing.assert_close(scores[:, 20:], scores[:, 20 - NEW : 20][:, torch.as_tensor(held)])
    torch.testing.assert_close(scores[:, :20], fitted(matrix, table).score(matrix))
    again = ContentDAE(grown.config).set_state(copy_state(grown), grown.n_items)
    assert torch.equal(again.score(wide), scores)


def test_a_new_item_without_a_known_feature_is_refused():
    matrix, table, _ = shop(users=60)
    with pytest.raises(DataError, match="found 1 of 1 without one that training knew, first the new item number 1"):
        fitted(matrix, table).with_new_items(csr_matrix((1, 6), dtype=np.float32))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"own_dropout": 1.1}, "own_dropout from 0 to 1, found 1.1"),
        ({"feature_l2": -1}, "feature_l2 of 0 or more, found -1"),
        ({"temperature": 0}, "temperature above 0, found 0"),
        ({"latent": 0}, "latent of at least 1, found 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        ContentDAE.create(settings)
