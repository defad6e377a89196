"""The audit as a whole: what it lists, what it sums up, and what cleaning does."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from tastes import two_tastes

from recsys.data.interactions import Interactions, Vocabulary
from recsys.data.matrix import UserItemMatrix
from recsys.errors import ConfigError, UnsupportedError
from recsys.evaluation.cleaning import measure_cleaning
from recsys.explain.audit import audit, clean, pairs_of
from recsys.models import create_model
from recsys.splitting import everybody, strong


@pytest.fixture(scope="module")
def strange():
    """200 users of two tastes; the last has half of everything, and the first two items of the other taste."""
    rows = two_tastes(users=200, items=60).to_matrix().matrix.toarray()
    rows[-1] = np.arange(60) % 2
    rows[0, [58, 59]] = 1
    users, items = Vocabulary.of(f"u{i}" for i in range(200)), Vocabulary.of(f"i{i}" for i in range(60))
    return UserItemMatrix(csr_matrix(rows.astype(np.float32)), users, items)


@pytest.fixture(scope="module")
def found(strange):
    return audit(create_model("ease", {"l2": 20}), strange)


def test_the_interactions_of_another_taste_come_first(found):
    first = found.interactions().head(40)
    assert {("u0", "i58"), ("u0", "i59")} <= set(zip(first["user_id"], first["item_id"], strict=True))
    assert (first["user_id"].isin(["u0", "u199"])).mean() > 0.6


def test_the_list_has_every_judged_interaction_once_and_false_alarms_never_become_fewer(found, strange):
    listed = found.interactions()
    assert len(listed) == len(found.judged) == strange.matrix.nnz
    assert not listed.duplicated(["user_id", "item_id"]).any()
    assert listed["rank"].tolist() == list(range(1, len(listed) + 1))
    assert listed["suspicion"].is_monotonic_decreasing
    assert listed["false_alarms"].is_monotonic_increasing
    assert found.expected_false_alarms((10, 10**9)) == {
        10: listed["false_alarms"][9],
        len(listed): listed["false_alarms"].iloc[-1],
    }


def test_users_are_summed_up_the_strangest_first(found):
    users = found.users()
    assert users["user_id"][0] == "u199"
    assert set(users.columns) == {"user_id", "interactions", "unrelated_share", "two_blocks"}
    assert users["interactions"].sum() == found.data.matrix.nnz
    assert len(found.items()) == 60


def test_the_item_that_strange_users_have_in_common_is_found():
    rng = np.random.default_rng(0)
    rows = np.zeros((230, 61))
    rows[:200, :60] = two_tastes(users=200, items=60).to_matrix().matrix.toarray()
    rows[200:, :60] = rng.random((30, 60)) < 0.4
    rows[200:, 60] = 1  # what made-up users push
    rows[:5, 60] = 1
    data = UserItemMatrix(csr_matrix(rows.astype(np.float32)), *(Vocabulary.of(np.arange(n)) for n in rows.shape))
    items = audit(create_model("ease", {"l2": 20}), data, accounts=False).items()
    assert items["item_id"][0] == 60


def test_cleaning_takes_the_worst_and_nothing_else(found, strange):
    worst = found.worst(0.01)
    assert len(worst) == round(0.01 * strange.matrix.nnz)
    cleaned = clean(strange, worst)
    assert cleaned.matrix.nnz == strange.matrix.nnz - len(worst)
    assert cleaned.matrix.shape == strange.matrix.shape
    gone = (strange.matrix - cleaned.matrix).tocoo()
    users, items = pairs_of(strange, worst)
    expected = {(f"u{user}", f"i{item}") for user, item in zip(gone.row, gone.col, strict=True)}
    assert set(zip(users.to_pylist(), items.to_pylist(), strict=True)) == expected


@pytest.mark.parametrize("share", [0, 1])
def test_nothing_and_everything_are_no_share(found, share):
    with pytest.raises(ConfigError, match="share above 0 and below 1"):
        found.worst(share)


def test_a_rating_far_from_what_is_expected_comes_first():
    rng = np.random.default_rng(0)
    taste = np.where((np.arange(80)[:, None] + np.arange(30)) % 2, 1.0, 5.0)
    taste[0, 1] = 6 - taste[0, 1]
    known = rng.random(taste.shape) < 0.95
    known[0, 1] = True
    user, item = (each.astype(np.int32) for each in np.nonzero(known))
    ids = Vocabulary.of(np.arange(80)), Vocabulary.of(np.arange(30))
    data = Interactions(*ids, user, item, taste[user, item].astype(np.float32)).to_matrix(ratings=True)
    found = audit(create_model("autorec", {"epochs": 30, "learning_rate": 0.01, "hidden": 8}), data)
    first = found.interactions().iloc[0]
    assert (first["user_id"], first["item_id"], first["rating"]) == (0, 1, taste[0, 1])
    assert abs(first["expected"] - taste[0, 1]) > 2
    assert found.contrasts is None and found.users()["two_blocks"].isna().all()


def test_a_model_of_training_users_only_audits_too():
    pytest.importorskip("implicit")
    found = audit(create_model("bpr", {"iterations": 5}), two_tastes().to_matrix(), folds=2)
    assert len(found.judged) > 0 and found.contrasts is None


def test_what_cleaning_does_is_measured_on_users_that_nothing_touched():
    split = strong(two_tastes(users=200, items=40), share=0.2, test=False)
    effect = measure_cleaning(create_model("ease", {"l2": 20}), split, 0.02, folds=3)
    assert effect.metric == "ndcg@100"
    assert effect.removed == round(0.02 * split.train.matrix.nnz)
    assert effect.after.mean - effect.before.mean == pytest.approx(effect.difference.interval.mean)
    assert (effect.difference.first, effect.difference.second) == ("cleaned", "as it is")


def test_without_held_out_data_there_is_nothing_to_measure():
    with pytest.raises(UnsupportedError, match="held-out data"):
        measure_cleaning(create_model("popularity"), everybody(two_tastes()), 0.02)
