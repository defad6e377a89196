"""Sampled softmax: the same loss in expectation, and only the touched rows move."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix, random

from recsys.errors import ConfigError
from recsys.models import create_model
from recsys.models.autoencoders.layers import ItemOutput
from recsys.models.autoencoders.sampled_softmax import CandidateSampler, ItemTable, RowAdam, gather_rows
from recsys.training.batches import SparseRows
from recsys.training.context import TrainingContext


@pytest.fixture
def rows():
    matrix = random(40, 30, density=0.1, format="csr", dtype=np.float32, rng=np.random.default_rng(0))
    matrix.data[:] = 1
    return SparseRows(matrix, torch.device("cpu"))


def test_with_every_item_a_candidate_the_loss_is_the_full_one(rows):
    torch.manual_seed(0)
    output = ItemOutput(30, 4)
    codes, batch = torch.randn(40, 4), rows.everything()
    full = output.loss(codes, batch)
    output.sampler = CandidateSampler(rows, 30, batch_size=40, negatives=100_000)
    torch.testing.assert_close(output.loss(codes, batch), full, atol=1e-4, rtol=0)


def test_candidates_hold_all_items_of_the_batch_once(rows):
    sampler = CandidateSampler(rows, 30, batch_size=5, negatives=3)
    batch = rows.cut(torch.arange(5))
    candidates = sampler.draw(batch)
    assert set(batch.items.tolist()) <= set(candidates.tolist())
    assert candidates.tolist() == sorted(set(candidates.tolist()))


def test_the_partition_function_is_right_on_average(rows):
    torch.manual_seed(0)
    logits = torch.randn(30)
    sampler = CandidateSampler(rows, 30, batch_size=5, negatives=3)
    estimates = []
    for _ in range(4000):
        candidates = sampler.draw(rows.cut(torch.randperm(40)[:5]))
        estimates.append((logits[candidates] - sampler.log_chance[candidates]).exp().sum())
    assert torch.stack(estimates).mean() == pytest.approx(logits.exp().sum().item(), rel=0.02)


def test_the_probability_of_an_item_includes_the_batch_and_the_negatives():
    matrix = csr_matrix(np.float32([[1, 0], [1, 0], [1, 1], [1, 0]]))  # all users have item 0, a quarter has item 1
    sampler = CandidateSampler(SparseRows(matrix, torch.device("cpu")), 2, batch_size=2, negatives=1)
    expected = [1.0, 1 - (3 / 4) * (2 / 3) * (1 / 2)]  # in neither row of the batch, and not drawn
    assert sampler.log_chance.exp().tolist() == pytest.approx(expected)


def test_a_catalog_of_one_item_is_no_special_case():
    rows = SparseRows(csr_matrix(np.float32([[1], [1]])), torch.device("cpu"))
    assert CandidateSampler(rows, 1, batch_size=1, negatives=1).log_chance.tolist() == [0]


def test_settings_that_a_sampled_softmax_does_not_support_are_refused():
    with pytest.raises(ConfigError, match="Expected l2 of 0 with a sampled softmax"):
        create_model("vae", {"softmax": "sampled", "l2": 0.1})


def test_rows_without_a_gradient_are_not_updated():
    table = torch.nn.Parameter(torch.ones(4, 2))
    optimizer = RowAdam([ItemTable(table)], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        gather_rows(table, torch.tensor([1, 3])).sum().backward()
        optimizer.step()
    assert table[[0, 2]].tolist() == [[1, 1], [1, 1]]
    assert (table[[1, 3]] < 1).all()


def test_it_equals_adam_for_rows_of_one_number_updated_at_every_step():
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.tensor([[1.0], [2.0]])) for _ in range(2))
    pairs = [(ours, RowAdam([ItemTable(ours)], lr=0.1)), (theirs, torch.optim.Adam([theirs], lr=0.1))]
    for step in range(5):
        for table, optimizer in pairs:
            optimizer.zero_grad()
            weight = torch.tensor([[1.0 + step], [-0.5]])
            rows = gather_rows(table, torch.tensor([0, 1])) if table is ours else table
            (rows.square() * weight).sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)  # the momentum has three digits


def moved(steps, **more):
    """Where a row of one zero stands after steps with these gradients; None: it has none and rests."""
    table = torch.nn.Parameter(torch.zeros(2, 1))
    optimizer = RowAdam([ItemTable(table, **more)], lr=0.1)
    for slope in steps:
        optimizer.zero_grad()
        row, slope = (1, 5.0) if slope is None else (0, slope)
        (gather_rows(table, torch.tensor([row])) * slope).sum().backward()
        optimizer.step()
    return table[0].item()


def test_a_rarely_updated_row_takes_larger_steps():
    assert moved([2.0]) == pytest.approx(-0.1)
    # The mean square over three steps is 4 / 3, its root what the momentum of 2 is divided by.
    assert moved([None, None, 2.0]) == pytest.approx(-0.1 * 2 / (4 * 0.001 / (1 - 0.999**3)) ** 0.5)
    assert moved([None, None, 2.0]) == pytest.approx(-0.1 * 3**0.5, rel=1e-3)


def test_squared_gradients_decay_between_updates_of_a_row():
    square = 0.001 * 4 * 0.999**2 + 0.001 * 4
    again = 0.1 * 2 / (square / (1 - 0.999**3)) ** 0.5
    assert moved([2.0, None, 2.0]) == pytest.approx(-0.1 - again, rel=1e-3)


def test_the_learning_rate_of_a_row_is_multiplied_by_its_lr_scale():
    assert moved([2.0], lr_scale=torch.tensor([3.0, 1.0])) == pytest.approx(-0.3)


def test_the_lr_scale_of_an_item_corrects_for_the_squares_of_its_rare_gradients(rows):
    sampler = CandidateSampler(rows, 30, batch_size=5, negatives=3)
    torch.testing.assert_close(sampler.lr_scale, sampler.log_chance.exp().rsqrt())


def test_a_sampled_vae_learns_two_tastes():
    tastes = np.kron(np.eye(2, dtype=np.float32), np.ones((20, 6), dtype=np.float32))
    tastes[0, 5] = 0  # the only item of the taste that this user does not have
    settings = {"hidden": 8, "latent": 4, "epochs": 30, "learning_rate": 0.02, "softmax": "sampled", "negatives": 2}
    model = create_model("vae", settings).fit(csr_matrix(tastes), TrainingContext(seed=0))
    assert model.recommend(0, csr_matrix(tastes[:1]), N=1)[0].tolist() == [5]
