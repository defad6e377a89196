"""The fused ends of the network against the same written the plain way: dense, and differentiated by autograd."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.sparse import csr_matrix

from recsys.models.autoencoders import likelihood
from recsys.models.autoencoders.layers import ItemOutput, SparseInput
from recsys.models.autoencoders.likelihood import squared_error
from recsys.training.batches import SparseBatch, SparseRows, weighted_sum

ROWS, ITEMS, WIDTH = 7, 11, 3


def batch_of(dense):
    return SparseRows(csr_matrix(np.asarray(dense, dtype=np.float32)), torch.device("cpu")).everything()


def random_target(seed=0, counts=False):
    """Some items of every row but two: the first and the fifth are empty."""
    rng = np.random.default_rng(seed)
    target = (rng.random((ROWS, ITEMS)) < 0.4).astype(np.float32)
    if counts:
        target *= rng.uniform(0.5, 5, target.shape)
    target[[0, 4]] = 0
    return torch.as_tensor(target, dtype=torch.float32)


def random_output(seed=0):
    torch.manual_seed(seed)
    output = ItemOutput(ITEMS, WIDTH)
    torch.nn.init.normal_(output.bias)
    return output, torch.randn(ROWS, WIDTH, requires_grad=True)


def plain_loss(output, codes, target):
    return -(F.log_softmax(output(codes), dim=1) * target).sum(dim=1).mean()


def gradients(loss, output, codes):
    return torch.autograd.grad(loss, [codes, output.weight, output.bias])


@pytest.fixture(autouse=True)
def _own_random_stream():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(params=[1, 2, 3, 7, 100], ids=lambda rows: f"{rows}_rows_at_once")
def _blocks(request, monkeypatch):
    monkeypatch.setattr(likelihood, "_BLOCK", request.param * ITEMS)


@pytest.fixture(params=[1, 3, 100], ids=lambda rows: f"{rows}_rows_a_chunk")
def _chunks(request, monkeypatch):
    monkeypatch.setattr(likelihood, "_CHUNK", request.param * ITEMS)


# The multinomial loss


@pytest.mark.parametrize("counts", [False, True], ids=["ones", "counts"])
@pytest.mark.usefixtures("_blocks", "_chunks")
def test_the_fused_loss_and_its_gradients_are_those_of_the_plain_one(counts):
    (output, codes), target = random_output(), random_target(counts=counts)
    fused, plain = output.loss(codes, batch_of(target)), plain_loss(output, codes, target)
    torch.testing.assert_close(fused, plain)
    for ours, autograds in zip(gradients(fused, output, codes), gradients(plain, output, codes), strict=True):
        torch.testing.assert_close(ours, autograds)


@pytest.mark.parametrize("smoothing", [0.1, 0.9])
def test_a_smoothed_loss_is_that_of_a_target_spread_over_all_items(smoothing):
    (output, codes), target = random_output(), random_target(counts=True)
    spread = (1 - smoothing) * target + smoothing * target.sum(dim=1, keepdim=True) / ITEMS
    fused, plain = output.loss(codes, batch_of(target), smoothing), plain_loss(output, codes, spread)
    torch.testing.assert_close(fused, plain)
    for ours, autograds in zip(gradients(fused, output, codes), gradients(plain, output, codes), strict=True):
        torch.testing.assert_close(ours, autograds)


def test_a_frozen_table_gets_no_gradient_and_that_of_the_codes_stays_the_same():
    (output, codes), target = random_output(), random_target()
    expected, *_ = gradients(plain_loss(output, codes, target), output, codes)
    output.requires_grad_(False)
    output.loss(codes, batch_of(target)).backward()
    assert output.weight.grad is None and output.bias.grad is None
    torch.testing.assert_close(codes.grad, expected)


def test_frozen_codes_get_no_gradient_and_that_of_the_table_stays_the_same():
    (output, codes), target = random_output(), random_target()
    _, weight, bias = gradients(plain_loss(output, codes, target), output, codes)
    output.loss(codes.detach(), batch_of(target)).backward()
    torch.testing.assert_close(output.weight.grad, weight)
    torch.testing.assert_close(output.bias.grad, bias)


def test_gradients_are_scaled_by_the_upstream_gradient():
    (output, codes), target = random_output(), random_target()
    fused = 3 * output.loss(codes, batch_of(target)) + codes.square().sum()
    plain = 3 * plain_loss(output, codes, target) + codes.square().sum()
    for ours, autograds in zip(gradients(fused, output, codes), gradients(plain, output, codes), strict=True):
        torch.testing.assert_close(ours, autograds)


def test_gradients_flow_through_the_codes():
    (output, codes), target = random_output(), random_target()
    made = torch.nn.Linear(WIDTH, WIDTH)
    ours = torch.autograd.grad(output.loss(made(codes), batch_of(target)), made.weight)
    autograds = torch.autograd.grad(plain_loss(output, made(codes), target), made.weight)
    torch.testing.assert_close(ours, autograds)


def test_repeated_calls_are_independent():
    (output, codes), first, second = random_output(), random_target(1), random_target(2)
    alone = output.loss(codes, batch_of(first))
    expected = [alone.detach().clone(), *(part.clone() for part in gradients(alone, output, codes))]
    gradients(output.loss(codes, batch_of(second)), output, codes)
    again = output.loss(codes, batch_of(first))
    for ours, before in zip([again.detach(), *gradients(again, output, codes)], expected, strict=True):
        assert torch.equal(ours, before)


def test_two_losses_in_one_graph_add_their_gradients():
    (output, codes), first, second = random_output(), random_target(1), random_target(2)
    fused = output.loss(codes, batch_of(first)) + output.loss(codes, batch_of(second))
    plain = plain_loss(output, codes, first) + plain_loss(output, codes, second)
    for ours, autograds in zip(gradients(fused, output, codes), gradients(plain, output, codes), strict=True):
        torch.testing.assert_close(ours, autograds)


def test_the_loss_changes_neither_codes_nor_weights_nor_target():
    (output, codes), target = random_output(), batch_of(random_target())
    tensors = [codes, output.weight, output.bias, target.items, target.values, target.offsets]
    before = [tensor.detach().clone() for tensor in tensors]
    output.loss(codes, target).backward()
    assert all(torch.equal(tensor, was) for tensor, was in zip(tensors, before, strict=True))


@pytest.mark.usefixtures("_blocks")
def test_bfloat16_gives_the_same_within_its_three_digits():
    (output, codes), target = random_output(), random_target(counts=True)
    with torch.autocast("cpu", torch.bfloat16):
        fused = output.loss(codes, batch_of(target))
    plain = plain_loss(output, codes, target)
    assert fused.dtype == torch.float32
    torch.testing.assert_close(fused, plain, rtol=0.01, atol=0)
    for ours, autograds in zip(gradients(fused, output, codes), gradients(plain, output, codes), strict=True):
        assert ours.dtype == torch.float32
        assert (ours - autograds).norm() < 0.02 * autograds.norm()


def test_uniform_logits_cost_the_logarithm_of_the_catalog_for_each_positive():
    output = ItemOutput(ITEMS, WIDTH)  # its bias is 0
    target = batch_of([[1, 1, 1] + [0] * 8, [1] + [0] * 10])
    loss = output.loss(torch.zeros(2, WIDTH), target)
    assert loss.item() == pytest.approx((3 + 1) * math.log(ITEMS) / 2)


@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_a_shift_of_all_logits_changes_nothing_however_large(shift):
    output, target = ItemOutput(ITEMS, WIDTH), batch_of(random_target())
    before = output.loss(torch.zeros(ROWS, WIDTH), target).item()
    torch.nn.init.constant_(output.bias, shift)
    assert output.loss(torch.zeros(ROWS, WIDTH), target).item() == pytest.approx(before, rel=1e-3)


def test_rows_without_targets_have_no_loss_and_no_gradient():
    output, codes = random_output()
    loss = output.loss(codes, batch_of(np.zeros((ROWS, ITEMS))))
    assert loss.item() == 0
    assert all(part.abs().max() < 1e-9 for part in gradients(loss, output, codes))


# The squared error


def test_the_squared_error_is_that_of_the_dense_reconstruction():
    (output, codes), target = random_output(), random_target(counts=True)
    ours = squared_error(codes, output.weight, output.bias, batch_of(target))
    plain = (output(codes) - target).square().sum(dim=1).mean()
    torch.testing.assert_close(ours, plain)
    for one, other in zip(gradients(ours, output, codes), gradients(plain, output, codes), strict=True):
        torch.testing.assert_close(one, other)


# Logits


def test_logits_are_codes_times_weights_plus_a_bias_an_item():
    output, codes = random_output()
    torch.testing.assert_close(output(codes), codes @ output.weight.T + output.bias)


# The sparse input


def test_a_weighted_sum_is_the_dense_product():
    target, table = random_target(counts=True), torch.randn(ITEMS, WIDTH)
    torch.testing.assert_close(weighted_sum(batch_of(target), table), target @ table)


def test_when_scoring_the_input_layer_is_normalization_and_a_linear_layer():
    layer, target = SparseInput(ITEMS, WIDTH, dropout=0.5).eval(), random_target(counts=True)
    torch.nn.init.normal_(layer.bias)
    torch.testing.assert_close(layer(batch_of(target)), F.normalize(target) @ layer.weight + layer.bias)


def test_gradients_of_the_input_are_those_of_the_dense_one():
    layer, target = SparseInput(ITEMS, WIDTH, dropout=0.0), random_target(counts=True)
    weights, direction = [layer.weight, layer.bias], torch.randn(ROWS, WIDTH)
    ours = torch.autograd.grad((layer(batch_of(target)) * direction).sum(), weights)
    dense = torch.autograd.grad(((F.normalize(target) @ layer.weight + layer.bias) * direction).sum(), weights)
    torch.testing.assert_close(ours, dense)


def test_the_length_of_a_history_does_not_matter_only_its_direction():
    layer = SparseInput(ITEMS, WIDTH, dropout=0.0).eval()
    torch.testing.assert_close(layer(batch_of(random_target())), layer(batch_of(7 * random_target())))


def test_a_history_without_items_is_the_bias():
    layer = SparseInput(ITEMS, WIDTH, dropout=0.5).eval()
    torch.nn.init.normal_(layer.bias)
    empty = SparseBatch(torch.zeros(0, dtype=torch.long), torch.zeros(0), torch.zeros(2, dtype=torch.long))
    assert torch.equal(layer(empty)[0], layer.bias)


def test_dropout_hides_its_share_of_the_cells_and_keeps_the_expectation():
    layer = SparseInput(1, 1, dropout=0.25)
    torch.nn.init.ones_(layer.weight)
    found = layer(batch_of(np.ones((10_000, 1)))).detach()[:, 0]  # each row: its one cell, hidden or scaled
    assert found.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (found == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)  # 0.02 is more than 4 deviations
    assert found.mean().item() == pytest.approx(1, abs=0.03)


def test_dropout_differs_between_calls_and_is_off_when_scoring():
    layer, batch = SparseInput(ITEMS, WIDTH, dropout=0.5), batch_of(np.ones((ROWS, ITEMS)))
    assert not torch.equal(layer(batch), layer(batch))
    layer.eval()
    assert torch.equal(layer(batch), layer(batch))


# Cosine output


def random_cosine(temperature=0.2):
    torch.manual_seed(0)
    output = ItemOutput(ITEMS, WIDTH, temperature=temperature)
    torch.nn.init.normal_(output.bias)
    return output, output.directions(torch.randn(ROWS, WIDTH, requires_grad=True))


def test_cosine_scores_by_hand():
    output = ItemOutput(2, 2, temperature=0.5)
    with torch.no_grad():
        output.weight.copy_(torch.tensor([[3.0, 4.0], [0.0, 9.0]]))
        scores = output(output.directions(torch.tensor([[2.0, 0.0]])))
    assert scores.tolist() == [[pytest.approx(0.6 / 0.5), 0.0]]


def test_length_of_codes_and_weights_does_not_change_cosines():
    output, codes = random_cosine()
    before = output(codes)
    with torch.no_grad():
        output.weight.mul_(torch.arange(1.0, ITEMS + 1)[:, None])
    torch.testing.assert_close(output(output.directions(7 * codes)), before)
    torch.testing.assert_close(torch.cat(list(output.blocks(codes, 4)), dim=1), before)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_cosine_loss_and_gradients_are_those_of_autograd(smoothing):
    output, codes = random_cosine()
    target = random_target()
    spread = (1 - smoothing) * target + smoothing * target.sum(dim=1, keepdim=True) / ITEMS
    ours, plain = output.loss(codes, batch_of(target), smoothing), plain_loss(output, codes, spread)
    torch.testing.assert_close(ours, plain)
    for one, other in zip(gradients(ours, output, codes), gradients(plain, output, codes), strict=True):
        torch.testing.assert_close(one, other)
