"""Replacing an output: the earlier lists can be read until the new ones are complete, whatever happens meanwhile."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from batch_case import contents, job, save_small, write

from recsys.batch import output
from recsys.batch.output import draft_of, open_output
from recsys.errors import ArtifactError
from recsys.system import files


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_small(tmp_path_factory.mktemp("batch") / "model")


@pytest.fixture
def earlier(saved, tmp_path):
    """The content of a complete output with shorter lists, in more files."""
    write(tmp_path / "lists", saved, *job(saved, n=1, shard_users=1))
    return contents(tmp_path / "lists")


@pytest.fixture
def whole(saved, tmp_path):
    """The content of the new output when nothing was there before."""
    write(tmp_path / "whole", saved, *job(saved))
    return contents(tmp_path / "whole")


@pytest.mark.parametrize("finished", [0, 3, 5])
def test_the_earlier_lists_stay_until_the_new_ones_are_complete(finished, earlier, whole, saved, tmp_path):
    plan, targets = job(saved)
    write(tmp_path / "lists", saved, plan, targets, overwrite=True, limit=finished)
    assert contents(tmp_path / "lists") == earlier
    write(tmp_path / "lists", saved, plan, targets, overwrite=True)
    assert contents(tmp_path / "lists") == whole
    assert not draft_of(tmp_path / "lists").exists()


def test_a_replacement_that_was_stopped_is_resumed(earlier, whole, saved, tmp_path):
    plan, targets = job(saved)
    write(tmp_path / "lists", saved, plan, targets, overwrite=True, limit=3)
    opened = open_output(tmp_path / "lists", plan, resume=True)
    assert (opened.location, len(opened.finished)) == (draft_of(tmp_path / "lists"), 3)
    write(tmp_path / "lists", saved, plan, targets, resume=True)
    assert contents(tmp_path / "lists") == whole
    assert not draft_of(tmp_path / "lists").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges folders in one step")
@pytest.mark.parametrize("step", ["exchange", "rename"])
def test_lists_killed_while_they_take_their_name_are_not_lost(step, earlier, whole, saved, tmp_path, monkeypatch):
    plan, targets = job(saved)
    lists, stopped = tmp_path / "lists", RuntimeError("killed")

    def stop(*_):
        raise stopped

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="killed"):
        patched.setattr(*((output, "exchange") if step == "exchange" else (Path, "rename")), stop)
        patched.setattr(files.shutil, "rmtree", lambda *_, **__: None)  # a killed process tidies nothing
        write(lists, saved, plan, targets, overwrite=True)
    assert contents(lists) == (earlier if step == "exchange" else whole)
    assert draft_of(lists).exists()  # the new lists, or the earlier ones
    if step == "rename":  # whatever is asked for next
        with pytest.raises(ArtifactError, match="already holds something"):
            open_output(lists, plan)
        assert not draft_of(lists).exists()
    write(lists, saved, plan, targets, resume=True)
    assert contents(lists) == whole
    assert not draft_of(lists).exists()


def test_a_stopped_replacement_gives_way_to_another_one(earlier, whole, saved, tmp_path):
    plan, targets = job(saved)
    write(tmp_path / "lists", saved, replace(plan, n=2), targets, overwrite=True, limit=3)
    with pytest.raises(ArtifactError, match="holds the output of another job"):
        open_output(tmp_path / "lists", plan, resume=True)
    write(tmp_path / "lists", saved, plan, targets, overwrite=True)
    assert contents(tmp_path / "lists") == whole


def test_an_incomplete_output_is_replaced_in_place(whole, saved, tmp_path):
    plan, targets = job(saved)
    write(tmp_path / "lists", saved, replace(plan, n=1), targets, limit=2)
    opened = open_output(tmp_path / "lists", plan, overwrite=True)
    assert opened.location == tmp_path / "lists"
    assert contents(tmp_path / "lists").keys() == {"plan.json"}


def test_a_folder_that_happens_to_have_the_name_of_the_draft_is_left_alone(earlier, saved, tmp_path):
    foreign = draft_of(tmp_path / "lists")
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="that recsys did not write"):
        open_output(tmp_path / "lists", job(saved)[0], overwrite=True)
    assert contents(tmp_path / "lists") == earlier
    assert contents(foreign) == {"notes.txt": b"mine"}


def test_an_output_behind_a_link_is_replaced_where_it_lies(earlier, whole, saved, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "lists")
    write(tmp_path / "link", saved, *job(saved), overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert contents(tmp_path / "lists") == whole


def test_lists_that_a_gate_refuses_do_not_replace_published_ones(tmp_path):
    from scoring_case import lists_of, save_popularity, score, write_ratings

    from recsys.errors import GateError

    ratings = write_ratings(tmp_path / "ratings.csv", {"ann": "abcd", "bob": "abc", "cat": "ab", "dan": "a"})
    model = save_popularity(tmp_path, ratings)
    score(model, ratings, tmp_path / "lists", n=1)
    (tmp_path / "gates.toml").write_text("short_lists = { max = 0.1 }\n")
    with pytest.raises(GateError, match=r"lists\.draft, marked as not published; .*lists still holds the earlier"):
        score(model, ratings, tmp_path / "lists", n=2, gates=tmp_path / "gates.toml", overwrite=True)
    assert set(lists_of(tmp_path / "lists").values()) == {"d", "c", "b"}  # one item each
    assert lists_of(tmp_path / "lists.draft")["cat"] == "cd"
    assert json.loads((tmp_path / "lists" / "manifest.json").read_text(encoding="utf-8"))["published"]
