"""Content map: the map by hand, items that come later, and the member as it is."""

import numpy as np
import pytest
import torch
from feature_shop import NEW, shop
from model_contract import copy_state
from scipy.sparse import csr_matrix, hstack, vstack

from recsys.errors import ConfigError, DataError
from recsys.models import create_model
from recsys.models.content.content_map import ContentMap
from recsys.models.content.weighing import rarity, weighed
from recsys.training.context import TrainingContext


def content_map(matrix, features, **settings):
    given = {"member": "svd", "svd.factors": 3, **settings}
    return ContentMap.create(given).fit(matrix, TrainingContext(item_features=features))


def test_vectors_of_new_items_are_a_ridge_regression_by_hand():
    matrix, table, _ = shop()
    model = content_map(matrix, table, l2=0.5)
    known = np.asarray(matrix.sum(axis=0)).ravel() > 0
    rows = weighed(table, rarity(table, known)).toarray().astype(float)
    vectors = model.member.item_scoring_vectors().numpy().astype(float)
    mean = vectors[known].mean(axis=0)
    gram = rows[known].T @ rows[known] + 0.5 * np.eye(rows.shape[1])
    expected = mean + rows[~known] @ np.linalg.solve(gram, rows[known].T @ (vectors[known] - mean))
    held = np.diff(table.indptr)[~known] > 0
    np.testing.assert_allclose(model.vectors.numpy()[~known][held], expected[held], rtol=1e-4, atol=1e-5)


def test_more_features_than_items_give_the_same_map():
    matrix, table, _ = shop()
    wide = csr_matrix(hstack([table, csr_matrix((20, 40), dtype=np.float32)]))
    torch.testing.assert_close(content_map(matrix, wide).vectors, content_map(matrix, table).vectors)


def test_known_items_are_scored_by_the_member_alone_and_new_ones_by_what_users_like():
    matrix, table, _ = shop()
    model = content_map(matrix, table)
    alone = create_model("svd", {"factors": 3}).fit(matrix)
    torch.testing.assert_close(model.score(matrix)[:, :-NEW], alone.score(matrix)[:, :-NEW], rtol=1e-4, atol=1e-5)
    assert model.score(matrix)[:, -NEW:].std() > 0.01
    assert not alone.score(matrix)[:, -NEW:].any()


def test_items_that_come_later_are_those_of_a_new_fit():
    matrix, table, _ = shop()
    held = table[np.flatnonzero(np.diff(table.indptr) > 0)][:3]
    model = content_map(matrix, table).with_new_items(held)
    wide = csr_matrix((matrix.data, matrix.indices, matrix.indptr), shape=(40, 23))
    whole = content_map(wide, csr_matrix(vstack([table, held])))
    torch.testing.assert_close(model.score(wide), whole.score(wide), rtol=1e-4, atol=1e-4)
    again = ContentMap(model.config).set_state(copy_state(model), 23)
    assert torch.equal(again.score(wide), model.score(wide))


def test_a_new_item_without_a_known_feature_is_refused():
    matrix, table, _ = shop()
    with pytest.raises(DataError, match="found 1 of 1 without one that training knew, first the new item number 1"):
        content_map(matrix, table).with_new_items(csr_matrix((1, 6), dtype=np.float32))


@pytest.mark.parametrize("size", [0, 21, 2**40])
def test_a_crafted_size_of_the_member_is_refused(size):
    matrix, table, _ = shop()
    state = copy_state(content_map(matrix, table)) | {"member_items": torch.tensor(size)}
    with pytest.raises(DataError):
        ContentMap.create({"member": "svd", "svd.factors": 3}).set_state(state, 20)


def test_members_have_vectors():
    with pytest.raises(ConfigError, match=r"Expected a member of .*ials.*; found 'ease'"):
        ContentMap.create({"member": "ease"})
    with pytest.raises(ConfigError, match="found some of 'vae'"):
        ContentMap.create({"member": "svd", "vae.latent": 3})
