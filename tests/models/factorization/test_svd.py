"""SVD against numpy's, dense."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from recsys.models.factorization.svd import SVD, SVDConfig


def preferences(users=20, items=12):
    return csr_matrix((np.random.default_rng(0).random((users, items)) < 0.3).astype(np.float32))


@pytest.mark.parametrize(("item_power", "user_power"), [(0, 0), (1, 1), (0.4, 0.8)])
@pytest.mark.parametrize("factors", [1, 5])
def test_scores_are_the_history_projected_on_the_leading_directions(factors, item_power, user_power):
    x, new_users = preferences(), preferences(users=3)
    active, popular = np.maximum(x.toarray().sum(1), 1), x.toarray().sum(0)
    users, items = (active / active.mean()) ** (user_power / 2), (popular / popular.mean()) ** (item_power / 2)
    _, _, v = np.linalg.svd(x.toarray() / users[:, None] / items)
    expected = new_users.toarray() / items @ v[:factors].T @ v[:factors] * items
    model = SVD(SVDConfig(factors, item_power, user_power)).fit(x)
    np.testing.assert_allclose(model.score(new_users), expected, rtol=1e-3, atol=1e-5)


def test_as_many_factors_as_items_or_more_give_the_history_back():
    x = preferences()
    for factors in (12, 50):
        np.testing.assert_allclose(SVD(SVDConfig(factors)).fit(x).score(x), x.toarray(), atol=1e-5)


def test_a_user_with_all_items_has_less_influence_if_users_are_weighted_equally():
    # Two users have items 0 and 1; one user has all items. With equal users the pair dominates.
    x = csr_matrix(np.float32([[1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]]))
    shares = [SVD(SVDConfig(1, user_power=power)).fit(x).output[:2].square().sum() for power in (0.0, 1.0)]
    assert shares[1] > shares[0]
