"""Several processes: who takes which rows, and that two make the steps of one."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from paths import ROOT
from safetensors.torch import load_file
from scipy.sparse import csr_matrix
from tastes import two_tastes, write_csv

from pipelines.train import refuse_several
from recsys.errors import ArtifactError, UnsupportedError
from recsys.models import create_model
from recsys.training.checkpoint import Checkpoints
from recsys.training.context import TrainingContext
from recsys.training.data_parallel import ALONE, Group, process_group

# Shares


@pytest.mark.parametrize(("rows", "size"), [(6, 2), (7, 2), (7, 3), (2, 2)])
def test_every_row_is_in_one_shard_and_weights_sum_to_one(rows, size):
    groups = [Group(rank, size) for rank in range(size)]
    shares = [group.shard(torch.arange(rows)).tolist() for group in groups]
    assert sorted(row for share in shares for row in share) == list(range(rows))
    assert [group.weight(rows) for group in groups] == [len(share) / rows for share in shares]


def test_a_process_without_a_row_of_its_own_takes_one_of_no_weight():
    late = Group(rank=2, size=3)
    assert late.shard(torch.tensor([7, 8])).tolist() == [7, 8]
    assert late.weight(2) == 0


def test_a_single_process_changes_nothing():
    numbers = torch.tensor([1.0, 2.0])
    ALONE.all_reduce([numbers])
    ALONE.broadcast([numbers])
    ALONE.require_same((3,), "ratings")
    assert numbers.tolist() == [1, 2]
    assert ALONE.shard(numbers) is numbers
    assert (ALONE.broadcast_value(0.5), ALONE.broadcast_value(None), ALONE.weight(4)) == (0.5, None, 1)


def test_without_torchrun_a_process_is_alone():
    for environment in ({}, {"WORLD_SIZE": "1", "RANK": "0"}, {"WORLD_SIZE": "4"}):
        with process_group(environment) as group:
            assert group == ALONE


def test_a_model_in_closed_form_is_refused_to_several_processes():
    refuse_several(create_model("ease"), ALONE)
    refuse_several(create_model("vae"), Group(0, 2))
    with pytest.raises(UnsupportedError, match="in 2 processes, found ease: run it without torchrun"):
        refuse_several(create_model("ease"), Group(0, 2))


# Two processes


def torchrun(folder, *arguments):
    """Two processes of one core each; their output."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*command, *map(str, arguments)], cwd=folder, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


# 7 rows, batches of 4 and 3; of 3 and 3 and 1, whose last leaves a process without a row. Validation says another
# thing in each process: what the main one says must count, which stops training after epoch 3 with the weights of 2.
PROGRAM = """
import sys
sys.path[:0] = {tests!r}
from test_data_parallel import *
from safetensors.torch import save_file
from recsys.errors import DataError, UnsupportedError

with process_group() as group:
    assert group.size == 2
    for batch_size in (4, 3):
        save_file(fitted(batch_size, group), f"{{batch_size}}-{{group.rank}}.safetensors")
    values = iter([1, 2, 1, 9] if group.is_main else [9, 8, 7, 6])
    context = TrainingContext(device="cpu", group=group, validate=lambda score: next(values), patience=1)
    history = create_model("dae", {{"latent": 3, "epochs": 4}}).fit(preferences(), context).epochs
    assert [epoch.value for epoch in history] == [1, 2, 1], history
    for model, data, error in (
        (create_model("vae", {{"softmax": "sampled"}}), preferences(), UnsupportedError),
        (create_model("dae"), preferences(seed=group.rank), DataError),
    ):
        try:
            model.fit(data, TrainingContext(device="cpu", group=group))
        except error as refused:
            print(refused)
        else:
            raise AssertionError(error)
    goes_on_in_every_process(group)
threads = [name.read_text() for name in Path("/proc/self/task").glob("*/comm")]
assert not any("gloo" in thread for thread in threads), threads  # they abort a process that ends before them
"""


def preferences(seed=0):
    return csr_matrix((np.random.default_rng(seed).random((7, 11)) < 0.5).astype(np.float32))


def fitted(batch_size, group=ALONE):
    """Weights after twelve or more steps without dropout: nothing is drawn but the first weights and the order."""
    settings = {"latent": 3, "dropout": 0, "epochs": 6, "batch_size": batch_size, "l2": 0.01}
    return create_model("dae", settings).fit(preferences(), TrainingContext(device="cpu", group=group)).get_state()


def goes_on_in_every_process(group):
    """After an interruption, with dropout, whose draws are each process's own, from what the main one kept."""

    def interrupt(epoch, epochs):
        if epoch.number == 2:
            raise KeyboardInterrupt

    def weights(**more):
        settings = {"latent": 3, "epochs": 4, "batch_size": 3}
        context = TrainingContext(device="cpu", group=group, **more)
        return create_model("vae", {**settings, "hidden": 4}).fit(preferences(), context).get_state()

    folder = Path("kept") if group.is_main else Path("seen-by-the-main-process-only")
    whole = weights()
    with pytest.raises(KeyboardInterrupt):
        weights(checkpoints=Checkpoints(folder, every=0), on_epoch=interrupt)
    epochs = []
    again = weights(
        checkpoints=Checkpoints(folder, every=0), on_epoch=lambda epoch, planned: epochs.append(epoch.number)
    )
    assert epochs == [2, 3, 4]
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    with pytest.raises(ArtifactError, match="seed was 0 and is 1"):
        weights(checkpoints=Checkpoints(folder), seed=1)


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one_go_on_and_refuse_unsupported_models(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(tests=[str(Path(__file__).parent), str(ROOT / "tests")]))
    code, said, errors = torchrun(tmp_path, program)
    assert code == 0, errors
    for batch_size in (4, 3):
        alone = fitted(batch_size)
        for rank in range(2):
            together = load_file(tmp_path / f"{batch_size}-{rank}.safetensors")
            for name, weights in alone.items():
                torch.testing.assert_close(together[name], weights, atol=1e-5, rtol=0)
    assert said.count("Expected softmax=full in 2 processes, found sampled") == 2
    assert said.count("Expected the same ratings in every process, found others in 1 of 2") == 2


@pytest.mark.slow
def test_the_command_in_two_processes_saves_one_model_and_prints_once(tmp_path):
    ratings = write_csv(tmp_path / "ratings.csv", two_tastes())
    command = ["train", ratings, "-m", "dae", "-s", "latent=3", "-s", "dropout=0", "-s", "epochs=3", "--no-track"]
    code, said, errors = torchrun(tmp_path, "-m", "pipelines.cli", *command, "-o", "two", "--refit")
    assert code == 0, errors
    assert said.count("Model: two") == 1
    subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *map(str, command), "-o", "one", "--refit"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    one, two = ((json.loads((tmp_path / name / "model.json").read_text()))["metrics"] for name in ("one", "two"))
    assert two["ndcg@100"]["mean"] == pytest.approx(one["ndcg@100"]["mean"], abs=1e-6)
