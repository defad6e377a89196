"""Outputs that appear whole or not at all: whatever fails, and whenever, the old content is there or the new one."""

import errno
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from file_faults import FULL, Faults, raise_error
from paths import ROOT

from recsys.errors import ArtifactError, ConfigError, StorageError
from recsys.system import disk, files
from recsys.system.atomic import new_directory, new_file, recover, refuse_existing, write_json, write_text
from recsys.system.disk import require_writable, storage_error
from recsys.system.files import remove_leftovers

FAULTS = Faults()
MARK = "mark.json"


def write_folder(target, content):
    with new_directory(target, MARK, overwrite=True) as draft:
        (draft / MARK).write_text(content)
        (draft / "inner").mkdir()
        (draft / "inner" / "more.txt").write_text(content)


def read_folder(target):
    contents = {(target / MARK).read_text(), (target / "inner" / "more.txt").read_text()}
    assert len(contents) == 1, "a mixture of old and new"
    return contents.pop()


WRITERS = {"folder": (write_folder, read_folder), "file": (write_text, Path.read_text)}


@pytest.fixture(params=["exchange", "two renames"])
def system(request, monkeypatch):
    """A system that exchanges two folders in one step, and one that cannot."""
    if request.param == "two renames":
        monkeypatch.setattr(files, "exchange", lambda one, other: False)
    return request.param


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# Faults at every file operation


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()], ids=["full disk", "interrupt"])
def test_after_a_failure_at_any_operation_the_old_content_or_the_new_is_there(
    kind, error, system, tmp_path, monkeypatch
):
    monkeypatch.setattr(os, "fsync", FAULTS.fsync)
    write, read = WRITERS[kind]
    target = tmp_path / "output"
    for number in range(1, 1000):
        write(target, "old")
        FAULTS.before(number, raise_error(error), tmp_path)
        try:
            write(target, "new")
            failed = False
        except (StorageError, OSError, KeyboardInterrupt):
            failed = True
        acted = FAULTS.stop()
        assert read(target) in (("old", "new") if failed else ("new",))
        write(target, "next")
        assert (read(target), names(tmp_path)) == ("next", ["output"])
        if not acted:
            break
    assert 10 < number < 999


KILLS = """
    import sys
    from pathlib import Path
    sys.path[:0] = {path!r}
    from file_faults import killed_before_each
    from test_atomic import WRITERS, names
    from recsys.system import files
    from recsys.system.atomic import recover

    write, read = WRITERS[{kind!r}]
    folder = Path({folder!r})
    target = folder / "output"
    if {system!r} == "two renames":
        files.exchange = lambda one, other: False
    write(target, "old")

    def check(number):
        recover(target)
        assert read(target) in ("old", "new"), number
        write(target, "old")
        assert (read(target), names(folder)) == ("old", ["output"]), number

    print(killed_before_each(lambda: write(target, "new"), folder, check))
"""


def run(code, **values):
    path = [str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)]
    code = textwrap.dedent(code).format(path=path, **values)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
@pytest.mark.parametrize("kind", WRITERS)
def test_killed_before_any_operation_the_old_content_or_the_new_is_there(kind, system, tmp_path):
    assert int(run(KILLS, kind=kind, system=system, folder=str(tmp_path))) > 10


RACE = """
    import os, sys
    from pathlib import Path
    sys.path[:0] = {path!r}
    from test_atomic import WRITERS

    write, read = WRITERS[{kind!r}]
    target = Path({folder!r}) / "output"
    me = sys.argv[1] if len(sys.argv) > 1 else ""
    write(target, "start")
    children = []
    for name in ("one", "two"):
        child = os.fork()
        if child == 0:
            for number in range(60):
                write(target, name * 1000)
            os._exit(0)
        children.append(child)
    reads = 0
    while children:
        assert {kind!r} == "folder" or read(target) in ("start", "one" * 1000, "two" * 1000)
        assert target.exists()
        reads += 1
        for child in list(children):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                assert status == 0
                children.remove(child)
    print(reads)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="folders are exchanged in one step")
@pytest.mark.parametrize("kind", WRITERS)
def test_two_processes_in_one_place_do_not_harm_each_other(kind, tmp_path):
    assert int(run(RACE, kind=kind, folder=str(tmp_path))) > 0
    assert WRITERS[kind][1](tmp_path / "output") in ("one" * 1000, "two" * 1000)
    assert names(tmp_path) == ["output"]


# What dead processes left


def test_a_draft_of_a_living_process_is_left_alone(tmp_path):
    with new_directory(tmp_path / "one", MARK) as draft:
        (draft / MARK).write_text("one")
        write_folder(tmp_path / "two", "two")
        remove_leftovers(tmp_path, any_host=True)
        assert (draft / MARK).read_text() == "one"
    assert names(tmp_path) == ["one", "two"]


def abandoned(folder, host=None, days=0):
    draft = folder / f".gone.{host or files._host()}-0123456789ab.draft"
    (draft / "new" / "gone").mkdir(parents=True)
    (draft / "new" / "gone" / "part").touch()
    then = time.time() - days * 86_400
    for path in (*draft.rglob("*"), draft):
        os.utime(path, (then, then))
    return draft


def test_a_draft_of_a_dead_process_is_removed_by_whoever_writes_there_next(tmp_path):
    draft = abandoned(tmp_path)
    write_text(tmp_path / "other.txt", "text")
    assert not draft.exists()


@pytest.mark.parametrize(("days", "stays"), [(1, True), (8, False)])
def test_a_draft_of_another_machine_stays_for_a_week(days, stays, tmp_path):
    draft = abandoned(tmp_path, host="00000000", days=days)
    remove_leftovers(tmp_path)
    assert draft.exists() == stays


@pytest.mark.parametrize(("days", "stays"), [(1, True), (8, False)])
def test_without_locks_a_draft_stays_for_a_week(days, stays, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_lock", lambda handle: None)
    draft = abandoned(tmp_path, days=days)
    remove_leftovers(tmp_path)
    assert draft.exists() == stays


def test_files_that_only_look_like_drafts_are_left_alone(tmp_path):
    for name in (".hidden", ".model.draft", "model.draft", ".model.tmp"):
        (tmp_path / name).mkdir()
    remove_leftovers(tmp_path, any_host=True)
    assert names(tmp_path) == [".hidden", ".model.draft", ".model.tmp", "model.draft"]


def test_a_reader_finds_what_a_killed_process_had_moved_away(tmp_path):
    old = abandoned(tmp_path) / "old" / "gone"
    old.mkdir(parents=True)
    (old / MARK).write_text("old")
    recover(tmp_path / "gone")
    assert (tmp_path / "gone" / MARK).read_text() == "old"
    assert names(tmp_path) == ["gone"]


# In the way


def test_without_overwrite_what_another_process_wrote_meanwhile_stays(tmp_path):
    with (
        pytest.raises(ArtifactError, match="already holds something"),
        new_directory(tmp_path / "output", MARK) as draft,
    ):
        (draft / MARK).write_text("slow")
        write_folder(tmp_path / "output", "fast")
    assert read_folder(tmp_path / "output") == "fast"


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(mask, tmp_path):
    usual = os.umask(mask)
    try:
        write_folder(tmp_path / "folder", "x")
        write_text(tmp_path / "file", "x")
    finally:
        os.umask(usual)
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o777 & ~mask
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path):
    write_text(tmp_path / "file", "old")
    (tmp_path / "file").chmod(0o600)
    write_text(tmp_path / "file", "new")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_behind_a_link_the_file_is_replaced_and_the_link_stays(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_text(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "text"


def test_what_is_no_regular_file_is_written_to_directly():
    write_text(Path("/dev/null"), "text")
    assert not Path("/dev/null").is_file()


def test_a_folder_in_the_way_of_a_file_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="Expected a file to write to, found the folder"):
        write_text(tmp_path, "text")


def test_names_as_long_as_the_system_allows_can_be_written(tmp_path):
    for name in ("n" * 255, "ü" * 127):
        write_text(tmp_path / name, "text")
        write_folder(tmp_path / name[::-1][:-1], "text")
    assert len(names(tmp_path)) == 4


# Disks that refuse


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), r"Expected room for .*out, found the disk at .* full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "or a limit on it reached"),
        (OSError(errno.EROFS, "Read-only file system"), "read-only: choose another place"),
        (OSError(errno.EIO, "Input/output error"), "on the disk at .*, found: Input/output error"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "full"),  # safetensors
        (RuntimeError("Error writing bytes to file. Detail: [errno 28] No space left on device"), "full"),  # Arrow
        (RuntimeError("(sqlite3.OperationalError) database or disk is full"), "full"),  # SQLAlchemy
        (RuntimeError("(sqlite3.OperationalError) attempt to write a readonly database"), "read-only"),
    ],
)
def test_a_disk_that_refuses_is_one_error_that_names_file_and_disk(error, words, tmp_path):
    with pytest.raises(StorageError, match=words) as caught, new_file(tmp_path / "out"):
        raise error
    assert str(tmp_path / "out") in str(caught.value)
    assert names(tmp_path) == []


def test_an_input_that_cannot_be_read_is_no_matter_of_the_output(tmp_path):
    missing = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "ratings.csv"))
    with pytest.raises(PermissionError), new_file(tmp_path / "out"):
        raise missing
    assert storage_error(ValueError("28"), tmp_path) is None


def test_a_place_that_cannot_be_written_to_is_found_before_the_work(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(errno.EACCES, "Permission denied", str(folder / ".0123.trial"))

    monkeypatch.setattr(disk, "_write_trial", refuse)
    for check in (lambda path: require_writable(path), lambda path: refuse_existing(path, MARK, False)):
        with pytest.raises(StorageError, match="Expected permission to write"):
            check(tmp_path / "deep" / "output")


def test_trying_leaves_nothing_and_makes_no_folder(tmp_path):
    require_writable(tmp_path / "deep" / "down" / "output")
    require_writable(tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [("caf\udce9", "in UTF-8"), ("a\0b", "without NUL"), ("n" * 256, "at most 255 bytes"), ("ü" * 128, "found one of")],
)
def test_names_that_no_file_can_have_are_refused_before_the_work(name, words, tmp_path):
    for check in (require_writable, lambda path: refuse_existing(path, MARK, False)):
        with pytest.raises(ConfigError, match=words):
            check(tmp_path / name / "output")
    with pytest.raises(ConfigError, match=words):
        write_json(tmp_path / name, {})


def test_a_file_above_and_links_in_a_circle_are_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match=r"Expected a folder at .*file to write .*, found a file"):
        require_writable(tmp_path / "file" / "output")
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises((ConfigError, StorageError)):
        require_writable(tmp_path / "a" / "output")
