"""Users without a history, by their attributes: hand arithmetic, and through `score`."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy.sparse import csr_matrix
from scoring_case import bytes_of, lists_of, save_popularity, score, write_ratings

from recsys.batch import cold_users
from recsys.batch.cold_users import TasteByAttributes
from recsys.errors import ConfigError

TAKEN = {"ann": "ab", "bob": "ab", "cat": "ac", "dan": "cd", "eve": "cd"}  # a 3, b 2, c 3, d 2
USERS = "user_id,kind\nann,x\nbob,x\ncat,x\ndan,y\neve,y\nnew,y\nold,x\n"


def test_without_a_ridge_the_scores_are_the_shares_of_takers_with_the_same_attribute():
    kinds = csr_matrix(np.float32([[1, 0], [1, 0], [0, 1], [0, 1], [0, 1]]))
    taken = csr_matrix(np.float32([[5, 0], [0, 3], [2, 0], [4, 0], [0, 0]]))  # the last one has no history
    taste = TasteByAttributes.fit(kinds, taken, l2=1e-6)
    found = taste.scores(csr_matrix(np.float32([[1, 0], [0, 1]])))
    np.testing.assert_allclose(found, [[0.5, 0.5], [1, 0]], atol=1e-4)
    np.testing.assert_allclose(taste.scores(csr_matrix(np.float32([[0, 1]])), slice(1, 2)), [[0]], atol=1e-4)


def test_a_strong_ridge_and_no_attributes_give_popularity():
    kinds = csr_matrix(np.float32([[1], [0], [0], [0]]))
    taken = csr_matrix(np.float32([[1, 0], [1, 0], [0, 1], [1, 1]]))
    found = TasteByAttributes.fit(kinds, taken, l2=1e9).scores(csr_matrix(np.float32([[1], [0]])))
    np.testing.assert_allclose(found, [[0.75, 0.5]] * 2, atol=1e-4)


def test_weights_that_would_not_fit_are_refused(monkeypatch):
    monkeypatch.setattr(cold_users, "MOST_CELLS", 5)
    with pytest.raises(ConfigError, match="at most 2 attributes of users for 2 items, found 3"):
        TasteByAttributes.fit(csr_matrix((4, 3), dtype=np.float32), csr_matrix((4, 2), dtype=np.float32))


@pytest.fixture
def case(tmp_path):
    ratings = write_ratings(tmp_path / "ratings.csv", TAKEN)
    (tmp_path / "users.csv").write_text(USERS)
    (tmp_path / "who.csv").write_text("user_id\nnew\nold\nunknown\nann\n")
    return save_popularity(tmp_path, ratings), ratings, tmp_path / "lists"


def test_cold_users_get_what_users_with_their_attributes_take(case, tmp_path):
    asked = {"cold": "popularity", "users": tmp_path / "who.csv", "user_features": tmp_path / "users.csv"}
    score(*case, n=2, **asked)
    lists = lists_of(case[2])
    assert (lists["new"], lists["old"], set(lists["unknown"])) == ("ca", "ac", {"a", "c"})  # as popular as each other
    table = pq.read_table(case[2] / "recommendations").to_pandas()
    sources = dict(zip(table["user_id"], table["source"], strict=True))
    assert sources == {"new": "attributes", "old": "attributes", "unknown": "popularity", "ann": "model"}
    assert table[table["user_id"] == "unknown"]["score"].tolist() == [3, 3]  # users who took a and c
    score(*case[:2], tmp_path / "again", n=2, workers=2, shard_users=1, **asked)
    assert lists_of(tmp_path / "again") == lists


def test_other_attributes_are_another_job_and_none_are_the_job_of_before(case, tmp_path):
    plain = score(*case, n=2, cold="popularity", users=tmp_path / "who.csv").manifest["plan_hash"]
    named = {"n": 2, "cold": "popularity", "users": tmp_path / "who.csv", "user_features": tmp_path / "users.csv"}
    first = score(*case[:2], tmp_path / "a", **named).manifest["plan_hash"]
    (tmp_path / "users.csv").write_text(USERS.replace("cat,x", "cat,y"))
    second = score(*case[:2], tmp_path / "b", **named).manifest["plan_hash"]
    assert len({plain, first, second}) == 3
    assert bytes_of(case[2]) != bytes_of(tmp_path / "a")


def test_user_features_are_for_cold_users_of_lists_by_popularity(case, tmp_path):
    with pytest.raises(
        ConfigError, match="Expected --cold popularity together with --user-features, found --cold skip"
    ):
        score(*case, n=2, user_features=tmp_path / "users.csv")


def test_a_table_of_users_is_read_by_the_names_of_their_ids(case, tmp_path):
    pd.read_csv(tmp_path / "users.csv").rename(columns={"user_id": "userId"})[["kind", "userId"]].to_csv(
        tmp_path / "users.csv", index=False
    )
    asked = {"cold": "popularity", "users": tmp_path / "who.csv", "user_features": tmp_path / "users.csv"}
    score(*case, n=2, **asked)
    assert lists_of(case[2])["new"] == "ca"
