from __future__ import annotations

import json
import os

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

RATINGS = "user,item,rating,timestamp\nu,a,5,30\nv,b,0,10\nu,b,2,20\nv,,3,5\nu,b,1,10\n"


@pytest.fixture
def store(tmp_path):
    (tmp_path / "ratings.csv").write_text(RATINGS)
    return write_store(read_interactions(tmp_path / "ratings.csv"), tmp_path / "store")


def test_a_store_returns_what_was_written(tmp_path, store):
    before, after = read_interactions(tmp_path / "ratings.csv"), read_interactions(store)
    assert after.fingerprint() == before.fingerprint()
    assert after.ledger == before.ledger
    assert after.row.tolist() == before.row.tolist() == [0 + 1, 3, 2]
    assert after.users.to_list() == ["u", "v"]


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint32(), pa.large_string()])
def test_the_type_of_ids_is_kept(tmp_path, kind):
    ids = Vocabulary(pa.array([7, 8]).cast(kind))
    write_store(Interactions(ids, ids, np.int32([0, 1]), np.int32([1, 0])), tmp_path / "store")
    found = open_store(tmp_path / "store")
    assert found.users.ids.equals(ids.ids)
    assert (found.rating, found.timestamp, found.row) == (None, None, None)


def test_a_store_made_in_another_order_of_ids_keeps_it(tmp_path):
    users, items = Vocabulary.of(["b", "a"]), Vocabulary.of(["y", "x"])  # as 0.1 numbered them, by first appearance
    cells = np.int32([0, 0, 1]), np.int32([0, 1, 1]), np.float32([5, 4, 1])
    table = Interactions(users, items, *cells)  # made by hand: rows have no numbers
    found = read_interactions(write_store(table, tmp_path / "store"), ReadingOptions(min_rating=2))
    assert (found.users.to_list(), found.items.to_list()) == (["b"], ["y", "x"])
    assert found.seen_only.users.to_list() == ["b", "a"]


def test_policies_apply_to_a_store_and_the_ledger_goes_on(store):
    found = read_interactions([store], ReadingOptions(min_rating=2))
    assert found.ledger.line() == (
        "rows read 5 = kept 2 + missing item id 1 + duplicate (last kept) 1 + below min_rating 1"
    )
    assert found.users.to_list() == ["u"]


def test_columns_of_a_store_cannot_be_named(store):
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


def test_prepare_replaces_only_a_store_and_only_with_overwrite(tmp_path, store):
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


def rewrite(store, name, write):
    """Replace a file of a store, its size and checksum in the manifest with it, as somebody who means harm would."""
    write(store / name)
    manifest = json.loads((store / "store.json").read_text())
    manifest["files"][name] = {"bytes": (store / name).stat().st_size, "sha256": sha256(store / name)}
    (store / "store.json").write_text(json.dumps(manifest))


def saved(dtype, *values):
    return lambda path: np.save(path, np.array(values, dtype))


def arrow(ids):
    def write(path):
        table = pa.table({"id": ids})
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)

    return write


def broken_offsets(path):
    """Text whose offsets point outside of its bytes."""
    arrow(pa.array(["v", "u"]))(path)
    good, bad = np.int32([0, 1, 2]).tobytes(), np.int32([0, 1, 2**30]).tobytes()
    assert good in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(good, bad))


@pytest.mark.parametrize(
    ("name", "write", "words"),
    [
        ("item.npy", saved("int32", 50_000_000, 1, 1), "out of range"),
        ("item.npy", saved("int32", -1, 1, 1), "out of range"),
        ("user.npy", saved("int32", 0, 0, 2), "out of range"),
        ("user.npy", saved("int32", 1, 0, 0), "out of order"),
        ("user.npy", saved("int32", 0, 0, 0), "out of order|without a row"),
        ("item.npy", saved("int32", 0, 0, 1), "one twice"),
        ("item.npy", saved("int64", 0, 1, 1), "int64"),
        ("item.npy", saved("int32", 0, 1), "int32"),
        ("rating.npy", saved("float32", 1, float("nan"), 3), "not finite"),
        ("rating.npy", saved("float32", 1, float("-inf"), 3), "not finite"),
        ("row.npy", saved("int32", 1, -3, 2), "negative row"),
        ("timestamp.npy", saved("int64", 1, 2**62, 2), "timestamp out of range"),
        ("item.npy", lambda path: path.write_bytes(b"\x93NUMPY\x01\x00"), "numbers"),
        ("item.npy", lambda path: path.write_bytes(b"PK\x03\x04"), "numbers"),
        ("users.arrow", arrow(pa.array(["v", "v"])), "distinct"),
        ("users.arrow", arrow(pa.array(["v", None])), "distinct"),
        ("users.arrow", arrow(pa.array([1.5, 2.5])), "type double"),
        ("users.arrow", arrow(pa.array(["v", "u", "w"])), "without a row"),
        ("users.arrow", arrow(pa.array(["v"])), "out of range"),
        ("users.arrow", arrow(pa.array([b"\xff", b"u"]).cast(pa.binary()).view(pa.string())), "ids"),
        ("users.arrow", broken_offsets, "ids"),
        ("users.arrow", lambda path: path.write_bytes(b"ARROW1"), "ids"),
    ],
)
def test_what_a_store_holds_is_validated_before_use(store, name, write, words):
    rewrite(store, name, write)
    with pytest.raises(ArtifactError, match=words):
        open_store(store)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 50_000, '{"format": "recsys store", "format": "recsys store"}', "NaN", "\x00"]
)
def test_a_manifest_of_any_shape_is_refused(store, text):
    (store / "store.json").write_text(text)
    with pytest.raises(ArtifactError):
        open_store(store)


@pytest.mark.parametrize("key", ["rows", "ledger", "files", "columns"])
@pytest.mark.parametrize(
    "value", [None, -1, True, 1.5, "x", [], {}, [[]], {"read": -1}, {"read": [], "unread": {}}, 2**70]
)
def test_a_manifest_with_values_of_other_types_is_refused(store, key, value):
    manifest = json.loads((store / "store.json").read_text())
    manifest[key] = value
    (store / "store.json").write_text(json.dumps(manifest))
    if key == "columns" and value is None:
        open_store(store)
        return
    with pytest.raises(ArtifactError):
        open_store(store)


def test_rows_that_were_seen_are_validated_too(tmp_path):
    (tmp_path / "ratings.csv").write_text("user,item,rating\nu,a,5\nu,b,1\nv,a,4\n")
    table = read_interactions(tmp_path / "ratings.csv", ReadingOptions(min_rating=3))
    store = write_store(table, tmp_path / "store")
    assert open_store(store).seen_only.items.to_list() == ["b"]
    rewrite(store, "seen_item.npy", saved("int32", 7))
    with pytest.raises(ArtifactError, match="out of range"):
        open_store(store)


def test_a_store_keeps_which_columns_were_read(tmp_path, store):
    assert open_store(store).columns == read_interactions(tmp_path / "ratings.csv").columns
    assert read_interactions(store).columns.line().startswith("columns read: user = user, item = item")


def test_interactions_out_of_order_are_not_written(tmp_path):
    ids = Vocabulary.of(["a", "b"])
    with pytest.raises(DataError, match="out of order"):
        write_store(Interactions(ids, ids, np.int32([1, 0]), np.int32([0, 1])), tmp_path / "store")
    assert not list(tmp_path.iterdir())


def test_an_old_store_stays_until_the_new_one_is_complete(tmp_path, store, monkeypatch):
    before = open_store(store).fingerprint()
    (tmp_path / "other.csv").write_text("user,item\nx,y\n")
    other = read_interactions(tmp_path / "other.csv")

    def fail(*_):
        assert open_store(store).fingerprint() == before
        raise OSError("disk on fire")

    monkeypatch.setattr("recsys.data.store.write_json", fail)
    with pytest.raises(Exception, match="disk on fire"):
        write_store(other, store, overwrite=True)
    assert open_store(store).fingerprint() == before
    monkeypatch.undo()
    write_store(other, store, overwrite=True)
    assert open_store(store).users.to_list() == ["x"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.csv", "ratings.csv", "store"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_the_permissions_of_a_store_follow_the_umask(tmp_path, store, mask):
    table, old = open_store(store), os.umask(mask)
    try:
        write_store(table, tmp_path / "new")
    finally:
        os.umask(old)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o777 & ~mask
