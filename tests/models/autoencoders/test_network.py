"""What all networks share: weights averaged over epochs, and the memory that training will take."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from recsys.models import create_model
from recsys.models.autoencoders.network import with_weight_averaging
from recsys.training.context import TrainingContext

SMALL = {"latent": 3, "epochs": 4, "batch_size": 4, "learning_rate": 0.02}
every_kind = pytest.mark.parametrize("name", ["dae", "vae", "recvae"])


def preferences():
    return csr_matrix((np.random.default_rng(0).random((9, 12)) < 0.4).astype(np.float32))


def test_the_average_is_the_mean_at_first_and_then_a_running_one():
    learner, kept = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    weights = iter([6.0, 2.0, 10.0, 5.0])

    def one_epoch():
        torch.nn.init.constant_(learner.weight, next(weights))
        return learner.weight.item() * 10

    epoch, found = with_weight_averaging(one_epoch, learner, kept, 0.6), []
    for _ in range(4):
        loss = epoch()
        found.append(kept.weight.item())
        assert loss == learner.weight.item() * 10
    # 6; (6 + 2) / 2; then 0.6 of the average and 0.4 of the weight
    assert found == pytest.approx([6, 4, 0.6 * 4 + 0.4 * 10, 0.6 * 6.4 + 0.4 * 5])


@every_kind
def test_the_model_is_the_average_of_the_weights_after_each_epoch(name):
    def weights(stop_after, average):
        context = TrainingContext(stop_after=stop_after)
        return create_model(name, {**SMALL, "average": average}).fit(preferences(), context).get_state()

    ends = [weights(epoch, 0.0) for epoch in (1, 2, 3)]
    for key, averaged in weights(3, 0.9).items():
        torch.testing.assert_close(averaged, torch.stack([end[key] for end in ends]).mean(dim=0))


@every_kind
def test_validation_sees_the_average(name):
    seen = []
    context = TrainingContext(validate=lambda score: seen.append(score(preferences())) or float(len(seen)))
    model = create_model(name, {**SMALL, "average": 0.5}).fit(preferences(), context)
    torch.testing.assert_close(model.score(preferences()), seen[-1])


def test_memory_of_training_includes_averaged_weights_and_the_earlier_encoder():
    plain = create_model("dae", {"latent": 5}).training_memory(100)
    averaged = create_model("dae", {"latent": 5, "average": 0.5}).training_memory(100)
    assert plain.parameters == 4 * (2 * 500 + 105)
    assert averaged.parameters == 2 * plain.parameters
    recvae = create_model("recvae", {"hidden": 5, "latent": 2, "average": 0}).training_memory(100)
    encoder = 505 + 4 * 30 + 5 * 10 + 24
    decoder = 300
    assert recvae.parameters == 4 * (2 * encoder + decoder)
