"""The model that is trained if none is named."""

import dataclasses

import numpy as np
import pytest
import torch

from recsys.models import create_model
from recsys.models.cost import Cost, Machine, Size, cost_of, this_machine
from recsys.models.default import choose_model, in_words
from recsys.system import hardware

CPU = torch.device("cpu")
# A billion of everything a second: times are counts of operations.
UNIT = Machine(flops=1e9, logit=1e-9, weight=1e-9, cell=1e-9, pair=1e-9, solve=1e9, score=1e-9)
SIZE = Size(users=6_000, items=3_700, interactions=1_000_000, item_pairs=3e8, user_pairs=6e8)


@pytest.fixture(autouse=True)
def plenty(monkeypatch):
    monkeypatch.setattr("recsys.models.default.available_memory", lambda device: 10**11)


@pytest.fixture
def costs(monkeypatch):
    """Each model takes so many seconds, and a gigabyte."""

    def build(**seconds):
        known = {"edlae": 10, "ials": 20, "dae": 30, "blend": 5} | seconds
        monkeypatch.setattr("recsys.models.default.cost_of", lambda name, size, machine: Cost(known[name], 1e9))

    return build


@pytest.mark.parametrize(
    ("budget", "validated", "processes", "model", "members", "seconds"),
    [
        (65, True, 1, "blend", "edlae,ials,dae", 65),
        (64, True, 1, "blend", "edlae,ials", 35),
        (34, True, 1, "edlae", None, 10),
        (65, False, 1, "edlae", None, 10),
        (9, True, 1, "sparse-ease", None, None),
        (65, True, 2, "vae", None, None),
    ],
)
def test_the_most_that_the_budget_allows_is_trained(costs, budget, validated, processes, model, members, seconds):
    costs()
    choice = choose_model(SIZE, validated, CPU, processes, budget, UNIT)
    assert (choice.model, choice.settings.get("members"), choice.seconds) == (model, members, seconds)
    assert choice.why
    assert create_model(choice.model, choice.settings).name == model


def test_the_choice_names_its_estimate(costs):
    costs()
    why = choose_model(SIZE, True, CPU, budget=600, machine=UNIT).why
    assert why == "about 65 s on this machine (edlae 10 s, ials 20 s, dae 30 s), of 10 min allowed"


@pytest.mark.parametrize(("free", "model"), [(10**9, "sparse-ease"), (3 * 10**9, "blend")])
def test_a_model_may_take_half_of_the_free_memory(costs, monkeypatch, free, model):
    costs()
    monkeypatch.setattr("recsys.models.default.available_memory", lambda device: free)
    assert choose_model(SIZE, True, CPU, machine=UNIT).model == model


def test_a_closed_form_is_its_pairs_and_the_cube_of_the_smaller_side():
    assert cost_of("edlae", SIZE, UNIT).seconds == pytest.approx((3_700**3 + 3e8) / 1e9)
    few = Size(users=1_000, items=9_000, interactions=10_000, item_pairs=1e5, user_pairs=2e5)
    assert cost_of("edlae", few, UNIT).seconds == pytest.approx((2 * 1_000**3 + 2e5) / 1e9 + 2e7 * 1.2e-9)
    assert cost_of("edlae", few, UNIT).bytes == 12 * 1_000**2


@pytest.mark.parametrize("model", ["edlae", "ials", "dae", "blend"])
def test_a_machine_twice_as_fast_takes_half_the_time(model):
    twice, once = (cost_of(model, SIZE, UNIT.scaled_by(factor)).seconds for factor in (2, 1))
    assert twice == pytest.approx(once / 2)


@pytest.mark.parametrize("model", ["edlae", "ials", "dae", "blend"])
def test_more_items_take_longer(model):
    more = dataclasses.replace(SIZE, items=5_000)
    assert cost_of(model, more, UNIT).seconds > cost_of(model, SIZE, UNIT).seconds


def test_pairs_are_counted_from_positions():
    size = Size.of(np.array([0, 0, 1]), np.array([0, 1, 1]))  # users of 2 and 1 items; items of 1 and 2 users
    assert size == Size(users=2, items=2, interactions=3, item_pairs=5.0, user_pairs=5.0)


@pytest.mark.parametrize(("measured", "factor"), [(1.0, 1.0), (1.1, 1.0), (0.5, 0.5), (0.7, 2**-0.5)])
def test_the_speed_of_this_machine_is_rounded(monkeypatch, measured, factor):
    this_machine.cache_clear()
    monkeypatch.setattr(hardware, "matmul_gflops", lambda *_, **__: 183 * measured)
    assert this_machine().flops == pytest.approx(183e9 * factor)
    this_machine.cache_clear()


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "1 s"), (75, "75 s"), (600, "10 min"), (9000, "2.5 h")])
def test_times_in_words(seconds, words):
    assert in_words(seconds) == words
