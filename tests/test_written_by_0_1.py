"""Model folders and batch outputs that version 0.1 wrote: they open, score the same, and can be gone on with."""

import io
import json
import shutil

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from paths import ROOT

from pipelines.cli.main import main
from recsys.artifacts import load_model
from recsys.batch.gates import require_finished

WRITTEN = ROOT / "tests" / "written_by_0_1"
MODELS = sorted(folder.name for folder in (WRITTEN / "lists").iterdir())


def invoke(*words):
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("name", MODELS)
def test_an_old_model_folder_opens_and_recommends_what_it_recommended(name, tmp_path):
    saved = load_model(WRITTEN / name, "cpu")
    assert saved.model.name == name
    invoke("score", WRITTEN / name, WRITTEN / "ratings.csv", "-n", 5, "--no-track", "-o", tmp_path / "lists")
    then, now = (
        pq.read_table(folder / "recommendations").to_pydict()
        for folder in (WRITTEN / "lists" / name, tmp_path / "lists")
    )
    assert (now["user_id"], now["item_id"], now["rank"]) == (then["user_id"], then["item_id"], then["rank"])
    assert now["score"] == pytest.approx(then["score"], rel=1e-5, abs=1e-6)  # processors add in different orders


def test_settings_renamed_since_are_found():
    assert load_model(WRITTEN / "item-knn", "cpu").model.config.neighbors == 4
    assert load_model(WRITTEN / "blend", "cpu").model.config.settings["item-knn"]["neighbors"] == 3


def test_an_old_output_can_be_compared_with_a_new_one(tmp_path):
    require_finished(WRITTEN / "lists" / "ease")
    options = "-n", 5, "--no-track", "-o", tmp_path / "lists", "--previous", WRITTEN / "lists" / "ease"
    invoke("score", WRITTEN / "ease", WRITTEN / "ratings.csv", *options)
    manifest = json.loads((tmp_path / "lists" / "manifest.json").read_text())
    assert manifest["measures"]["overlap"] == 1


@pytest.mark.parametrize("name", MODELS)
def test_an_old_output_that_was_not_finished_is_resumed(name, tmp_path):
    lists = tmp_path / "lists"
    shutil.copytree(WRITTEN / "lists" / name, lists)
    before = (lists / "recommendations" / "part-00000.parquet").read_bytes()
    (lists / "manifest.json").unlink()
    words = "score", WRITTEN / name, WRITTEN / "ratings.csv", "-n", 5, "--no-track", "--device", "cpu", "-o", lists
    invoke(*words, "--resume")
    assert json.loads((lists / "manifest.json").read_text())["users"] == 40
    table = pq.read_table(lists / "recommendations").to_pydict()
    then = pq.read_table(io.BytesIO(before)).to_pydict()
    assert (table["user_id"], table["item_id"]) == (then["user_id"], then["item_id"])
