"""Mult-DAE and Mult-VAE against the equations of the paper written the usual dense way."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import ITEMS, USERS, batch_of, preferences, with_random_biases
from scipy.sparse import csr_matrix
from torch.distributions import Normal, kl_divergence

from recsys.errors import ConfigError
from recsys.models.autoencoders.layers import ItemOutput
from recsys.models.autoencoders.mult_vae import DAE, VAE, DAEConfig, DAENetwork, VAEConfig, VAENetwork, emphasize
from recsys.models.autoencoders.network import default_batch_size
from recsys.training.batches import SparseBatch
from recsys.training.context import TrainingContext

NO_DROPOUT = VAEConfig(hidden=6, latent=3, dropout=0, beta=0.3, anneal=0.5)
pytestmark = pytest.mark.usefixtures("own_random_stream")


def encode_densely(network, x):
    hidden = torch.tanh(F.normalize(x) @ network.encoder.weight + network.encoder.bias)
    mean, log_variance = F.linear(hidden, network.posterior.weight, network.posterior.bias).chunk(2, dim=1)
    return mean, log_variance


def decode_densely(network, z):
    hidden = torch.tanh(F.linear(z, network.hidden.weight, network.hidden.bias))
    return hidden @ network.decoder.weight.T + network.decoder.bias


def likelihood(logits, x):
    return (F.log_softmax(logits, dim=1) * x).sum(dim=1)


# The loss


def test_the_dae_is_the_one_of_the_paper():
    network, x = with_random_biases(DAENetwork(ITEMS, DAEConfig(latent=4, dropout=0))), torch.as_tensor(preferences())
    code = torch.tanh(F.normalize(x) @ network.encoder.weight + network.encoder.bias)
    logits = code @ network.decoder.weight.T + network.decoder.bias
    torch.testing.assert_close(network(batch_of(x)), logits)
    torch.testing.assert_close(network.loss(batch_of(x), 1.0), -likelihood(logits, x).mean())


@pytest.mark.parametrize(("progress", "weight"), [(0, 0), (0.25, 0.15), (0.5, 0.3), (1, 0.3)])
def test_the_vae_is_the_one_of_the_paper(progress, weight):
    network, x = with_random_biases(VAENetwork(ITEMS, NO_DROPOUT)), torch.as_tensor(preferences())
    torch.manual_seed(7)
    ours = network.loss(batch_of(x), progress)
    torch.manual_seed(7)
    mean, log_variance = encode_densely(network, x)
    deviation = (log_variance / 2).exp()
    logits = decode_densely(network, mean + deviation * torch.randn_like(mean))
    kl = kl_divergence(Normal(mean, deviation), Normal(0.0, 1.0)).sum(dim=1)
    plain = (weight * kl - likelihood(logits, x)).mean()
    torch.testing.assert_close(ours, plain)
    for fused, autograds in zip(
        torch.autograd.grad(ours, list(network.parameters())),
        torch.autograd.grad(plain, list(network.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(fused, autograds, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("progress", "weight"), [(0.25, 0.05), (1, 0.1)])
def test_with_gamma_the_kl_term_is_weighted_by_the_number_of_items(progress, weight):
    network = VAENetwork(ITEMS, dataclasses.replace(NO_DROPOUT, gamma=0.1))
    x = torch.as_tensor(preferences())
    torch.manual_seed(7)
    ours = network.loss(batch_of(x), progress)
    torch.manual_seed(7)
    mean, log_variance = encode_densely(network, x)
    deviation = (log_variance / 2).exp()
    kl = kl_divergence(Normal(mean, deviation), Normal(0.0, 1.0)).sum(dim=1)
    logits = decode_densely(network, mean + deviation * torch.randn_like(mean))
    torch.testing.assert_close(ours, (weight * x.sum(dim=1) * kl - likelihood(logits, x)).mean())


def test_emphasis_weighs_hidden_items_more_and_each_row_keeps_its_sum():
    target = batch_of([[1, 1, 1, 2], [1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]])
    corrupted = SparseBatch(target.items, torch.tensor([0.5, 0, 0, 0.5, 0.7, 0.7, 0, 0]), target.offsets)
    found = emphasize(target, corrupted, 3.0).values  # first row: weights 1, 3, 3, 2 of 9 instead of 1, 1, 1, 2 of 5
    torch.testing.assert_close(found, torch.tensor([5, 15, 15, 10, 9, 9, 9, 9]) / 9)
    assert emphasize(target, corrupted, 1.0) is target


@pytest.mark.parametrize(("network", "config"), [(DAENetwork, DAEConfig), (VAENetwork, VAEConfig)])
def test_the_emphasized_and_smoothed_loss_is_that_of_the_dense_target(network, config):
    settings = {"dropout": 0.5, "emphasis": 4.0, "smoothing": 0.2, "latent": 3}
    settings |= {"beta": 0.0} if config is VAEConfig else {}
    model, x, hidden = network(ITEMS, config(**settings)), torch.as_tensor(preferences()), []
    corrupt = model.encoder.corrupt
    model.encoder.corrupt = lambda batch: hidden.append(corrupt(batch)) or hidden[-1]
    codes = []
    model.decoder.loss = lambda *given: codes.append(given[0]) or ItemOutput.loss(model.decoder, *given)
    ours = model.loss(batch_of(x), 1.0)
    is_hidden = torch.zeros(x.shape)
    is_hidden[hidden[0].rows, hidden[0].items] = (hidden[0].values == 0).float()
    assert 0 < is_hidden.sum() < x.sum()
    weights = x * (1 + 3 * is_hidden)
    target = weights * (x.sum(dim=1) / weights.sum(dim=1).clamp_min(1)).unsqueeze(1)
    target = 0.8 * target + 0.2 * x.sum(dim=1, keepdim=True) / ITEMS
    torch.testing.assert_close(ours, -likelihood(model.decoder(codes[0]), target).mean())


def test_without_annealing_beta_is_in_full_effect_from_the_first_update():
    whole = VAENetwork(ITEMS, dataclasses.replace(NO_DROPOUT, anneal=0))
    annealed = VAENetwork(ITEMS, NO_DROPOUT)
    annealed.load_state_dict(whole.state_dict())
    losses = []
    for network, progress in ((whole, 0.0), (annealed, 1.0), (annealed, 0.0)):
        torch.manual_seed(7)
        losses.append(network.loss(batch_of(preferences()), progress).item())
    assert losses[0] == losses[1] > losses[2]


def test_the_sampler_has_the_standard_deviation_the_encoder_says():
    network = VAENetwork(ITEMS, dataclasses.replace(NO_DROPOUT, latent=1, beta=0))
    codes = []
    network.hidden.register_forward_hook(lambda layer, inputs, output: codes.append(inputs[0].detach()))
    torch.nn.init.zeros_(network.posterior.weight)
    with torch.no_grad():
        network.posterior.bias.copy_(torch.tensor([5.0, 2 * np.log(3)]))  # mean 5, standard deviation 3
    network.loss(batch_of(np.ones((20_000, ITEMS))), 0.0)
    assert codes[0].mean().item() == pytest.approx(5, abs=0.1)
    assert codes[0].std().item() == pytest.approx(3, abs=0.1)


FLAT = VAEConfig(hidden=0, latent=3, dropout=0, beta=0.3, anneal=0)


def test_without_hidden_layers_the_code_is_linear_in_the_row_and_the_logits_in_tanh_of_the_code():
    network, x = with_random_biases(VAENetwork(ITEMS, FLAT)), torch.as_tensor(preferences())
    torch.manual_seed(7)
    ours = network.loss(batch_of(x), 1.0)
    torch.manual_seed(7)
    mean, log_variance = (F.normalize(x) @ network.encoder.weight + network.encoder.bias).chunk(2, dim=1)
    deviation = (log_variance / 2).exp()
    code = mean + deviation * torch.randn_like(mean)
    logits = torch.tanh(code) @ network.decoder.weight.T + network.decoder.bias
    kl = kl_divergence(Normal(mean, deviation), Normal(0.0, 1.0)).sum(dim=1)
    torch.testing.assert_close(ours, (0.3 * kl - likelihood(logits, x)).mean())
    torch.testing.assert_close(network(batch_of(x)), torch.tanh(mean) @ network.decoder.weight.T + network.decoder.bias)


@pytest.mark.parametrize("hidden", [0, 5])
def test_before_training_the_code_deviates_by_the_setting(hidden):
    network = VAENetwork(ITEMS, dataclasses.replace(FLAT, hidden=hidden, deviation=0.2))
    found = network.embed(batch_of(np.zeros((2, ITEMS)))).deviation  # of a history without items only the biases count
    torch.testing.assert_close(found, torch.full((2, 3), 0.2))


@pytest.mark.parametrize(
    ("settings", "users", "decided"),
    [
        ({}, 9999, (0, 0.1, 0.05, 4e-5)),
        ({}, 10_000, (600, 1.0, 0.2, 0.0)),
        ({"softmax": "sampled"}, 9999, (0, 0.1, 0.05, 0.0)),  # whose updates of single rows know no l2
        ({"hidden": 50}, 9999, (50, 1.0, 0.2, 0.0)),
        ({"hidden": 0, "deviation": 0.5, "beta": 0.3, "l2": 0.0}, 10_000, (0, 0.5, 0.3, 0.0)),
    ],
)
def test_few_users_get_a_network_without_hidden_layers(settings, users, decided):
    scaled = VAE.create(settings).scaled_config(csr_matrix((users, 3)))
    assert (scaled.hidden, scaled.deviation, scaled.beta, scaled.l2) == decided


def test_what_the_number_of_users_decided_is_part_of_the_state():
    model = VAE(VAEConfig(latent=3, epochs=1)).fit(csr_matrix(preferences()))
    assert model.summary() == "hidden 0 (by the number of users)"
    assert set(model.get_state()) == {"encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias"}
    again = VAE(VAEConfig(latent=3, epochs=1))
    again.set_state(model.get_state(), ITEMS)
    assert again.summary() == model.summary()
    assert torch.equal(again.score(csr_matrix(preferences(1))), model.score(csr_matrix(preferences(1))))


# Scoring


def test_the_vae_scores_at_the_mean_without_dropout():
    model = VAE(VAEConfig(hidden=6, latent=3, epochs=2)).fit(csr_matrix(preferences()))
    x = torch.as_tensor(preferences(1))
    first = model.score(csr_matrix(x.numpy()))
    assert torch.equal(model.score(csr_matrix(x.numpy())), first)
    torch.testing.assert_close(first, decode_densely(model.network, encode_densely(model.network, x)[0]).detach())


def test_the_dae_scores_without_dropout():
    model = DAE(DAEConfig(latent=3, epochs=2)).fit(csr_matrix(preferences()))
    x = torch.as_tensor(preferences(1))
    code = torch.tanh(F.normalize(x) @ model.network.encoder.weight + model.network.encoder.bias)
    torch.testing.assert_close(model.score(csr_matrix(x.numpy())), model.network.decoder(code).detach())


# Learning

# Three groups of four users, each group with four items of its own.
TASTES = np.kron(np.eye(3), np.ones((4, 4))).astype(np.float32)
both = pytest.mark.parametrize(("model", "settings"), [(DAE, {}), (VAE, {"hidden": 8})])


def fit_tastes(model, settings, precision="fp32"):
    settings = {"latent": 4, "epochs": 80, "batch_size": 4, "learning_rate": 0.02, **settings}
    return model.create(settings).fit(csr_matrix(TASTES), TrainingContext(precision=precision))


def share_of_own_items(fitted):
    """Probability the model gives to the items of the user's own group; the smallest over users."""
    return (fitted.score(csr_matrix(TASTES)).softmax(dim=1).numpy() * TASTES).sum(axis=1).min()


@both
def test_learning_lowers_the_loss_and_finds_each_users_own_items(model, settings):
    fitted = fit_tastes(model, settings)
    assert fitted.epochs[-1].loss < fitted.epochs[0].loss
    assert share_of_own_items(fitted) > 0.9


@both
def test_bfloat16_learns_the_same_and_keeps_weights_and_scores_in_float32(model, settings):
    fitted = fit_tastes(model, settings, "bf16")
    assert share_of_own_items(fitted) == pytest.approx(share_of_own_items(fit_tastes(model, settings)), abs=0.02)
    assert all(tensor.dtype == torch.float32 for tensor in fitted.get_state().values())
    assert fitted.score(csr_matrix(TASTES)).dtype == torch.float32


def test_weight_decay_keeps_weights_small():
    def norm(l2):
        model = DAE(DAEConfig(latent=3, epochs=30, batch_size=4, learning_rate=0.02, l2=l2))
        return model.fit(csr_matrix(preferences())).network.decoder.weight.norm().item()

    assert norm(1) < norm(0) / 10


def test_a_second_fit_restarts_the_annealing(monkeypatch):
    reported, loss = [], VAENetwork.loss

    def listening(network, batch, progress):
        reported.append(progress)
        return loss(network, batch, progress)

    monkeypatch.setattr(VAENetwork, "loss", listening)
    model = VAE(VAEConfig(hidden=4, latent=2, epochs=5, batch_size=4))
    model.fit(csr_matrix(preferences()))
    updates = 5 * 3  # nine users in batches of four: three a epoch, the last with one user
    assert reported == pytest.approx([update / updates for update in range(updates)])
    first, reported[:] = list(reported), []
    model.fit(csr_matrix(preferences()))
    assert reported == first


def test_annealing_follows_the_planned_epochs_also_where_training_stops_early(monkeypatch):
    reported, loss = [], VAENetwork.loss
    monkeypatch.setattr(
        VAENetwork, "loss", lambda network, batch, progress: reported.append(progress) or loss(network, batch, progress)
    )
    model = VAE(VAEConfig(hidden=4, latent=2, epochs=10, batch_size=USERS))
    model.fit(csr_matrix(preferences()), TrainingContext(stop_after=3))
    assert reported == pytest.approx([0, 0.1, 0.2])


def test_the_batch_follows_the_number_of_users_within_bounds():
    sizes = [default_batch_size(users) for users in (1, 640, 1000, 10_000, 1_000_000)]
    assert sizes == [32, 32, 50, 500, 500]
    assert all(small <= large for small, large in pairwise(sizes))


def test_beta2_is_the_decay_of_adams_squared_gradients():
    short, long = (fit_tastes(VAE, {"epochs": 2, "beta2": beta2}).get_state() for beta2 in (0.5, 0.999))
    assert any(not torch.equal(short[name], long[name]) for name in short)


def test_embeddings_of_items_are_the_weights_of_the_output():
    matrix = csr_matrix(preferences())
    assert VAE(VAEConfig(hidden=6, latent=3, epochs=1)).fit(matrix).embed_items().shape == (ITEMS, 6)
    assert DAE(DAEConfig(latent=3, epochs=1)).fit(matrix).embed_items().shape == (ITEMS, 3)


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        (DAEConfig, {"dropout": 1}),
        (VAEConfig, {"beta2": 1}),
        (VAEConfig, {"dropout": 1}),
        (VAEConfig, {"anneal": 1.5}),
        (VAEConfig, {"epochs": 0}),
        (VAEConfig, {"batch_size": 0}),
        (DAEConfig, {"latent": 0}),
        (VAEConfig, {"hidden": -1}),
        (VAEConfig, {"deviation": 0}),
        (VAEConfig, {"smoothing": 1}),
        (DAEConfig, {"emphasis": 0}),
        (VAEConfig, {"gamma": -0.1}),
        (VAEConfig, {"smoothing": 0.1, "softmax": "sampled"}),
    ],
)
def test_settings_out_of_range_are_refused(config, settings):
    with pytest.raises(ConfigError, match="Expected "):
        config(**settings)


# Cosine output


@pytest.mark.parametrize("kind", [DAE, VAE])
def test_cosine_scores_are_cosines_divided_by_the_temperature(kind):
    model = kind.create({"latent": 4, "output": "cosine", "temperature": 0.25, "epochs": 2})
    history = csr_matrix(preferences())
    model.fit(history)
    with torch.no_grad():
        last, weight = model.network.last(model._batch(history)), model.network.decoder.weight
        cosines = F.cosine_similarity(last[:, None], weight[None], dim=2)
    torch.testing.assert_close(model.score(history), cosines / 0.25 + model.network.decoder.bias)


def test_user_vector_of_dae_with_cosine_output_is_linear_in_the_items_but_for_its_length():
    network = DAENetwork(ITEMS, DAEConfig(latent=3, dropout=0, output="cosine"))
    x = preferences()
    expected = F.normalize(F.normalize(torch.as_tensor(x)) @ network.encoder.weight)
    torch.testing.assert_close(network.last(batch_of(x)), expected)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("settings", [{}, {"softmax": "sampled", "negatives": 20}])
def test_vae_with_cosine_output_learns(settings, precision):
    model = VAE.create({"latent": 4, "hidden": 0, "output": "cosine", "epochs": 30, **settings})
    model.fit(csr_matrix(preferences()), TrainingContext(0, "cpu", precision))
    assert model.epochs[-1].loss < model.epochs[0].loss


@pytest.mark.parametrize("config", [DAEConfig, VAEConfig])
def test_cosine_output_is_refused_where_it_has_no_meaning(config):
    with pytest.raises(ConfigError, match="likelihood=multinomial with output=cosine, found bernoulli"):
        config(output="cosine", likelihood="bernoulli")
    with pytest.raises(ConfigError, match="temperature above 0, found 0"):
        config(temperature=0)
    with pytest.raises(ConfigError, match="output linear or cosine, found 'dot'"):
        config(output="dot")


@pytest.mark.parametrize("kind", [DAE, VAE])
def test_a_cosine_output_is_explained_by_leaving_items_out(kind):
    assert kind().explained_by == "integrated gradients"
    assert kind.create({"output": "cosine"}).explained_by == "leave-one-out"
