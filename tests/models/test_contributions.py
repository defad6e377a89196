"""What items of a history contribute to scores: exact, closed form, integrated gradients and leave-one-out."""

import inspect

import numpy as np
import pytest
import torch
from model_contract import create, every_model, two_tastes
from scipy.sparse import csr_matrix

from recsys.errors import DataError, NotFittedError, UnsupportedError
from recsys.models import MODELS
from recsys.models.blend import Blend
from recsys.models.contributions import MEANING, Contributions, leave_one_out, sum_of_terms

ADDITIVE = [name for name, model in MODELS.items() if model.explained_by in ("exact", "closed form")]
NETWORKS = [name for name, model in MODELS.items() if model.explained_by == "integrated gradients"]
BY_LEAVING_OUT = [name for name, model in MODELS.items() if model.explained_by == "leave-one-out"]


def row(values):
    return csr_matrix(np.float32([values]))


def test_every_linear_model_is_exact_and_als_is_in_closed_form():
    exact = {name for name, model in MODELS.items() if model.explained_by == "exact"}
    assert exact == {"item-knn", "svd", "ease", "edlae", "sparse-ease", "elsa", "bspm", "chebycf", "content-knn"}
    assert {name for name in ADDITIVE if name not in exact} == {"als", "ials"}
    assert set(NETWORKS) == {"dae", "vae", "recvae", "ae", "sparse-ae"}
    assert {model.explained_by for model in MODELS.values()} == set(MEANING)


@pytest.mark.parametrize("name", ADDITIVE)
@pytest.mark.parametrize("values", [[1, 1, 0, 1, 1, 0, 0, 1, 0, 0], [2, 0.5, 0, 0, 0, 0, 1, 0, 0, 3]])
def test_contributions_add_up_to_the_score(name, values, fitted):
    scores = fitted(name).score(row(values)).numpy()[0]
    found = fitted(name).contributions(row(values), np.arange(10))
    np.testing.assert_allclose(found.values.sum(axis=0), scores, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["ease", "sparse-ease", "item-knn"])
def test_a_contribution_to_a_linear_score_is_the_cell_times_the_weight(name, fitted):
    weights = fitted(name).embed_items().numpy()
    found = fitted(name).contributions(row([0, 2, 0, 0, 0, 1, 0, 0, 0, 0]), [3, 8])
    np.testing.assert_array_equal(found.history, [1, 5])
    np.testing.assert_allclose(found.values, weights[[1, 5]][:, [3, 8]] * [[2], [1]], rtol=1e-6)


def test_the_closed_form_of_ials_is_that_of_the_paper(fitted):
    model, history = fitted("ials"), row([1, 0, 1, 0, 2, 0, 0, 0, 0, 0])
    table, config = model.item_factors.double().numpy(), model.config
    known, cells = table[[0, 2, 4]], np.array([1.0, 1, 2])
    l2 = model.l2 * (3 + model.unobserved * 10) ** config.power
    inverse = np.linalg.inv(model.unobserved * table.T @ table + l2 * np.eye(2) + known.T @ (known * cells[:, None]))
    expected = cells[:, None] * (known @ inverse @ table.T)
    np.testing.assert_allclose(model.contributions(history, np.arange(10)).values, expected, atol=1e-5)


def test_als_explains_as_implicit_does():
    implicit = pytest.importorskip("implicit")
    users = csr_matrix((np.random.default_rng(0).random((30, 12)) < 0.4).astype(np.float32))
    model = create("als", alpha=5.0).fit(users)
    theirs = implicit.cpu.als.AlternatingLeastSquares(factors=2, regularization=model.l2, alpha=model.alpha)
    theirs.item_factors = model.item_factors.numpy()
    score, top, _ = theirs.explain(4, users, 7, N=3)
    our_score, our_top, nothing = model.explain(4, users, 7, N=3)
    assert our_score == pytest.approx(score, rel=1e-4)
    assert [item for item, _ in our_top] == [item for item, _ in top]
    np.testing.assert_allclose([value for _, value in our_top], [value for _, value in top], rtol=1e-4)
    assert nothing is None


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("values", [[1, 1, 0, 1, 1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0, 3, 0, 0, 1]])
def test_contributions_to_a_network_add_up_to_the_score_less_that_of_an_empty_history(name, values, fitted):
    expected = (fitted(name).score(row(values)) - fitted(name).score(row([0] * 10))).numpy()[0]
    found = fitted(name).contributions(row(values), np.arange(10))
    tolerance = 0.02 if name in ("sparse-ae", "recvae") else 2e-4  # a rectifier, and the norm of so few units
    np.testing.assert_allclose(found.values.sum(axis=0), expected, atol=tolerance * np.abs(expected).max() + 1e-6)


def test_a_contribution_to_a_network_is_the_integral_of_its_derivative(fitted):
    model, items = fitted("dae"), [0, 3, 8]
    weight, bias = (model.network.encoder.weight[items].detach().numpy(), model.network.encoder.bias.detach().numpy())
    out = model.network.decoder.weight[[1, 7]].detach().numpy()
    x = np.float32([2, 1, 2]) / 3
    points = (np.arange(1000) + 0.5)[:, None] / 1000
    slopes = 1 - np.tanh(points * (x @ weight) + bias) ** 2  # (points, latent)
    expected = x[:, None] * np.einsum("nk,pk,mk->nm", weight, slopes, out) / 1000
    found = model.contributions(row([2, 0, 0, 1, 0, 0, 0, 0, 2, 0]), [1, 7])
    np.testing.assert_allclose(found.values, expected, atol=1e-4)


def test_explaining_a_network_leaves_no_gradient_and_changes_no_score(fitted):
    model, history = fitted("vae"), two_tastes("vae")[:1]
    before, gradients = model.score(history), [weight.grad for weight in model.network.parameters()]
    with torch.inference_mode():
        model.contributions(history, [1])
    assert all(w.grad is g for w, g in zip(model.network.parameters(), gradients, strict=True))
    torch.testing.assert_close(model.score(history), before, rtol=0, atol=0)


def test_many_items_are_explained_in_parts_with_the_same_result(fitted, monkeypatch):
    whole = fitted("recvae").contributions(two_tastes("recvae")[0], np.arange(10)).values
    monkeypatch.setattr("recsys.models.autoencoders.attribution._CELLS", 100)
    parts = fitted("recvae").contributions(two_tastes("recvae")[0], np.arange(10)).values
    np.testing.assert_allclose(parts, whole, atol=1e-6)


@pytest.mark.parametrize("name", BY_LEAVING_OUT)
def test_leaving_an_item_out_says_what_the_score_loses_without_it(name, fitted):
    history = two_tastes(name)[0]
    found = fitted(name).contributions(history, [0, 7])
    assert found.values.shape == (history.nnz, 2)
    for place, item in enumerate(history.indices):
        without = history.toarray()
        stored = np.flatnonzero(history.indices != item)
        rest = csr_matrix((history.data[stored], history.indices[stored], [0, len(stored)]), shape=without.shape)
        lost = fitted(name).score(history, [0, 7]) - fitted(name).score(rest, [0, 7])
        np.testing.assert_allclose(found.values[place], lost.numpy()[0], rtol=1e-3, atol=1e-5)


def test_long_histories_are_left_out_in_parts_with_the_same_result(monkeypatch):
    weights = torch.rand(6, 6)
    history = row([1, 1, 0, 2, 1, 1])

    def score(rows):
        assert rows.shape[0] <= 2
        return torch.as_tensor(rows.toarray()) @ weights

    monkeypatch.setattr("recsys.models.contributions._NUMBERS", 12)
    expected = weights[[0, 1, 3, 4, 5]] * torch.tensor([1, 1, 2, 1, 1])[:, None]
    torch.testing.assert_close(leave_one_out(score, history), expected)
    torch.testing.assert_close(sum_of_terms(score, history), expected)


def test_a_blend_adds_up_what_its_members_say():
    users = two_tastes("ease")
    members = [create("ease").fit(users), create("popularity").fit(users), create("dae").fit(users)]
    model = Blend.of(members, users, [0.5, 0.3, 0.2])
    ease, dae = members[0].contributions(users[0], [0, 7]).values, members[2].contributions(users[0], [0, 7]).values
    scales = model.scales.tolist()
    expected = 0.5 / scales[0] * ease + 0.2 / scales[2] * dae
    np.testing.assert_allclose(model.contributions(users[0], [0, 7]).values, expected, atol=1e-5)


def test_shares_are_parts_of_what_supports_an_item():
    found = Contributions(np.int32([4, 6, 9]), np.array([1, 2]), np.float32([[3, -1], [1, -2], [-2, 0]]), "exact")
    np.testing.assert_array_equal(found.shares, np.float32([[0.75, 0], [0.25, 0], [0, 0]]))
    np.testing.assert_array_equal(found.strongest(4), [[0, -1], [1, -1], [-1, -1], [-1, -1]])


def test_equal_contributions_are_in_order_of_position():
    found = Contributions(np.int32([4, 6, 9]), np.array([1]), np.float32([[1], [2], [1]]), "exact")
    np.testing.assert_array_equal(found.strongest(3), [[1], [0], [2]])


@every_model
def test_explain_gives_the_score_and_what_contributes_most_first(name, fitted):
    model, users = fitted(name), two_tastes(name)
    if model.explained_by == "none":
        with pytest.raises(UnsupportedError, match=f"{name} scores .* use another model"):
            model.explain(0, users, 0)
        return
    score, top, _ = model.explain(2, users, 0, N=3)
    assert score == pytest.approx(float(model.score(users[2], [0])[0, 0]), rel=1e-5)
    assert {item for item, _ in top} <= set(users[2].indices.tolist())
    assert len(top) == 3 and sorted((value for _, value in top), reverse=True) == [value for _, value in top]
    assert model.explain(2, users[2], 0, N=3)[1] == top  # one history: that user's


def test_explain_takes_what_that_of_implicit_takes():
    implicit = pytest.importorskip("implicit")
    theirs = inspect.signature(implicit.cpu.als.AlternatingLeastSquares.explain).parameters
    ours = inspect.signature(MODELS["als"].explain).parameters
    assert list(ours) == list(theirs)
    assert [ours[key].default for key in theirs] == [theirs[key].default for key in theirs]


def test_an_empty_history_has_no_contributions(fitted):
    for name in ("ease", "ials", "svd", "vae", "item-knn"):
        found = fitted(name).contributions(row([0] * 10), [1, 2])
        assert found.values.shape == (0, 2) and found.shares.shape == (0, 2)
        assert (found.strongest(2) == -1).all()


def test_what_cannot_be_explained_is_refused(fitted):
    with pytest.raises(NotFittedError, match="fit"):
        create("ease").contributions(row([1] * 10), [0])
    with pytest.raises(DataError, match="Expected one history to explain, found 10"):
        fitted("ease").contributions(two_tastes("ease"), [0])
    with pytest.raises(DataError, match=r"positions in 0\.\.9"):
        fitted("ease").contributions(row([1] * 10), [10])
    with pytest.raises(DataError, match="over the model's 10 items"):
        fitted("ease").contributions(row([1] * 9), [1])
    with pytest.raises(DataError, match=r"positions in 0\.\.9"):
        fitted("ease").explain(10, two_tastes("ease"), 1)
    with pytest.raises(UnsupportedError, match="user_weights"):
        fitted("ease").explain(1, two_tastes("ease"), 1, user_weights=np.eye(2))
