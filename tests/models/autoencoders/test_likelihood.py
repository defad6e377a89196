"""Likelihoods: losses against their equations, expected values by arithmetic, and what makes no sense together."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import ITEMS, batch_of, preferences
from scipy.sparse import csr_matrix

import recsys
from recsys.data.interactions import Vocabulary
from recsys.errors import ConfigError, DataError, UnsupportedError
from recsys.models import create_model
from recsys.models.autoencoders import likelihood
from recsys.models.autoencoders.layers import ItemOutput, SparseInput
from recsys.models.autoencoders.likelihood import expected_cells
from recsys.models.trained import TrainedModel

pytestmark = pytest.mark.usefixtures("own_random_stream")

WIDTH = 3
MODELS = ("ae", "dae", "sparse-ae", "vae")
SMALL = {"latent": 4, "epochs": 30, "learning_rate": 0.02, "batch_size": 32}


def gray(seed=0, rows=30):
    """Gray levels of 0 to 1, two thirds of them 0, float32 (rows, ITEMS)."""
    rng = np.random.default_rng(seed)
    return (rng.random((rows, ITEMS)) * (rng.random((rows, ITEMS)) < 1 / 3)).astype(np.float32)


def dense_loss(kind, scores, x):
    if kind == "bernoulli":
        return F.binary_cross_entropy_with_logits(scores, x, reduction="none").sum(dim=1).mean()
    return (scores - x).square().sum(dim=1).mean()


# Losses


@pytest.mark.parametrize("kind", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("rows_at_once", [1, 4, 100])
def test_the_loss_and_its_gradients_are_those_of_the_dense_one(kind, rows_at_once, monkeypatch):
    monkeypatch.setattr(likelihood, "_BLOCK", rows_at_once * ITEMS)
    monkeypatch.setattr(likelihood, "_CHUNK", 2 * rows_at_once * ITEMS)
    output, x = ItemOutput(ITEMS, WIDTH, kind), torch.as_tensor(gray())
    torch.nn.init.normal_(output.bias)
    codes = torch.randn(len(x), WIDTH, requires_grad=True)
    inputs = [codes, output.weight, output.bias]
    ours, plain = output.loss(codes, batch_of(x)), dense_loss(kind, output(codes), x)
    torch.testing.assert_close(ours, plain)
    for one, other in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(plain, inputs), strict=True):
        torch.testing.assert_close(one, other)


def test_a_bernoulli_loss_in_bfloat16_is_near_the_one_in_float32():
    output, x = ItemOutput(ITEMS, WIDTH, "bernoulli"), torch.as_tensor(gray())
    codes = torch.randn(len(x), WIDTH)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = output.loss(codes, batch_of(x))
    torch.testing.assert_close(rounded, output.loss(codes, batch_of(x)), rtol=0.02, atol=0)


# Input


def test_without_normalization_gray_levels_reach_the_first_layer():
    x = torch.as_tensor([[0.0, 0.25, 0.75]])
    scaled, plain = (SparseInput(3, 2, 0.0, normalize) for normalize in (True, False))
    torch.testing.assert_close(plain(batch_of(x)), x @ plain.weight)
    torch.testing.assert_close(scaled(batch_of(x)), F.normalize(x) @ scaled.weight)


def test_a_gray_level_is_a_probability_to_an_rbm_and_a_rating_is_a_one():
    model = create_model("rbm", {"hidden": 2, "epochs": 1}).fit(csr_matrix(gray()))
    codes = model.embed_users(csr_matrix(np.float32([[0.5, 0], [1, 0], [4, 0]]) @ np.eye(2, ITEMS, dtype=np.float32)))
    half, one, four = torch.logit(codes.mean)
    torch.testing.assert_close(one, four)
    torch.testing.assert_close(half - model.network.unit_bias, (one - model.network.unit_bias) / 2)


# Reconstruction


def test_expected_cells_by_hand():
    scores = torch.log(torch.tensor([[1.0, 2.0, 1.0]]))
    assert expected_cells("gaussian", scores) is scores
    torch.testing.assert_close(expected_cells("bernoulli", scores), torch.tensor([[1 / 2, 2 / 3, 1 / 2]]))
    torch.testing.assert_close(expected_cells("multinomial", scores), torch.tensor([[0.25, 0.5, 0.25]]))
    torch.testing.assert_close(
        expected_cells("multinomial", scores, torch.tensor([8.0])), torch.tensor([[2.0, 4.0, 2.0]])
    )


@pytest.mark.parametrize("kind", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("name", MODELS)
def test_gray_levels_come_back_better_than_their_mean(name, kind):
    """Rows are one of two pictures, so that a code of four numbers can keep them."""
    pictures = np.float32([[0.9, 0.2] * (ITEMS // 2), [0.1, 0.7] * (ITEMS // 2)])
    x = pictures[np.arange(40) % 2]
    settings = {"likelihood": kind, "normalize": False, "l2": 0} | ({"hidden": 6} if name == "vae" else {})
    settings |= {"sparsity": 0.0} if name == "sparse-ae" else {}
    model = create_model(name, {**SMALL, "epochs": 60, **settings}).fit(csr_matrix(x))
    error = np.square(model.reconstruct(csr_matrix(pictures)).numpy() - pictures).mean()
    assert error < 0.25 * np.square(x.mean(axis=0) - pictures).mean()


@pytest.mark.parametrize("kind", likelihood.LIKELIHOODS)
@pytest.mark.parametrize("name", MODELS)
def test_a_code_is_decoded_to_what_its_row_is_reconstructed_to(name, kind):
    x = csr_matrix(preferences())
    model = create_model(name, {**SMALL, "epochs": 1, "likelihood": kind}).fit(x)
    sums = x.sum(axis=1) if kind == "multinomial" else 1
    decoded = model.decode(model.embed_users(x).mean).numpy()
    np.testing.assert_allclose(model.reconstruct(x).numpy(), np.asarray(sums) * decoded, rtol=1e-4, atol=1e-6)
    with pytest.raises(DataError, match=r"Expected codes of shape \(rows, 4\), found \(2, 5\)"):
        model.decode(np.zeros((2, 5)))


def test_a_model_whose_scores_have_no_unit_says_so():
    model = create_model("elsa", {"latent": 2, "epochs": 1}).fit(csr_matrix(preferences()))
    with pytest.raises(UnsupportedError, match="elsa, whose scores only have an order: use score"):
        model.reconstruct(csr_matrix(preferences()))


# What makes no sense


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        ("vae", {"softmax": "sampled"}, "only a multinomial likelihood has a softmax"),
        ("vae", {"smoothing": 0.1}, "Expected smoothing of 0 with likelihood=gaussian"),
        ("dae", {"emphasis": 2.0}, "Expected emphasis of 1 with likelihood=gaussian"),
    ],
)
def test_settings_of_a_multinomial_target_are_refused_with_another_likelihood(name, settings, reason):
    create_model(name, settings)
    with pytest.raises(ConfigError, match=reason):
        create_model(name, {**settings, "likelihood": "gaussian"})


@pytest.mark.parametrize("name", MODELS)
def test_an_unknown_likelihood_is_refused(name):
    with pytest.raises(ConfigError, match="Expected likelihood of multinomial, bernoulli, gaussian; found 'poisson'"):
        create_model(name, {"likelihood": "poisson"})


def test_switches_above_one_are_refused_before_training():
    with pytest.raises(DataError, match="Expected values from 0 to 1 for likelihood=bernoulli, found 5"):
        create_model("ae", {"likelihood": "bernoulli"}).fit(csr_matrix(5 * preferences()))


# Model folders


def test_a_folder_keeps_the_likelihood_and_one_with_the_earlier_loss_opens(tmp_path):
    x = csr_matrix(preferences())
    model = create_model("ae", {**SMALL, "likelihood": "gaussian"}).fit(x)
    ids = Vocabulary.of([f"i{i}" for i in range(ITEMS)])
    recsys.save_model(tmp_path / "model", TrainedModel(model, ids, np.ones(ITEMS, dtype=np.int64)))
    assert recsys.load_model(tmp_path / "model", "cpu").model.config == model.config
    file = tmp_path / "model" / "model.json"
    about = json.loads(file.read_text(encoding="utf-8"))
    del about["config"]["likelihood"]
    about["config"]["loss"] = "squared"
    file.write_text(json.dumps(about), encoding="utf-8")
    opened = recsys.load_model(tmp_path / "model", "cpu").model
    assert dataclasses.asdict(opened.config) == dataclasses.asdict(model.config)
    torch.testing.assert_close(opened.score(x), model.score(x))
