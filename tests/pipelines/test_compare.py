"""compare from file to files: equal terms for all models, nothing lost when killed, nothing that flatters."""

import errno
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from tastes import two_tastes, write_csv

pytest.importorskip("optuna")
pytest.importorskip("jinja2")

from pipelines import compare
from pipelines.cli import steps
from pipelines.cli.main import main
from pipelines.cli.settings import FittingOptions, SplitOptions, TrackingOptions
from pipelines.compare import CompareJob
from recsys.data.reading import read_interactions
from recsys.errors import ArtifactError, ConfigError, DataError
from recsys.evaluation.tasks import TASKS
from recsys.models import MODELS, create_model
from recsys.tracking.tracker import NullTracker
from recsys.tuning import Budget, settings_toml

ALONE = ("--no-track", "--no-baselines", "--probes", "0")
TINY = ("dae.latent=2", "dae.epochs=4", "dae.l2=0", "dae.dropout=0", "dae.learning_rate=0.05")


@pytest.fixture
def job(tmp_path):
    return CompareJob(
        (write_csv(tmp_path / "ratings.csv", two_tastes()),),
        tmp_path / "out",
        "popularity,ease,dae",
        TINY,
        baselines=False,
        probes=0,
        who=SplitOptions(held_out=0.2),
        fitting=FittingOptions("ndcg@5", device="cpu"),
        tracking=TrackingOptions(False),
    )


def facts(job):
    return json.loads((job.output / "comparison.json").read_text(encoding="utf-8"))


def test_the_leaderboard_is_best_first_and_the_losers_are_on_it(job):
    board = compare.run(job).leaderboard
    assert set(board["model"]) == {"popularity", "ease", "dae"}
    assert board["ndcg@5"].is_monotonic_decreasing
    assert board["model"].iloc[-1] == "popularity"
    assert (board["ndcg@5_low"] <= board["ndcg@5"]).all()
    assert (board["users"] == 8).all()


def test_all_files_are_there_and_the_report_names_no_user(job):
    compare.run(job)
    assert {file.name for file in job.output.iterdir()} == {
        "leaderboard.csv",
        "comparison.json",
        "per_user.parquet",
        "report.html",
    }
    users = pd.read_parquet(job.output / "per_user.parquet")["user_id"].unique()
    assert len(users) == 8
    for file in ("report.html", "comparison.json", "leaderboard.csv"):
        text = (job.output / file).read_text(encoding="utf-8")
        assert not any(f">{user}<" in text or f'"{user}"' in text for user in users)


def test_values_of_users_average_to_the_leaderboard(job):
    board = compare.run(job).leaderboard.set_index("model")
    users = pd.read_parquet(job.output / "per_user.parquet")
    assert users.groupby("model")["ndcg@5"].mean().to_dict() == pytest.approx(board["ndcg@5"].to_dict())


def test_titles_stand_in_the_report(job, tmp_path):
    (tmp_path / "titles.csv").write_text("item_id,title\ni0,The First\ni7,The Seventh\n", encoding="utf-8")
    compare.run(replace(job, titles=tmp_path / "titles.csv"))
    assert "The First" in (job.output / "report.html").read_text(encoding="utf-8")


def test_every_model_is_tuned_with_the_same_number_of_trials(job):
    compare.run(replace(job, tune=3, settings=TINY[:2]))
    trials = {model["name"]: model["tuning"]["trials"] for model in facts(job)["models"]}
    assert trials == {"popularity": 1, "ease": 3, "dae": 3}  # popularity has nothing to tune


def test_the_best_settings_are_a_file_that_train_takes(job, tmp_path):
    compare.run(replace(job, tune=3))
    found = next(model for model in facts(job)["models"] if model["name"] == "ease")
    command = ["train", str(job.ratings[0]), "--config", str(job.output / "settings" / "ease.toml"), "--no-track"]
    result = CliRunner().invoke(main, [*command, "-o", str(tmp_path / "model")])
    assert result.exit_code == 0, result.output
    about = json.loads((tmp_path / "model" / "model.json").read_text(encoding="utf-8"))
    assert about["model"] == "ease"
    assert about["config"] == found["settings"]


def test_the_settings_of_a_blend_are_a_file_that_train_takes(job, tmp_path):
    blend = create_model("blend", {"members": "ease,popularity", "ease.l2": 7.0, "weights": "3,1"})
    (tmp_path / "blend.toml").write_text(settings_toml(blend), encoding="utf-8")
    command = ["train", str(job.ratings[0]), "--config", str(tmp_path / "blend.toml"), "--no-track", "--held-out", "0"]
    result = CliRunner().invoke(main, [*command, "-o", str(tmp_path / "model")])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "model" / "model.json").read_text(encoding="utf-8"))["config"]["settings"] == {
        "ease": {"l2": 7.0, "feature_weight": 0.0, "feature_l2": 3.0},
        "popularity": {},
    }


class Killed(BaseException):
    """What ends a process."""


def test_a_killed_comparison_goes_on_without_losing_trials(job, monkeypatch):
    tuning = replace(job, tune=3)

    def die(self, matrix, context):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(MODELS["dae"], "_fit", die)
        with pytest.raises(Killed):
            compare.run(tuning)
    assert [file.name for file in job.output.iterdir()] == ["tuning.db"]  # nothing that looks finished
    with pytest.raises(ArtifactError, match="--resume"):
        compare.run(tuning)
    fits, fit = [], MODELS["ease"]._fit
    monkeypatch.setattr(MODELS["ease"], "_fit", lambda self, *more: (fits.append(1), fit(self, *more))[1])
    compare.run(replace(tuning, resume=True))
    assert len(fits) == 1  # the three trials were kept; this is the fit that is compared
    assert (job.output / "leaderboard.csv").is_file()


def test_a_resumed_comparison_gives_what_an_uninterrupted_one_gives(job, tmp_path):
    compare.run(replace(job, tune=2))
    compare.run(replace(job, tune=4, resume=True))
    whole = replace(job, tune=4, output=tmp_path / "whole")
    compare.run(whole)
    settings = [{model["name"]: model["settings"] for model in facts(each)["models"]} for each in (job, whole)]
    assert settings[0] == settings[1]


def test_nothing_to_resume_is_said_before_any_work(job):
    with pytest.raises(ConfigError, match="--tune"):
        compare.run(replace(job, resume=True))
    with pytest.raises(ArtifactError, match="found none"):
        compare.run(replace(job, resume=True, tune=2))


def test_another_folder_is_never_written_over(job):
    job.output.mkdir()
    (job.output / "mine.txt").write_text("keep")
    for each in (job, replace(job, tune=2), replace(job, tune=2, overwrite=True)):
        with pytest.raises(ArtifactError):
            compare.run(each)
    assert [file.name for file in job.output.iterdir()] == ["mine.txt"]


def test_a_tuned_comparison_may_replace_an_untuned_one_and_the_other_way_round(job):
    compare.run(job)
    compare.run(replace(job, tune=1, overwrite=True))
    assert (job.output / "tuning.db").is_file()
    compare.run(replace(job, overwrite=True))
    assert not (job.output / "tuning.db").exists()


def test_only_models_that_draw_are_fitted_under_several_seeds_and_the_spread_is_shown(job):
    board = compare.run(replace(job, seeds=3)).leaderboard.set_index("model")
    assert board["seeds"].to_dict() == {"popularity": 1, "ease": 1, "dae": 3}
    assert board.loc["dae", "ndcg@5_seed_spread"] >= 0
    assert np.isnan(board.loc["ease", "ndcg@5_seed_spread"])


def test_a_users_value_is_the_mean_over_seeds(job):
    compare.run(replace(job, seeds=2, models="dae"))
    together = pd.read_parquet(job.output / "per_user.parquet")["ndcg@5"]
    [split] = compare.make_splits(job, read_interactions(job.ratings, job.reading), TASKS["ranking"]).values()
    settings = dict(pair.removeprefix("dae.").split("=") for pair in TINY)
    [study] = [
        compare.prepare({"": split}, [create_model("dae", settings)], replace(job, seeds=2).plan(TASKS["ranking"]))
    ]
    [planned] = study.fits("dae")
    fits = [compare.measure(one, NullTracker()) for one in planned]
    assert together.to_numpy() == pytest.approx(np.mean([fit.evaluation.values["ndcg@5"] for fit in fits], axis=0))


def test_with_folds_every_user_is_tested_once(job):
    compare.run(replace(job, folds=4, models="popularity,ease", settings=()))
    users = pd.read_parquet(job.output / "per_user.parquet")
    assert (users.groupby("model")["user_id"].nunique() == 40).all()
    assert (users.groupby("model")["user_id"].size() == 40).all()


def test_each_fold_has_a_search_of_its_own(job):
    compare.run(replace(job, folds=3, tune=2, models="ease", settings=()))
    assert {file.name for file in (job.output / "settings").iterdir()} == {f"fold {i} of 3" for i in (1, 2, 3)}


def test_models_that_cannot_take_new_users_are_left_out_with_the_reason(job):
    found = compare.run(replace(job, models="popularity,bpr", settings=()))
    assert list(found.leaderboard["model"]) == ["popularity"]
    assert "knows only users it was trained on" in found.comparison.refused["bpr"]


def test_a_leak_planted_in_the_test_file_is_refused(job, tmp_path):
    """The first row of the training file is also among what is to be found."""
    rows = job.ratings[0].read_text(encoding="utf-8").splitlines()
    (tmp_path / "test.csv").write_text("\n".join([rows[0], rows[1]]) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="in more than one"):
        compare.run(replace(job, who=SplitOptions(test=tmp_path / "test.csv")))
    assert not job.output.exists()


def test_the_terminal_shows_leaderboard_conclusions_and_where_the_report_is(job):
    command = ["compare", str(job.ratings[0]), "-m", "popularity,ease", "-o", str(job.output), *ALONE]
    result = CliRunner().invoke(main, [*command, "--held-out", "0.2", "--metric", "ndcg@5"])
    assert result.exit_code == 0, result.output
    assert "ndcg@5 [95 %]" in result.output
    assert "popularity" in result.output and "8 test users." in result.output
    assert f"Report: {job.output}/report.html" in result.output
    assert max(map(len, result.output.splitlines()[:12])) <= 80


def test_the_terminal_shows_the_metrics_asked_for_and_how_many_could_not_be_tested(job):
    people = job.ratings[0].read_text(encoding="utf-8").splitlines()
    lonely = [f"lonely{number},{people[1].split(',', 1)[1]}" for number in range(40)]  # one item: none is left to find
    job.ratings[0].write_text("\n".join(people + lonely) + "\n", encoding="utf-8")
    command = ["compare", str(job.ratings[0]), "-m", "popularity,bpr", "-o", str(job.output), *ALONE]
    result = CliRunner().invoke(main, [*command, "--held-out", "0.2", "--metrics", "mrr@3"])
    assert result.exit_code == 0, result.output
    assert "mrr@3" in result.output
    board = pd.read_csv(job.output / "leaderboard.csv")
    assert board["users"][0] < 16
    assert f"; {16 - board['users'][0]} more users without a history or a held-out item" in " ".join(
        result.output.split()
    )
    assert max(map(len, result.output.splitlines()[:-2])) <= 80  # the last two name a folder


def test_json_of_a_comparison_has_null_where_a_model_has_no_rival(job):
    command = ["--json", "compare", str(job.ratings[0]), "-m", "popularity,ease", "-o", str(job.output), *ALONE]
    result = CliRunner().invoke(main, [*command, "--held-out", "0.2"])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout, parse_constant=pytest.fail)["leaderboard"]
    assert None in [row["reference"] for row in rows]


def test_no_models_no_folds_and_no_minutes_are_refused(job):
    with pytest.raises(ConfigError, match="Expected models separated by commas for -m"):
        compare.run(replace(job, models=",", settings=()))
    with pytest.raises(ConfigError, match="Expected 3 folds or more"):
        compare.run(replace(job, folds=0))
    with pytest.raises(ConfigError, match="more than 0 minutes"):
        compare.run(replace(job, tune_minutes=0))


@pytest.mark.parametrize("command", ["tune", "compare"])
def test_a_search_stopped_by_ctrl_c_says_how_to_go_on(job, monkeypatch, command):
    def stop_after_two(search, budget, storage, plan, context, on_trial):
        monkeypatch.undo()
        steps.tune(search, Budget(2), storage, plan, context, on_trial)
        raise KeyboardInterrupt

    monkeypatch.setattr(steps, "tune", stop_after_two)
    budget = ["-n", "3"] if command == "tune" else ["--tune", "3"]
    words = [command, str(job.ratings[0]), "-m", "ease", *budget, "-o", str(job.output), "--no-track"]
    words += ["--no-baselines"] if command == "compare" else []
    stopped = CliRunner().invoke(main, [*words, "--held-out", "0.2"])
    assert stopped.exit_code == 1
    assert f"Interrupted. The finished trials are in {job.output}: run the same command with --resume" in stopped.output
    done = CliRunner().invoke(main, [*words, "--held-out", "0.2", "--resume"])
    assert done.exit_code == 0, done.output
    assert "trial 3/3" in done.output and "trial 2/3" not in done.output


def test_an_untuned_comparison_says_first_that_settings_are_defaults_and_what_trials_would_gain(job):
    words = ["compare", str(job.ratings[0]), "-m", "ease,item-knn", "-o", str(job.output), "--no-track"]
    result = CliRunner().invoke(main, [*words, "--held-out", "0.2"])
    assert result.exit_code == 0, result.output
    note = " ".join(result.stdout.split())
    assert note.startswith("Not tuned: all settings are defaults or were given")
    assert "gain most from tuning" in note or "none was better" in note
    assert facts(job)["note"][:10] == "Not tuned:"


def test_popularity_and_matrix_factorization_are_always_there_unless_refused(job):
    compare.run(replace(job, models="ease", settings=(), baselines=True))
    families = {model["family"] for model in facts(job)["models"]}
    assert {"non-personalized", "matrix factorization"} <= families or len(families) == 3


def test_titles_of_unknown_items_are_counted_and_named(job, tmp_path):
    (tmp_path / "titles.csv").write_text("item_id,title\ni0,The First\nnix,The Last\n", encoding="utf-8")
    words = ["compare", str(job.ratings[0]), "-m", "popularity", "-o", str(job.output), *ALONE]
    result = CliRunner().invoke(main, [*words, "--held-out", "0.2", "--titles", str(tmp_path / "titles.csv")])
    assert "titles: 1 of 2 ids unknown to the training data: nix\n" in result.stderr


def test_who_reads_no_further_gets_no_complaint(job, monkeypatch):
    def closed(found):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(compare, "report", closed)
    command = ["compare", str(job.ratings[0]), "-m", "popularity", "-o", str(job.output), "--no-track"]
    assert "Broken pipe" not in CliRunner().invoke(main, [*command, "--held-out", "0.2"]).output
