from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from pipelines.cli.main import main
from recsys.data.interactions import Interactions, Vocabulary
from recsys.data.matrix import UserItemMatrix
from recsys.data.reading import ReadingOptions, read_interactions
from recsys.data.store import open_store, write_store
from recsys.errors import ArtifactError, ConfigError, DataError
from recsys.system.files import sha256

RATINGS = "user,item,rating,timestamp\nv,a,5,30\nu,b,0,10\nv,b,2,20\nu,,3,5\nv,b,1,10\n"


@pytest.fixture
def store(tmp_path):
    (tmp_path / "ratings.csv").write_text(RATINGS)
    return write_store(read_interactions(tmp_path / "ratings.csv"), tmp_path / "store")


def test_a_store_gives_back_what_went_in(tmp_path, store):
    before, after = read_interactions(tmp_path / "ratings.csv"), read_interactions(store)
    assert after.fingerprint() == before.fingerprint()
    assert after.ledger == before.ledger
    assert after.row.tolist() == before.row.tolist() == [0 + 1, 3, 2]
    assert after.users.to_list() == ["v", "u"]


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint32(), pa.large_string()])
def test_the_type_of_ids_is_kept(tmp_path, kind):
    ids = Vocabulary(pa.array([7, 8]).cast(kind))
    write_store(Interactions(ids, ids, np.int32([0, 1]), np.int32([1, 0])), tmp_path / "store")
    found = open_store(tmp_path / "store")
    assert found.users.ids.equals(ids.ids)
    assert (found.rating, found.timestamp, found.row) == (None, None, None)


def test_policies_apply_to_a_store_and_the_ledger_goes_on(store):
    found = read_interactions([store], ReadingOptions(min_rating=2))
    assert found.ledger.line() == (
        "rows read 5 = kept 2 + missing item id 1 + duplicate (last kept) 1 + below min_rating 1"
    )
    assert found.users.to_list() == ["v"]


def test_columns_are_not_told_to_a_store(store):
    with pytest.raises(ConfigError, match="recsys prepare"):
        read_interactions(store, ReadingOptions(user_column="v"))


def test_a_store_stands_alone(tmp_path, store):
    with pytest.raises(DataError, match="stand alone"):
        read_interactions([store, tmp_path / "ratings.csv"])


def test_changing_what_was_opened_never_reaches_the_files(store):
    opened = open_store(store)
    opened.rating[:] = 9
    UserItemMatrix.from_interactions(open_store(store), ratings=True).matrix.data[:] = 9
    assert open_store(store).rating.tolist() == [5, 2, 0]


def spoil_byte(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["users.arrow", "items.arrow", "user.npy", "item.npy", "rating.npy", "row.npy"])
@pytest.mark.parametrize("harm", [spoil_byte, lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
def test_a_damaged_store_is_refused(store, name, harm):
    harm(store / name)
    with pytest.raises(ArtifactError, match=rf"{name}.*damaged"):
        open_store(store)


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.pop("files"),
        lambda manifest: manifest.update(version=2),
        lambda manifest: manifest.update(format="something"),
        lambda manifest: manifest.update(rows=7),
        lambda manifest: manifest["files"].pop("user.npy"),
        lambda manifest: manifest["files"].update({"../ratings.csv": {"bytes": 1, "sha256": ""}}),
    ],
)
def test_a_foreign_manifest_is_refused(store, change):
    manifest = json.loads((store / "store.json").read_text())
    change(manifest)
    (store / "store.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="Expected"):
        open_store(store)


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "null"])
def test_a_manifest_that_is_none_is_refused(store, text):
    (store / "store.json").write_text(text)
    with pytest.raises(ArtifactError, match="damaged"):
        open_store(store)


def test_a_column_that_is_a_pickle_is_never_opened(store):
    np.save(store / "item.npy", np.array([{}] * 3, dtype=object), allow_pickle=True)
    manifest = json.loads((store / "store.json").read_text())
    manifest["files"]["item.npy"] = {
        "bytes": (store / "item.npy").stat().st_size,
        "sha256": sha256(store / "item.npy"),
    }
    (store / "store.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=r"item\.npy"):
        open_store(store)


def test_prepare_writes_a_store_that_every_command_takes(tmp_path, store):
    runner, ratings, target = CliRunner(), str(tmp_path / "ratings.csv"), str(tmp_path / "new")
    done = runner.invoke(main, ["prepare", ratings, "-o", target])
    assert done.exit_code == 0, done.output
    assert "rows read 5 = kept 3" in done.output
    shown = [runner.invoke(main, ["--json", "check", source]).output for source in (ratings, target)]
    assert json.loads(shown[0])["facts"] == json.loads(shown[1])["facts"]


def test_prepare_replaces_only_a_store_and_only_when_told(tmp_path, store):
    runner, ratings = CliRunner(), str(tmp_path / "ratings.csv")
    refused = runner.invoke(main, ["prepare", ratings, "-o", str(store)])
    assert (refused.exit_code, "--overwrite" in refused.output) == (1, True)
    assert runner.invoke(main, ["prepare", ratings, "-o", str(store), "--overwrite"]).exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ratings.csv", "store"]
    refused = runner.invoke(main, ["prepare", ratings, "-o", ratings, "--overwrite"])
    assert (refused.exit_code, "found the file" in refused.output) == (1, True)
    assert (tmp_path / "ratings.csv").read_text() == RATINGS


def test_prepare_needs_a_place(tmp_path):
    assert "--output STORE" in CliRunner().invoke(main, ["prepare", str(tmp_path)]).output
