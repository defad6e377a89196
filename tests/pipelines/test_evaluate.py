"""evaluate from a model folder to its report: one page and its figures, nobody's id on it, nobody lost in silence."""

import json
from dataclasses import replace

import pandas as pd
import pytest
from browser import look, needs_browser
from click.testing import CliRunner
from tastes import two_tastes, write_csv

pytest.importorskip("jinja2")

from pipelines import evaluate, train
from pipelines.cli.main import main
from pipelines.cli.rules import RuleFlags
from pipelines.cli.settings import TrackingOptions
from pipelines.evaluate import EvaluateJob
from recsys.errors import ArtifactError, ConfigError
from recsys.reporting.report import render

UNTRACKED = TrackingOptions(False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Ratings, and a model that held a fifth of their users out."""
    folder = tmp_path_factory.mktemp("trained")
    ratings = write_csv(folder / "ratings.csv", two_tastes())
    train.run(
        train.TrainJob((ratings,), folder / "model", "ease", ("l2=10",), held_out=0.2, seed=3, tracking=UNTRACKED)
    )
    return ratings, folder / "model"


@pytest.fixture
def job(trained, tmp_path):
    ratings, model = trained
    return EvaluateJob(model, (ratings,), metrics="ndcg@5,recall@3", output=tmp_path / "out", tracking=UNTRACKED)


def facts(job):
    return json.loads((job.output / "evaluation.json").read_text(encoding="utf-8"))


def page(job):
    return (job.output / "report.html").read_text(encoding="utf-8")


def test_the_report_tells_what_the_terminal_tells(job):
    found = evaluate.run(job)
    [alone] = facts(job)["models"]
    assert {file.name for file in job.output.iterdir()} == {"report.html", "evaluation.json"}
    assert found.metrics.keys() == {"ndcg@5", "recall@3"}
    assert all(alone["metrics"][label]["mean"] == found.metrics[label].mean for label in found.metrics)
    assert f"ease reaches ndcg@5 {found.metrics['ndcg@5'].mean:.4f}" in page(job)
    assert "users held out from the training" in page(job)


def test_rules_are_measured_and_shown_with_other_weights_of_variety(job, tmp_path):
    names = {interaction.split(",")[1] for interaction in job.ratings[0].read_text().splitlines()[1:]}
    rows = [f"{name},{'odd' if number % 2 else 'even'}" for number, name in enumerate(sorted(names))]
    (tmp_path / "items.csv").write_text("\n".join(["item_id,kind", *rows]) + "\n")
    (tmp_path / "rules.toml").write_text(
        'items = "items.csv"\n[[rule]]\nexclude = { kind = "odd" }\n[variety]\nby = "kind"\ndiversity = 0.3\n'
    )
    found = evaluate.run(replace(job, ruling=RuleFlags(tmp_path / "rules.toml")))
    plain, ruled, *_ = found.rules
    assert plain["mean"] == pytest.approx(found.metrics["ndcg@5"].mean)
    assert ruled["mean"] < plain["mean"] and ruled["coverage"] < plain["coverage"]
    assert facts(job)["rules"] == found.rules
    assert "Rules and variety" in page(job) and "Accuracy against variety" in page(job)
    flags = ["evaluate", str(job.model), str(job.ratings[0]), "--no-track", "--rules", str(tmp_path / "rules.toml")]
    said = CliRunner().invoke(main, flags).output
    assert "diversity 0.3 *" in said and "What the rules cost" in said


def test_a_report_changes_no_figure(job):
    with_report, without = evaluate.run(job), evaluate.run(replace(job, output=None))
    assert (with_report.metrics, with_report.coverage) == (without.metrics, without.coverage)
    assert without.directory is None


def test_the_report_can_be_made_again_from_its_json_and_names_no_user(job):
    evaluate.run(replace(job, examples=0))
    assert render(facts(job)) == page(job)
    evaluate.run(replace(job, overwrite=True))
    users = pd.read_csv(job.ratings[0])["user_id"].unique()
    text = page(job) + json.dumps(facts(job))
    assert not any(f">{user}<" in text or f'"{user}"' in text for user in users)


def test_titles_stand_in_the_report_and_are_refused_without_one(job, tmp_path):
    titles = tmp_path / "titles.csv"
    titles.write_text("item_id,title\n" + "".join(f"i{i},The {i}th\n" for i in range(12)), encoding="utf-8")
    evaluate.run(replace(job, titles=titles))
    assert "The 7th" in page(job)
    with pytest.raises(ConfigError, match="--output"):
        replace(job, titles=titles, output=None)


def test_a_folder_with_something_in_it_is_refused_before_the_ratings_are_read(job, tmp_path):
    evaluate.run(job)
    with pytest.raises(ArtifactError, match="set overwrite"):
        evaluate.run(replace(job, ratings=(tmp_path / "none.csv",)))
    evaluate.run(replace(job, metrics="recall@3", overwrite=True))
    assert facts(job)["metric"] == "recall@3"


def test_users_who_cannot_be_measured_are_counted(job, tmp_path):
    test = tmp_path / "test.csv"
    test.write_text("user_id,item_id\nnew,i0\nold,i1\n", encoding="utf-8")
    histories = tmp_path / "histories.csv"
    histories.write_text("user_id,item_id\nold,i0\nold,i2\nbystander,i3\n", encoding="utf-8")
    asked = replace(job, ratings=(histories,), test=test)
    assert evaluate.run(asked).left_out == 1  # new: without a history
    assert facts(job)["split"] == {"test_users": 1, "test_interactions": 1, "test_users_left_out": 1}
    words = ["evaluate", str(job.model), str(histories), "--test", str(test), "--metrics", "recall@3", "--no-track"]
    result = CliRunner().invoke(main, words)
    assert "1 user left out: no history or no held-out item" in " ".join(result.output.split())


def test_held_out_items_nobody_knows_make_a_report_without_slices_of_items(job, tmp_path):
    test = tmp_path / "test.csv"
    test.write_text("user_id,item_id\nu0,unheard-of\n", encoding="utf-8")
    found = evaluate.run(replace(job, test=test))
    assert found.metrics["recall@3"].mean == 0
    assert "by popularity" not in page(job)


@needs_browser
@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
def test_a_browser_shows_the_report_whole(job, tmp_path, width):
    evaluate.run(job)
    found = look(page(job), tmp_path, width)
    assert (found["width"], found["wide"]) == (width, False)
    assert (found["charts"], found["flat"]) == (4, 0)  # two by cut-off, slices of users and of items
