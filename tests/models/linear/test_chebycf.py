"""ChebyCF against its formula in dense float64."""

import numpy as np
import pytest
import torch
from numpy.polynomial import chebyshev
from scipy.sparse import csr_matrix

from recsys.errors import ConfigError
from recsys.models.linear.chebycf import ChebyCF, ChebyCFConfig


def preferences(users=20, items=12):
    return csr_matrix((np.random.default_rng(0).random((users, items)) < 0.3).astype(np.float32))


def test_coefficients_of_first_degree_by_hand():
    # Nodes -+cos(pi / 4) get the responses of -1 and 1, which are 1 and 0: a line of slope -1 / (2 cos(pi / 4)).
    assert ChebyCFConfig(order=1).coefficients() == pytest.approx([0.5, -(0.5**0.5)])


def test_the_response_falls_from_one_to_nothing_with_a_plateau_of_a_half():
    config = ChebyCFConfig(order=40, flatness=3.0)
    frequencies = np.array([-0.95, -0.5, -0.1, 0.0, 0.1, 0.5, 0.95])
    expected = (1 - np.sign(frequencies) * np.abs(frequencies) ** 3) / 2
    found = chebyshev.chebval(frequencies, config.coefficients())
    np.testing.assert_allclose(found, expected, atol=0.05)


@pytest.mark.parametrize("order", [1, 2, 3, 8])
@pytest.mark.parametrize("most", [0, 12])
def test_scores_are_the_filter_of_the_graph(monkeypatch, order, most):
    monkeypatch.setattr("recsys.models.linear.graph_filter._WHOLE_ITEMS", most)
    x, new_users = preferences(), preferences(users=4)
    config = ChebyCFConfig(factors=3, low_pass=0.3, order=order, flatness=2.0, item_power=0.6)
    model = ChebyCF(config).fit(x)
    assert (model.filter is None) == (most == 0)
    dense, histories = x.toarray().astype(float), new_users.toarray().astype(float)
    popular = np.maximum(dense.sum(0), 1)
    graph = dense / np.maximum(dense.sum(1), 1)[:, None] ** 0.5 / popular**0.5
    values, vectors = np.linalg.eigh(np.eye(12) - 2 * graph.T @ graph)
    response = vectors @ np.diag(chebyshev.chebval(values, config.coefficients())) @ vectors.T
    leading = vectors[:, :3] @ vectors[:, :3].T
    expected = histories / popular**0.3 @ (response + 0.3 * leading) * popular**0.3
    np.testing.assert_allclose(model.score(new_users), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("most", [0, 12])
def test_the_state_is_the_whole_model(monkeypatch, most):
    monkeypatch.setattr("recsys.models.linear.graph_filter._WHOLE_ITEMS", most)
    x = preferences()
    model = ChebyCF(ChebyCFConfig(factors=3)).fit(x)
    again = ChebyCF(ChebyCFConfig(factors=3)).set_state(model.get_state(), 12)
    assert torch.equal(again.score(x), model.score(x))


def test_settings_out_of_range_are_named():
    for name, value in {"order": 0, "flatness": 0.0, "item_power": 1.5}.items():
        with pytest.raises(ConfigError, match=name):
            ChebyCFConfig(**{name: value})
