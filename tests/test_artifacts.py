"""Model directories: whole or not there, ids as they came, every kind of damage named."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from file_faults import FULL, Faults, raise_error
from model_folders import COUNTS, ITEMS, contents, fitted, save
from paths import ROOT

from recsys import artifacts
from recsys.artifacts import load_model, save_model
from recsys.data.interactions import Vocabulary
from recsys.errors import ArtifactError, DataError, NotFittedError, StorageError
from recsys.models import create_model
from recsys.models.trained import TrainedModel
from recsys.system import atomic
from recsys.system.atomic import new_directory
from recsys.system.files import sha256


@pytest.fixture
def model(tmp_path):
    return save(tmp_path / "model")


# What is kept


@pytest.mark.parametrize(
    "items", [ITEMS, ["1", "2", "03", "+4"], [7, -1, 2**62, 0]], ids=["text", "digits", "integers"]
)
def test_ids_come_back_in_their_type_and_spelling(items, tmp_path):
    saved = load_model(save(tmp_path / "model", items))
    assert saved.items.to_list() == items
    assert [type(item) for item in saved.items.to_list()] == [type(item) for item in items]
    np.testing.assert_array_equal(saved.item_counts, COUNTS)
    assert saved.users is None


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.int32(), pa.int64(), pa.uint64()])
def test_ids_keep_their_arrow_type(kind, tmp_path):
    items = Vocabulary(pa.array(["1", "2", "3", "4"]).cast(kind))
    save_model(tmp_path / "model", TrainedModel(fitted(), items, COUNTS))
    assert load_model(tmp_path / "model").items.ids.type == kind


def test_a_model_of_its_training_users_keeps_their_ids(tmp_path):
    pytest.importorskip("implicit")
    saved = load_model(save(tmp_path / "model", name="bpr", users=Vocabulary.of(["u", "007", "w"])))
    assert saved.users.to_list() == ["u", "007", "w"]


def test_ids_of_people_are_not_kept_where_scoring_does_not_need_them(tmp_path):
    folder = save(tmp_path / "model", users=Vocabulary.of(["secret-1", "secret-2", "secret-3"]))
    assert not (folder / "users.parquet").exists()
    assert not any(b"secret" in content for content in contents(folder).values())


def test_the_description_says_what_the_model_is(tmp_path):
    folder = save(tmp_path / "model", about={"seed": 3, "metrics": {"ndcg@10": 0.5}})
    about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    assert (about["schema_version"], about["model"], about["task"], about["items"]) == (1, "ease", "ranking", 4)
    assert (about["config"], about["seed"], about["metrics"]) == (
        {"l2": 500.0, "feature_weight": 0.0, "feature_l2": 3.0},
        3,
        {"ndcg@10": 0.5},
    )
    assert about["versions"]["torch"]
    assert about["files"] == {name: sha256(folder / name) for name in ("items.parquet", "weights.safetensors")}


def test_the_digest_of_a_model_is_that_of_its_description(model):
    assert load_model(model).digest == hashlib.sha256((model / "model.json").read_bytes()).hexdigest()


def test_items_are_a_parquet_table_others_can_read(model):
    table = pq.read_table(model / "items.parquet").to_pydict()
    assert table == {"position": [0, 1, 2, 3], "item_id": ITEMS, "count": COUNTS.tolist()}


# What is refused before anything is written


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_permissions_of_every_file_follow_the_umask(mask, tmp_path):
    usual = os.umask(mask)
    try:
        folder = save(tmp_path / "model")
    finally:
        os.umask(usual)
    assert {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()} == dict.fromkeys(
        ("items.parquet", "model.json", "weights.safetensors"), 0o666 & ~mask
    )


def test_an_unfitted_model_is_not_saved(tmp_path):
    with pytest.raises(NotFittedError):
        save_model(tmp_path / "model", TrainedModel(create_model("ease"), Vocabulary.of(ITEMS), COUNTS))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("ids", "counts"), [(ITEMS[:3], COUNTS), (ITEMS, COUNTS[:3]), ([*ITEMS, "z"], [1] * 5)])
def test_ids_of_other_items_than_the_models_are_refused(ids, counts, tmp_path):
    with pytest.raises(DataError, match="the model's 4 items"):
        save_model(tmp_path / "model", TrainedModel(fitted(), Vocabulary.of(ids), np.array(counts)))
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_its_training_users_is_not_saved_without_their_ids(tmp_path):
    pytest.importorskip("implicit")
    with pytest.raises(DataError, match="ids of the training users as users: bpr knows no others"):
        save(tmp_path / "model", name="bpr")
    assert list(tmp_path.iterdir()) == []


# Writing


def test_the_folders_above_are_made_and_nothing_is_left_beside_the_model(tmp_path):
    save(tmp_path / "deep" / "down" / "model")
    assert [file.name for file in (tmp_path / "deep" / "down").iterdir()] == ["model"]


def test_a_model_in_the_way_is_refused_and_left_alone(model):
    before = contents(model)
    with pytest.raises(ArtifactError, match="already holds something: choose another place, or set overwrite"):
        save(model)
    assert contents(model) == before


def test_overwriting_replaces_a_model_whole(tmp_path):
    folder = save(tmp_path / "model", name="popularity")
    (folder / "old.txt").touch()
    save(folder, overwrite=True)
    assert load_model(folder).model.name == "ease"
    assert not (folder / "old.txt").exists()
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_is_not_ours_is_never_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(ArtifactError, match=r"that recsys did not write \(no model.json\)"):
        save(tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "model").write_text("a file")
    with pytest.raises(ArtifactError, match="Expected a folder to write to, found the file"):
        save(tmp_path / "model", overwrite=True)
    assert (tmp_path / "model").read_text() == "a file"


def test_an_empty_folder_is_a_place_to_write_to(tmp_path):
    (tmp_path / "model").mkdir()
    assert load_model(save(tmp_path / "model")).items.to_list() == ITEMS


def test_behind_a_link_the_model_is_replaced_and_the_link_stays(tmp_path):
    save(tmp_path / "disk" / "v1", name="popularity")
    (tmp_path / "model").symlink_to(tmp_path / "disk" / "v1")
    save(tmp_path / "model", overwrite=True)
    assert (tmp_path / "model").is_symlink()
    assert load_model(tmp_path / "disk" / "v1").model.name == "ease"
    assert [file.name for file in (tmp_path / "disk").iterdir()] == ["v1"]


@pytest.mark.parametrize("step", ["save_file", "_write_ids", "write_json", "flush"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_a_failure_while_writing_leaves_the_old_model_and_nothing_else(step, error, model, monkeypatch):
    before = contents(model)

    def fail(*arguments, **named):
        raise error

    for module in (artifacts, atomic):
        monkeypatch.setattr(module, step, fail, raising=False)
    with pytest.raises(type(error)):
        save(model, overwrite=True)
    assert contents(model) == before
    assert [file.name for file in model.parent.iterdir()] == ["model"]


def test_what_is_being_written_is_not_seen_under_its_name(tmp_path):
    with new_directory(tmp_path / "model", "model.json") as place:
        (place / "model.json").touch()
        assert not (tmp_path / "model").exists()
        assert tmp_path in place.parents  # a rename never crosses file systems
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
def test_others_may_read_a_model(model):
    assert model.stat().st_mode & 0o777 == 0o755


def test_a_model_that_is_replaced_while_it_is_read_is_read_again(model, monkeypatch):
    check_files = artifacts._check_files

    def replaced_once(directory, files):
        monkeypatch.setattr(artifacts, "_check_files", check_files)
        save(model, name="popularity", overwrite=True)
        check_files(directory, files)

    monkeypatch.setattr(artifacts, "_check_files", replaced_once)
    assert load_model(model).model.name == "popularity"


# Faults at every file operation


FAULTS = Faults()


def reported(write):
    """A function of another language that writes: faults come before it, and after it."""

    def call(content, file, *more, **named):
        sys.audit("recsys.test", str(file))
        write(content, file, *more, **named)
        sys.audit("recsys.test", str(file))

    return call


@pytest.mark.slow
@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()], ids=["full disk", "interrupt"])
def test_after_a_failure_at_any_operation_the_old_model_or_the_new_is_there(error, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", FAULTS.fsync)
    monkeypatch.setattr(artifacts, "save_file", reported(artifacts.save_file))
    monkeypatch.setattr(artifacts.pq, "write_table", reported(artifacts.pq.write_table))
    new = TrainedModel(fitted("popularity"), Vocabulary.of(ITEMS), COUNTS)
    old = TrainedModel(fitted("ease"), Vocabulary.of(ITEMS), COUNTS)
    folder = tmp_path / "model"
    for number in range(1, 1000):
        save_model(folder, old, overwrite=True)
        FAULTS.before(number, raise_error(error), tmp_path)
        with contextlib.suppress(StorageError, OSError, KeyboardInterrupt):
            save_model(folder, new, overwrite=True)
        acted = FAULTS.stop()
        assert load_model(folder).model.name in ("ease", "popularity")
        save_model(folder, new, overwrite=True)
        assert load_model(folder).model.name == "popularity"
        assert [file.name for file in tmp_path.iterdir()] == ["model"]
        if not acted:
            break
    assert 30 < number < 999


KILLS = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
from file_faults import killed_before_each
from test_artifacts import *

old = TrainedModel(fitted("ease"), Vocabulary.of(ITEMS), COUNTS)
new = TrainedModel(fitted("popularity"), Vocabulary.of(ITEMS), COUNTS)
artifacts.save_file = reported(artifacts.save_file)
artifacts.pq.write_table = reported(artifacts.pq.write_table)
folder = Path({folder!r}) / "model"
save_model(folder, old, overwrite=True)

def check(number):
    found = load_model(folder).model.name
    assert found in ("ease", "popularity"), number
    if found == "popularity":
        save_model(folder, old, overwrite=True)

print(killed_before_each(lambda: save_model(folder, new, overwrite=True), folder.parent, check))
save_model(folder, new, overwrite=True)
assert [file.name for file in folder.parent.iterdir()] == ["model"]
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
def test_killed_before_any_operation_the_old_model_or_the_new_is_there(tmp_path):
    code = KILLS.format(path=[str(ROOT), str(ROOT / "tests")], folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 30
