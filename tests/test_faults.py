"""A few of the disturbances that benchmarks/reliability.py tries by the thousand."""

import random

import faults
import pytest
from faults import KINDS, Laboratory

NAMES = (
    "prepare",
    "train ease",
    "train vae",
    "tune",
    "compare",
    "evaluate",
    "predict",
    "generate",
    "encode",
    "map",
    "explore",
    "audit",
    "score",
    "score --reasons 2",
)
TRIALS = 4  # of each command: more by the script

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory):
    pytest.importorskip("optuna")
    pytest.importorskip("jinja2")
    faults.import_everything()
    return Laboratory(tmp_path_factory.mktemp("laboratory") / "files")


def test_every_command_that_writes_is_tried(laboratory):
    assert tuple(command.name for command in laboratory.commands) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_fault_at_a_file_operation_leaves_the_old_or_the_new(laboratory, name):
    (command,) = (command for command in laboratory.commands if command.name == name)
    operations, chance = laboratory.expected[name]["operations"], random.Random(name)
    assert operations > 2
    for number in range(TRIALS):
        at = chance.randint(1, operations)
        outcome = laboratory.trial(command, KINDS[number % len(KINDS)], at=at, over_old=chance.random() < 0.5)
        assert outcome.problem == "", outcome


@pytest.mark.parametrize("name", NAMES)
def test_a_kill_at_any_moment_leaves_the_old_or_the_new(laboratory, name):
    (command,) = (command for command in laboratory.commands if command.name == name)
    chance = random.Random(name)
    for over_old in (False, True):
        moment = chance.uniform(0, laboratory.expected[name]["seconds"])
        outcome = laboratory.trial(command, "kill", kill_after=moment, over_old=over_old)
        assert outcome.problem == "", outcome
