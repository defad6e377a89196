"""RecVAE against the equations of the paper written the usual dense way."""

import copy
import dataclasses
import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from networks import ITEMS, USERS, batch_of, preferences
from scipy.sparse import csr_matrix
from torch.distributions import Normal

from recsys.errors import ConfigError
from recsys.models.autoencoders.recvae import Encoder, RecVAE, RecVAEConfig, RecVAENetwork, log_prior
from recsys.training.context import TrainingContext

NO_DROPOUT = RecVAEConfig(hidden=6, latent=3, dropout=0, gamma=0.3, smoothing=0)
pytestmark = pytest.mark.usefixtures("own_random_stream")


def encode_densely(encoder, x):
    def layer(number, before, skip):
        shape = (encoder.norms[number].normalized_shape, encoder.norms[number].weight, encoder.norms[number].bias, 0.1)
        return F.layer_norm(F.silu(before + skip), *shape)

    h1 = layer(0, F.normalize(x) @ encoder.input.weight + encoder.input.bias, 0)
    h2 = layer(1, encoder.layers[0](h1), h1)
    h3 = layer(2, encoder.layers[1](h2), h1 + h2)
    h4 = layer(3, encoder.layers[2](h3), h1 + h2 + h3)
    h5 = layer(4, encoder.layers[3](h4), h1 + h2 + h3 + h4)
    return encoder.posterior(h5).chunk(2, dim=1)


def density(z, mean, log_variance):
    """Of one number under the prior, by hand: 3/20 N(0, 1) + 3/4 N(mean, exp(log_variance)) + 1/10 N(0, e^10)."""

    def normal(mean, variance):
        return math.exp(-((z - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)

    return 0.15 * normal(0, 1) + 0.75 * normal(mean, math.exp(log_variance)) + 0.1 * normal(0, math.exp(10))


# The prior


@pytest.mark.parametrize(("z", "mean", "log_variance"), [(0, 0, 0), (1.5, -0.5, 0.7), (-40, 2, -3), (3, 3, -2)])
def test_the_prior_is_the_mixture_of_three_normals(z, mean, log_variance):
    found = log_prior(*(torch.tensor(float(number)) for number in (z, mean, log_variance)))
    assert found.item() == pytest.approx(math.log(density(z, mean, log_variance)), rel=1e-5)


def test_every_code_has_a_finite_log_density_under_the_prior():
    far = log_prior(torch.tensor([1e4]), torch.zeros(1), torch.full((1,), -10.0))
    assert far.isfinite().all()


# The losses


def test_the_encoder_is_the_one_of_the_paper():
    encoder, x = Encoder(ITEMS, NO_DROPOUT), torch.as_tensor(preferences())
    for ours, dense in zip(encoder(batch_of(x)), encode_densely(encoder, x), strict=True):
        torch.testing.assert_close(ours, dense)


@pytest.mark.parametrize("smoothing", [0, 0.2])
def test_the_loss_of_the_encoder_weights_the_kl_term_by_the_items_of_the_user(smoothing):
    config = dataclasses.replace(NO_DROPOUT, smoothing=smoothing)
    network, earlier = RecVAENetwork(ITEMS, config), Encoder(ITEMS, config)
    x = torch.as_tensor(preferences())
    torch.manual_seed(7)
    ours = network.encoder_loss(batch_of(x), earlier)
    torch.manual_seed(7)
    mean, log_variance = encode_densely(network.encoder, x)
    z = mean + (log_variance / 2).exp() * torch.randn_like(mean)
    then = (part.detach() for part in encode_densely(earlier, x))
    kl = (Normal(mean, (log_variance / 2).exp()).log_prob(z) - log_prior(z, *then)).sum(dim=1)
    target = (1 - smoothing) * x + smoothing * x.sum(dim=1, keepdim=True) / ITEMS
    likelihood = (F.log_softmax(z @ network.decoder.weight.T + network.decoder.bias, dim=1) * target).sum(dim=1)
    plain = (0.3 * x.sum(dim=1) * kl - likelihood).mean()
    torch.testing.assert_close(ours, plain)
    weights = list(network.parameters())
    for fused, autograds in zip(torch.autograd.grad(ours, weights), torch.autograd.grad(plain, weights), strict=True):
        torch.testing.assert_close(fused, autograds, rtol=1e-4, atol=1e-5)


def test_no_gradient_of_the_decoders_loss_reaches_the_encoder():
    network = RecVAENetwork(ITEMS, NO_DROPOUT)
    network.decoder_loss(batch_of(preferences())).backward()
    assert network.decoder.weight.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in network.encoder.parameters())


# An epoch


def watched_fit(monkeypatch, **settings):
    """(loss asked for, weights of encoder and decoder then, the earlier encoder, whether items are hidden) a step."""
    seen = []

    def watch(kind):
        loss = getattr(RecVAENetwork, kind)

        def asked(network, batch, *earlier):
            state = {name: weight.detach().clone() for name, weight in network.state_dict().items()}
            then = copy.deepcopy(earlier[0].state_dict()) if earlier else None
            seen.append((kind, state, then, network.encoder.input.training))
            return loss(network, batch, *earlier)

        monkeypatch.setattr(RecVAENetwork, kind, asked)

    watch("encoder_loss")
    watch("decoder_loss")
    settings = {"hidden": 5, "latent": 2, "batch_size": USERS, "epochs": 2, "encoder_passes": 2, **settings}
    RecVAE.create(settings).fit(csr_matrix(preferences()))
    return seen


def moved(before, after):
    return {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}


def test_an_epoch_trains_the_encoder_with_dropout_and_then_the_decoder_without(monkeypatch):
    seen = watched_fit(monkeypatch)
    assert [kind for kind, *_ in seen] == ["encoder_loss", "encoder_loss", "decoder_loss"] * 2
    assert [hidden for *_, hidden in seen] == [True, True, False] * 2
    states = [state for _, state, *_ in seen]
    steps = [moved(before, after) for before, after in pairwise(states)]
    assert steps == [{"encoder"}, {"encoder"}, {"decoder"}, {"encoder"}, {"encoder"}]


def test_the_prior_holds_the_encoder_of_the_epoch_before(monkeypatch):
    seen = watched_fit(monkeypatch)
    then = [earlier for _, _, earlier, _ in seen if earlier is not None]

    def encoder_at(step):
        return {name[8:]: weight for name, weight in seen[step][1].items() if name.startswith("encoder.")}

    for earlier, step in zip(then, (0, 0, 2, 2), strict=True):
        assert earlier.keys() == encoder_at(step).keys()
        assert all(torch.equal(weight, encoder_at(step)[name]) for name, weight in earlier.items())


def test_the_saved_state_holds_no_earlier_encoder():
    state = RecVAE.create({"hidden": 5, "latent": 2, "epochs": 1}).fit(csr_matrix(preferences())).get_state()
    assert sum("input.weight" in name for name in state) == 1


def test_scores_are_computed_at_the_mean_without_dropout():
    model = RecVAE.create({"hidden": 5, "latent": 2, "epochs": 2}).fit(csr_matrix(preferences()))
    x = torch.as_tensor(preferences(1))
    mean = encode_densely(model.network.encoder, x)[0]
    torch.testing.assert_close(model.score(csr_matrix(x.numpy())), model.network.decoder(mean).detach())


def test_bfloat16_learns_and_keeps_weights_and_scores_in_float32():
    settings = {"hidden": 8, "latent": 3, "epochs": 30, "learning_rate": 0.01}
    model = RecVAE.create(settings).fit(csr_matrix(preferences()), TrainingContext(precision="bf16"))
    assert model.epochs[-1].loss < model.epochs[0].loss
    assert all(tensor.dtype == torch.float32 for tensor in model.get_state().values())


@pytest.mark.parametrize("settings", [{"gamma": -1}, {"encoder_passes": 0}, {"smoothing": 1}, {"latent": 0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match="Expected "):
        RecVAEConfig(**settings)
