"""The rating task as a person meets it: from a table of ratings, zeros and negative ones among them, to predictions."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from paths import ROOT

from pipelines.cli.main import main
from pipelines.tune import TuneJob
from recsys.evaluation.tasks import TASKS

HERE = ROOT
ALONE = ("--no-track", "--no-baselines", "--probes", 0)
JESTER = HERE.parent / "shared" / "data" / "jester-1" / "ratings.csv.gz"


def call(*words):
    done = CliRunner().invoke(main, [str(word) for word in words], prog_name="recsys")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def works(*words):
    code, output = call(*words)
    assert code == 0, output
    return output


def refused(*words):
    code, output = call(*words)
    assert code == 1, output
    return output


@pytest.fixture(autouse=True)
def somewhere_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def ratings_of(user, item):
    """The users' taste: even ones like everything 3 better, and item i is rated i - 3 by the others: -3, ..., 4."""
    return item - 3 + 3 * (user % 2 == 0)


@pytest.fixture
def ratings(tmp_path):
    """30 users, 8 items, a scale from -3 to 7 with zeros on it, most cells known; ids are text, times go by user."""
    rng = np.random.default_rng(0)
    rows = [
        (f"0{user}", f"i{item}", ratings_of(user, item), 10 * user + item)
        for user in range(30)
        for item in range(8)
        if rng.random() < 0.9
    ]
    file = tmp_path / "ratings.csv"
    pd.DataFrame(rows, columns=["user_id", "item_id", "rating", "timestamp"]).to_csv(file, index=False)
    return file


@pytest.fixture
def model(ratings):
    options = ["-s", "user_shrinkage=0.01", "-s", "item_shrinkage=0.01"]
    works("train", ratings, "-m", "biases", *options, "-o", "model", "--no-track")
    return Path("model")


def test_train_measures_held_out_cells_and_remembers_the_task(model):
    about = json.loads((model / "model.json").read_text())
    assert about["task"] == "rating"
    assert set(about["metrics"]) == {"rmse", "mae"}
    assert about["metrics"]["rmse"]["mean"] < 0.2  # the data are biases and nothing more
    assert about["split"]["protocol"] == "cells"


def test_the_task_alone_names_a_model_and_the_cells_are_told(ratings):
    output = works("train", ratings, "--task", "rating", "-o", "model", "--no-track", "--refit")
    assert "held-out cells" in output and "rmse" in output and "before the refit" in output
    about = json.loads(Path("model/model.json").read_text())
    assert (about["task"], about["split"]["protocol"]) == ("rating", "everybody")


def test_compare_ranks_the_lowest_error_first_and_its_report_opens(ratings):
    output = works("compare", ratings, "-m", "global-mean,biases", "-o", "out", *ALONE)
    board = pd.read_csv("out/leaderboard.csv")
    assert board["model"].tolist() == ["biases", "global-mean"]
    assert board["rmse"].is_monotonic_increasing
    assert (board["cells"] + board["cells_without_prediction"] == int(0.1 * len(pd.read_csv(ratings)))).all()
    assert board["difference"].iloc[1] > 0 and board["difference_low"].iloc[1] > 0
    assert "biases beats global-mean by" in output and "held-out cells" in output
    page = Path("out/report.html").read_text()
    assert "observed against predicted rating" in page and "rmse by user slices" in page
    users = pd.read_parquet("out/per_user.parquet")
    assert set(users.columns) == {"model", "user_id", "rmse", "mae", "cells"}
    best = users[users["model"] == "biases"]
    assert np.sqrt(np.average(best["rmse"] ** 2, weights=best["cells"])) == pytest.approx(board["rmse"].iloc[0])


@pytest.mark.parametrize(
    "protocol",
    [
        ("--protocol", "strong"),
        ("--protocol", "weak"),
        ("--protocol", "temporal"),
        ("--folds", 3),
        ("--folds", 3, "--protocol", "strong"),
        ("--refit",),
        ("--held-out", 0.2),
    ],
)
def test_every_protocol_tests_ratings(ratings, protocol):
    works("compare", ratings, "-m", "global-mean,biases", "-o", "out", *ALONE, *protocol)
    facts = json.loads(Path("out/comparison.json").read_text())
    counts = facts["models"][0]["counts"]
    if protocol == ("--folds", 3):
        assert sum(counts.values()) == facts["data"]["rows"]  # every cell once
    else:
        assert counts["cells"] > 0
    assert facts["metric"] == "rmse"


def test_given_files_are_trained_on_validated_on_and_tested_on(ratings):
    table = pd.read_csv(ratings, dtype={"user_id": str}).sample(frac=1, random_state=0)
    parts = {"train": table[:140], "validation": table[140:160], "test": table[160:]}
    for name, part in parts.items():
        part.to_csv(f"{name}.csv", index=False)
    for more, held in (((), int(0.1 * 140)), (("--validation", "validation.csv"), 20)):
        words = ["compare", "train.csv", "--test", "test.csv", *more, "-m", "biases", "-o", "out", "--overwrite"]
        works(*words, *ALONE)
        facts = json.loads(Path("out/comparison.json").read_text())
        assert facts["split"]["validation_interactions"] == held
        assert facts["split"]["test_interactions"] == len(parts["test"])


def test_tune_keeps_the_settings_of_the_lowest_error(ratings):
    pytest.importorskip("optuna")
    works("tune", ratings, "-m", "biases", "-n", 4, "-o", "tuned", "--no-track")
    trials = pd.read_csv("tuned/trials.csv")
    best = trials.loc[trials["rmse"].idxmin()]
    assert (trials["rmse"] > 0).all()
    text = Path("tuned/biases.toml").read_text()
    assert f"user_shrinkage = {best['user_shrinkage']!r}".replace("np.float64(", "").replace(")", "") in text


def test_tune_without_a_model_tunes_that_of_the_task():
    assert tuple(TuneJob(()).with_task_defaults(TASKS[name]).model for name in ("ranking", "rating")) == (
        "vae",
        "autorec",
    )


def test_a_tuned_comparison_shows_the_lowest_error_of_its_search(ratings):
    pytest.importorskip("optuna")
    works("compare", ratings, "-m", "global-mean,biases", "--tune", 3, "-o", "out", *ALONE)
    facts = json.loads(Path("out/comparison.json").read_text())
    tuning = next(model["tuning"] for model in facts["models"] if model["name"] == "biases")
    assert tuning["best"] == min(value for value in tuning["values"] if value is not None) > 0


def test_evaluate_finds_the_cells_held_out_from_training_again(model, ratings):
    trained = json.loads((model / "model.json").read_text())["metrics"]["rmse"]
    found = json.loads(works("--json", "evaluate", model, ratings, "--no-track", "-o", "report"))
    assert found["metrics"]["rmse"] == pytest.approx(trained)
    assert "observed against predicted rating" in Path("report/report.html").read_text()


def test_evaluate_measures_a_test_file_and_other_people(model, ratings):
    table = pd.DataFrame(
        [(f"n{user}", f"i{item}", ratings_of(user, item)) for user in range(6) for item in range(8)],
        columns=["user_id", "item_id", "rating"],
    )
    table.to_csv("people.csv", index=False)
    assert "all users of these ratings" in works("evaluate", model, "people.csv", "--no-track")
    table[table.index % 4 > 0].to_csv("histories.csv", index=False)
    table[table.index % 4 == 0].to_csv("test.csv", index=False)
    output = works("evaluate", model, "histories.csv", "--test", "test.csv", "--no-track")
    assert "12 held-out cells; 100.0% of the held-out cells have a prediction" in " ".join(output.split())


def test_score_lists_by_predicted_rating_and_the_score_is_the_prediction(model, ratings):
    works("score", model, ratings, "-n", 1, "-o", "lists", "--no-track")
    lists = pd.read_parquet("lists/recommendations")
    seen = set(pd.read_csv(ratings, dtype=str)[["user_id", "item_id"]].itertuples(index=False, name=None))
    for row in lists.itertuples():
        user, item = int(row.user_id), int(row.item_id[1:])
        unseen = [other for other in range(8) if (row.user_id, f"i{other}") not in seen]
        assert item == max(unseen)
        assert row.score == pytest.approx(ratings_of(user, item), abs=0.4)


def test_recommend_uses_the_ratings_of_the_history_and_refuses_items_without(model, ratings):
    found = json.loads(
        works("--json", "recommend", model, "--user", "02", "--ratings", ratings, "--keep-seen", "-n", 1)
    )
    assert found["items"][0]["item_id"] == "i7"
    assert found["items"][0]["score"] == pytest.approx(7, abs=0.4)
    assert "how the items were rated" in refused("recommend", model, "--items", "i1,i2")


def test_predict_answers_every_row_with_a_rating_or_the_reason(model, ratings):
    Path("pairs.csv").write_text("user_id,item_id\n02,i7\n01,i0\n02,i99\nstranger,i7\n02,i7\n")
    output = works("predict", model, "pairs.csv", "--ratings", ratings, "-o", "out.csv", "--no-track")
    assert "3 of 5 rows have a rating" in output
    assert "1 row without a rating: unknown item" in output
    assert "1 row without a rating: user without history" in output
    found = pd.read_csv("out.csv", dtype={"user_id": str})
    assert found["user_id"].tolist() == ["02", "01", "02", "stranger", "02"]
    assert found["rating"].tolist() == pytest.approx([7, -3, np.nan, np.nan, 7], abs=0.4, nan_ok=True)
    assert found["reason"].fillna("").tolist() == ["", "", "unknown item", "user without history", ""]
    assert "--overwrite" in refused("predict", model, "pairs.csv", "--ratings", ratings, "-o", "out.csv", "--no-track")


def test_predict_takes_new_users_from_their_histories(model):
    Path("histories.csv").write_text("user_id,item_id,rating\nnew,i0,0\nnew,i3,3\nnew,i5,5\n")
    Path("pairs.csv").write_text("user_id,item_id\nnew,i7\n")
    works("predict", model, "pairs.csv", "--ratings", "histories.csv", "-o", "out.parquet", "--no-track")
    assert pd.read_parquet("out.parquet")["rating"].tolist() == pytest.approx([7], abs=0.4)


def test_predict_reads_pairs_with_the_columns_named_and_histories_from_a_store(model, ratings):
    works("prepare", ratings, "-o", "store")
    Path("pairs.csv").write_text("Artikel;Kunde\ni7;02\n")
    names = ("--user-column", "Kunde", "--item-column", "Artikel")
    works("predict", model, "pairs.csv", "--ratings", "store", *names, "-o", "named.csv", "--no-track")
    assert pd.read_csv("named.csv")["rating"].tolist() == pytest.approx([7], abs=0.4)


def test_predict_takes_of_ratings_given_twice_what_training_took(ratings):
    works("train", ratings, "-m", "biases", "--duplicates", "mean", "-o", "mean", "--no-track")
    Path("pairs.csv").write_text("user_id,item_id\nme,i0\n")
    Path("histories.csv").write_text("user_id,item_id,rating\nme,i1,5\nme,i1,-3\nme,i2,0\n")
    asked = ("predict", "mean", "pairs.csv", "--ratings", "histories.csv", "--no-track", "--overwrite", "-o", "out.csv")
    found = {}
    for policy in ("", "mean", "last"):
        output = works(*asked, *(["--duplicates", policy] if policy else []))
        assert ("Read as in training: --duplicates mean" in output) == (not policy)
        found[policy] = float(pd.read_csv("out.csv").rating[0])
    assert found[""] == found["mean"] > found["last"]


def test_predict_takes_new_items_from_their_ratings_where_asked(model):
    Path("histories.csv").write_text("user_id,item_id,rating\na,i0,0\na,i7,7\na,n1,2\nb,n2,1\nb,i3,0\n")
    Path("pairs.csv").write_text("user_id,item_id\nb,n1\nb,i7\nb,n3\n")
    asked = ("predict", model, "pairs.csv", "--ratings", "histories.csv", "--no-track", "--overwrite", "-o", "out.csv")
    works(*asked)
    assert pd.read_csv("out.csv")["reason"].fillna("").tolist() == ["unknown item", "", "unknown item"]
    output = works(*asked, "--new-items")
    assert "2 new items folded in from their ratings" in output and "1 row without a rating: unknown item" in output
    found = pd.read_csv("out.csv")
    # `a` likes everything 3 better than `b`, and gave n1 a 2.
    assert found["rating"].tolist() == pytest.approx([-1, 4, np.nan], abs=0.4, nan_ok=True)
    assert json.loads(works("--json", *asked, "--new-items"))["new_items"] == 2
    Path("histories.csv").write_text("user_id,item_id,rating\nb,i3,0\n")
    assert "new items" not in works(*asked, "--new-items")


def test_predict_refuses_new_items_before_the_data_are_read(ratings):
    works("train", ratings, "-m", "global-mean", "-o", "mean", "--no-track")
    Path("pairs.csv").write_text("user_id,item_id\n02,i7\n")
    output = refused("predict", "mean", "pairs.csv", "--ratings", "not-there.csv", "--new-items", "--no-track")
    assert "new items cannot be added" in output


def test_predict_refuses_a_model_of_lists(ratings):
    works("train", ratings, "-m", "popularity", "-o", "lists", "--no-track")
    Path("pairs.csv").write_text("user_id,item_id\n02,i7\n")
    output = refused("predict", "lists", "pairs.csv", "--ratings", ratings, "-o", "out.csv", "--no-track")
    assert "popularity makes lists" in output and not Path("out.csv").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("train", "RATINGS", "-m", "ease", "--task", "rating"), "no metric in common"),
        (("compare", "RATINGS", "-m", "ease,biases"), "no metric in common"),
        (("train", "RATINGS", "-m", "biases", "--metric", "ndcg@10"), "of rmse, mae; found 'ndcg@10'"),
        (("train", "RATINGS", "-m", "ease", "--metric", "rmse"), "Expected a metric such as ndcg@100"),
        (("train", "RATINGS", "-m", "biases", "--min-rating", "4"), "Expected no min_rating for the rating task"),
        (("train", "pairs.csv", "-m", "biases"), "Expected a column of ratings"),
        (("compare", "RATINGS", "-m", "biases", "--protocol", "strong", "--refit"), "the strong protocol has none"),
        (("compare", "RATINGS", "-m", "biases", "--folds", "3", "--protocol", "weak"), "a protocol that has no folds"),
    ],
)
def test_what_is_wrong_is_said(ratings, words, says):
    Path("pairs.csv").write_text("user_id,item_id\n" + "".join(f"{user},{item}\n" for user in "ab" for item in "cd"))
    output = refused(*(ratings if word == "RATINGS" else word for word in words), "--no-track")
    assert says in " ".join(output.split()), output


def test_runs_of_the_rating_task_are_tracked(ratings, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    address = f"sqlite:///{tmp_path}/rating-runs.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    works("train", ratings, "-m", "biases", "-o", "model")
    Path("pairs.csv").write_text("user_id,item_id\n02,i7\n02,i99\n")
    works("predict", "model", "pairs.csv", "--ratings", ratings, "-o", "out.csv")
    client = mlflow.MlflowClient(address)
    (experiment,) = [found for found in client.search_experiments() if found.name == "recsys"]
    runs = {run.data.tags["recsys.kind"]: run for run in client.search_runs([experiment.experiment_id])}
    predict, train = runs["predict"], runs["train"]
    assert {"rmse", "mae"} <= set(train.data.metrics)
    assert (predict.data.metrics["rows"], predict.data.metrics["predicted"]) == (2, 1)
    assert predict.data.tags["recsys.training_run"] == train.info.run_id
    folders = client.list_artifacts(train.info.run_id)
    files = [
        file.path
        for each in folders
        for file in ([each] if not each.is_dir else client.list_artifacts(train.info.run_id, each.path))
    ]
    assert any("calibration" in file for file in files)


@pytest.mark.skipif(not JESTER.is_file(), reason="needs ../shared/data/jester-1, which is not here")
def test_zeros_of_a_scale_with_negative_ratings_are_ratings(tmp_path):
    table = pd.read_csv(JESTER, nrows=60_000)
    table.columns = ["user_id", "item_id", "rating"]
    assert (table["rating"] == 0).sum() > 100
    table.to_csv("jester.csv", index=False)
    works("compare", "jester.csv", "-m", "global-mean,biases", "-o", "out", *ALONE, "--folds", 2)
    facts = json.loads(Path("out/comparison.json").read_text())
    assert sum(facts["models"][0]["counts"].values()) == len(table)
    assert [model["name"] for model in facts["models"]] == ["biases", "global-mean"]
