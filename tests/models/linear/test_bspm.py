"""BSPM against its formula in dense float64."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from recsys.models.linear.bspm import BSPM, BSPMConfig


def preferences(users=20, items=12):
    return csr_matrix((np.random.default_rng(0).random((users, items)) < 0.3).astype(np.float32))


def graph_of(x):
    users, items = np.maximum(x.sum(1), 1) ** 0.5, np.maximum(x.sum(0), 1) ** 0.5
    return x / users[:, None] / items, items


def blurred_by_hand(x, histories, factors, low_pass):
    graph, items = graph_of(x)
    leading = np.linalg.svd(graph)[2][:factors]
    return histories @ graph.T @ graph + low_pass * (histories / items @ leading.T @ leading * items)


@pytest.mark.parametrize("low_pass", [0.0, 0.3])
def test_without_sharpening_a_history_is_blurred_and_projected(low_pass):
    x, new_users = preferences(), preferences(users=4)
    model = BSPM(BSPMConfig(factors=3, low_pass=low_pass, sharpening=0)).fit(x)
    expected = blurred_by_hand(x.toarray(), new_users.toarray(), 3, low_pass)
    np.testing.assert_allclose(model.score(new_users), expected, rtol=1e-3, atol=1e-5)


def test_sharpening_is_one_step_of_runge_kutta():
    x, step = preferences(), 1.7
    model = BSPM(BSPMConfig(factors=3, low_pass=0.3, sharpening=step)).fit(x)
    graph, _ = graph_of(x.toarray())
    start = blurred_by_hand(x.toarray(), x.toarray(), 3, 0.3)

    def slope(r):
        return -r @ graph.T @ graph

    first = slope(start)
    second = slope(start + step / 2 * first)
    third = slope(start + step / 2 * second)
    fourth = slope(start + step * third)
    expected = start + step / 6 * (first + 2 * second + 2 * third + fourth)
    np.testing.assert_allclose(model.score(x), expected, rtol=1e-3, atol=1e-5)


def test_one_matrix_filters_like_step_by_step(monkeypatch):
    x, new_users = preferences(), preferences(users=5)
    whole = BSPM(BSPMConfig(factors=3)).fit(x)
    monkeypatch.setattr("recsys.models.linear.graph_filter._WHOLE_ITEMS", 11)
    steps = BSPM(BSPMConfig(factors=3)).fit(x)
    assert (whole.filter is None, steps.filter is None) == (False, True)
    torch.testing.assert_close(whole.score(new_users), steps.score(new_users), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("most", [11, 12])
def test_the_state_is_the_graph_and_the_singular_vectors(monkeypatch, most):
    monkeypatch.setattr("recsys.models.linear.graph_filter._WHOLE_ITEMS", most)
    x = preferences()
    model = BSPM(BSPMConfig(factors=3)).fit(x)
    again = BSPM(BSPMConfig(factors=3)).set_state(model.get_state(), 12)
    assert torch.equal(again.score(x), model.score(x))


def test_scores_do_not_depend_on_how_many_histories_are_filtered_at_once(monkeypatch):
    monkeypatch.setattr("recsys.models.linear.graph_filter._WHOLE_ITEMS", 0)
    x = preferences()
    model = BSPM(BSPMConfig(factors=3)).fit(x)
    whole = model.score(x)
    monkeypatch.setattr("recsys.models.linear.graph_filter._WIDTH", 3)
    torch.testing.assert_close(model.score(x), whole)
