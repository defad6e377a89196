"""Checkpoints: when one is due, what is kept of a fit, which files there are, and what is refused."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.sparse import csr_matrix

from recsys.errors import ArtifactError, DataError, StorageError
from recsys.training import checkpoint
from recsys.training.batches import SparseRows
from recsys.training.checkpoint import NO_CHECKPOINTS, Checkpoints, different
from recsys.training.checkpoint_files import (
    has_checkpoints,
    list_checkpoints,
    newest_checkpoint,
    read_description,
    remove_checkpoints,
    write_checkpoint,
    write_description,
)
from recsys.training.optimizer_state import OptimizerState, RateState
from recsys.training.parts import Counter, copy_into


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless it is set; writing a checkpoint takes no time on it."""
    now = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    return now


def begun(folder, every=None, facts=None):
    kept = Checkpoints(folder, every)
    kept.begin(facts or {"seed": 0})
    counter = Counter()
    kept.keep(counter=counter)
    kept.restore()
    return kept, counter


# When


def test_by_default_a_checkpoint_waits_until_it_is_one_percent_of_the_time(clock, tmp_path, monkeypatch):
    kept, _ = begun(tmp_path)
    clock[0] = 4.9  # 1 % of it is less than the 0.05 s that the first one is taken to cost at least
    kept.offer()
    assert list_checkpoints(tmp_path) == []

    def write_slowly(*arguments):
        clock[0] += 0.5
        return write_checkpoint(*arguments)

    monkeypatch.setattr(checkpoint, "write_checkpoint", write_slowly)
    clock[0] = 6.0
    kept.offer()
    assert (len(list_checkpoints(tmp_path)), kept.spent) == (1, 0.5)
    for moment, written in ((99, 1), (101, 2), (149, 2), (152, 3)):  # (0.5 n + 0.5) / 1 %
        clock[0] = float(moment)
        kept.offer()
        assert int(list_checkpoints(tmp_path)[-1].name[:6]) == written


def test_a_large_first_checkpoint_waits_for_the_time_its_size_will_take(clock, tmp_path):
    kept = Checkpoints(tmp_path)
    kept.begin({})
    kept.keep(weights=torch.nn.Linear(5000, 5000, bias=False))  # 100 MB at 250 MB/s: 0.4 s, with 0.05 s before them
    clock[0] = 44.0
    kept.offer()
    assert list_checkpoints(tmp_path) == []
    clock[0] = 46.0
    kept.offer()
    assert len(list_checkpoints(tmp_path)) == 1


@pytest.mark.parametrize(("every", "written"), [(0, 3), (10, 1), (float("inf"), 0)])
def test_every_is_the_time_between_two(clock, tmp_path, every, written):
    kept, _ = begun(tmp_path, every)
    for _ in range(3):
        clock[0] += 6
        kept.offer()
    assert len(list_checkpoints(tmp_path)) == min(written, 2)
    assert max((int(file.name[:6]) for file in list_checkpoints(tmp_path)), default=0) == written


def test_parts_of_a_training_share_the_time(clock, tmp_path):
    whole = Checkpoints(tmp_path, every=10)
    one, other = whole.part("one"), whole.part("other")
    for part in (one, other):
        part.begin({})
    clock[0] = 11
    one.offer()
    other.offer()
    assert (len(list_checkpoints(tmp_path / "one")), len(list_checkpoints(tmp_path / "other"))) == (1, 0)


# What


def test_a_fit_goes_on_with_its_counter_and_its_random_numbers(tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        kept, counter = begun(tmp_path, every=0)
        counter.next()
        torch.rand(3)
        kept.offer()
        expected = torch.rand(2)
        torch.manual_seed(9)
        _, again = begun(tmp_path)
        assert again.value == 1
        assert torch.equal(torch.rand(2), expected)


def test_the_last_two_are_kept_and_removed_with_those_of_the_parts(tmp_path):
    folder = tmp_path / "model.checkpoint"
    kept, _ = begun(folder, every=0)
    for _ in range(5):
        kept.offer()
    assert [file.name[:6] for file in list_checkpoints(folder)] == ["000004", "000005"]
    part = kept.part("refit")
    part.begin({})
    part.offer()
    write_description(folder, {"training": {}})
    assert has_checkpoints(folder)
    kept.remove()
    assert not folder.exists()


def test_what_is_not_ours_is_left_in_the_folder(tmp_path):
    folder = tmp_path / "kept"
    kept, _ = begun(folder, every=0)
    kept.offer()
    (folder / "notes.txt").write_text("mine")
    remove_checkpoints(folder)
    assert [file.name for file in folder.iterdir()] == ["notes.txt"]
    remove_checkpoints(tmp_path / "nothing")


def test_a_result_is_kept_for_what_comes_after_the_fit(tmp_path):
    kept, _ = begun(tmp_path, every=0)
    kept.offer_finished(lambda: {"weights": torch.arange(3.0)})
    again = Checkpoints(tmp_path)
    again.begin({"seed": 0})
    found = again.finished()
    assert found is not None
    assert found["weights"].tolist() == [0, 1, 2]
    again.begin({"seed": 0})
    assert not again.restore()


def test_without_a_folder_nothing_is_kept_and_a_part_is_the_same(tmp_path):
    NO_CHECKPOINTS.begin({"seed": 1})
    NO_CHECKPOINTS.keep(counter=Counter())
    NO_CHECKPOINTS.offer()
    NO_CHECKPOINTS.offer_finished(dict)
    assert not NO_CHECKPOINTS.restore()
    assert NO_CHECKPOINTS.finished() is None
    assert NO_CHECKPOINTS.part("one") is NO_CHECKPOINTS
    NO_CHECKPOINTS.remove()


def test_a_name_can_be_kept_once(tmp_path):
    kept, _ = begun(tmp_path)
    with pytest.raises(ValueError, match="counter"):
        kept.keep(counter=Counter())


# Files


def test_a_disk_that_refuses_costs_one_warning_and_no_training(tmp_path, monkeypatch, caplog):
    def refuse(*arguments):
        raise StorageError("the disk is full")

    kept, _ = begun(tmp_path, every=0)
    monkeypatch.setattr(checkpoint, "write_checkpoint", refuse)
    kept.offer()
    kept.offer()
    assert caplog.text.count("Training goes on without checkpoints, none could be written: the disk is full") == 1


def test_leftovers_of_a_kill_while_writing_are_removed_by_the_next(tmp_path):
    kept, _ = begun(tmp_path, every=0)
    kept.offer()
    abandoned = tmp_path / ".checkpoint.00000000-000000000000.draft"
    left = tmp_path / abandoned.name.replace("00000000-", f"{host()}-", 1)
    (left / "new").mkdir(parents=True)
    (left / "new" / "checkpoint").write_bytes(b"half of one")
    kept.offer()
    assert len(list(tmp_path.iterdir())) == 2


def host():
    from recsys.system.files import _host

    return _host()


@pytest.mark.parametrize(
    "damage",
    [lambda raw: raw[:-1], lambda raw: raw[:8], lambda raw: b"", lambda raw: raw.replace(b"training", b"trainlng")],
)
def test_any_damage_is_seen(tmp_path, damage, caplog):
    kept, counter = begun(tmp_path, every=0)
    kept.offer()
    counter.next()
    kept.offer()
    newest = list_checkpoints(tmp_path)[-1]
    newest.write_bytes(damage(newest.read_bytes()))
    assert begun(tmp_path)[1].value == 0
    assert "is damaged and is skipped" in caplog.text


def test_a_foreign_file_of_the_right_name_is_skipped(tmp_path, caplog):
    from recsys.system.files import sha256

    save_file({"x": torch.zeros(1)}, tmp_path / "foreign")
    (tmp_path / "foreign").rename(tmp_path / f"000001-{sha256(tmp_path / 'foreign')[:16]}.safetensors")
    assert newest_checkpoint(tmp_path) is None
    assert "is damaged and is skipped" in caplog.text


def test_a_damaged_description_is_none(tmp_path, caplog):
    assert read_description(tmp_path) is None
    assert caplog.text == ""
    for count, text in enumerate(('{"training": ', '{"training": 3}'), start=1):
        (tmp_path / "training.json").write_text(text)
        assert read_description(tmp_path) is None
        assert caplog.text.count("is skipped with its checkpoints") == count


# Refusals


def test_facts_that_differ_are_named_with_both_values():
    before = {"seed": 0, "settings": {"latent": 4, "gone": True}}
    now = {"seed": 1, "settings": {"latent": 4, "new": None}}
    assert different(before, now) == "seed was 0 and is 1, settings.gone was True and is not set"
    assert different(now, now) == ""
    assert different(None, {"seed": 1}) == "seed was not set and is 1"
    assert different({}, dict.fromkeys("abcdefg", 1)).endswith("e was not set and is 1, 2 more")


@pytest.mark.parametrize(
    ("found", "complaint"),
    [
        ({"other": torch.zeros(2)}, "expected weight; found other"),
        ({"weight": torch.zeros(3)}, "expected weight of torch.float32"),
        ({"weight": torch.zeros(2, dtype=torch.float64)}, "expected weight of torch.float32"),
        ({"weight": torch.tensor([0.0, torch.nan])}, "expected finite numbers in weight"),
    ],
)
def test_tensors_that_are_not_as_they_must_be_are_refused(found, complaint):
    with pytest.raises(DataError, match=complaint):
        copy_into({"weight": torch.ones(2)}, found)


def test_a_checkpoint_of_other_parts_is_refused(tmp_path):
    kept, _ = begun(tmp_path, every=0)
    kept.offer()
    other = Checkpoints(tmp_path)
    other.begin({"seed": 0})
    other.keep(updates=Counter())
    with pytest.raises(ArtifactError, match="does not fit this model"):
        other.restore()


def test_a_header_of_odd_values_is_refused_or_ignored(tmp_path):
    write_checkpoint(tmp_path, {"x": torch.zeros(1)}, {"kind": ["training"], "facts": {"seed": 0}, "seconds": "long"})
    kept = Checkpoints(tmp_path)
    kept.begin({"seed": 0})
    assert (kept.seconds, kept.restore(), kept.finished()) == (0.0, False, None)
    write_checkpoint(tmp_path, {"x": torch.zeros(1)}, {"facts": 7})
    with pytest.raises(ArtifactError, match="seed was not set and is 0"):
        kept.begin({"seed": 0})


# Optimizers


def test_the_state_of_an_optimizer_has_the_names_and_shapes_of_the_weights():
    network = torch.nn.Linear(3, 2)
    state = OptimizerState(torch.optim.Adam(network.parameters(), fused=True), network).get_state()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {
        **{f"weight.{slot}": (2, 3) for slot in ("exp_avg", "exp_avg_sq")},
        **{f"bias.{slot}": (2,) for slot in ("exp_avg", "exp_avg_sq")},
        "weight.step": (),
        "bias.step": (),
    }


def test_a_restored_optimizer_and_its_schedule_take_the_steps_of_the_first():
    def made():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = torch.nn.Linear(3, 2)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.1, fused=True)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, 7)
        return network, optimizer, schedule

    def steps(network, optimizer, schedule, count):
        for number in range(count):
            optimizer.zero_grad()
            network(torch.full((1, 3), 1.0 + number)).square().sum().backward()
            optimizer.step()
            schedule.step()

    first = made()
    steps(*first, 3)
    second = made()
    copy_into(second[0].state_dict(), first[0].state_dict())
    OptimizerState(second[1], second[0]).set_state(OptimizerState(first[1], first[0]).get_state())
    RateState(second[2]).set_state(RateState(first[2]).get_state())
    steps(*first, 3)
    steps(*second, 3)
    assert torch.equal(first[0].weight, second[0].weight)
    assert first[2].get_last_lr() == second[2].get_last_lr()


def test_the_state_of_another_optimizer_is_refused():
    one, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2, bias=False)
    state = OptimizerState(torch.optim.Adam(one.parameters()), one).get_state()
    with pytest.raises(DataError, match=r"expected the state of the same optimizer, bias\.exp_avg"):
        OptimizerState(torch.optim.Adam(other.parameters()), other).set_state(state)


# Batches


def test_a_pass_that_goes_on_sees_the_batches_that_are_left():
    rows = SparseRows(csr_matrix(np.arange(1, 8, dtype=np.float32)[:, None]), torch.device("cpu"))

    def batches(done):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            return [batch.values.tolist() for batch in rows.shuffled(3, done=done)]

    assert batches(1) == batches(0)[1:]
    assert batches(3) == []


def test_the_description_is_json_that_people_can_read(tmp_path):
    write_description(tmp_path / "model.checkpoint", {"training": {"model": "vae"}, "run_id": None})
    text = (tmp_path / "model.checkpoint" / "training.json").read_text()
    assert json.loads(text) == {"training": {"model": "vae"}, "run_id": None}
    assert text.startswith('{\n  "training"')
