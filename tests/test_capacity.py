"""Estimates of capacity: arithmetic by hand on round numbers, limits, and the memory of real networks."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from pipelines.cli.main import main
from recsys.capacity import (
    MATRIX_LIMIT,
    Speed,
    Workload,
    closed_form,
    distinct_items,
    full_softmax,
    held_memory,
    lists_bytes,
    lists_seconds,
    read_speed,
    recommended,
    sampled_softmax,
    training_estimates,
)
from recsys.errors import ConfigError
from recsys.models import create_model

INSTANT = {
    "flops": {"fp32": 1e30, "bf16": 1e30},
    "logit": {"fp32": 0.0, "bf16": 0.0},
    "weight": 0.0,
    "cell": 0.0,
    "sparse_weight": 0.0,
    "pair": 0.0,
    "solve": 1e30,
    "score": 0.0,
    "score_flops": 1e30,
}
WORK = Workload(10_000, 1_000, 200_000, hidden=10, latent=2, batch_size=100)


def machine(**operations):
    """A machine on which only these operations take time."""
    return Speed("test", "today", 0.0, **(INSTANT | operations))


@pytest.mark.parametrize(
    ("speed", "step"),
    [
        (machine(flops={"fp32": 1e6, "bf16": 1e9}), 6 * 100 * (1_000 * 10 + 10 * 4 + 2 * 10) / 1e6),
        (machine(logit={"fp32": 1e-6, "bf16": 0.0}), 100 * 1_000 * 1e-6),
        (machine(weight=1e-6), 2 * 1_000 * 10 * 1e-6),
        (machine(cell=1e-6), 100 * 20 * 10 * 1e-6),
    ],
)
def test_a_step_is_the_sum_of_its_operations_and_an_epoch_a_hundred_steps(speed, step):
    need = full_softmax(WORK, speed)
    assert need.step_seconds == pytest.approx(step)
    assert need.seconds == pytest.approx(100 * step)


def test_machines_share_rows_but_each_has_all_weights_and_sends_them():
    parameters = 2 * 1_000 * 10 + 10 + 1_000 + 10 * 4 + 4 + 2 * 10 + 10
    four = Workload(10_000, 1_000, 200_000, machines=4, hidden=10, latent=2, batch_size=100, network=1e6)
    assert full_softmax(four, machine(logit={"fp32": 1e-6})).sent == 2 * 3 / 4 * 4 * parameters
    assert full_softmax(four, machine()).step_seconds == pytest.approx(1.5 * 4 * parameters / 1e6)
    assert full_softmax(four, machine(weight=1.0)).step_seconds == pytest.approx(20_000, rel=1e-3)
    assert sampled_softmax(four, machine()).machines == 1


def test_a_sampled_step_does_not_grow_with_the_catalog():
    small, large = (
        sampled_softmax(Workload(1e6, items, 1e7, hidden=10, latent=2), machine(sparse_weight=1e-6)).step_seconds
        for items in (1e6, 1e8)
    )
    assert small < large < 1.5 * small


def test_ease_needs_time_for_the_cube_of_items_and_memory_for_the_square():
    need = closed_form(WORK, machine(solve=1e9, pair=1e-6))
    assert need.seconds == pytest.approx(1.0 + 200_000 * 20 * 1e-6)
    assert need.bytes == 0.4e9 + 8 * 200_000 + 20 * 10_000 + 4 * 1_000**2


def test_scoring_takes_a_product_and_a_selection_per_user():
    assert lists_seconds(WORK, machine(score=1e-9)) == pytest.approx(10_000 * 1_000 * 1e-9)
    assert lists_seconds(WORK, machine(score_flops=1e9)) == pytest.approx(10_000 * 2 * (10_000 + 60) / 1e9)
    assert lists_bytes(WORK) == 10_000 * 100 * 12


@pytest.mark.parametrize(("draws", "items"), [(50, 100), (2_000, 1_000), (10, 1_000_000)])
def test_distinct_items_are_those_of_a_drawn_sample(draws, items):
    chance = (np.arange(items) + 10.0) ** -0.9
    rng = np.random.default_rng(0)
    drawn = [len(np.unique(rng.choice(items, draws, p=chance / chance.sum()))) for _ in range(20)]
    assert distinct_items(draws, items) == pytest.approx(np.mean(drawn), rel=0.05)


@pytest.mark.parametrize("softmax", ["full", "sampled"])
def test_the_memory_is_that_of_the_network_and_its_optimizer(softmax):
    held = held_memory(WORK, softmax)
    weights, tables = 2 * 1_000 * 10 + 1_000 + 10 + 44 + 30, 2 * 1_000 * 10
    assert held.parameters == held.kept == 4 * weights
    if softmax == "full":
        assert (held.gradients, held.optimizer) == (4 * weights, 8 * weights)
    else:  # RowAdam: a momentum a weight; a square, a count of steps and the last of them a row
        assert held.gradients == 4 * (weights - tables)
        assert held.optimizer == 8 * (weights - tables) + 2 * tables + 12 * 2_000
    assert held.total == held.parameters + held.gradients + held.optimizer + held.kept


def test_the_memory_of_a_training_is_described_in_words():
    said = str(create_model("vae").training_memory(40_981))
    assert said.startswith("parameters 198.3 MB, gradients 198.3 MB, optimizer state 396.6 MB")


def test_data_too_large_for_one_matrix_are_trained_on_a_sample_of_users():
    half = Workload(1e9, 1e6, 2.0 * MATRIX_LIMIT)
    assert half.training_share == 0.5
    whole = Workload(1e9, 1e6, float(MATRIX_LIMIT))
    assert full_softmax(half, machine(weight=1e-9)).seconds == full_softmax(whole, machine(weight=1e-9)).seconds / 2


def test_the_recommended_way_is_the_fastest_network_that_fits():
    speed = read_speed("cpu")
    large = Workload(1e6, 1e6, 1e8, memory=32e9)
    best = recommended(large, list(training_estimates(large, speed)))
    assert best is not None and best.name == "vae, sampled softmax"
    tiny = Workload(1e6, 1e6, 1e8, memory=1e9)
    assert recommended(tiny, list(training_estimates(tiny, speed))) is None


@pytest.mark.parametrize(
    ("numbers", "complaint"),
    [((0, 10, 10), "users of 1 to"), ((10, 10, 101), "at most users x items = 100"), ((1, np.nan, 1), "items")],
)
def test_an_impossible_workload_is_refused(numbers, complaint):
    with pytest.raises(ConfigError, match=complaint):
        Workload(*numbers)


def test_a_faster_machine_needs_less_time_and_the_same_memory():
    speed = read_speed("cpu")
    for way, faster in zip(training_estimates(WORK, speed), training_estimates(WORK, speed.scaled_by(4)), strict=True):
        assert faster.seconds == pytest.approx(way.seconds / 4)
        assert faster.bytes == way.bytes
    assert lists_seconds(WORK, speed.scaled_by(4)) == pytest.approx(lists_seconds(WORK, speed) / 4)
    with pytest.raises(ConfigError, match="speedup above 0"):
        speed.scaled_by(0)


# The command


def asked(*flags):
    return CliRunner().invoke(main, [*flags])


def test_the_command_understands_powers_of_ten_and_says_what_to_do():
    done = asked("plan", "--users", "1e9", "--items", "1e7", "--interactions", "1e11", "--machines", "8")
    assert done.exit_code == 0
    assert "1,000,000,000 users, 10,000,000 items, 100,000,000,000 interactions" in done.output
    assert "No network fits 16.0 GB" in done.output
    assert "sample of 2.1% of the users" in " ".join(done.output.split())


def test_the_command_gives_the_same_as_json():
    found = json.loads(asked("--json", "plan", "--hidden", "100").output)
    assert [way["name"] for way in found["ways"]] == ["vae, full softmax", "vae, sampled softmax", "ease"]
    assert found["recommended"] in found["ways"]


@pytest.mark.parametrize("name", ["users", "items", "hidden", "latent", "n"])
@pytest.mark.parametrize("value", [0, -1, 1e20, float("nan"), float("inf")])
def test_sizes_beyond_every_data_set_are_refused(name, value):
    with pytest.raises(ConfigError, match=f"Expected {name} of 1 to 1e"):
        Workload(**{"users": 1000, "items": 100, "interactions": 5000} | {name: value})
