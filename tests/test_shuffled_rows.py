"""The same ratings in another order of rows: the same division, weights, figures and lists, bit for bit."""

import json
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from click.testing import CliRunner
from model_contract import create, every_model
from paths import ROOT, SHARED
from scipy.sparse import issparse

import recsys
from pipelines.cli.main import main
from recsys.data.interactions import Vocabulary
from recsys.data.reading import ReadingOptions, delimited, read_interactions, text_layout
from recsys.data.store import write_store
from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.tasks import TASKS
from recsys.models import MODELS
from recsys.splitting import FOLDS, PROTOCOLS

SETS = {
    "sample": ROOT / "data" / "sample" / "ratings.csv",
    "ml-latest-small": SHARED / "ml-latest-small" / "ratings.csv",
    "filmtrust": SHARED / "filmtrust" / "ratings.txt",
    "ml-100k": SHARED / "ml-100k" / "u.data",
}
# Filmtrust has pairs with two ratings, and no times to tell the last one.
MEAN = ReadingOptions(duplicates="mean")
LIKED = replace(MEAN, min_rating=4, min_item_users=2)


def lines_of(path):
    """Header and rows of a file, each with its line end."""
    lines = path.read_bytes().splitlines(keepends=True)
    skip = text_layout(path, ReadingOptions()).skip
    return lines[:skip], lines[skip:]


def shuffled(path, target, seed=1):
    """Write a copy with the rows in random order."""
    header, rows = lines_of(path)
    order = np.random.default_rng(seed).permutation(len(rows))
    target.write_bytes(b"".join([*header, *(rows[place] for place in order)]))
    return target


@pytest.fixture(scope="module", params=SETS)
def paths(request, tmp_path_factory):
    """A set, and the same shuffled."""
    path = SETS[request.param]
    if not path.is_file():
        pytest.skip(f"needs ../shared/data/{request.param}, which is not there")
    return path, shuffled(path, tmp_path_factory.mktemp("shuffled") / path.name)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """The sample, and the same shuffled."""
    return SETS["sample"], shuffled(SETS["sample"], tmp_path_factory.mktemp("sample") / "ratings.csv")


def content(value):
    """All that a value holds, as plain values that can be compared; the numbers of rows in a file are left out."""
    if is_dataclass(value):
        return {field.name: content(getattr(value, field.name)) for field in fields(value) if field.name != "row"}
    if issparse(value):
        return [content(part) for part in (value.data, value.indices, value.indptr)] + [value.shape]
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return str(value.dtype), value.shape, bytes(np.ascontiguousarray(value).data)
    if isinstance(value, pa.Array):
        return value.to_pylist()
    if isinstance(value, dict):
        return {key: content(part) for key, part in value.items()}
    return value


# Reading


@pytest.mark.parametrize("options", [MEAN, LIKED])
def test_a_shuffled_file_is_read_as_the_file_is(paths, options):
    before, after = (read_interactions(path, options) for path in paths)
    assert content(after) == content(before)
    assert after.fingerprint() == before.fingerprint()


@pytest.mark.parametrize("policy", ["last", "first", "mean", "sum", "max"])
def test_duplicates_of_different_times_are_resolved_alike(tmp_path, policy):
    lines = [f"{row % 7},{row % 5},{0.1 * (row % 11):.1f},{row}\n" for row in range(400)]
    (tmp_path / "a.csv").write_text("user,item,rating,timestamp\n" + "".join(lines))
    both = tmp_path / "a.csv", shuffled(tmp_path / "a.csv", tmp_path / "b.csv")
    before, after = (read_interactions(path, ReadingOptions(duplicates=policy)) for path in both)
    assert len(before) == 35
    assert content(after) == content(before)


def test_a_mean_does_not_depend_on_the_order_of_what_it_is_of(tmp_path):
    ratings = [3e30, 1.0, -3e30, 7.0]  # in this order their sum is 7 in floating point, in order of size it is 8 or 0
    found = {
        float(read_interactions(frame, ReadingOptions(duplicates="sum")).rating[0])
        for frame in (pd.DataFrame({"user": 1, "item": 1, "rating": np.roll(ratings, turn)}) for turn in range(4))
    }
    assert len(found) == 1


def test_blocks_files_and_a_store_do_not_change_the_order(sample, tmp_path, monkeypatch):
    header, rows = lines_of(sample[1])
    whole = read_interactions(sample[0], LIKED)
    for name, some in (("2.csv", rows[:700]), ("1.csv", rows[700:])):
        (tmp_path / name).write_bytes(b"".join([*header, *some]))
    assert content(read_interactions(tmp_path, LIKED)) == content(whole)
    store = write_store(read_interactions(sample[1]), tmp_path / "store")
    assert content(read_interactions(store, replace(LIKED, duplicates=None))) == content(
        replace(whole, policies=dict(whole.policies, duplicates=None))
    )
    whole_lines = delimited.whole_lines
    pieces = [b"".join(rows[start : start + 500]) for start in range(0, len(rows), 500)]
    monkeypatch.setattr(delimited, "whole_lines", lambda blocks: [*whole_lines(iter([b"".join(header)])), *pieces])
    assert content(read_interactions(sample[1], LIKED)) == content(whole)


def test_whole_numbers_have_the_same_positions_as_text_and_as_integers(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"user": rng.permutation(3000) % 130 - 5, "item": rng.integers(0, 120, 3000)})
    frame = frame.drop_duplicates()
    frame.to_csv(tmp_path / "r.csv", index=False)
    numbers, text = read_interactions(frame), read_interactions(tmp_path / "r.csv")
    assert text.users.to_list() == [str(user) for user in numbers.users.to_list()]
    assert numbers.users.to_list() == sorted(numbers.users.to_list())
    assert content(text.user) == content(numbers.user)
    assert content(text.item) == content(numbers.item)
    parts = [recsys.split(table, "strong", seed=3).test for table in (numbers, text)]
    assert content(parts[0].held_out) == content(parts[1].held_out)
    assert parts[1].users.to_pylist() == [str(user) for user in parts[0].users.to_pylist()]


# Protocols


# Rows of a user with equal times follow the file in leave-last-out, by definition: see below.
@pytest.mark.parametrize("ratings", [False, True])
@pytest.mark.parametrize("name", [name for name in PROTOCOLS if name not in ("given", "leave-last-out")])
def test_the_same_rows_are_held_out(paths, name, ratings):
    tables = [read_interactions(path, MEAN if ratings else LIKED) for path in paths]
    if name in ("leave-one-out", "temporal") and tables[0].timestamp is None:
        pytest.skip("has no times: the place in the file is the time of leave-one-out")
    before, after = (PROTOCOLS[name](table, seed=5, ratings=ratings) for table in tables)
    assert content(after) == content(before)


def test_the_last_rows_are_the_same_where_no_two_of_a_user_have_the_same_time(tmp_path):
    rows = [f"{user},{item},{100 * user + (7 * item + user) % 12}\n" for user in range(40) for item in range(12)]
    (tmp_path / "a.csv").write_text("user,item,timestamp\n" + "".join(rows))
    both = tmp_path / "a.csv", shuffled(tmp_path / "a.csv", tmp_path / "b.csv")
    before, after = (PROTOCOLS["leave-last-out"](read_interactions(path)) for path in both)
    assert content(after) == content(before)


@pytest.mark.parametrize("name", FOLDS)
def test_the_same_rows_are_in_each_fold(sample, name):
    before, after = (list(FOLDS[name](read_interactions(path, LIKED), seed=5)) for path in sample)
    assert [(fold, content(split)) for fold, split in after] == [(fold, content(split)) for fold, split in before]


def test_rows_of_a_time_that_is_divided_are_held_out_alike(tmp_path):
    rows = [f"{user},{item},{1 + item // 4}\n" for user in range(40) for item in range(12)]
    (tmp_path / "a.csv").write_text("user,item,timestamp\n" + "".join(rows))
    both = tmp_path / "a.csv", shuffled(tmp_path / "a.csv", tmp_path / "b.csv")
    before, after = (PROTOCOLS["temporal"](read_interactions(path)) for path in both)
    assert before.facts["rows_at_divided_times"] == 160
    assert content(after) == content(before)


def test_a_published_division_stays_one(sample, tmp_path):
    header, rows = lines_of(sample[0])
    (tmp_path / "train.csv").write_bytes(b"".join([*header, *rows[::2]]))
    (tmp_path / "test.csv").write_bytes(b"".join([*header, *rows[1::2]]))
    given = [tmp_path / "train.csv", tmp_path / "test.csv"]
    other = [shuffled(path, tmp_path / f"shuffled-{path.name}") for path in given]
    before, after = (
        PROTOCOLS["given"](*(read_interactions(path, LIKED) for path in files), share=0.1) for files in (given, other)
    )
    assert content(after) == content(before)


def test_leave_one_out_without_times_goes_by_the_place_in_the_file(sample):
    options = ReadingOptions(timestamp_column="none")
    before, after = (PROTOCOLS["leave-one-out"](read_interactions(path, options)) for path in sample)
    assert content(after) != content(before)


# Models


@every_model
def test_the_same_model_is_fitted_and_gives_the_same_figures_and_lists(sample, name):
    task, found = TASKS[MODELS[name].task], []
    for path in sample:
        table = read_interactions(path, MEAN if task.ratings else LIKED)
        split = PROTOCOLS["weak"](table, seed=2, ratings=task.ratings)
        model = create(name, **quick(name)).fit(split.train.matrix)
        known = {"users": split.test.train_rows} if model.needs_training_users else {}
        rows = known.get("users", np.arange(len(split.test)))
        lists = model.recommend(rows, split.test.history, N=5)
        figures = None if task.ratings else evaluate(model, split.test, ("ndcg@10", "recall@5")).means()
        found.append([content(model.get_state()), *map(content, lists), figures])
    assert found[0] == found[1]


def quick(name):
    """Settings of a fit of less than a second."""
    known = {field.name for field in fields(MODELS[name].Config)}
    return {key: value for key, value in {"epochs": 2, "iterations": 2, "batch_size": 200}.items() if key in known}


@pytest.mark.parametrize("model", ["ease", "vae", "biased-mf"])
def test_models_of_real_ratings_are_the_same(paths, model):
    task = TASKS[MODELS[model].task]
    found = []
    for path in paths:
        options = replace(MEAN if task.ratings else LIKED, min_item_users=20)
        split = PROTOCOLS[task.protocol](read_interactions(path, options), ratings=task.ratings)
        fitted = create(model, **quick(model)).fit(split.train.matrix)
        found.append([content(fitted.get_state()), content(fitted.score(split.test.history[:50]))])
    assert found[0] == found[1]


# Commands


def test_commands_write_the_same_bytes(sample, tmp_path):
    figures = []
    for number, ratings in enumerate(sample):
        folder = tmp_path / str(number)
        train = ["train", ratings, "-m", "vae", "--min-rating", 4, "-s", "epochs=2", "-s", "hidden=8", "-s", "latent=4"]
        invoke(*train, "--device", "cpu", "--no-track", "-o", folder / "model")
        invoke("score", folder / "model", ratings, "-n", 5, "--device", "cpu", "--no-track", "-o", folder / "lists")
        said = invoke("--json", "evaluate", folder / "model", ratings, "--device", "cpu", "--no-track")
        figures.append(json.loads(said)["metrics"])
    for name in ("model/weights.safetensors", "model/items.parquet", "lists/recommendations/part-00000.parquet"):
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "1" / name).read_bytes(), name
    assert figures[0] == figures[1]


def invoke(*words):
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_users_who_are_named_keep_their_order(sample, tmp_path):
    folder = tmp_path / "model"
    (tmp_path / "users.txt").write_text("u250\nu001\nu100\n")
    invoke("train", sample[1], "-m", "popularity", "--no-track", "-o", folder)
    words = "--users", tmp_path / "users.txt", "-n", 1, "--no-track", "-o", tmp_path / "lists"
    invoke("score", folder, sample[1], *words)
    users = pd.read_parquet(tmp_path / "lists" / "recommendations")["user_id"]
    assert users.tolist() == ["u250", "u001", "u100"]


def test_a_table_made_by_hand_keeps_its_own_order():
    user, item = np.int32([0, 0, 0, 1, 1, 1]), np.int32([0, 1, 2, 0, 1, 2])
    table = recsys.Interactions(Vocabulary.of(["b", "a"]), Vocabulary.of([3, 1, 2]), user, item)
    assert recsys.split(table, "weak", share=0.4, test=False).train.users.to_list() == ["b", "a"]
