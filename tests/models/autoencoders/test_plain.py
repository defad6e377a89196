"""Plain and sparse autoencoders against their equations written the usual dense way."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import ITEMS, USERS, batch_of, preferences, with_random_biases
from scipy.sparse import csr_matrix

from recsys.errors import ConfigError
from recsys.models.autoencoders.plain import (
    AE,
    AEConfig,
    AENetwork,
    SparseAE,
    SparseAEConfig,
    SparseAENetwork,
    bernoulli_kl,
)

pytestmark = pytest.mark.usefixtures("own_random_stream")


def first_layer(network, x):
    return F.normalize(x) @ network.encoder.weight + network.encoder.bias


def distance(scores, x, likelihood):
    if likelihood == "gaussian":
        return (scores - x).square().sum(dim=1).mean()
    return -(F.log_softmax(scores, dim=1) * x).sum(dim=1).mean()


# The plain one


@pytest.mark.parametrize("likelihood", ["multinomial", "gaussian"])
@pytest.mark.parametrize("hidden", [0, 5])
def test_a_plain_autoencoder_applies_its_layers_without_noise(hidden, likelihood):
    network = with_random_biases(AENetwork(ITEMS, AEConfig(latent=3, hidden=hidden, likelihood=likelihood)))
    x = torch.as_tensor(preferences())
    layer = torch.tanh(first_layer(network, x))
    for inner in network.inner:
        layer = torch.tanh(inner(layer))
    scores = layer @ network.decoder.weight.T + network.decoder.bias
    assert layer.shape == (USERS, hidden or 3)
    torch.testing.assert_close(network(batch_of(x)), scores)
    torch.testing.assert_close(network.loss(batch_of(x), 0.0), distance(scores, x, likelihood))


def test_the_code_is_the_narrowest_layer_between_two_hidden_ones():
    network = AENetwork(ITEMS, AEConfig(latent=3, hidden=5))
    assert [(layer.in_features, layer.out_features) for layer in network.inner] == [(5, 3), (3, 5)]


def share_of_own(model, x):
    """Probability given to a user's own items; mean over users."""
    return (model.score(csr_matrix(x)).softmax(dim=1).numpy() * x).sum(axis=1).mean()


def test_an_overcomplete_autoencoder_copies_its_input_without_weight_decay():
    x = np.random.default_rng(0).permuted(np.tile(np.float32([1] * 4 + [0] * 8), (20, 1)), axis=1)
    settings = {"latent": 24, "epochs": 60, "learning_rate": 0.02}
    free = AE.create({**settings, "l2": 0}).fit(csr_matrix(x))
    held = AE.create({**settings, "l2": 0.3}).fit(csr_matrix(x))
    assert share_of_own(free, x) > 0.95 > share_of_own(held, x)


# The sparse one


@pytest.mark.parametrize("likelihood", ["multinomial", "gaussian"])
@pytest.mark.parametrize("penalty", ["l1", "kl"])
def test_the_sparse_loss_adds_its_penalty_on_the_code(penalty, likelihood):
    config = SparseAEConfig(latent=3, penalty=penalty, sparsity=0.7, density=0.2, dropout=0, likelihood=likelihood)
    network, x = with_random_biases(SparseAENetwork(ITEMS, config)), torch.as_tensor(preferences())
    first = first_layer(network, x)
    if penalty == "l1":
        code = first.clamp_min(0)
        added = code.abs().sum() / USERS
    else:
        code = 1 / (1 + (-first).exp())
        added = sum(0.2 * math.log(0.2 / mean) + 0.8 * math.log(0.8 / (1 - mean)) for mean in code.mean(dim=0).tolist())
    scores = code @ network.decoder.weight.T + network.decoder.bias
    torch.testing.assert_close(network(batch_of(x)), scores)
    torch.testing.assert_close(network.loss(batch_of(x), 0.0), distance(scores, x, likelihood) + 0.7 * added)


def test_the_kl_divergence_is_zero_at_the_density_and_finite_at_0_and_1():
    found = bernoulli_kl(0.1, torch.tensor([0.1, 0.0, 1.0]))
    assert found[0].item() == pytest.approx(0, abs=1e-6)
    assert found.isfinite().all() and (found[1:] > 0.1).all()


def code_of(**settings):
    x = csr_matrix(preferences())
    settings = {"latent": 8, "epochs": 80, "learning_rate": 0.02, "dropout": 0, **settings}
    model = SparseAE.create(settings).fit(x)
    with torch.no_grad():
        return model.network.last(batch_of(preferences()))


def test_l1_makes_units_inactive():
    assert (code_of(sparsity=3) == 0).float().mean() > (code_of(sparsity=0) == 0).float().mean() + 0.2


def test_kl_brings_the_mean_activation_to_the_density():
    means = code_of(penalty="kl", density=0.1, sparsity=30).mean(dim=0)
    assert means.mean().item() == pytest.approx(0.1, abs=0.02)
    assert code_of(penalty="kl", sparsity=0).mean() > 0.2


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        (AEConfig, {"likelihood": "absolute"}),
        (AEConfig, {"hidden": -1}),
        (AEConfig, {"latent": 0}),
        (SparseAEConfig, {"penalty": "l2"}),
        (SparseAEConfig, {"density": 1}),
        (SparseAEConfig, {"sparsity": -1}),
    ],
)
def test_settings_out_of_range_are_refused(config, settings):
    with pytest.raises(ConfigError, match="Expected "):
        config(**settings)
