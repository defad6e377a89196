"""The restricted Boltzmann machine against sums over all its states, which are few here."""

from functools import partial
from itertools import product

import networks
import numpy as np
import pytest
import torch
from networks import batch_of
from scipy.sparse import csr_matrix

from recsys.errors import ConfigError
from recsys.models.autoencoders.rbm import RBM, RBMConfig, RBMNetwork

USERS, ITEMS, HIDDEN = 6, 5, 3
preferences = partial(networks.preferences, users=USERS, items=ITEMS)
pytestmark = pytest.mark.usefixtures("own_random_stream")


def random_network(**settings):
    network = RBMNetwork(ITEMS, RBMConfig(hidden=HIDDEN, **settings))
    for weight in network.parameters():
        torch.nn.init.normal_(weight)
    return network


def states(size):
    return torch.tensor(list(product([0.0, 1.0], repeat=size)))


def free_energy(network, v):
    """-log of the sum over all hidden states of exp(-energy), (rows,)."""
    h = states(HIDDEN)
    minus_energy = v @ network.weight @ h.T + (v @ network.item_bias)[:, None] + (h @ network.unit_bias)[None]
    return -minus_energy.logsumexp(dim=1)


def test_the_loss_is_the_free_energy_of_the_rows_less_that_of_the_samples():
    network, x = random_network(), torch.as_tensor(preferences())
    samples = torch.as_tensor(preferences(1))
    network.sample = lambda from_items: samples
    expected = free_energy(network, x).mean() - free_energy(network, samples).mean()
    torch.testing.assert_close(network.loss(batch_of(x), 0.0), expected)


def test_its_gradient_is_that_of_contrastive_divergence():
    network, x = random_network(), torch.as_tensor(preferences())
    samples = torch.as_tensor(preferences(1))
    network.sample = lambda from_items: samples
    network.loss(batch_of(x), 0.0).backward()

    def statistics(v):
        h = torch.sigmoid(v @ network.weight + network.unit_bias)
        return v.T @ h / len(v), v.mean(dim=0), h.mean(dim=0)

    weights = (network.weight, network.item_bias, network.unit_bias)
    for weight, data, model in zip(weights, statistics(x), statistics(samples), strict=True):
        torch.testing.assert_close(weight.grad, (model - data).detach())


def test_long_sampling_visits_items_as_often_as_the_model_says():
    network = random_network(steps=30)
    every = states(ITEMS)
    chance = (-free_energy(network, every)).softmax(dim=0)
    samples = network.sample(torch.zeros(4000, HIDDEN))
    torch.testing.assert_close(samples.mean(dim=0), (chance[:, None] * every).sum(dim=0).detach(), atol=0.04, rtol=0)


def test_one_step_starts_from_the_rows_and_persistent_chains_continue():
    network = random_network(persistent=True)
    with torch.no_grad():
        network.weight.copy_(20 * torch.eye(ITEMS, HIDDEN))  # a unit is on where its item is, and the reverse
        network.unit_bias.fill_(-10)
        network.item_bias.fill_(-10)
    first, second = torch.zeros(1, ITEMS), torch.zeros(1, ITEMS)
    first[0, 0] = second[0, 1] = 1
    assert torch.equal(network.sample(network.units(batch_of(first))), first)
    assert torch.equal(network.sample(network.units(batch_of(second))), first)
    network.persistent = False
    assert torch.equal(network.sample(network.units(batch_of(second))), second)


def test_chains_are_not_saved():
    model = RBM.create({"hidden": HIDDEN, "epochs": 2, "persistent": True}).fit(csr_matrix(preferences()))
    assert set(model.get_state()) == {"weight", "item_bias", "unit_bias"}


def test_values_above_zero_count_as_one():
    network, x = random_network(), preferences()
    torch.testing.assert_close(network(batch_of(5 * x)), network(batch_of(x)))


def test_scores_are_log_odds_of_one_reconstruction():
    network, x = random_network(), torch.as_tensor(preferences())
    h = torch.sigmoid(x @ network.weight + network.unit_bias)
    torch.testing.assert_close(network(batch_of(x)), h @ network.weight.T + network.item_bias)


def test_biases_are_initialized_with_the_popularity_of_the_items():
    model = RBM.create({"hidden": HIDDEN, "epochs": 1, "learning_rate": 1e-9}).fit(csr_matrix(preferences()))
    share = (preferences().sum(axis=0) + 0.5) / (USERS + 1)
    found = torch.sigmoid(model.network.item_bias).detach().numpy()
    np.testing.assert_allclose(found, share, rtol=1e-4)


@pytest.mark.parametrize("settings", [{"hidden": 0}, {"steps": 0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match="Expected "):
        RBMConfig(**settings)
