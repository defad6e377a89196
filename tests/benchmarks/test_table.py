"""benchmarks/table.py: what a file may say, where fits are kept, and what stands on the page."""

import importlib
import sys

import numpy as np
import pytest
from paths import ROOT
from scipy.sparse import csr_matrix

from recsys.data.interactions import Vocabulary
from recsys.data.matrix import UserItemMatrix
from recsys.errors import ConfigError
from recsys.evaluation.averages import Average
from recsys.training.context import TrainingContext

BENCHMARKS = ROOT / "benchmarks"
FILES = sorted(file for folder in ("accuracy", "ratings") for file in (BENCHMARKS / folder).glob("*.toml"))
TABLE = """
title = "T"
metrics = ["a@1", "b"]
pairs = [["ease", "popularity"], ["ease", "nobody"]]

[models.popularity]

[models.ease]
l2 = 2

[[published]]
name = "Somebody's"
b = ".50"
source = "Somebody 2020"
"""


@pytest.fixture
def scripts(monkeypatch):
    for folder in (".", "accuracy", "ratings"):
        monkeypatch.syspath_prepend(str(BENCHMARKS / folder))
    yield importlib.import_module
    for name in ("table", "accuracy", "ratings"):
        sys.modules.pop(name, None)


@pytest.fixture
def table(scripts):
    return scripts("table")


def read(table, folder, text=TABLE):
    file = folder / "tiny.toml"
    file.write_text(text)
    return table.Table.read(file)


def row(table, *seeds, minutes=1.0, **others):
    """A row of metric b: the values of three users under each seed."""
    return table.Row([table.Result({"b": Average.of(np.array(each))}, minutes) for each in seeds], **others)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_files_name_settings_of_models_and_pairs_of_their_rows(file, scripts):
    kind, task, derived = {
        "accuracy": ("RankingTable", "ranking", {"blend"}),
        "ratings": ("RatingTable", "rating", set()),
    }[file.parent.name]
    read = getattr(scripts(file.parent.name), kind).read(file)
    assert {read.unfitted(name).task for name in read.models} == {task}
    assert {name.partition(",")[0] for pair in read.pairs for name in pair} <= {*read.models, *derived}


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ("title", "tittle", "'tittle'.*Did you mean 'title'"),
        ("b = ", "c = ", r"'c' in \[\[published\]\].*Known: a@1, b"),
    ],
)
def test_a_key_that_nobody_would_read_is_refused(ours, theirs, message, table, tmp_path):
    with pytest.raises(ConfigError, match=message):
        read(table, tmp_path, TABLE.replace(ours, theirs, 1))


def test_rows_are_chosen_in_the_order_of_the_table_and_by_names_it_has(table):
    assert table.chosen(["x", "y", "z"], "") == ["x", "y", "z"]
    assert table.chosen(["x", "y", "z"], "z,x") == ["x", "z"]
    with pytest.raises(ConfigError, match="'w' in --only"):
        table.chosen(["x", "y", "z"], "x,w")


def test_a_model_without_chance_has_one_seed(table, tmp_path):
    found = read(table, tmp_path, TABLE.replace("[models.ease]\nl2 = 2", "[models.ials]"))
    assert [len(found.seeds(name, 3)) for name in ("popularity", "ials")] == [1, 3]


def test_another_setting_seed_or_way_to_train_is_another_place(table, tmp_path):
    first, other = read(table, tmp_path), read(table, tmp_path, TABLE.replace("l2 = 2", "l2 = 3"))
    place = first.place(tmp_path, "ease", 0, "ndcg@10")
    assert place == read(table, tmp_path).place(tmp_path, "ease", 0, "ndcg@10")
    others = [
        other.place(tmp_path, "ease", 0, "ndcg@10"),
        first.place(tmp_path, "ease", 1, "ndcg@10"),
        first.place(tmp_path, "ease", 0, "ndcg@20"),
    ]
    assert len({place, *others}) == 4


def test_a_fit_is_kept_with_its_minutes_and_its_best_epoch(table, tmp_path):
    matrix = csr_matrix(np.float32([[1, 1, 0], [0, 1, 1]]))
    train = UserItemMatrix(matrix, Vocabulary.of(np.arange(2)), Vocabulary.of(np.arange(3)))
    text = TABLE.replace("[models.ease]\nl2 = 2", "[models.dae]\nlatent = 2\nepochs = 5")
    values = iter([0.1, 0.3, 0.2, 0.2, 0.2])
    context = TrainingContext(device="cpu", validate=lambda score: next(values))
    tiny = read(table, tmp_path, text)
    first = table.kept(tmp_path, tiny.unfitted("dae"), train, context)
    again = table.kept(tmp_path, tiny.unfitted("dae"), train, context)  # validation has no value left
    assert (first.minutes, first.best_epoch) == (again.minutes, again.best_epoch)
    assert first.best_epoch == 2
    assert (first.model.score(matrix) == again.model.score(matrix)).all()


def test_a_line_has_the_mean_over_users_and_the_deviation_over_seeds(table):
    two = row(table, [1, 0, np.nan], [1, 1, np.nan], minutes=0.25, more=["x"])  # means .5 and 1
    assert two.line("r", ["b"]) == f"| `r` | 0.7500 ± {np.sqrt(2 * 0.25**2):.4f} | x | 2 | 0.2 |"
    assert row(table, [1, 0, 0]).cell("b") == "0.3333"


def test_below_what_was_measured_stands_what_others_published(table, tmp_path):
    made = {"ease": table.Row([table.Result({label: Average.of(np.ones(2)) for label in ("a@1", "b")}, 0)])}
    assert table.main_table(read(table, tmp_path), made, ["a@1", "b", "seeds", "minutes"]).splitlines() == [
        "| model | a@1 | b | seeds | minutes |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| `ease` | 1.0000 | 1.0000 | 1 | 0.0 |",
        "| *published* | | | | |",
        "| Somebody's |  | .50 | | |",
    ]


def test_differences_are_of_means_over_seeds_and_of_rows_that_were_made(table, tmp_path):
    # Under both seeds together every user has .25 more.
    made = {"popularity": row(table, [0, 0.5, 0]), "ease": row(table, [0, 0.5, 0.5], [0.5, 1, 0])}
    tiny = read(table, tmp_path)
    one = table.difference_table(tiny, made, ["b"])
    assert one.splitlines() == [
        "| paired difference | b | 95 % interval |",
        "| --- | ---: | --- |",
        "| ease - popularity | +0.2500 | [+0.2500, +0.2500] |",
    ]
    several = table.difference_table(tiny, made, ["b", "b"]).splitlines()
    assert several[0] == "| paired difference | metric | mean | 95 % interval |"
    assert several[1:] == [
        "| --- | --- | ---: | --- |",
        *["| ease - popularity | b | +0.2500 | [+0.2500, +0.2500] |"] * 2,
    ]
    assert table.difference_table(tiny, {"ease": made["ease"]}, ["b"]) == ""
