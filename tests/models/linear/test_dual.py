"""The closed form over users against the closed form over items: the same weights, scores and lists."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from recsys.errors import ConfigError, DataError
from recsys.inference.topn import top_n
from recsys.models.linear import dual
from recsys.models.linear.dual import suits_dual
from recsys.models.linear.ease import EASE, EDLAE
from recsys.training.context import TrainingContext

USERS, ITEMS = 30, 70
KINDS = {
    "ease": (EASE, {"l2": 20.0}),
    "edlae": (EDLAE, {"l2": 20.0}),
    "item_power": (EDLAE, {"l2": 20.0, "item_power": 0.7, "dropout": 0.0}),
    "rdlae": (EDLAE, {"l2": 20.0, "diagonal": 0.4, "user_power": 0.0}),
    "dan": (EDLAE, {"l2": 20.0, "user_power": 0.3, "damping": 0.4}),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def interactions(users=USERS, seed=0, counts=False):
    rng = np.random.default_rng(seed)
    cells = (rng.random((users, ITEMS)) < np.linspace(0.02, 0.5, ITEMS)) * (rng.integers(1, 6, (users, ITEMS)))
    return csr_matrix((cells if counts else cells > 0).astype(np.float32))


@pytest.fixture
def over_users(monkeypatch):
    """Small catalogs too are solved over users."""

    def fit(kind, x):
        model, settings = KINDS[kind]
        with monkeypatch.context() as patch:
            patch.setattr(dual, "_FEW_ITEMS", 0)
            fitted = model.create(settings).fit(x)
        assert fitted.dual is not None
        return fitted

    return fit


def over_items(kind, x):
    model, settings = KINDS[kind]
    return model.create(settings).fit(x)


@pytest.mark.parametrize("counts", [False, True], ids=["ones", "counts"])
@each_kind
def test_scores_and_lists_are_those_of_the_form_over_items(over_users, kind, counts):
    x, new = interactions(counts=counts), interactions(users=12, seed=1, counts=counts)
    ours, other = over_users(kind, x).score(new), over_items(kind, x).score(new)
    torch.testing.assert_close(ours, other, rtol=1e-4, atol=2e-5)
    np.testing.assert_array_equal(top_n(ours, 10, new)[0], top_n(other, 10, new)[0])


@each_kind
def test_weights_are_those_of_the_form_over_items(over_users, kind):
    x = interactions()
    torch.testing.assert_close(
        over_users(kind, x).embed_items(), over_items(kind, x).embed_items(), rtol=1e-4, atol=1e-5
    )


def test_contributions_are_cells_of_the_weights_times_the_values(over_users):
    model, history = over_users("dan", interactions()), interactions(users=1, seed=2, counts=True)
    found = model.contributions(history, [3, 60])
    weights = model.embed_items()[torch.as_tensor(history.indices).long()][:, [3, 60]]
    expected = weights * torch.as_tensor(history.data)[:, None]
    np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.values.sum(axis=0), model.score(history, [3, 60])[0], rtol=1e-3, atol=1e-5)


@each_kind
def test_the_state_brings_everything_back(over_users, kind):
    x, new = interactions(), interactions(users=5, seed=1)
    model = over_users(kind, x)
    again = KINDS[kind][0].create(KINDS[kind][1])
    again.set_state(model.get_state(), ITEMS)
    assert torch.equal(again.score(new), model.score(new))
    assert not [name for name, part in model.get_state().items() if tuple(part.shape) == (ITEMS, ITEMS)]


@pytest.mark.parametrize("part", ["inverse", "rows.indices", "exit"])
def test_a_damaged_state_is_refused(over_users, part):
    model = over_users("ease", interactions())
    state = model.get_state()
    state[part] = state[part][:-1]
    with pytest.raises(DataError, match=part):
        EASE.create(KINDS["ease"][1]).set_state(state, ITEMS)


def test_an_item_without_interactions_gets_finite_weights_in_both_forms(over_users):
    x = interactions().tolil()
    x[:, 5] = 0
    new = interactions(users=4, seed=1)
    ours, other = (fit("edlae", csr_matrix(x)).score(new) for fit in (over_users, over_items))
    torch.testing.assert_close(ours, other, rtol=1e-4, atol=2e-5)


def test_it_is_used_with_half_as_many_users_as_items_if_the_items_are_many():
    assert suits_dual(csr_matrix((2000, 4000)))
    assert not suits_dual(csr_matrix((2001, 4000)))
    assert not suits_dual(csr_matrix((100, 2000)))  # items x items takes no time


def test_it_is_not_used_where_the_gram_matrix_of_the_items_is_kept(monkeypatch):
    monkeypatch.setattr(dual, "_FEW_ITEMS", 0)
    model = EASE.create({}).fit(interactions(), TrainingContext(keep_gram=True))
    assert model.dual is None
    assert model.gram.shape == (ITEMS, ITEMS)


def test_a_matrix_that_cannot_be_solved_is_refused_with_a_suggestion(over_users, monkeypatch):
    def fails(matrix, out):
        raise torch.linalg.LinAlgError("not positive definite")

    monkeypatch.setattr(torch.linalg, "cholesky", fails)
    with pytest.raises(ConfigError, match=r"found 20\.0: raise it"):
        over_users("ease", interactions())
