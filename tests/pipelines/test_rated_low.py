"""Rated low means seen: no way to a list offers it again, and all ways read histories alike."""

import json

import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import recsys
from pipelines.cli.main import main
from recsys.serving.pyfunc import recommend_frame

# u1 has rated c one star; d is all that is left.
ROWS = "u1,a,5 u1,b,5 u1,c,1 u2,a,5 u2,c,5 u3,b,5 u3,c,5 u4,d,5 u4,a,4"


def invoke(*words):
    done = CliRunner().invoke(main, ["--json", *map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rated_low")
    ratings, model = folder / "ratings.csv", folder / "model"
    ratings.write_text("user_id,item_id,rating\n" + ROWS.replace(" ", "\n") + "\n")
    invoke("train", ratings, "-m", "ease", "--min-rating", 4, "--held-out", 0, "-o", model, "--no-track")
    return folder


def test_recommend_offers_only_what_was_not_seen(case):
    found = invoke("recommend", case / "model", "--user", "u1", "--ratings", case / "ratings.csv", "-n", 2)
    assert [entry["item_id"] for entry in found["items"]] == ["d"]


def test_what_was_seen_returns_when_asked_for(case):
    words = "--user", "u1", "--ratings", case / "ratings.csv", "-n", 9, "--keep-seen"
    assert {entry["item_id"] for entry in invoke("recommend", case / "model", *words)["items"]} == set("abcd")


@pytest.mark.parametrize("through", ["file", "store", "prepared with the minimum"])
def test_score_offers_only_what_was_not_seen(case, through, tmp_path):
    ratings = case / "ratings.csv"
    if through != "file":
        minimum = ("--min-rating", 4) if "minimum" in through else ()
        invoke("prepare", ratings, "-o", tmp_path / "store", *minimum)
        ratings = tmp_path / "store"
    invoke("score", case / "model", ratings, "-n", 4, "-o", tmp_path / "lists", "--no-track")
    lists = pq.read_table(tmp_path / "lists" / "recommendations").to_pandas()
    assert lists.loc[lists["user_id"] == "u1", "item_id"].tolist() == ["d"]


def test_new_users_and_chosen_users_are_masked_too(case, tmp_path):
    (tmp_path / "new.csv").write_text("user_id,item_id,rating\nn1,a,5\nn1,c,1\nn1,b,2\n")
    (tmp_path / "users.txt").write_text("n1\n")
    words = "--new-users", tmp_path / "new.csv", "--users", tmp_path / "users.txt", "-n", 4, "--no-track"
    invoke("score", case / "model", case / "ratings.csv", *words, "-o", tmp_path / "lists")
    lists = pq.read_table(tmp_path / "lists" / "recommendations").to_pandas()
    assert lists["item_id"].tolist() == ["d"]


def test_python_and_mlflow_give_the_lists_of_the_command_line(case, tmp_path):
    invoke("score", case / "model", case / "ratings.csv", "-n", 4, "-o", tmp_path / "lists", "--no-track")
    lists = pq.read_table(tmp_path / "lists" / "recommendations").to_pandas()
    trained, frame = recsys.load_model(case / "model"), pd.read_csv(case / "ratings.csv")
    for found in (
        trained.recommend(frame, 4),
        trained.recommend(case / "ratings.csv", 4),
        recommend_frame(trained, frame, 4),
    ):
        for column in ("user_id", "item_id", "rank"):
            assert found[column].tolist() == lists[column].tolist()


def test_a_history_without_ratings_counts_whole(case):
    frame = pd.DataFrame({"user_id": ["x", "x"], "item_id": ["a", "c"]})
    assert recommend_frame(recsys.load_model(case / "model"), frame, 4)["item_id"].tolist() in (["b", "d"], ["d", "b"])


def test_a_published_division_may_mask_the_history_alone(tmp_path):
    """30 users like a, b and d and rate c low, 40 others like it: c is listed before b unless masked."""
    rows = [f"u{n},{item},{1 if item == 'c' else 5}" for n in range(30) for item in "abcd"]
    rows += [f"z{n},{item},5" for n in range(40) for item in "acd"]
    (tmp_path / "ratings.csv").write_text("user_id,item_id,rating\n" + "\n".join(rows) + "\n")
    words = "-m", "popularity", "--protocol", "weak", "--min-rating", 4, "--metrics", "recall@1", "--no-track"
    recall = {}
    for mask in ("seen", "history"):
        found = invoke("compare", tmp_path / "ratings.csv", *words, "-o", tmp_path / mask, "--mask", mask)
        (recall[mask],) = (row["recall@1"] for row in found["leaderboard"] if row["model"] == "popularity")
    assert recall["seen"] == 1
    assert recall["history"] < 0.9


def test_popular_items_for_users_who_liked_nothing_leave_out_what_they_have_seen(case, tmp_path):
    (tmp_path / "ratings.csv").write_text((case / "ratings.csv").read_text() + "u5,c,2\nu5,a,1\n")
    (tmp_path / "users.txt").write_text("u5\nu1\n")
    words = "--users", tmp_path / "users.txt", "--cold", "popularity", "-n", 4, "--no-track"
    invoke("prepare", tmp_path / "ratings.csv", "-o", tmp_path / "store", "--min-rating", 4)
    for source in ("ratings.csv", "store"):
        invoke("score", case / "model", tmp_path / source, *words, "-o", tmp_path / "lists", "--overwrite")
        lists = pq.read_table(tmp_path / "lists" / "recommendations").to_pandas()
        assert lists.groupby("user_id", sort=False)["item_id"].agg("".join).to_dict() == {"u5": "bd", "u1": "d"}


def test_a_model_remembers_the_minimum_that_its_store_was_prepared_with(case, tmp_path):
    ratings = case / "ratings.csv"
    invoke("prepare", ratings, "-o", tmp_path / "store", "--min-rating", 4, "--duplicates", "max")
    invoke("train", tmp_path / "store", "-m", "ease", "--held-out", 0, "-o", tmp_path / "model", "--no-track")
    read = recsys.read_interactions(ratings, recsys.ReadingOptions(min_rating=4, duplicates="max"))
    for trained in (recsys.load_model(tmp_path / "model"), recsys.fit(read, "ease", held_out=0)):
        assert trained.about["reading"] == {"min_rating": 4, "duplicates": "max", "order": None}
        assert len(trained.read_histories(ratings)) == len(read)


def test_a_store_prepared_with_a_higher_minimum_is_refused(case, tmp_path):
    invoke("prepare", case / "ratings.csv", "-o", tmp_path / "store", "--min-rating", 5)
    with pytest.raises(recsys.RecsysError, match="prepared with it, found 4"):
        recsys.load_model(case / "model").read_histories(tmp_path / "store")


def test_a_request_whose_rows_all_end_up_low_gets_empty_lists_and_a_damaged_one_the_reason(case):
    trained = recsys.load_model(case / "model")
    rated = pd.DataFrame({"user_id": ["x", "x"], "item_id": ["a", "a"], "rating": [5, 1]})  # the last one counts
    assert recommend_frame(trained, rated).empty
    with pytest.raises(recsys.RecsysError, match="numbers as ratings"):
        recommend_frame(trained, rated.astype({"rating": str}))
    with pytest.raises(recsys.RecsysError, match="each column once"):
        recommend_frame(trained, pd.concat([rated, rated], axis=1))
