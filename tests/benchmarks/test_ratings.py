"""benchmarks/ratings: seeds and divisions of a table of predicted ratings."""

import argparse
import importlib
import sys

import numpy as np
import pytest
from paths import ROOT

FOLDER = ROOT / "benchmarks" / "ratings"
TABLE = """
title = "Tiny"
folder = "nowhere"
divisions = [["1.csv", "2.csv"], ["2.csv", "1.csv"]]
together = ["autorec"]
pairs = [["autorec", "global-mean"], ["autorec, 2 seeds averaged", "global-mean"]]

[models.global-mean]

[models.autorec]
hidden = 2
epochs = 1

[[published]]
name = "Somebody's"
RMSE = ".9"
source = "Somebody 2020"
"""


@pytest.fixture
def ratings(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("ratings")
    for name in ("ratings", "table"):
        sys.modules.pop(name, None)


def flags(folder, **others):
    """Ten people and ten items, every rating in one of two files: 4 and 2 in the first, 5 and 2 in the second."""
    for number, (high, low) in enumerate(((4, 2), (5, 2))):
        cells = [(user, item) for user in range(10) for item in range(10) if (user + item) % 2 == number]
        rows = [f"{user},{item},{high if item < 5 else low}" for user, item in cells]
        (folder / f"{number + 1}.csv").write_text("\n".join(["user_id,item_id,rating", *rows]) + "\n")
    asked = {"folder": folder, "seeds": 2, "only": "", "cache": folder / "cache", "device": "cpu", "choose": False}
    return argparse.Namespace(**{**asked, **others})


def table(ratings, folder):
    (folder / "tiny.toml").write_text(TABLE)
    return ratings.RatingTable.read(folder / "tiny.toml")


def lines(text):
    """Rows by the start of the line, minutes left out."""
    return {line.split("|")[1].strip(): line.rsplit("|", 2)[0] for line in text.splitlines() if line.startswith("| ")}


def test_a_table_has_both_errors_the_mean_over_divisions_and_seeds_averaged(ratings, tmp_path):
    ratings.run(table(ratings, tmp_path), flags(tmp_path))
    text = (tmp_path / "results" / "tiny.md").read_text()
    found = lines(text)
    # The mean of the first file, 3, is wrong by 2 and 1 in the second; that of the second, 3.5, by 0.5 and 1.5.
    rmse, other = np.sqrt((4 + 1) / 2), np.sqrt((0.25 + 2.25) / 2)
    assert found["`global-mean`"] == f"| `global-mean` | {rmse:.4f} | 1.5000 | {(rmse + other) / 2:.4f} | 1 "
    assert found["model"] == "| model | RMSE | MAE | RMSE, mean of 2 divisions | seeds "
    assert found["`autorec`"].count("±") == 2
    assert found["`autorec`"].endswith("| 2 ")
    assert found["`autorec, 2 seeds averaged`"].endswith("|  | 1 ")
    assert found["Somebody's"] == "| Somebody's | .9 |  | | "
    assert {"autorec - global-mean", "autorec, 2 seeds averaged - global-mean"} <= set(found)
    assert "Data: 10 users x 10 items, 50 training cells, 50 test cells with a prediction, 0 without" in text


def test_seeds_averaged_are_one_prediction(ratings, tmp_path, monkeypatch):
    tiny, asked = table(ratings, tmp_path), flags(tmp_path)
    divisions = ratings.divide(tiny, asked)
    observed = divisions[0].held.held_out.data
    wrong = iter([1.0, -1.0])
    monkeypatch.setattr(ratings, "predict", lambda fitted, division: observed + np.float32(next(wrong)))
    row = ratings.make_joined(tiny, "autorec", divisions, asked)
    assert (row.cell("RMSE"), row.cell("MAE"), row.more) == ("0.0000", "0.0000", [""])


def test_a_second_run_fits_nothing(ratings, tmp_path, monkeypatch, capsys):
    tiny, asked = table(ratings, tmp_path), flags(tmp_path)
    ratings.run(tiny, asked)
    first = capsys.readouterr().out
    monkeypatch.setattr("recsys.models.base.Recommender.fit", lambda *_: pytest.fail("fitted again"))
    ratings.run(tiny, asked)
    assert lines(capsys.readouterr().out) == lines(first)


def test_choosing_takes_no_fit_that_saw_the_validation_cells(ratings, tmp_path, capsys):
    tiny = table(ratings, tmp_path)
    found = []
    for cache, test_too in (("one", True), ("other", False)):
        if test_too:
            ratings.run(tiny, flags(tmp_path, cache=tmp_path / cache, only="global-mean"))
        capsys.readouterr()
        ratings.run(tiny, flags(tmp_path, cache=tmp_path / cache, only="global-mean", choose=True))
        found.append(capsys.readouterr().out)
    assert lines(found[0]) == lines(found[1])
    assert "45 training cells, 5 test cells" in found[0]  # a tenth of the 50 of the first file


@pytest.mark.parametrize("part", [{"only": "global-mean"}, {"choose": True}])
def test_a_part_of_a_table_is_printed_and_not_written(ratings, tmp_path, capsys, part):
    ratings.run(table(ratings, tmp_path), flags(tmp_path, **part))
    assert "`global-mean`" in capsys.readouterr().out
    assert not (tmp_path / "results").exists()
