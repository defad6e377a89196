"""The setting half_life: histories to score are weighed by recency, training is as without it."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from recsys.data.matrix import OrderedMatrix, without_order
from recsys.errors import ConfigError
from recsys.models import create_model
from recsys.models.recency import by_recency

HISTORIES = OrderedMatrix(np.float32([[1, 2, 3, 0], [0, 0, 0, 0], [3, 0, 1, 2], [0, 2, 1, 0]]))
SETTINGS = {
    "edlae": {"l2": 1.0},
    "sparse-ease": {"l2": 1.0},
    "vae": {"latent": 2, "epochs": 2},
    "als": {"factors": 2, "iterations": 2},
    "ials": {"factors": 2, "iterations": 2},
    "bspm": {"factors": 2},
    "chebycf": {"factors": 2},
}


def test_an_item_weighs_half_as_much_a_half_life_before_the_newest():
    assert by_recency(HISTORIES, 1).toarray()[:3].tolist() == [[0.25, 0.5, 1, 0], [0, 0, 0, 0], [1, 0, 0.25, 0.5]]
    assert by_recency(HISTORIES, 2).toarray()[0].tolist() == pytest.approx([0.5, 0.5**0.5, 1, 0])


@pytest.mark.parametrize("name", SETTINGS)
def test_training_is_the_same_and_the_scores_are_those_of_weighted_histories(name):
    plain = create_model(name, SETTINGS[name]).fit(HISTORIES)
    weighted = create_model(name, SETTINGS[name] | {"half_life": 1.0}).fit(HISTORIES)
    assert not plain.uses_order
    assert weighted.uses_order
    again = create_model(name, SETTINGS[name] | {"half_life": 1.0}).fit(csr_matrix(HISTORIES))  # the same places
    assert torch.equal(again.score(csr_matrix(HISTORIES)), weighted.score(HISTORIES))
    state = weighted.get_state()
    for key, tensor in plain.get_state().items():
        assert key.startswith("known.") or torch.equal(tensor, state[key])  # factors of histories as they are
    torch.testing.assert_close(weighted.score(HISTORIES), plain.score(by_recency(HISTORIES, 1)))
    torch.testing.assert_close(plain.score(HISTORIES), plain.score(without_order(HISTORIES)))


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "vae"])
def test_contributions_of_weighted_items_add_up_to_the_score(name):
    model = create_model(name, SETTINGS[name] | {"half_life": 1.0}).fit(HISTORIES)
    found = model.contributions(HISTORIES[[0]], [3])
    assert found.values.sum() == pytest.approx(float(model.score(HISTORIES[[0]])[0, 3]), abs=1e-5)


@pytest.mark.parametrize("explained_by", ["leave-one-out", "integrated gradients"])
def test_contributions_to_a_network_are_those_of_the_weighted_history(explained_by):
    model = create_model("vae", SETTINGS["vae"] | {"half_life": 1.0}).fit(HISTORIES)
    plain = create_model("vae", SETTINGS["vae"]).fit(HISTORIES)
    model.explained_by = plain.explained_by = explained_by
    weighted = by_recency(HISTORIES[[0]], 1)
    found, expected = model.contributions(HISTORIES[[0]], [3]), plain.contributions(weighted, [3])
    assert found.values[:, 0].tolist() == pytest.approx(expected.values[:, 0].tolist(), abs=1e-6)


def test_the_contribution_of_an_item_is_its_weight_by_recency_times_that_of_the_model():
    model = create_model("edlae", {"l2": 1.0, "half_life": 1.0}).fit(HISTORIES)
    found = model.contributions(HISTORIES[[0]], [3])
    weights = model.item_weights()[:3, 3]
    assert found.values[:, 0].tolist() == pytest.approx((weights * torch.tensor([0.25, 0.5, 1])).tolist(), abs=1e-6)


def test_a_half_life_of_0_is_refused():
    with pytest.raises(ConfigError, match="half_life above 0, found 0"):
        create_model("edlae", {"half_life": 0})
