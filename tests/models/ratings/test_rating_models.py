"""Tests of the models of ratings that need only one or two."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from recsys.models import create_model
from recsys.models.ratings.deep_autorec import DeepConfig, DeepNetwork
from recsys.models.ratings.kernel_ae import KernelConfig, KernelTable
from recsys.models.ratings.rbm import RatingRBMConfig, RBMNetwork
from recsys.training.batches import SparseBatch, SparseRows

CPU = torch.device("cpu")


def test_identical_neighbors_pass_on_the_residual_of_a_user():
    # Items 0 and 1 are alike; biases are shrunk away, so residuals are ratings minus 3.
    matrix = csr_matrix(np.float32([[5, 5], [1, 1], [5, 5], [1, 1]]))
    settings = {"user_shrinkage": 1e9, "item_shrinkage": 1e9, "shrinkage": 0, "damping": 0.5}
    model = create_model("rating-knn", settings).fit(matrix)
    found = model.score(csr_matrix(np.float32([[5, 0]])))
    assert found[0, 1] == pytest.approx(3 + 2 * 1 / (1 + 0.5))


def test_a_kernel_disconnects_distant_units():
    table = KernelTable(2, 1, KernelConfig(kernel_size=1))
    with torch.no_grad():
        table.weight.fill_(10)
        table.left.copy_(torch.tensor([[0.0], [2.0]]))
        table.right.copy_(torch.tensor([[0.5]]))
    assert table.read().tolist() == [[7.5], [0]]  # 10 * (1 - .25), and 1 - 2.25 is below 0


def test_refeeding_adds_the_error_of_the_second_pass():
    torch.manual_seed(0)
    batch = SparseRows(csr_matrix(np.float32([[1, 0, -1]])), CPU).everything()
    losses = []
    for refeed in (0.0, 1.0):
        torch.manual_seed(0)
        network = DeepNetwork(3, DeepConfig(hidden=4, latent=2, refeed=refeed)).eval()
        losses.append(network.loss(batch))
    once = network.decoder(network.encode(batch))
    full = SparseBatch(torch.arange(3), once.detach()[0], torch.tensor([0, 3]))
    twice = network.decoder(network.encode(full))
    expected = losses[0] + 2 * (twice - once).square().mean()  # two cells
    torch.testing.assert_close(losses[1], expected)


def test_the_rbm_predicts_the_mean_of_levels():
    network = RBMNetwork(1, 2, RatingRBMConfig(hidden=1))
    with torch.no_grad():
        network.weight.zero_()
        network.visible.copy_(torch.tensor([1.0, 3.0]).log())
    nothing = SparseBatch(torch.zeros(0).long(), torch.zeros(0), torch.tensor([0, 0]))
    assert network.expect(nothing, torch.tensor([1.0, 5.0])).item() == pytest.approx(1 / 4 * 1 + 3 / 4 * 5)


def test_a_scale_of_many_values_is_rounded_to_few_levels():
    matrix = csr_matrix(np.random.default_rng(0).uniform(-10, 10, (6, 5)).astype(np.float32))
    model = create_model("rating-rbm", {"levels": 3, "hidden": 2, "epochs": 1}).fit(matrix)
    low, middle, high = model.levels.tolist()
    assert (low, high) == (matrix.data.min(), matrix.data.max())
    assert middle == pytest.approx((low + high) / 2, abs=1e-5)


def test_the_vae_samples_in_training_and_not_when_it_predicts():
    matrix = csr_matrix(np.random.default_rng(0).integers(1, 6, (9, 7)).astype(np.float32))
    model = create_model("rating-vae", {"hidden": 4, "latent": 2, "epochs": 1, "side": "user"}).fit(matrix)
    assert torch.equal(model.score(matrix), model.score(matrix))
    (member,) = model.network.each
    batch = SparseRows(matrix, CPU).everything()
    with torch.no_grad():
        assert member.loss(batch) != member.loss(batch)


def test_neighbors_on_huge_and_on_tiny_ratings_are_those_on_ordinary_ones():
    # Ratings times a power of two: the same similarities, though squares of 1e30 and of 1e-30 are no float32.
    ratings = np.random.default_rng(0).integers(0, 6, (12, 7)).astype(np.float32)
    codes = create_model("rating-knn").fit(csr_matrix(ratings)).embed_items()
    for factor in (2.0**100, 2.0**-100):
        model = create_model("rating-knn").fit(csr_matrix(ratings * np.float32(factor)))
        torch.testing.assert_close(model.embed_items(), codes)
