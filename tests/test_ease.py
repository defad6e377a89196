"""EASE against its closed form in float64."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from recsys.errors import ConfigError
from recsys.models.ease import EASE, EASEConfig


def preferences(users=30, items=8, counts=False):
    rng = np.random.default_rng(0)
    matrix = (rng.random((users, items)) < 0.3) * (rng.uniform(1, 5, (users, items)) if counts else 1.0)
    return csr_matrix(matrix.astype(np.float32))


def closed_form(x, l2):
    """Equation 8 of the paper, literally: B_ij = 0 if i = j, else -P_ij / P_jj."""
    x = x.toarray().astype(np.float64)
    inverse = np.linalg.inv(x.T @ x + l2 * np.eye(x.shape[1]))
    b = np.zeros_like(inverse)
    for i in range(len(b)):
        for j in range(len(b)):
            b[i, j] = 0 if i == j else -inverse[i, j] / inverse[j, j]
    return b


@pytest.mark.parametrize("counts", [False, True], ids=["ones", "counts"])
@pytest.mark.parametrize("l2", [0.5, 10.0, 500.0])
def test_scores_are_the_history_times_the_closed_form(l2, counts):
    x, strangers = preferences(counts=counts), preferences(users=4)
    model = EASE(EASEConfig(l2=l2)).fit(x)
    expected = strangers.toarray() @ closed_form(x, l2)
    np.testing.assert_allclose(model.score(strangers), expected, rtol=1e-3, atol=1e-5)


def test_an_item_says_nothing_about_itself():
    model = EASE(EASEConfig(l2=1.0)).fit(preferences())
    assert not model.item_codes().diagonal().any()
    only_item_3 = csr_matrix(np.float32([[0, 0, 0, 1, 0, 0, 0, 0]]))
    assert model.score(only_item_3)[0, 3] == 0


def test_items_never_taken_together_repel_and_items_always_taken_together_attract():
    # One user each of {0, 1}, {0, 1}, {2}: with l2 = 1, X'X + I = [[3, 2, 0], [2, 3, 0], [0, 0, 2]].
    model = EASE(EASEConfig(l2=1.0)).fit(csr_matrix(np.float32([[1, 1, 0], [1, 1, 0], [0, 0, 1]])))
    torch.testing.assert_close(model.weights, torch.tensor([[0, 2 / 3, 0], [2 / 3, 0, 0], [0, 0, 0]]))


def test_a_regularisation_too_weak_for_the_arithmetic_is_refused_with_the_way_out():
    same = csr_matrix(np.full((40, 6), 1000, dtype=np.float32))  # six equal columns: singular without l2
    with pytest.raises(ConfigError, match="found 1e-09: raise it"):
        EASE(EASEConfig(l2=1e-9)).fit(same)


def test_l2_of_zero_is_refused():
    with pytest.raises(ConfigError, match="l2 above 0, found 0"):
        EASEConfig(l2=0)
