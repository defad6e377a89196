"""Which precision `auto` stands for."""

import pytest
import torch
from scipy.sparse import csr_matrix

from recsys.models import MODELS
from recsys.models.autoencoders.mult_vae import VAE
from recsys.training import precision
from recsys.training.context import TrainingContext
from recsys.training.precision import FEWEST_ITEMS, bf16_gain, bf16_warning, choose_precision, is_native

CPU = torch.device("cpu")


@pytest.fixture
def chip(monkeypatch):
    """A processor with or without instructions for bfloat16, and the measured gain."""

    def build(native, gain=4.0):
        monkeypatch.setattr(precision, "has_bf16", lambda: native)
        monkeypatch.setattr(precision, "bf16_gain", lambda device: gain)

    return build


@pytest.mark.parametrize(
    ("native", "gain", "items", "as_good", "processes", "expected"),
    [
        (True, 4.0, FEWEST_ITEMS, True, 1, "bf16"),
        (False, 4.0, FEWEST_ITEMS, True, 1, "fp32"),
        (True, 1.2, FEWEST_ITEMS, True, 1, "fp32"),
        (True, 4.0, FEWEST_ITEMS - 1, True, 1, "fp32"),
        (True, 4.0, FEWEST_ITEMS, False, 1, "fp32"),
        (True, 4.0, FEWEST_ITEMS, True, 2, "fp32"),
    ],
)
def test_auto_is_bf16_where_it_is_faster_and_as_good(chip, native, gain, items, as_good, processes, expected):
    chip(native, gain)
    assert choose_precision("auto", CPU, items, as_good, processes) == expected


@pytest.mark.parametrize("asked", ["fp32", "bf16"])
def test_what_was_asked_for_is_done(chip, asked):
    chip(asked == "fp32")
    assert choose_precision(asked, CPU, 10, as_good=False) == asked


def test_bf16_on_a_chip_without_it_is_commented_with_the_measured_ratio(chip):
    chip(native=False, gain=0.27)
    assert "0.27 times the speed of fp32" in bf16_warning(CPU)
    chip(native=True)
    assert bf16_warning(CPU) == ""


def test_the_gain_is_the_ratio_of_measured_speeds(monkeypatch):
    measured = {"float32": 100.0, "bfloat16": 250.0}
    monkeypatch.setattr(precision, "matmul_gflops", lambda kind, device, seconds: measured[kind])
    bf16_gain.cache_clear()
    assert bf16_gain(CPU) == 2.5
    bf16_gain.cache_clear()


def test_a_card_is_native_since_ampere(monkeypatch):
    card = type("Card", (), {"major": 7})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    assert not is_native(torch.device("cuda"))
    card.major = 8
    assert is_native(torch.device("cuda"))


def test_a_network_trains_in_the_precision_that_auto_stands_for(chip, monkeypatch):
    chip(native=True)
    monkeypatch.setattr(precision, "FEWEST_ITEMS", 2)
    x = csr_matrix([[1.0, 0, 1], [0, 1, 1]], dtype="float32")
    scores = {
        asked: VAE.create({"epochs": 2, "latent": 3}).fit(x, TrainingContext(device="cpu", precision=asked)).score(x)
        for asked in ("auto", "bf16", "fp32")
    }
    assert torch.equal(scores["auto"], scores["bf16"])
    assert not torch.equal(scores["auto"], scores["fp32"])


def test_models_that_were_not_measured_train_in_fp32():
    assert {name for name, model in MODELS.items() if getattr(model, "learns_in_bf16", False)} == {"dae", "vae"}
