"""SVAE beside a slow loop over places, and what it learns."""

import math

import pytest
import torch
import torch.nn.functional as F
from test_sequential import circles, matrix_of

from recsys.errors import ConfigError
from recsys.models import create_model
from recsys.models.sequential.rows import SequenceRows

SMALL = {"width": 6, "hidden": 5, "latent": 3, "dropout": 0.0, "beta": 0.5, "anneal": 0.25}


def network_and_batch(*sequences, **settings):
    torch.manual_seed(0)
    network = create_model("svae", {**SMALL, **settings}).untrained(8).network
    return network.train(), SequenceRows(matrix_of(*sequences, items=8), torch.device("cpu")).everything()


def test_the_loss_is_that_of_a_loop_over_places(monkeypatch):
    monkeypatch.setattr(torch, "randn_like", torch.ones_like)  # the code is mean + deviation
    sequences = [3, 0, 2, 7], [1, 4]
    network, batch = network_and_batch(*sequences, next_items=2)
    losses, divergences = [], []
    for sequence in sequences:
        state = torch.zeros(1, 1, 5)
        for place, item in enumerate(sequence[:-1]):
            read, state = network.gru(network.decoder.weight[item].view(1, 1, -1) * math.sqrt(6), state)
            mean, log_variance = network.posterior(torch.tanh(network.encoder(read[0, 0]))).chunk(2)
            code = mean + torch.exp(log_variance / 2)
            logits = network.decoder.weight @ torch.tanh(network.widen(code)) + network.decoder.bias
            coming = sequence[place + 1 : place + 3]
            losses.append(-F.log_softmax(logits, dim=0)[coming].mean())
            normal = torch.distributions.Normal(mean, torch.exp(log_variance / 2))
            standard = torch.distributions.Normal(torch.zeros(3), torch.ones(3))
            divergences.append(torch.distributions.kl_divergence(normal, standard).sum())
    likelihood, divergence = torch.stack(losses).mean(), torch.stack(divergences).mean()
    torch.testing.assert_close(network.loss(batch, 1.0), likelihood + 0.5 * divergence)
    torch.testing.assert_close(network.loss(batch, 0.1), likelihood + 0.5 * 0.1 / 0.25 * divergence)


def test_the_next_items_of_a_place_end_with_the_sequence():
    network, batch = network_and_batch([3, 0, 2], [1, 4], next_items=2)
    items, filled = torch.tensor([[3, 0, 2], [1, 4, 0]]), torch.tensor([[True] * 3, [True, True, False]])
    targets = network._targets(items, filled)
    assert targets.items.tolist() == [0, 2, 2, 4]
    assert targets.offsets.tolist() == [0, 2, 3, 4]
    assert targets.values.tolist() == [0.5, 0.5, 1, 1]
    assert len(batch) == 2


@pytest.mark.parametrize("settings", [{"next_items": 1}, {"softmax": "sampled", "negatives": 3, "next_items": 1}])
def test_it_learns_what_comes_next(settings):
    given = {"width": 16, "hidden": 16, "latent": 8, "dropout": 0.0, "beta": 0.01}
    training = {"epochs": 60, "learning_rate": 0.01, "batch_size": 10}
    model = create_model("svae", given | training | settings).fit(circles())
    assert model.score(matrix_of([0, 1, 2], [6, 7], items=8)).argmax(dim=1).tolist() == [3, 0]


def test_a_user_is_the_posterior_of_the_code():
    network, batch = network_and_batch([3, 0, 2], [1])
    found = network.embed(batch)
    assert found.mean.shape == found.deviation.shape == (2, 3)
    assert (found.deviation > 0).all()


@pytest.mark.parametrize(("setting", "value"), [("next_items", 0), ("beta", -1), ("anneal", 2), ("softmax", "half")])
def test_settings_out_of_range_are_refused(setting, value):
    with pytest.raises(ConfigError, match=f"Expected {setting}"):
        create_model("svae", {setting: value})
