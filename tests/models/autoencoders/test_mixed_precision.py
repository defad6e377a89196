"""A table used in bfloat16 moves as the float32 one would with the same gradients."""

import pytest
import torch
from torch import nn

from recsys.models.autoencoders.layers import ItemOutput
from recsys.models.autoencoders.mixed_precision import MixedAdam
from recsys.models.autoencoders.mult_vae import VAEConfig, VAENetwork
from recsys.models.autoencoders.optimizers import make_optimizer
from recsys.training.batches import SparseBatch

ROWS, WIDTH = 7, 3


@pytest.fixture(autouse=True)
def _own_random_stream():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(params=[1, 2, 7, 100], ids=lambda rows: f"{rows}_rows_at_once")
def _blocks(request, monkeypatch):
    monkeypatch.setattr("recsys.models.autoencoders.mixed_precision._BLOCK", request.param * WIDTH)


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("l2", [0.0, 0.5])
def test_steps_are_those_of_adam(l2):
    table = nn.Parameter(torch.randn(ROWS, WIDTH))
    twin = nn.Parameter(table.detach().clone())
    ours, adam = MixedAdam(table, 0.1, l2), torch.optim.Adam([twin], lr=0.1, weight_decay=l2)
    for _ in range(3):
        gradient = torch.randn(ROWS, WIDTH).bfloat16()
        ours.working.grad, twin.grad = gradient, gradient.float()
        ours.step()
        adam.step()
        torch.testing.assert_close(table, twin)
        assert torch.equal(ours.working, table.bfloat16())


@pytest.mark.usefixtures("_blocks")
def test_gradients_of_the_copy_and_of_the_table_itself_add_up():
    table = nn.Parameter(torch.randn(ROWS, WIDTH))
    twin = nn.Parameter(table.detach().clone())
    ours, theirs = MixedAdam(table, 0.1, 0.0), MixedAdam(twin, 0.1, 0.0)
    ours.working.grad, table.grad = torch.full((ROWS, WIDTH), 3.0).bfloat16(), torch.full((ROWS, WIDTH), -5.0)
    twin.grad = torch.full((ROWS, WIDTH), 3.0 - 5.0)
    ours.step()
    theirs.step()
    assert torch.equal(table, twin)
    ours.zero_grad()
    assert table.grad is ours.working.grad is None


def test_a_table_without_a_gradient_is_not_updated():
    table = nn.Parameter(torch.randn(ROWS, WIDTH))
    before = table.detach().clone()
    MixedAdam(table, 0.1, 0.5).step()
    assert torch.equal(table, before)


def batch():
    return SparseBatch(torch.tensor([0, 2, 3]), torch.ones(3), torch.tensor([0, 2, 3]))


def test_the_copy_gets_the_gradient_if_there_is_one():
    output, codes = ItemOutput(ROWS, WIDTH), torch.randn(2, WIDTH)
    output.working = MixedAdam(output.weight, 0.1, 0.0).working
    with torch.autocast("cpu", torch.bfloat16):
        output.loss(codes, batch()).backward()
        gradient, output.working = output.working.grad, None
        assert output.weight.grad is None
        output.loss(codes, batch()).backward()
    assert gradient.dtype == torch.bfloat16
    assert torch.equal(gradient, output.weight.grad.bfloat16())


def test_a_frozen_table_is_not_updated():
    output = ItemOutput(ROWS, WIDTH).requires_grad_(False)
    output.working = MixedAdam(output.weight, 0.1, 0.0).working
    output.loss(torch.randn(2, WIDTH, requires_grad=True), batch()).backward()
    assert output.working.grad is None


def test_a_mixed_step_updates_the_network_like_an_autocast_step():
    networks = [VAENetwork(ROWS, VAEConfig(hidden=4, latent=2, dropout=0)) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    for network, in_half in zip(networks, (True, False), strict=True):
        torch.manual_seed(1)
        optimizer = make_optimizer(network, [], 0.01, 0.0, mixed=in_half)
        for _ in range(3):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                network.loss(batch(), 1.0).backward()
            optimizer.step()
    for ours, theirs in zip(*(network.parameters() for network in networks), strict=True):
        torch.testing.assert_close(ours, theirs)
