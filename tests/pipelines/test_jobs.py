"""The commands as a person meets them: one after the other on a small file, and with everything that can be wrong."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from pipelines import demo
from pipelines.cli.main import main


def call(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(main, [str(word) for word in words], prog_name="recsys")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def works(*words: object) -> str:
    code, output = call(*words)
    assert code == 0, output
    return output


@pytest.fixture(autouse=True)
def somewhere_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def ratings(tmp_path):
    """60 people of two tastes: even ids take even items, odd ones odd items, and each leaves a few out."""
    rng = np.random.default_rng(0)
    rows = [(f"0{u}", f"i{i}", 1 + (u * i) % 5) for u in range(60) for i in range(u % 2, 24, 2) if rng.random() < 0.8]
    file = tmp_path / "ratings.csv"
    pd.DataFrame(rows, columns=["userId", "movieId", "rating"]).to_csv(file, index=False)
    return file


@pytest.fixture
def model(ratings):
    works("train", ratings, "-m", "ease", "-s", "l2=10", "-o", "model", "--no-track")
    return Path("model")


def test_a_model_folder_copied_away_serves_somebody_who_is_only_a_list_of_items(model, ratings, tmp_path):
    elsewhere = tmp_path / "elsewhere" / "copy"
    shutil.copytree(model, elsewhere)
    shutil.rmtree(model)
    ratings.unlink()
    found = json.loads(works("--json", "recommend", elsewhere, "--items", "i0,i2,i4,unheard-of", "-n", 3))
    assert found["unknown"]["history"] == {"count": 1, "total": 4, "first": ["unheard-of"]}
    assert all(int(entry["item_id"][1:]) % 2 == 0 for entry in found["items"])
    assert [entry["rank"] for entry in found["items"]] == [1, 2, 3]


def test_a_list_on_the_terminal_follows_rules(model):
    Path("items.csv").write_text("id,kind\n" + "".join(f"i{i},{'low' if i < 12 else 'high'}\n" for i in range(24)))
    Path("rules.toml").write_text('items = "items.csv"\n[[rule]]\nexclude = { kind = "low" }\n')
    asked = "--json", "recommend", model, "--items", "i0,i2,i4", "-n", 3
    plain = [int(entry["item_id"][1:]) for entry in json.loads(works(*asked))["items"]]
    ruled = [int(entry["item_id"][1:]) for entry in json.loads(works(*asked, "--rules", "rules.toml"))["items"]]
    assert min(plain) < 12 <= min(ruled)
    varied = [entry["item_id"] for entry in json.loads(works(*asked, "--diversity", 0.9))["items"]]
    assert len(set(varied)) == 3


def test_scored_lists_keep_ids_as_they_came_hold_nothing_seen_and_repeat_to_the_byte(model, ratings):
    for folder in ("one", "two"):
        works("score", model, ratings, "-o", folder, "-n", 5, "--no-track")
    files = [sorted(Path(folder, "recommendations").iterdir()) for folder in ("one", "two")]
    assert [file.read_bytes() for file in files[0]] == [file.read_bytes() for file in files[1]]
    lists = pd.read_parquet("one/recommendations")
    seen = pd.read_csv(ratings, dtype=str)
    assert set(lists.user_id) == set(seen.userId)
    assert lists.user_id.str.startswith("0").all()
    assert not set(zip(lists.user_id, lists.item_id, strict=True)) & set(zip(seen.userId, seen.movieId, strict=True))


def test_evaluate_finds_the_people_held_out_from_training_again(model, ratings):
    trained = json.loads((model / "model.json").read_text())["metrics"]["ndcg@10"]
    found = json.loads(works("--json", "evaluate", model, ratings, "--metrics", "ndcg@10", "--no-track"))
    assert found["metrics"]["ndcg@10"] == pytest.approx(trained)
    assert "held out from its training" in found["who"]


def test_a_refitted_model_is_not_measured_on_what_it_was_fitted_on(ratings):
    works("train", ratings, "-m", "ease", "--refit", "-o", "all", "--no-track")
    code, output = call("evaluate", "all", ratings, "--no-track")
    assert code == 1
    assert "fitted on all of these ratings" in output


def test_a_test_file_is_measured_with_the_ratings_as_histories(ratings, tmp_path):
    table = pd.read_csv(ratings, dtype=str)
    table[::7].to_csv(tmp_path / "test.csv", index=False)
    table.drop(table.index[::7]).to_csv(tmp_path / "train.csv", index=False)
    works("train", "train.csv", "-m", "item-knn", "--held-out", 0, "-o", "model", "--no-track")
    with Path("test.csv").open("a") as file:
        file.write("01,,3\n")
    output = works("evaluate", "model", "train.csv", "--test", "test.csv", "--metrics", "recall@5", "--no-track")
    assert f"test: rows read {len(table[::7]) + 1} = kept {len(table[::7])} + missing item id 1\n" in output
    assert "users of test.csv" in output


def test_the_next_command_reads_the_ratings_as_this_one_did(ratings):
    text = ratings.read_text().replace(",", ";").replace("userId", "who is it")
    Path("other.csv").write_text(text)
    flags = ["--user-column", "who is it", "--separator", "semicolon", "--min-rating", 2]
    output = works("train", "other.csv", *flags, "--min-user-items", 3, "-m", "ease", "-o", "m", "--no-track")
    [following] = [line for line in output.splitlines() if line.startswith("Next:  recsys score")]
    assert following == (
        "Next:  recsys score m other.csv --user-column 'who is it' --separator semicolon --min-rating 2 -o lists -n 100"
    )
    works(*shlex.split(following)[2:], "--no-track")


def test_scoring_says_how_many_items_and_pairs_its_files_are_about(model, ratings):
    Path("never.csv").write_text("item_id\ni0\ni2\nI4\n")
    Path("pairs.csv").write_text("user_id,item_id\n00,i6\nnobody,i6\n")
    flags = ["--exclude-items", "never.csv", "--exclude-pairs", "pairs.csv", "--no-track"]
    output = works("score", model, ratings, *flags)
    assert "22 of 24 items may be recommended" in output
    assert "1 pair of these users and items excluded" in output
    assert "exclude-items: 1 of 3 ids unknown to the model: I4\n" in output
    assert "exclude-pairs (users): 1 of 2 ids unknown to the model: nobody\n" in output


def test_training_is_refused_where_no_held_out_user_can_be_evaluated(tmp_path):
    Path("one-item.csv").write_text("user_id,item_id\n" + "".join(f"u{user},a\n" for user in range(20)))
    code, output = call("train", "one-item.csv", "-m", "popularity", "-o", "m", "--no-track")
    assert (code, "Expected validation users with a history and a held-out item" in output) == (1, True), output
    works("train", "one-item.csv", "-m", "popularity", "-o", "m", "--no-track", "--held-out", 0)


def test_people_who_may_be_of_the_training_are_measured_with_a_caution(model, ratings):
    again = works("evaluate", model, ratings, "--no-track")
    assert "optimistic" not in again
    others = works("evaluate", model, ratings, "--min-rating", 2, "--no-track")
    assert "Evaluated on all users of these ratings" in others
    assert "Some users may have been in training; their scores are optimistic." in " ".join(others.split())


@pytest.fixture
def opinions():
    """40 people rate ten of twelve items: even ones like the even items and dislike the odd ones, the others v.v."""
    rows = [(f"u{u}", f"i{i}", 5 if u % 2 == i % 2 else 1) for u in range(40) for i in range(12) if (u + i) % 6]
    pd.DataFrame(rows, columns=["user_id", "item_id", "rating"]).to_csv("opinions.csv", index=False)
    return Path("opinions.csv")


@pytest.fixture
def liked(opinions):
    works("train", opinions, "--min-rating", 4, "-m", "ease", "-s", "l2=1", "-o", "liked", "--no-track")
    return Path("liked")


def recommended(model, *flags):
    """Ids of the history, and of the list."""
    found = json.loads(works("--json", "recommend", model, *flags))
    return [[entry["item_id"] for entry in found[part]] for part in ("history", "items")]


def test_what_was_disliked_is_no_preference_for_a_model_of_what_was_liked(liked, opinions):
    asked = ("--user", "u1", "--ratings", opinions, "-n", 3)
    history, items = recommended(liked, *asked)
    assert history == ["i1", "i3", "i7", "i9"]
    assert sorted(items) == ["i11", "i5"]  # the two that u1 has not rated: what was rated low has been seen, too
    assert "Read as in training: --min-rating 4\n" in works("recommend", liked, *asked)


def test_a_flag_wins_over_what_the_model_remembers(liked, opinions):
    asked = ("--user", "u1", "--ratings", opinions, "-n", 3)
    assert len(recommended(liked, *asked, "--min-rating", 0)[0]) == 10
    assert len(recommended(liked, *asked)[0]) == 4
    assert "Read as in training" not in works("recommend", liked, *asked, "--min-rating", 0)


def test_a_model_that_remembers_nothing_takes_every_row(liked, opinions):
    about = json.loads((liked / "model.json").read_text())
    assert about.pop("reading") == {"min_rating": 4, "duplicates": None, "order": None}
    (liked / "model.json").write_text(json.dumps(about))
    assert len(recommended(liked, "--user", "u1", "--ratings", opinions)[0]) == 10


def test_which_of_repeated_rows_counts_is_remembered_but_not_that_there_were_none(opinions):
    flags = ("--min-rating", 4, "-m", "ease", "--overwrite", "-o", "m", "--no-track")
    Path("twice.csv").write_text("user_id,item_id,rating\nme,i1,5\nme,i1,1\nme,i3,1\nme,i3,5\n")
    asked = ("--user", "me", "--ratings", "twice.csv")
    works("train", opinions, "--duplicates", "max", *flags)
    assert recommended("m", *asked)[0] == ["i1", "i3"]
    assert recommended("m", *asked, "--duplicates", "last")[0] == ["i3"]
    works("train", opinions, "--duplicates", "error", *flags)
    assert recommended("m", *asked)[0] == ["i3"]


def test_where_there_are_no_ratings_every_row_counts_and_this_is_said(liked, opinions):
    Path("pairs.csv").write_text("user_id,item_id\nme,i1\nme,i3\n")
    asked = ("recommend", liked, "--user", "me", "--ratings", "pairs.csv")
    assert [entry["item_id"] for entry in json.loads(works("--json", *asked))["history"]] == ["i1", "i3"]
    assert "There are no ratings to compare with --min-rating: every row counts.\n" in works(*asked)
    code, output = call(*asked, "--min-rating", 4)
    assert (code, "--min-rating" in output) == (1, True), output
    output = works("score", liked, opinions, "--new-users", "pairs.csv", "-n", 1, "-o", "lists", "--no-track")
    assert "new-users: There are no ratings to compare with --min-rating: every row counts.\n" in output
    assert "new-users: rows read 2 = kept 2\n" in output


def test_lists_are_made_of_what_was_liked_and_no_other_reading_resumes_them(liked, opinions):
    Path("new.csv").write_text("user_id,item_id,rating\nme,i1,5\nme,i2,1\n")
    job = ("score", liked, opinions, "--new-users", "new.csv", "-n", 3, "--no-track")
    output = works(*job, "-o", "lists")
    assert "Read as in training: --min-rating 4\n" in output
    assert "new-users: rows read 2 = kept 1 + below min_rating 1\n" in output
    works(*job, "-o", "typed", "--min-rating", 4)
    plans = [json.loads(Path(folder, "plan.json").read_text())["hash"] for folder in ("lists", "typed")]
    assert plans[0] == plans[1]
    code, output = call(*job, "-o", "lists", "--resume", "--min-rating", 0)
    assert (code, "another job (other model, histories or settings)" in output) == (1, True), output


def test_the_ratings_of_training_are_recognized_without_its_flags(liked, opinions):
    trained = json.loads((liked / "model.json").read_text())["metrics"]["ndcg@10"]
    found = json.loads(works("--json", "evaluate", liked, opinions, "--metrics", "ndcg@10", "--no-track"))
    assert found["metrics"]["ndcg@10"] == pytest.approx(trained)
    assert "held out from its training" in found["who"]


def test_a_test_file_is_searched_for_what_was_liked(liked, opinions):
    table = pd.read_csv(opinions)
    table.drop(table.index[::7]).to_csv("histories.csv", index=False)
    table[::7].to_csv("test.csv", index=False)
    output = works("evaluate", liked, "histories.csv", "--test", "test.csv", "--metrics", "recall@5", "--no-track")
    assert "test: Read as in training: --min-rating 4\n" in output
    kept = int((table[::7].rating >= 4).sum())
    assert f"test: rows read {len(table[::7])} = kept {kept} + below min_rating {len(table[::7]) - kept}\n" in output


def test_a_compared_model_remembers_how_its_ratings_were_read(opinions):
    works("compare", opinions, "-m", "popularity", "--min-rating", 4, "--save-models", "-o", "out", "--no-track")
    about = json.loads(Path("out/models/popularity/model.json").read_text())
    assert about["reading"] == {"min_rating": 4, "duplicates": None, "order": None}


def test_without_a_model_one_is_picked_and_the_reason_given(ratings):
    output = works("train", ratings, "--held-out", 0, "-o", "picked", "--no-track")
    assert json.loads(Path("picked/model.json").read_text())["model"] == "edlae"
    assert "there are no validation users" in output


def test_a_setting_without_a_model_is_refused(ratings):
    code, output = call("train", ratings, "-s", "l2=1", "--no-track")
    assert code != 0
    assert "Expected -m MODEL together with -s l2=1" in output


def test_settings_stand_in_a_file_and_flags_win(ratings):
    Path("settings.toml").write_text('model = "ease"\nseed = 7\noutput = "from-file"\n[settings]\nl2 = 12\n')
    works("train", ratings, "--config", "settings.toml", "--seed", 8, "--no-track")
    about = json.loads(Path("from-file/model.json").read_text())
    assert (about["model"], about["config"]["l2"], about["seed"]) == ("ease", 12.0, 8)


def test_runs_are_found_in_mlflow_with_settings_curve_data_and_model(ratings):
    from mlflow import MlflowClient

    works("train", ratings, "-m", "vae", "-s", "epochs=2", "-s", "hidden=4", "-s", "latent=2", "-o", "model")
    works("score", "model", ratings, "-o", "lists")
    client = MlflowClient("sqlite:///mlflow.db")
    (experiment,) = [found for found in client.search_experiments() if found.name == "recsys"]
    runs = {run.data.tags["recsys.kind"]: run for run in client.search_runs([experiment.experiment_id])}
    train, score = runs["train"], runs["score"]
    assert train.data.params["latent"] == "2"
    assert {"ndcg_at_100", "loss", "fit_seconds"} <= set(train.data.metrics)
    assert [point.step for point in client.get_metric_history(train.info.run_id, "loss")] == [1, 2]
    (data,) = train.inputs.dataset_inputs
    assert json.loads(data.dataset.profile)["users"] == 60
    assert "training_curve.png" in {file.path for file in client.list_artifacts(train.info.run_id)}
    assert json.loads(Path("model/model.json").read_text())["run_id"] == train.info.run_id
    assert score.data.tags["recsys.training_run"] == train.info.run_id


def test_a_dead_tracking_server_loses_no_model(ratings, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    works("train", ratings, "-m", "popularity", "-o", "model")
    assert Path("model/model.json").is_file()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("train", "nowhere.csv"), 1, "nothing at nowhere.csv"),
        (("train", "RATINGS", "-m", "vea"), 1, "Expected a model of popularity, item-knn"),
        (("train", "RATINGS", "-m", "vae", "-s", "latnet=3"), 1, "It has: hidden, latent, dropout"),
        (("train", "RATINGS", "-m", "vae", "-s", "latent=three"), 1, "Expected vae.latent to be of type int"),
        (("train", "RATINGS", "-m", "vae", "-s", "latent"), 1, "Expected a setting such as latent=50"),
        (("train", "RATINGS", "--metric", "ndgc@10"), 1, "Expected a metric such as ndcg@100"),
        (("train", "RATINGS", "--device", "tpu9"), 1, "Expected a device such as auto, cpu"),
        (("train", "RATINGS", "--held-out", "0.7"), 1, "below 0.5"),
        (("train", "RATINGS", "--min-rating", "high"), 2, "is not a valid float"),
        (("train", "RATINGS", "--min-rating", "9"), 1, "below min_rating"),
        (("train", "RATINGS", "--user-column", "customer"), 1, "customer"),
        (("train", "RATINGS", "-o", "full"), 1, "(On the command line: --overwrite.)"),
        (("train", "RATINGS", "-o", "full", "--overwrite"), 1, "that recsys did not write"),
        (("train", "RATINGS", "--config", "wrong.toml"), 1, "Did you mean 'model'?"),
        (("compare", "RATINGS", "-m", "bpr", "--no-baselines"), 1, "knows only users it was trained on"),
        (("compare", "RATINGS", "-m", "ease", "-s", "l2=3"), 2, "Expected -s MODEL.setting=value"),
        (("compare", "RATINGS", "-m", "ease", "--protocol", "temporal"), 1, "needs timestamps"),
        (("compare", "RATINGS", "-m", "ease", "--protocol", "given"), 1, "Expected --test FILE"),
        (("score", "full", "RATINGS"), 1, "Expected a model directory with model.json"),
        (("recommend", "full"), 2, "Expected either --user ID"),
        (("recommend", "full", "--user", "01"), 2, "Expected --ratings FILE"),
        (("scroe",), 2, "Expected one of the commands check"),
    ],
)
def test_what_is_wrong_is_said_without_a_traceback(ratings, words, code, says):
    Path("full").mkdir()
    Path("full/thesis.doc").write_text("years of work")
    Path("wrong.toml").write_text('mdel = "vae"\n')
    found, output = call(*(ratings if word == "RATINGS" else word for word in words))
    assert (found, says in output) == (code, True), output
    assert "Traceback" not in output
    assert Path("full/thesis.doc").read_text() == "years of work"


def test_one_user_is_too_few_to_hold_anybody_out():
    Path("one.csv").write_text("user_id,item_id\n" + "".join(f"me,{i}\n" for i in range(9)))
    code, output = call("train", "one.csv", "-m", "ease", "--no-track")
    assert (code, "Expected at least 10 users" in output) == (1, True), output


def test_unknown_items_and_users_are_told(model, ratings):
    assert call("recommend", model, "--items", "nothing")[0] == 1
    code, output = call("recommend", model, "--user", "nobody", "--ratings", ratings)
    assert (code, "Expected user 'nobody'" in output) == (1, True), output


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_tunes_every_model_says_the_commands_it_runs_and_can_be_repeated(monkeypatch):
    pytest.importorskip("optuna")
    monkeypatch.setattr(demo, "MODELS", ("popularity", "ials", "ease"))
    monkeypatch.setattr(demo, "MINUTES", "0.01")
    for _ in range(2):
        output = works("demo", "--no-track")
    assert "$ recsys compare " in output and "--tune-minutes 0.01" in output
    assert "The settings of every model were chosen on the validation part" in " ".join(output.split())
    assert output.count("rank  item  title") == 3
