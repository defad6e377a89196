"""The model that is trained if none is named."""

import pytest
import torch

from recsys.models import create_model
from recsys.models.default import choose_model

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def plenty(monkeypatch):
    monkeypatch.setattr("recsys.models.default.available_memory", lambda device: 10**10)


@pytest.mark.parametrize(
    ("users", "items", "validated", "processes", "model", "members"),
    [
        (6_000, 3_700, True, 1, "blend", "edlae,ials,dae"),
        (140_000, 20_000, True, 1, "blend", "edlae,ials"),
        (6_000, 3_700, False, 1, "edlae", None),
        (30_000, 41_000, True, 1, "sparse-ease", None),
        (6_000, 3_700, True, 2, "vae", None),
    ],
)
def test_the_size_of_the_data_decides_and_says_why(users, items, validated, processes, model, members):
    choice = choose_model(users, items, validated, CPU, processes)
    assert (choice.model, choice.settings.get("members")) == (model, members)
    assert choice.why
    assert create_model(choice.model, choice.settings).name == model


def test_a_full_model_may_take_half_of_the_free_memory(monkeypatch):
    monkeypatch.setattr("recsys.models.default.available_memory", lambda device: 10**8)
    assert choose_model(1_000, 2_000, True, CPU).model == "blend"  # 32 MB
    assert choose_model(1_000, 4_000, True, CPU).model == "sparse-ease"  # 97 MB
