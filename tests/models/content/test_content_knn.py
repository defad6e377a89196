"""Content neighbors, by hand."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from recsys.errors import ConfigError, DataError
from recsys.models.content.content_knn import ContentKNN, ContentKNNConfig
from recsys.models.content.weighing import rarity, weighed
from recsys.training.context import TrainingContext

#              item  red  blue  big
FEATURES = csr_matrix([[1, 0, 0], [1, 0, 1], [0, 1, 1], [1, 0, 0], [0, 1, 0]], dtype=np.float32)
HISTORIES = csr_matrix([[1, 1, 0, 0, 0], [0, 0, 1, 0, 0]], dtype=np.float32)  # items 3 and 4 are new


def knn(neighbors, matrix=HISTORIES, features=FEATURES):
    return ContentKNN(ContentKNNConfig(neighbors)).fit(matrix, TrainingContext(item_features=features))


def test_a_rare_feature_weighs_more_and_new_items_decide_nothing():
    known = np.array([True, True, True, False, False])
    expected = [np.log(4 / 3) + 1, np.log(4 / 2) + 1, np.log(4 / 3) + 1]
    np.testing.assert_allclose(rarity(FEATURES, known), expected, rtol=1e-6)


def test_rows_have_length_one_and_an_item_without_features_has_none():
    rows = weighed(csr_matrix([[3, 4], [0, 0]], dtype=np.float32), np.ones(2, dtype=np.float32))
    np.testing.assert_allclose(rows.toarray(), [[0.6, 0.8], [0, 0]], rtol=1e-6)


@pytest.mark.parametrize("neighbors", [5, None])
def test_scores_are_sums_of_cosines_with_known_items(neighbors):
    red, blue, big = np.log(4 / 3) + 1, np.log(2) + 1, np.log(4 / 3) + 1
    both, other = np.hypot(red, big), np.hypot(blue, big)
    found = knn(neighbors).score(HISTORIES).numpy()
    assert found[0, 3] == pytest.approx(1 + red / both)
    assert found[0, 4] == pytest.approx(0)
    assert found[1, 4] == pytest.approx(blue / other)
    assert found[1, 1] == pytest.approx(big / both * big / other)


def test_only_the_nearest_known_item_counts():
    model = knn(1)
    assert model.score(HISTORIES).numpy()[0, 3] == pytest.approx(1)  # item 0, which is equal; not item 1
    new = csr_matrix([[0, 0, 0, 1, 1]], dtype=np.float32)
    assert model.score(new).numpy() == pytest.approx(0)  # new items are no neighbors


@pytest.mark.parametrize("neighbors", [1, 5, None])
def test_items_that_come_later_are_those_of_a_new_fit(neighbors):
    later = csr_matrix([[0, 1, 1], [1, 1, 0]], dtype=np.float32)
    model = knn(neighbors).with_new_items(later)
    wide = csr_matrix((HISTORIES.data, HISTORIES.indices, HISTORIES.indptr), shape=(2, 7))
    whole = knn(neighbors, wide, csr_matrix(np.vstack([FEATURES.toarray(), later.toarray()])))
    torch.testing.assert_close(model.score(wide), whole.score(wide))
    again = ContentKNN(ContentKNNConfig(neighbors)).set_state(model.get_state(), 7)
    assert torch.equal(again.score(wide), model.score(wide))


def test_other_features_than_in_training_are_refused():
    with pytest.raises(DataError, match="Expected 3 features of items, as in training, found 2"):
        knn(5).with_new_items(csr_matrix([[1, 0]], dtype=np.float32))


def test_without_features_there_is_no_fit():
    with pytest.raises(ConfigError, match="Expected features of the items"):
        ContentKNN().fit(HISTORIES)
