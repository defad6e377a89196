"""The learning rate of a warm start falls in equal steps to 0."""

import pytest
import torch

from recsys.models.autoencoders.mixed_precision import MixedAdam
from recsys.models.autoencoders.optimizers import CombinedOptimizer
from recsys.training.optimizer_state import FallingRate
from recsys.training.parts import Counter


def take(optimizer, weights, steps):
    """Steps with a gradient of 1."""
    for _ in range(steps):
        for weight in weights:
            weight.grad = torch.ones_like(weight)
        optimizer.step()


def test_four_steps_take_four_three_two_and_one_quarters_of_the_rate_and_a_fifth_none():
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    falling = FallingRate(torch.optim.SGD([weight], lr=0.1), 4, Counter())
    for expected in (0.9, 0.825, 0.775, 0.75, 0.75):
        take(falling, [weight], 1)
        assert weight.item() == pytest.approx(expected)


def test_it_goes_on_where_its_counter_is():
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    falling = FallingRate(torch.optim.SGD([weight], lr=0.1), 4, Counter(3))
    take(falling, [weight], 1)
    assert weight.item() == pytest.approx(1 - 0.1 / 4)


def test_the_rates_of_all_optimizers_inside_fall():
    one, table = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(2, 1))
    both = CombinedOptimizer([torch.optim.SGD([one], lr=0.1), MixedAdam(table, 0.2, 0.0)])
    falling = FallingRate(both, 2, Counter())
    take(falling, [one, table], 2)
    assert one.item() == pytest.approx(1 - 0.1 - 0.05)
    torch.testing.assert_close(table.detach(), torch.full((2, 1), 1 - 0.2 - 0.1))  # Adam's step is the rate
    take(falling, [one, table], 1)
    torch.testing.assert_close(table.detach(), torch.full((2, 1), 1 - 0.2 - 0.1))


def test_gradients_are_reset_inside():
    weight = torch.nn.Parameter(torch.ones(1))
    weight.grad = torch.ones(1)
    FallingRate(torch.optim.SGD([weight], lr=0.1), 1, Counter()).zero_grad()
    assert weight.grad is None
