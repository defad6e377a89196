"""Batch outputs on disk: always the same bytes, whatever was killed on the way; nothing is dropped silently."""

import json
import signal
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from batch_case import ITEMS, TAKEN, USERS, contents, histories_of, job, lists, save_small, short_lists, write
from paths import ROOT
from scipy.sparse import csr_matrix

from recsys.artifacts import load_model
from recsys.batch.output import open_output, record_shards, write_manifest
from recsys.batch.plan import ScoringPlan
from recsys.batch.shards import NO_HISTORY, NOT_TRAINED, NOTHING_LEFT, SMALL_CATALOG
from recsys.errors import ArtifactError, ConfigError


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_small(tmp_path_factory.mktemp("batch") / "model")


@pytest.fixture
def whole(saved, tmp_path):
    """An uninterrupted output, to compare with."""
    write(tmp_path / "whole", saved, *job(saved))
    return contents(tmp_path / "whole")


# What is written


def test_lists_are_the_best_unseen_items_of_every_user_in_order(saved, tmp_path):
    write(tmp_path / "lists", saved, *job(saved))
    table = lists(tmp_path / "lists")
    assert list(table.columns) == ["user_id", "item_id", "rank", "score"]
    best, scores = saved.model.recommend(np.arange(10), TAKEN, N=3)
    listed = best >= 0
    assert table["user_id"].tolist() == np.repeat(USERS, listed.sum(axis=1)).tolist()
    assert table["item_id"].tolist() == [ITEMS[item] for item in best[listed]]
    assert table["rank"].tolist() == [rank for row in listed for rank in range(1, row.sum() + 1)]
    np.testing.assert_allclose(table["score"], scores[listed], rtol=1e-5, atol=1e-6)


def test_no_seen_item_appears_unless_asked_for(saved, tmp_path):
    seen = {(USERS[user], ITEMS[item]) for user, item in zip(*TAKEN.nonzero(), strict=True)}
    write(tmp_path / "unseen", saved, *job(saved, n=6))
    pairs = set(zip(lists(tmp_path / "unseen")["user_id"], lists(tmp_path / "unseen")["item_id"], strict=True))
    assert not pairs & seen
    assert len(pairs | seen) == 60
    write(tmp_path / "all", saved, *job(saved, n=6, filter_seen=False))
    assert len(lists(tmp_path / "all")) == 60


@pytest.mark.parametrize("users", [range(100, 110), ["x y", "007", "7", "", "ü", "a,b", '"q"', "=1", "\t", "z"]])
def test_ids_come_back_in_their_type_and_spelling(users, saved, tmp_path):
    write(tmp_path / "lists", saved, *job(saved, histories_of(users=list(users)), n=1, filter_seen=False))
    assert lists(tmp_path / "lists")["user_id"].tolist() == list(users)


def test_csv_holds_what_parquet_holds(saved, tmp_path):
    for format in ("parquet", "csv"):
        write(tmp_path / format, saved, *job(saved, format=format))
    files = sorted((tmp_path / "csv" / "recommendations").iterdir())
    assert [file.name for file in files] == [f"part-{number:05}.csv" for number in range(5)]
    table = pd.concat([pd.read_csv(file, dtype={"user_id": "str", "item_id": "str"}) for file in files])
    expected = lists(tmp_path / "parquet")
    assert (
        table[["user_id", "item_id", "rank"]].values.tolist()
        == expected[["user_id", "item_id", "rank"]].values.tolist()
    )
    np.testing.assert_allclose(table["score"], expected["score"], rtol=1e-6)


def test_the_manifest_accounts_for_every_file_user_and_row(saved, tmp_path):
    plan, targets = job(saved)
    manifest = write(tmp_path / "lists", saved, plan, targets)
    assert json.loads((tmp_path / "lists" / "manifest.json").read_text(encoding="utf-8")) == json.loads(
        json.dumps(manifest)
    )
    assert (manifest["plan_hash"], manifest["users"], manifest["published"]) == (plan.hash, 10, True)
    assert manifest["rows"] == len(lists(tmp_path / "lists"))
    assert manifest["short_lists"] == len(short_lists(tmp_path / "lists"))
    named = {name for summary in manifest["shards"].values() for name in summary["sha256"]}
    assert named | {"plan.json", "manifest.json"} == contents(tmp_path / "lists").keys()
    assert sum(summary["users"] for summary in manifest["shards"].values()) == 10


def test_two_runs_give_the_same_bytes(saved, whole, tmp_path):
    write(tmp_path / "again", saved, *job(saved))
    assert contents(tmp_path / "again") == whole


# Short lists


def test_a_list_longer_than_the_catalog_holds_all_items_and_gives_the_reason(saved, tmp_path):
    write(tmp_path / "lists", saved, *job(saved, n=1_000_000))
    counts = lists(tmp_path / "lists")["user_id"].value_counts()
    assert {user: counts.get(user, 0) for user in USERS} == dict(zip(USERS, 6 - np.diff(TAKEN.indptr), strict=True))
    assert set(short_lists(tmp_path / "lists")["reason"]) == {SMALL_CATALOG}
    assert short_lists(tmp_path / "lists")["user_id"].tolist() == USERS


def test_a_user_who_has_seen_almost_everything_gets_the_other_items_and_the_reason(tmp_path):
    items = [f"i{number}" for number in range(3050)]
    taken = csr_matrix(np.float32([[1] * 3000 + [0] * 50, [1] * 5 + [0] * 3045]))
    saved = save_small(tmp_path / "model", "popularity", taken, ["glutton", "other"], items)
    write(tmp_path / "lists", saved, *job(saved, histories_of(taken, ["glutton", "other"], items), n=100))
    table = lists(tmp_path / "lists")
    assert table.loc[table["user_id"] == "glutton", "item_id"].tolist() == items[3000:]
    assert (table["user_id"] == "other").sum() == 100
    assert short_lists(tmp_path / "lists").values.tolist() == [["glutton", 50, NOTHING_LEFT]]


def test_a_user_without_a_known_item_gets_no_list_and_the_reason(saved, tmp_path):
    taken = TAKEN.toarray()
    taken[[0, 4, 5, 9]] = 0  # both users of the third shard but one, the first and the last of all
    write(tmp_path / "lists", saved, *job(saved, histories_of(csr_matrix(taken)), n=1))
    strangers = [USERS[user] for user in (0, 4, 5, 9)]
    assert not set(strangers) & set(lists(tmp_path / "lists")["user_id"])
    found = short_lists(tmp_path / "lists")
    assert found[found["reason"] == NO_HISTORY]["user_id"].tolist() == strangers


def test_a_job_without_any_known_history_gives_a_complete_output_without_rows(saved, tmp_path):
    manifest = write(tmp_path / "lists", saved, *job(saved, histories_of(csr_matrix((10, 6), dtype=np.float32))))
    assert (manifest["rows"], manifest["short_lists"]) == (0, 10)
    assert list(lists(tmp_path / "lists").columns) == ["user_id", "item_id", "rank", "score"]


def test_a_job_without_users_gives_a_complete_output_without_files(saved, tmp_path):
    manifest = write(tmp_path / "lists", saved, *job(saved, histories_of(TAKEN[:0], [])))
    assert (manifest["users"], manifest["rows"], manifest["shards"]) == (0, 0, {})


def test_a_model_of_its_training_users_gives_other_users_no_list(tmp_path):
    pytest.importorskip("implicit")
    saved = save_small(tmp_path / "model", "bpr")
    users = ["stranger", *reversed(USERS[1:])]  # in another order than in training
    taken = TAKEN[[0, *range(9, 0, -1)]]
    write(tmp_path / "lists", saved, *job(saved, histories_of(taken, users), n=1, filter_seen=False))
    assert short_lists(tmp_path / "lists").values.tolist() == [["stranger", 0, NOT_TRAINED]]
    best, _ = saved.model.recommend(np.arange(9, 0, -1), taken[1:], N=1, filter_already_liked_items=False)
    assert lists(tmp_path / "lists")["user_id"].tolist() == users[1:]
    assert lists(tmp_path / "lists")["item_id"].tolist() == [ITEMS[item] for item in best[:, 0]]


# Resuming


@pytest.mark.parametrize("finished", [0, 1, 4, 5])
def test_a_job_stopped_between_shards_is_resumed_to_the_same_bytes(finished, saved, whole, tmp_path):
    plan, targets = job(saved)
    write(tmp_path / "lists", saved, plan, targets, limit=finished)
    assert not (tmp_path / "lists" / "manifest.json").exists()
    assert len(open_output(tmp_path / "lists", plan, resume=True).finished) == finished
    write(tmp_path / "lists", saved, plan, targets, resume=True)
    assert contents(tmp_path / "lists") == whole


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import recsys.batch.output, recsys.system.files
from recsys.artifacts import load_model
from batch_case import job, write

place, count = sys.argv[3], 0
def die(file):
    global count
    count += place in str(file)
    if count == 3:
        os.kill(os.getpid(), signal.SIGKILL)

flush, record = recsys.system.files.flush, recsys.batch.output._record
recsys.system.files.flush = lambda file: (flush(file), die(file))  # whole, not yet renamed
recsys.batch.output._record = lambda folder, name, summary: (die("recording"), record(folder, name, summary))
model = load_model(Path(sys.argv[2]) / "model", "cpu")
write(Path(sys.argv[2]) / "lists", model, *job(model))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("place", ["recommendations/.part", "short_lists/.part", "recording"])
def test_a_job_killed_inside_a_shard_is_resumed_to_the_same_bytes(place, saved, whole, tmp_path):
    save_small(tmp_path / "model")
    command = [sys.executable, "-c", KILLED, str(ROOT / "tests"), str(tmp_path), place]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = {Path(name).name.partition(".")[0] for name in contents(tmp_path / "lists")}
    assert "manifest" not in left
    saved = load_model(tmp_path / "model", "cpu")
    plan, targets = job(saved)
    assert len(open_output(tmp_path / "lists", plan, resume=True).finished) == 2
    write(tmp_path / "lists", saved, plan, targets, resume=True)
    again = contents(tmp_path / "lists")
    assert {name: again[name] for name in whole if "part" in name} == {
        name: content for name, content in whole.items() if "part" in name
    }
    assert again.keys() == whole.keys()


def test_a_line_half_written_when_the_job_was_killed_costs_one_shard_only(saved, whole, tmp_path):
    plan, targets = job(saved)
    write(tmp_path / "lists", saved, plan, targets, limit=3)
    progress = tmp_path / "lists" / "progress.jsonl"
    progress.write_text(progress.read_text(encoding="utf-8")[:-10], encoding="utf-8")
    assert list(open_output(tmp_path / "lists", plan, resume=True).finished) == ["part-00000", "part-00001"]
    write(tmp_path / "lists", saved, plan, targets, resume=True)
    assert contents(tmp_path / "lists") == whole


@pytest.mark.parametrize("complete", [True, False], ids=["complete", "stopped"])
@pytest.mark.parametrize("folder", ["recommendations", "short_lists"])
@pytest.mark.parametrize("damage", ["changed", "emptied", "removed"])
def test_a_damaged_shard_is_written_again(damage, folder, complete, saved, whole, tmp_path):
    plan, targets = job(saved)
    write(tmp_path / "lists", saved, plan, targets, limit=None if complete else 3)
    file = tmp_path / "lists" / folder / "part-00001.parquet"
    content = file.read_bytes()
    file.unlink()
    if damage != "removed":
        file.write_bytes(b"" if damage == "emptied" else content[:-1] + b"?")
    done = open_output(tmp_path / "lists", plan, resume=True).finished
    assert "part-00001" not in done
    assert len(done) == (4 if complete else 2)
    write(tmp_path / "lists", saved, plan, targets, resume=True)
    assert contents(tmp_path / "lists") == whole


def test_resuming_a_complete_job_changes_no_byte(saved, whole, tmp_path):
    write(tmp_path / "lists", saved, *job(saved))
    write(tmp_path / "lists", saved, *job(saved), resume=True)
    assert contents(tmp_path / "lists") == whole


def test_a_job_that_never_began_may_be_resumed(saved, whole, tmp_path):
    write(tmp_path / "lists", saved, *job(saved), resume=True)
    assert contents(tmp_path / "lists") == whole


def test_a_job_killed_at_its_very_start_may_be_resumed(saved, whole, tmp_path):
    open_output(tmp_path / "lists", job(saved)[0])
    for folder in ("recommendations", "short_lists"):
        (tmp_path / "lists" / folder).rmdir()
    write(tmp_path / "lists", saved, *job(saved), resume=True)
    assert contents(tmp_path / "lists") == whole


@pytest.mark.parametrize("change", [{"n": 4}, {"filter_seen": False}, {"model": "other"}, {"shard_users": 3}])
def test_the_output_of_another_job_is_never_resumed(change, saved, tmp_path):
    plan, targets = job(saved)
    write(tmp_path / "lists", saved, plan, targets, limit=2)
    before = contents(tmp_path / "lists")
    with pytest.raises(ArtifactError, match="holds the output of another job"):
        open_output(tmp_path / "lists", replace(plan, **change), resume=True)
    assert contents(tmp_path / "lists") == before


@pytest.mark.parametrize("content", ['{"half', "[]", "null", "7", '{"a": NaN}', "[" * 100_000, b"\xff"], ids=str)
@pytest.mark.parametrize("file", ["plan.json", "manifest.json"])
def test_a_damaged_plan_or_manifest_is_refused_with_the_way_out(file, content, saved, tmp_path):
    plan, targets = job(saved)
    write(tmp_path / "lists", saved, plan, targets)
    (tmp_path / "lists" / file).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ArtifactError, match=rf"{file} is damaged .*with overwrite instead of resume"):
        open_output(tmp_path / "lists", plan, resume=True)


@pytest.mark.parametrize("shards", [None, [], "x", {"part-00001": None}, {"part-00001": {"sha256": {}}}], ids=repr)
def test_shards_that_a_damaged_manifest_does_not_describe_are_written_again(shards, saved, whole, tmp_path):
    plan, targets = job(saved)
    manifest = write(tmp_path / "lists", saved, plan, targets)
    damaged = shards | {"part-00000": manifest["shards"]["part-00000"]} if isinstance(shards, dict) else shards
    (tmp_path / "lists" / "manifest.json").write_text(json.dumps(manifest | {"shards": damaged}), encoding="utf-8")
    if isinstance(shards, dict):
        assert list(open_output(tmp_path / "lists", plan, resume=True).finished) == ["part-00000"]
        write(tmp_path / "lists", saved, plan, targets, resume=True)
        assert contents(tmp_path / "lists") == whole
    else:
        with pytest.raises(ArtifactError, match=r"manifest\.json is damaged .*it has no shards"):
            open_output(tmp_path / "lists", plan, resume=True)


@pytest.mark.parametrize("line", ["7", "null", "[1]", '["part-00000", 7]', '[["part-00000"], {}]', "[" * 100_000])
def test_a_line_of_progress_of_any_other_shape_is_ignored(line, saved, tmp_path):
    plan, targets = job(saved)
    write(tmp_path / "lists", saved, plan, targets, limit=2)
    with (tmp_path / "lists" / "progress.jsonl").open("a", encoding="utf-8") as progress:
        progress.write(f"\n{line}\n")
    finished = open_output(tmp_path / "lists", plan, resume=True).finished
    assert set(finished) <= {"part-00000", "part-00001"} and "part-00001" in finished


# Folders


def test_an_existing_output_is_refused_and_left_alone(saved, whole, tmp_path):
    write(tmp_path / "lists", saved, *job(saved))
    with pytest.raises(ArtifactError, match="already holds something"):
        open_output(tmp_path / "lists", job(saved)[0])
    assert contents(tmp_path / "lists") == whole


def test_an_interrupted_output_is_refused_with_the_way_to_continue_it(saved, tmp_path):
    write(tmp_path / "lists", saved, *job(saved), limit=1)
    with pytest.raises(ArtifactError, match="lists of an interrupted job: set resume to continue it"):
        open_output(tmp_path / "lists", job(saved)[0])


def test_overwriting_leaves_nothing_of_the_earlier_output(saved, whole, tmp_path):
    write(tmp_path / "lists", saved, *job(saved, shard_users=1, n=2, format="csv"))
    write(tmp_path / "lists", saved, *job(saved), overwrite=True)
    assert contents(tmp_path / "lists") == whole


def test_a_folder_of_other_files_is_never_cleared(saved, tmp_path):
    (tmp_path / "lists" / "recommendations").mkdir(parents=True)
    (tmp_path / "lists" / "recommendations" / "part-00000.parquet").write_text("somebody else's")
    for arguments in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(ArtifactError, match=r"already holds something|that recsys did not write"):
            open_output(tmp_path / "lists", job(saved)[0], **arguments)
    assert contents(tmp_path / "lists") == {"recommendations/part-00000.parquet": b"somebody else's"}


def test_a_manifest_is_not_written_while_a_shard_is_missing(saved, tmp_path):
    plan, targets = job(saved)
    write(tmp_path / "lists", saved, plan, targets, limit=4)
    done = open_output(tmp_path / "lists", plan, resume=True).finished
    with pytest.raises(ArtifactError, match="all 5 shards, found none of part-00004"):
        write_manifest(tmp_path / "lists", plan, done, {})
    assert not (tmp_path / "lists" / "manifest.json").exists()


def test_a_job_stops_when_another_job_has_taken_its_folder(saved, tmp_path):
    plan, targets = job(saved)
    done = open_output(tmp_path / "lists", plan).finished
    written = record_shards(tmp_path / "lists", plan, done, [("part-00000", {})])
    other = replace(plan, n=1)
    write(tmp_path / "lists", saved, other, targets, overwrite=True)
    with pytest.raises(ArtifactError, match="another job has taken it: choose a place for each"):
        next(written)
    with pytest.raises(ArtifactError, match="another job has taken it"):
        write_manifest(
            tmp_path / "lists", plan, {shard.name: {"rows": 0, "short_lists": 0} for shard in plan.shards}, {}
        )
    assert set(lists(tmp_path / "lists")["rank"]) == {1}


# Plans


def test_shards_hold_all_users_once_in_order():
    shards = ScoringPlan("m", "h", users=7, shard_users=3).shards
    assert [(shard.name, shard.start, shard.stop) for shard in shards] == [
        ("part-00000", 0, 3),
        ("part-00001", 3, 6),
        ("part-00002", 6, 7),
    ]


def test_every_field_of_a_plan_changes_its_hash():
    plan = ScoringPlan("m", "h", 7, format="csv")
    others = {
        "model": "x", "inputs": "x", "users": 8, "n": 9, "lists_for": "items", "filter_seen": False,
        "cold": "popularity", "shard_users": 3, "format": "parquet", "csv_safe": True, "device": "cuda",
            "precision": "bf16", "tile": 9, "reasons": 1, "rules": ("few",),
    }  # fmt: skip
    assert others.keys() == plan.__dataclass_fields__.keys()
    assert len({plan.hash, *(replace(plan, **{key: value}).hash for key, value in others.items())}) == 1 + len(others)


@pytest.mark.parametrize("setting", ["n", "shard_users", "tile"])
def test_a_plan_with_a_size_below_1_is_refused(setting):
    with pytest.raises(ConfigError, match=f"Expected {setting} of at least 1, found 0"):
        ScoringPlan("m", "h", 7, **{setting: 0})


def test_a_length_beyond_any_catalog_costs_nothing(saved, tmp_path):
    tracemalloc.start()
    manifest = write(tmp_path / "lists", saved, *job(saved, n=10**30))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert manifest["rows"] == 60 - TAKEN.nnz
    assert peak < 10_000_000
