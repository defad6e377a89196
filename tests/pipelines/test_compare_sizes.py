"""compare --latent-sizes: one row for each model and size, the figure in the report, settings tuned at each size."""

import json

import pandas as pd
import pytest
from click.testing import CliRunner
from tastes import two_tastes, write_csv

pytest.importorskip("optuna")
pytest.importorskip("jinja2")

from pipelines.cli.main import main


@pytest.fixture
def run(tmp_path):
    ratings = write_csv(tmp_path / "ratings.csv", two_tastes())
    words = ("--no-track", "--no-baselines", "--held-out", "0.2", "--metric", "ndcg@5", "-o", tmp_path / "out")
    return lambda *more: CliRunner().invoke(main, [str(word) for word in ("compare", ratings, *words, *more)])


def test_every_size_is_a_row_and_the_report_shows_both_curves(run, tmp_path):
    done = run("-m", "svd,ease", "--latent-sizes", "1,4", "--save-models", "--examples", "1")
    assert done.exit_code == 0, done.output
    board = pd.read_csv(tmp_path / "out" / "leaderboard.csv")
    assert set(board["model"]) == {"svd-1", "svd-4", "ease"}
    assert "reconstruction" in done.output and "Best size of the code on the validation part: svd-" in done.output
    assert {place.name for place in (tmp_path / "out" / "models").iterdir()} == set(board["model"])
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count('<polygon class="band') == 2 and "Size of the code" in page
    facts = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    assert {row["name"]: row["code_size"] for row in facts["models"]} == {"svd-1": 1, "svd-4": 4, "ease": None}
    chosen, other = facts["best_sizes"]["svd"], ({"svd-1", "svd-4"} - set(facts["best_sizes"].values())).pop()
    assert f"</span>{chosen}</h4>" in page and f"</span>{other}</h4>" not in page  # lists of the chosen size alone


def test_settings_are_tuned_at_each_size(run, tmp_path):
    done = run("-m", "svd", "--latent-sizes", "1,4", "--tune", "2")
    assert done.exit_code == 0, done.output
    settings = {file.stem: file.read_text(encoding="utf-8") for file in (tmp_path / "out" / "settings").iterdir()}
    assert {name: f"factors = {size}" in settings[name] for name, size in (("svd-1", 1), ("svd-4", 4))} == {
        "svd-1": True,
        "svd-4": True,
    }
    assert run("-m", "svd", "--latent-sizes", "1,4", "--tune", "3", "--resume").exit_code == 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("-m", "svd", "--latent-sizes", "2,x"), 1, "Expected whole numbers separated by commas for --latent-sizes"),
        (("-m", "svd", "--latent-sizes", "2,4", "-s", "svd.factors=8"), 2, "without -s svd.factors"),
        (("-m", "ease", "--latent-sizes", "2,4"), 1, "Expected models with a code"),
        (("-m", "svd", "--latent-sizes", "0"), 1, "at least 1"),
        (("-m", "autorec", "--latent-sizes", "2", "--metric", "rmse"), 1, "Expected models of lists"),
    ],
)
def test_sizes_that_cannot_be_compared_are_refused(run, words, code, message):
    done = run(*words)
    assert done.exit_code == code, done.output
    assert message in " ".join(done.output.split())
