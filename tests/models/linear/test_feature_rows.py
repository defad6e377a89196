"""Item features in EASE and EDLAE: dense float64 by hand, and items that come later as in a fit with them."""

import numpy as np
import pytest
import torch
from model_contract import copy_state
from scipy.sparse import csr_matrix, hstack, vstack

from recsys.errors import ConfigError, DataError, UnsupportedError
from recsys.models import create_model
from recsys.models.content.weighing import rarity, weighed
from recsys.models.linear.ease import EASE
from recsys.training.context import TrainingContext

NEW = 4
GIVEN = {"l2": 2.0, "feature_weight": 1.5, "feature_l2": 0.5}


def shop(users=40, items=20, features=6):
    """Users like items by a feature of theirs; the last items have no interactions, the first one no features."""
    rng = np.random.default_rng(0)
    table = rng.random((items, features)) < 0.4
    tastes = rng.integers(0, features, users)
    matrix = table[:, tastes].T & (rng.random((users, items)) < 0.7)
    matrix[:, 0], table[0] = tastes == 0, False
    matrix[:, -NEW:], table[-1] = False, [True] + [False] * (features - 1)
    return csr_matrix(matrix.astype(np.float32)), csr_matrix(table.astype(np.float32))


def fitted(matrix, features, name="ease", **settings):
    return create_model(name, {**GIVEN, **settings}).fit(matrix, TrainingContext(item_features=features))


def rows_of(matrix, features):
    """Which items are known, and the weighed features of all, dense in float64."""
    known = np.asarray(matrix.sum(axis=0)).ravel() > 0
    return known, weighed(features, rarity(features, known)).toarray().astype(float)


def test_features_are_rows_beside_users():
    matrix, table = shop()
    known, rows = rows_of(matrix, table)
    x = matrix.toarray().astype(float)[:, known]
    inverse = np.linalg.inv(x.T @ x + 1.5 * rows[known] @ rows[known].T + 2.0 * np.eye(known.sum()))
    expected = -inverse / inverse.diagonal()
    np.fill_diagonal(expected, 0)
    weights = fitted(matrix, table).weights.numpy()
    np.testing.assert_allclose(weights[np.ix_(known, known)], expected, rtol=1e-4, atol=1e-6)
    assert not weights[~known].any()


@pytest.mark.parametrize(("name", "settings"), [("ease", {}), ("edlae", {"diagonal": 0.2, "damping": 0.3})])
@pytest.mark.parametrize("more", [0, 40], ids=["fewer features than items", "more features than items"])
def test_scores_of_new_items_are_shares_of_those_of_known_ones_by_hand(name, settings, more):
    matrix, table = shop()
    model = fitted(matrix, csr_matrix(hstack([table, csr_matrix((20, more), dtype=np.float32)])), name, **settings)
    known, rows = rows_of(matrix, table)
    new = ~known & rows.any(axis=1)
    shares = np.linalg.solve(rows[known] @ rows[known].T + 0.5 * np.eye(known.sum()), rows[known] @ rows[new].T)
    shares += (1 - shares.sum(axis=0)) / known.sum()
    scores = model.score(matrix).numpy()
    np.testing.assert_allclose(scores[:, new], scores[:, known] @ shares, rtol=1e-4, atol=1e-5)
    assert scores[:, -1].std() > 0.01


@pytest.mark.parametrize("name", ["ease", "edlae"])
def test_items_that_come_later_are_those_of_a_new_fit(name):
    matrix, table = shop()
    later = csr_matrix(np.float32([[0, 1, 0, 0, 0, 1], [1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0]]))
    model = fitted(matrix, table, name)
    grown = model.with_new_items(later)
    wide = csr_matrix((matrix.data, matrix.indices, matrix.indptr), shape=(40, 23))
    whole = fitted(wide, csr_matrix(vstack([table, later])), name)
    torch.testing.assert_close(grown.score(wide), whole.score(wide), rtol=1e-4, atol=1e-5)
    assert torch.equal(grown.score(wide)[:, :20], model.score(matrix))  # new items change no other
    again = type(model)(model.config).set_state(copy_state(grown), 23)
    assert torch.equal(again.score(wide), grown.score(wide))
    twice = again.with_new_items(later[:1])
    torch.testing.assert_close(twice.weights[:20, 23], grown.weights[:20, 20])


def test_without_a_weight_features_are_left_unread():
    matrix, table = shop()
    plain = EASE.create({"l2": 2.0}).fit(matrix, TrainingContext(item_features=table))
    assert not plain.uses_features
    assert plain.get_state().keys() == {"weights"}
    assert torch.equal(plain.weights, EASE.create({"l2": 2.0}).fit(matrix).weights)
    with pytest.raises(UnsupportedError, match="cannot take new items by their features"):
        plain.with_new_items(table[:1])


def test_with_a_weight_features_are_required():
    with pytest.raises(ConfigError, match="Expected features of the items"):
        EASE.create(GIVEN).fit(shop()[0])


def test_an_item_without_features_scores_nothing_and_one_that_comes_later_is_refused():
    matrix, table = shop()
    dense = table.toarray()
    dense[-2] = 0
    model = fitted(matrix, csr_matrix(dense))
    assert not model.weights[:, -2].any()
    with pytest.raises(DataError, match="found 1 of 1 without one that training knew, first the new item number 1"):
        model.with_new_items(csr_matrix((1, 6), dtype=np.float32))


@pytest.mark.parametrize(("setting", "value"), [("feature_weight", -1.0), ("feature_l2", 0.0)])
@pytest.mark.parametrize("name", ["ease", "edlae"])
def test_settings_out_of_range_are_refused(name, setting, value):
    with pytest.raises(ConfigError, match=f"Expected {setting}"):
        create_model(name, {setting: value})


def test_few_users_and_features_are_solved_over_items():
    matrix, table = shop(users=10)
    wide = csr_matrix((matrix.data, matrix.indices, matrix.indptr), shape=(10, 2100))
    features = csr_matrix(vstack([table, csr_matrix((2080, 6), dtype=np.float32)]))
    model = create_model("ease", GIVEN)
    assert model.fit(wide, TrainingContext(item_features=features)).dual is None
    assert model.score(wide)[:, 19].any()


@pytest.mark.parametrize("tensor", ["feature_weights", "known", "features.data"])
def test_a_state_without_its_features_is_refused(tensor):
    model = fitted(*shop())
    state = copy_state(model)
    state.pop(tensor)
    with pytest.raises(DataError, match=f"Expected the tensor '{tensor}'"):
        EASE(model.config).set_state(state, 20)


def test_a_blend_gives_features_only_to_the_members_that_use_them():
    matrix, table = shop()
    settings = {"members": "ease,content-knn", "weights": "1,1", "ease.l2": 2.0}
    blend = create_model("blend", settings).fit(matrix, TrainingContext(item_features=table))
    assert torch.equal(blend.members[0].weights, create_model("ease", {"l2": 2.0}).fit(matrix).weights)
    again = create_model("blend", settings).set_state(blend.get_state(), 20, "cpu")
    assert torch.equal(again.score(matrix), blend.score(matrix))
