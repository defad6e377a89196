"""`recsys audit` as a person meets it."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from tastes import two_tastes, write_csv

from pipelines.cli.main import main


def call(*words):
    done = CliRunner().invoke(main, [str(word) for word in words], prog_name="recsys")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def works(*words):
    code, output = call(*words)
    assert code == 0, output
    return output


def refused(*words, code=1):
    found, output = call(*words)
    assert found == code, output
    return " ".join(output.split())


@pytest.fixture(autouse=True)
def ratings(tmp_path, monkeypatch):
    """100 users of two tastes; u0 has one item of the other taste."""
    monkeypatch.chdir(tmp_path)
    file = write_csv(tmp_path / "ratings.csv", two_tastes(users=100, items=60))
    file.write_text(file.read_text() + "u0,i59\n")
    works("train", file, "-m", "ease", "-s", "l2=10", "-o", "model", "--no-track")
    return file


AUDIT = ("audit", "model", "ratings.csv", "--no-track")


def test_the_strangest_interaction_is_named_and_four_files_are_written(tmp_path):
    (tmp_path / "items.csv").write_text("item_id,title\ni59,<b>Last & least</b>\nzz,Unknown\n")
    output = works(*AUDIT, "--titles", "items.csv")
    assert re.search(r"u0 +<b>Last & least</b>", output) and "False alarms expected" in output
    assert "1 of 2 ids unknown to the ratings: zz" in output
    first = pd.read_parquet("suspicious.parquet").iloc[0]
    assert (first["user_id"], first["item_id"]) == ("u0", "i59")
    assert len(pd.read_parquet("suspicious-users.parquet")) == 100
    assert len(pd.read_parquet("suspicious-items.parquet")) == 60
    page = (tmp_path / "suspicious.html").read_text()
    assert "&lt;b&gt;Last &amp; least&lt;/b&gt;" in page and "<b>Last" not in page


def test_cleaning_writes_every_other_line_as_it_was_and_says_what_it_did(tmp_path, ratings):
    output = works(*AUDIT, "--clean", "cleaned.csv", "--share", "1%", "-o", "list.csv")
    before, after = ratings.read_text().splitlines(), (tmp_path / "cleaned.csv").read_text().splitlines()
    gone = pd.read_csv("list.csv").head(len(before) - len(after))
    assert len(gone) == round(0.01 * (len(before) - 1))
    assert set(before) - set(after) == {f"{row.user_id},{row.item_id}" for row in gone.itertuples()}
    assert [line for line in before if line in set(after)] == after
    assert "ndcg@100" in output and "cleaned" in output


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    works(*AUDIT, "-o", "a.parquet")
    works(*AUDIT, "-o", "b.parquet")
    for end in (".parquet", "-users.parquet", "-items.parquet", ".html"):
        assert (tmp_path / f"a{end}").read_bytes() == (tmp_path / f"b{end}").read_bytes()


def test_json_holds_what_is_printed():
    found = json.loads(works("--json", *AUDIT, "--no-accounts"))
    assert found["worst"][0]["item_id"] == "i59"
    assert found["judged"] == found["total"]
    assert 0 < found["noise"] <= found["limit"] <= 1
    assert list(found["files"]) == ["interactions", "users", "items", "page"]


def test_ratings_are_audited_by_a_model_of_ratings(tmp_path):
    rng = np.random.default_rng(0)
    rows = [(user, item, 1 + 4 * (item % 2)) for user in range(60) for item in range(20) if (user, item) != (3, 4)] + [
        (3, 4, 5)
    ]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "rating"]).sample(frac=0.97, random_state=1)
    frame = pd.concat(
        [frame[(frame.user_id != 3) | (frame.item_id != 4)], pd.DataFrame([rows[-1]], columns=frame.columns)]
    )
    frame.iloc[rng.permutation(len(frame))].to_csv("stars.csv", index=False)
    works("train", "stars.csv", "-m", "biases", "-o", "stars", "--no-track")
    output = works("audit", "stars", "stars.csv", "--no-track", "-o", "stars.parquet", "--clean", "good.csv")
    first = pd.read_parquet("stars.parquet").iloc[0]
    assert (first["user_id"], first["item_id"], first["rating"]) == ("3", "4", 5)
    assert first["expected"] < 3
    assert "rmse" in output and "rated (expected)" in output
    assert "3,4,5\n" not in (tmp_path / "good.csv").read_text()


def test_a_network_learns_for_as_many_epochs_as_validation_finds_best():
    works("train", "ratings.csv", "-m", "vae", "-s", "epochs=3", "-s", "latent=4", "-o", "net", "--no-track")
    output = works("audit", "net", "ratings.csv", "--no-track", "--folds", 2, "--no-accounts")
    assert "False alarms expected" in output


def test_what_is_in_the_way_is_refused_before_the_work(tmp_path):
    (tmp_path / "suspicious-users.parquet").write_text("mine")
    assert "--overwrite" in refused(*AUDIT)
    assert "found the ratings themselves" in refused(*AUDIT, "-o", "x.parquet", "--clean", "ratings.csv", "--overwrite")
    assert "single ratings file" in refused(*AUDIT, "ratings.csv", "-o", "x.parquet", "--clean", "y.csv")
    assert ".csv or .parquet" in refused(*AUDIT, "-o", "x.txt")
    assert not (tmp_path / "x.parquet").exists()


@pytest.mark.parametrize("share", ["0", "100%", "two", "nan"])
def test_a_share_that_is_none_is_wrong_usage(share):
    assert "such as 2% or 0.02" in refused(*AUDIT, "--clean", "y.csv", "--share", share, code=2)


def test_a_file_of_one_user_and_one_item_is_refused_with_the_reason(tmp_path):
    (tmp_path / "one.csv").write_text("user_id,item_id\nu0,i1\n")
    assert "Expected interactions" in refused("audit", "model", "one.csv", "--no-track")
