"""Paths and addresses: what is read from either, and files that appear whole or not at all in both."""

import tempfile
from pathlib import Path

import fsspec
import pytest
from fsspec.registry import known_implementations

from recsys.artifacts import load_model
from recsys.errors import ArtifactError, ConfigError, DataError, StorageError
from recsys.system.atomic import refuse_existing
from recsys.system.files import sha256
from recsys.system.storage import LocalFolder, absolute, as_location, folder_at, local_copies, local_copy


@pytest.fixture
def store():
    """An empty object store in this process: memory://."""
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]
    yield filesystem
    filesystem.store.clear()


@pytest.fixture(params=["path", "address"])
def folder(request, tmp_path, store):
    place = folder_at(tmp_path / "a b" if request.param == "path" else "memory://bucket/a b")
    place.make("lists")
    return place


def put(folder, name, content):
    with folder.new_file(name) as file:
        file.write_text(content)


# Words for places


@pytest.mark.parametrize(
    "text, place",
    [
        ("lists", Path("lists")),
        ("lists/", Path("lists")),
        ("s3://bucket/a b/", "s3://bucket/a b"),
        ("s3://bucket//a", "s3://bucket//a"),
        ("s3://", "s3://"),
        ("file:///data/a%20b", Path("/data/a b")),
        (Path("s3:/x"), Path("s3:/x")),
    ],
)
def test_an_address_stays_as_it_is_and_all_else_is_a_path(text, place):
    assert as_location(text) == place


def test_a_path_becomes_absolute_and_an_address_already_is():
    assert absolute("lists") == Path.cwd() / "lists"
    assert absolute("s3://bucket/lists") == "s3://bucket/lists"


@pytest.mark.parametrize("address", ["s3x://bucket/key", "memory://", "memory:///"])
def test_an_address_of_nothing_known_is_refused(address):
    with pytest.raises(ConfigError, match="Expected an address"):
        folder_at(address)


def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch):
    missing = {"class": "no_such_package.Files", "err": "Install no_such_package"}
    monkeypatch.setitem(known_implementations, "far", missing)
    with pytest.raises(ConfigError, match=r"found none: Install no_such_package\. .*\[object-stores\]"):
        folder_at("far://bucket/key")


# Reading


def test_a_file_at_an_address_is_a_copy_of_its_name_that_goes_away(store):
    store.pipe("/bucket/ratings.csv", b"rows")
    with local_copy("memory://bucket/ratings.csv") as path:
        assert (path.name, path.read_bytes()) == ("ratings.csv", b"rows")
    assert not path.parent.exists()


def test_a_folder_at_an_address_keeps_its_folders(store):
    for name in ("one.csv", "day=1/two.csv", "day=1/deep/three.csv"):
        store.pipe(f"/bucket/ratings/{name}", name.encode())
    with local_copies(["memory://bucket/ratings/"]) as (path,):
        found = {str(file.relative_to(path)): file.read_text() for file in path.rglob("*") if file.is_file()}
    assert found == {name: name for name in ("one.csv", "day=1/two.csv", "day=1/deep/three.csv")}


def test_a_path_is_not_copied(tmp_path):
    with local_copy(tmp_path) as path:
        assert path == tmp_path


def test_nothing_at_an_address_is_said_to_be_so(store):
    with (
        pytest.raises(DataError, match=r"at memory://bucket/none\.csv, found none"),
        local_copy("memory://bucket/none.csv"),
    ):
        pass


def test_a_name_that_leads_out_of_the_copy_is_refused(store):
    store.store["/bucket/ratings/../../out"] = store.open("/bucket/x", "wb")
    with pytest.raises(DataError, match=r"names without '\.\.'"), local_copy("memory://bucket/ratings"):
        pass


def test_errors_speak_of_the_address_and_not_of_the_copy(store):
    store.pipe("/bucket/model/model.json", b"{}")
    with pytest.raises(ArtifactError, match=r"memory://bucket/model/model\.json is damaged"):
        load_model("memory://bucket/model")


def test_a_full_disk_under_the_copy_is_told_from_a_store_that_refuses(store, monkeypatch):
    store.pipe("/bucket/ratings.csv", b"rows")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(store), "get_file", full)
    with (
        pytest.raises(DataError, match=r"Expected room for a copy of .*Set TMPDIR"),
        local_copy("memory://bucket/ratings.csv"),
    ):
        pass


# Writing


def test_a_folder_is_empty_until_something_is_written(folder):
    assert not folder.names("lists") and not folder.is_file("plan.json")
    put(folder, "plan.json", "{}")
    assert folder.is_file("plan.json") and not folder.is_empty() and not folder.is_file()
    assert folder.read_text("plan.json") == "{}"


def test_names_are_those_of_the_inner_folder_in_order(folder):
    folder.make("lists/deep")
    for name in ("lists/part-1", "lists/part-0", "plan.json", "lists/deep/part-2"):
        put(folder, name, name)
    assert folder.names("lists") == ["lists/part-0", "lists/part-1"]
    assert folder.names("none") == []


def test_a_file_that_fails_on_the_way_never_appears(folder):
    with pytest.raises(ZeroDivisionError), folder.new_file("lists/part-0") as file:
        file.write_text("half")
        raise ZeroDivisionError
    assert folder.names("lists") == []


def test_a_new_file_takes_the_place_of_the_old_one(folder):
    put(folder, "plan.json", "old")
    put(folder, "plan.json", "new")
    assert folder.read_text("plan.json") == "new"


def test_text_is_added_at_the_end(folder):
    folder.append("progress", "one\n")
    folder.append("progress", "zwölf\n")
    assert folder.read_text("progress") == "one\nzwölf\n"


def test_a_removed_file_is_gone_and_a_missing_one_no_matter(folder):
    put(folder, "plan.json", "{}")
    folder.remove("plan.json")
    folder.remove("plan.json")
    assert not folder.is_file("plan.json")


def test_the_checksum_is_that_of_what_can_be_read_back(folder, tmp_path):
    (tmp_path / "same").write_text("content")
    put(folder, "lists/part-0", "content")
    assert folder.sha256("lists/part-0") == sha256(tmp_path / "same")


def test_only_what_new_file_left_half_written_is_swept(tmp_path):
    folder = LocalFolder(tmp_path)
    for name in (".hidden", ".gitignore.txt", "part-00001.parquet"):
        (tmp_path / name).write_text("")
    (tmp_path / ".part-00000.parquet.0123abcd-0123456789ab.draft" / "new").mkdir(parents=True)
    folder.make()
    assert sorted(file.name for file in tmp_path.iterdir()) == [".gitignore.txt", ".hidden", "part-00001.parquet"]


def test_an_output_in_the_way_is_refused_at_an_address_too(folder):
    refuse_existing(f"{folder}/new", "plan.json", overwrite=False)
    put(folder, "plan.json", "{}")
    with pytest.raises(ArtifactError, match="already holds something"):
        refuse_existing(str(folder), "plan.json", overwrite=False)
    refuse_existing(str(folder), "plan.json", overwrite=True)
    with pytest.raises(ArtifactError, match="that recsys did not write"):
        refuse_existing(str(folder), "model.json", overwrite=True)
    with pytest.raises(ArtifactError, match="found the file"):
        refuse_existing(f"{folder}/plan.json", "plan.json", overwrite=True)


def test_a_store_that_refuses_is_named_with_the_way_out(store, monkeypatch):
    def closed(*_, **__):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(type(store), "put_file", closed)
    with pytest.raises(
        StorageError, match=r"Expected to write memory://bucket/lists/plan.json, found: Access Denied\. Check"
    ):
        put(folder_at("memory://bucket/lists"), "plan.json", "{}")


def test_copies_on_the_way_to_a_store_are_removed(store):
    with folder_at("memory://bucket/lists").new_file("plan.json") as file:
        file.write_text("{}")
        assert file.is_relative_to(tempfile.gettempdir())
    assert not file.parent.exists()
