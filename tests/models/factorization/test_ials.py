"""iALS against the paper's objective, solved one dense row at a time."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from recsys.models import create_model
from recsys.models.factorization.ials import IALS, IALSConfig, _batches, _round_up, scaled_ials
from recsys.models.factorization.scaled import scaled_weights


def preferences(users=25, items=14, counts=False):
    rng = np.random.default_rng(0)
    values = rng.uniform(1, 5, (users, items)) if counts else 1.0
    return csr_matrix(((rng.random((users, items)) < 0.3) * values).astype(np.float32))


def solve_slowly(x, table, config):
    """Each row's normal equations, literally."""
    total = config.unobserved * table.T @ table
    solved = np.zeros((len(x), table.shape[1]))
    for row, cells in enumerate(x):
        known = table[cells > 0]
        l2 = config.l2 * (len(known) + config.unobserved * len(table)) ** config.power
        system = total + known.T @ (known * cells[cells > 0, None]) + l2 * np.eye(table.shape[1])
        solved[row] = np.linalg.solve(system, known.T @ cells[cells > 0])
    return solved


@pytest.mark.parametrize("counts", [False, True], ids=["ones", "counts"])
@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("factors", [2, 20], ids=["few factors", "more factors than cells"])
def test_histories_are_folded_in_by_the_normal_equations(factors, power, counts):
    config = IALSConfig(factors, l2=0.05, unobserved=0.2, power=power, iterations=3)
    x, new_users = preferences(counts=counts), preferences(users=6, counts=counts)
    model = IALS(config).fit(x)
    items = model.embed_items().double().numpy()
    expected = solve_slowly(new_users.toarray(), items, config) @ items.T
    np.testing.assert_allclose(model.score(new_users), expected, rtol=1e-3, atol=1e-5)


def test_iterations_converge_to_a_stationary_point():
    config = IALSConfig(3, l2=0.05, unobserved=0.2, iterations=300)
    x = preferences()
    items = IALS(config).fit(x).embed_items().double().numpy()
    users = solve_slowly(x.toarray(), items, config)
    np.testing.assert_allclose(solve_slowly(x.T.toarray(), users, config), items, atol=1e-3)


def test_rare_items_are_regularized_less_with_power_1_than_with_power_0():
    # The same regularization for an item of mean weight; the lone item's is then smaller under power 1.
    x = csr_matrix(np.float32([[1, 1, 0], [1, 1, 0], [1, 1, 0], [1, 0, 1]]))
    weights = np.array([4, 3, 1]) + 0.1 * 4
    config = {"factors": 2, "unobserved": 0.1, "iterations": 50}
    scaled = IALS(IALSConfig(**config, l2=0.1)).fit(x).score(x)[3, 2]
    even = IALS(IALSConfig(**config, l2=0.1 * weights.mean(), power=0.0)).fit(x).score(x)[3, 2]
    assert scaled > even


def test_rows_are_padded_by_a_quarter_at_most_and_batched_by_their_own_length():
    lengths = np.arange(1, 5000)
    padded = _round_up(lengths)
    assert (padded >= lengths).all() and (padded <= 1.25 * lengths).all()
    assert len(np.unique(padded)) < 50


def test_every_row_with_cells_is_in_one_batch_with_its_columns_and_values(monkeypatch):
    monkeypatch.setattr("recsys.models.factorization.ials._BATCH", 100)
    x = preferences(counts=True)
    x = csr_matrix((x.data, x.indices, np.append(x.indptr, x.nnz)), shape=(26, 14))  # and an empty row
    back = np.zeros(x.shape, dtype=np.float32)
    for rows, columns, values in _batches(x, factors=4):
        assert values.size * 4 <= 100 or len(rows) == 1
        np.add.at(back, (rows[:, None], columns), values)
    np.testing.assert_array_equal(back, x.toarray())


def test_rotated_factors_are_the_same_model():
    items = IALS(IALSConfig(4, iterations=2)).fit(preferences()).embed_items()
    gram = items.T @ items
    torch.testing.assert_close(gram, gram.diagonal().diag(), atol=1e-4, rtol=0)


def test_weights_that_are_not_given_make_the_objective_of_als_with_its_scaled_weights():
    matrix = csr_matrix(np.tile(np.eye(100, dtype=np.float32), (20, 1)))  # 2,000 users of 1 item, items of 20 users
    weights = scaled_ials(matrix, IALSConfig(power=0.0))
    assert (weights.unobserved, weights.l2) == pytest.approx((1 / 11, 3.3))
    weights = scaled_ials(matrix, IALSConfig())
    assert weights.l2 == pytest.approx(3.3 / np.sqrt((20 + 2000 / 11) * (1 + 100 / 11)))
    given = scaled_ials(matrix, IALSConfig(unobserved=0.5))
    assert (given.unobserved, given.l2) == pytest.approx((0.5, 3.3 / np.sqrt((20 + 1000) * (1 + 50))))
    assert scaled_ials(matrix, IALSConfig(l2=0.01))[:2] == pytest.approx((0.01, 1 / 11))


def test_scaled_weights_are_kept_and_those_of_als_find_the_same():
    x = preferences(200, 60)
    model = create_model("ials", {"factors": 4, "power": 0.0, "iterations": 60}).fit(x)
    assert model.summary() == f"l2 {model.l2:.3g}, unobserved {model.unobserved:.3g} (scaled with the data)"
    again = create_model("ials", {"factors": 4, "power": 0.0}).set_state(model.get_state(), 60, "cpu")
    assert again.summary() == model.summary()
    assert torch.equal(again.score(x), model.score(x))
    assert create_model("ials", {"l2": 0.01, "unobserved": 0.3}).fit(x).summary() == ""
    alpha, _ = scaled_weights(x)
    # als: alpha for an observed cell, 1 for another; here 1 + 1 / alpha and 1 / alpha
    theirs = create_model("als", {"factors": 4, "iterations": 60, "alpha": alpha + 1}).fit(x)
    assert np.corrcoef(model.score(x).flatten(), theirs.score(x).flatten())[0, 1] > 0.99
