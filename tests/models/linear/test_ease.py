"""EASE, EDLAE and kin against their closed forms in float64."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from recsys.errors import ConfigError, UnsupportedError
from recsys.models.linear.ease import EASE, EDLAE, EASEConfig, EDLAEConfig, closed_form_bytes, gram_matrix


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
    x, new_users = preferences(counts=counts), preferences(users=4)
    model = EASE(EASEConfig(l2=l2)).fit(x)
    expected = new_users.toarray() @ closed_form(x, l2)
    np.testing.assert_allclose(model.score(new_users), expected, rtol=1e-3, atol=1e-5)


def test_an_item_does_not_contribute_to_its_own_score():
    model = EASE(EASEConfig(l2=1.0)).fit(preferences())
    assert not model.embed_items().diagonal().any()
    only_item_3 = csr_matrix(np.float32([[0, 0, 0, 1, 0, 0, 0, 0]]))
    assert model.score(only_item_3)[0, 3] == 0


def test_weights_are_negative_for_exclusive_items_and_positive_for_items_that_co_occur():
    # One user each of {0, 1}, {0, 1}, {2}: with l2 = 1, X'X + I = [[3, 2, 0], [2, 3, 0], [0, 0, 2]].
    model = EASE(EASEConfig(l2=1.0)).fit(csr_matrix(np.float32([[1, 1, 0], [1, 1, 0], [0, 0, 1]])))
    torch.testing.assert_close(model.weights, torch.tensor([[0, 2 / 3, 0], [2 / 3, 0, 0], [0, 0, 0]]))


def test_a_regularization_too_weak_for_float32_is_refused_with_a_suggestion():
    same = csr_matrix(np.full((40, 6), 1000, dtype=np.float32))  # six equal columns: singular without l2
    with pytest.raises(ConfigError, match="found 1e-09: raise it"):
        EASE(EASEConfig(l2=1e-9)).fit(same)


def test_l2_of_zero_is_refused():
    with pytest.raises(ConfigError, match="l2 above 0, found 0"):
        EASEConfig(l2=0)


# EDLAE and kin


def family(x, l2, dropout=0.0, diagonal=0.0, item_power=0.0, user_power=0.0, damping=0.0):
    """As the papers have it, a column at a time: B_j minimizes the squared error with a ridge and a bounded B_jj."""
    x = x.toarray().astype(np.float64)
    sums = x.sum(1, keepdims=True)
    x = np.divide(x, (sums / sums[sums > 0].mean()) ** (user_power / 2), where=sums > 0, out=np.zeros_like(x))
    gram = x.T @ x
    popularity = gram.diagonal()
    ridge = l2 * (popularity / popularity.mean()) ** item_power + dropout / (1 - dropout) * popularity
    free = np.linalg.solve(gram + np.diag(ridge), gram)  # no bound: plain ridge regression of all items
    for j in np.flatnonzero(free.diagonal() > diagonal):  # the bound holds: B_jj is it, the others make the best of it
        others = np.arange(len(gram)) != j
        target = gram[others, j] * (1 - diagonal)
        free[others, j] = np.linalg.solve((gram + np.diag(ridge))[np.ix_(others, others)], target)
        free[j, j] = diagonal
    root = (popularity / popularity.mean()) ** damping
    return free * root[:, None] / root


@pytest.mark.parametrize(
    "settings",
    [
        {"dropout": 0.4},
        {"diagonal": 0.2},
        {"dropout": 0.3, "diagonal": 0.1},
        {"item_power": 0.7},
        {"user_power": 0.5},
        {"damping": 0.5},
        {"dropout": 0.2, "diagonal": 0.3, "item_power": 0.4, "user_power": 1.0, "damping": 0.2},
    ],
    ids=str,
)
def test_scores_are_the_best_linear_reconstruction_under_the_ridge_and_the_bound(settings):
    x = preferences()
    model = EDLAE(EDLAEConfig(l2=3.0, **{"dropout": 0.0, "user_power": 0.0, **settings})).fit(x)
    np.testing.assert_allclose(model.weights, family(x, 3.0, **settings), rtol=1e-3, atol=1e-5)


def test_with_only_l2_it_is_ease():
    x = preferences()
    ease, edlae = EASE(EASEConfig(l2=5.0)).fit(x), EDLAE(EDLAEConfig(l2=5.0, dropout=0.0, user_power=0.0)).fit(x)
    assert torch.equal(ease.weights, edlae.weights)


def test_items_scaled_by_their_popularity_before_and_back_after_are_a_ridge_that_grows_with_it():
    # The words of the paper on random fields, alpha = 0.75: EASE of X D^(-alpha/2), then D^(-alpha/2) B D^(alpha/2).
    x = preferences()
    root = (x.getnnz(axis=0) / x.getnnz(axis=0).mean()) ** (0.75 / 2)
    scaled = csr_matrix(x.toarray() / root)
    expected = closed_form(scaled, 3.0) / root[:, None] * root
    model = EDLAE(EDLAEConfig(l2=3.0, dropout=0.0, item_power=0.75, user_power=0.0)).fit(x)
    np.testing.assert_allclose(model.weights, expected, rtol=1e-3, atol=1e-5)


def test_blocks_of_the_gram_matrix_are_the_gram_matrix(monkeypatch):
    monkeypatch.setattr("recsys.models.linear.ease._BLOCK", 3)
    x = preferences()
    np.testing.assert_array_equal(gram_matrix(x, torch.device("cpu")), (x.T @ x).toarray())


def test_users_without_items_have_no_influence():
    x = preferences()
    with_empty = csr_matrix((x.data, x.indices, np.append(x.indptr, [x.nnz] * 5)), shape=(35, 8))
    settings = EDLAEConfig(l2=3.0, user_power=1.0)
    torch.testing.assert_close(EDLAE(settings).fit(with_empty).weights, EDLAE(settings).fit(x).weights)


def test_too_many_items_for_the_memory_are_refused_before_the_work_with_the_model_that_fits(monkeypatch):
    monkeypatch.setattr("recsys.system.memory.memory_bytes", lambda: (10**9, 2_000_000))
    monkeypatch.setattr("recsys.models.linear.ease.gram_matrix", lambda *_: pytest.fail("work before the check"))
    assert closed_form_bytes(1000, torch.device("cpu")) == 4 * 1000 * (1000 + 2 * 1000)
    with pytest.raises(UnsupportedError, match=r"edlae needs 0\.0 GB of memory, found 0\.0 GB free: use sparse-ease"):
        EDLAE().fit(csr_matrix((np.ones(1, dtype=np.float32), [0], [0, 1]), shape=(1, 1000)))
