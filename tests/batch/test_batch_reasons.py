"""Reasons in lists: columns of items of the history and their shares, the same bytes however the job is run."""

import numpy as np
import pandas as pd
import pytest
from batch_case import ITEMS, TAKEN, USERS, contents, job, lists, save_small, write
from scipy.sparse import csr_matrix
from scoring_case import bytes_of, save_vae, score

from recsys.artifacts import save_model
from recsys.batch.memory import working_bytes
from recsys.batch.plan import ScoringPlan
from recsys.errors import ConfigError, UnsupportedError
from recsys.models.contributions import WORKING_BYTES

REASONS = ["reason_1", "share_1", "reason_2", "share_2"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_small(tmp_path_factory.mktemp("reasons") / "model")


def test_reasons_are_what_contributes_most_to_each_listed_item(saved, tmp_path):
    write(tmp_path / "lists", saved, *job(saved, reasons=2))
    table = lists(tmp_path / "lists")
    assert list(table.columns) == ["user_id", "item_id", "rank", "score", *REASONS]
    for line in table.itertuples():
        history = TAKEN[USERS.index(line.user_id)]
        found = saved.model.contributions(history, ITEMS.index(line.item_id))
        values, names = found.values[:, 0], [ITEMS[item] for item in found.history]
        best = [place for place in np.argsort(-values, kind="stable")[:2] if values[place] > 0]
        given = [(line.reason_1, line.share_1), (line.reason_2, line.share_2)]
        assert [name for name, _ in given if not pd.isna(name)] == [names[place] for place in best]
        shares = [share for _, share in given if not np.isnan(share)]
        np.testing.assert_allclose(shares, values[best] / values[values > 0].sum(), rtol=1e-5)


def test_a_place_without_a_further_reason_is_null_in_both_columns(tmp_path):
    one_item = save_small(tmp_path / "model", taken=TAKEN)
    taken = csr_matrix(np.float32([[1, 0, 0, 0, 0, 0]] * 2))
    plan, targets = job(one_item, reasons=2)
    targets = type(targets)(targets.ids[:2], taken)
    write(tmp_path / "lists", one_item, type(plan)(one_item.digest, "x", 2, n=3, reasons=2), targets)
    table = lists(tmp_path / "lists")
    assert len(table) == 6 and set(table["reason_1"].dropna()) == {"a"}
    assert table["reason_2"].isna().all() and table["share_2"].isna().all()
    assert (table["share_1"].dropna() == 1).all()
    assert (table["reason_1"].isna() == table["share_1"].isna()).all()


def test_csv_holds_the_same_reasons(saved, tmp_path):
    for format in ("parquet", "csv"):
        write(tmp_path / format, saved, *job(saved, reasons=2, format=format))
    files = sorted((tmp_path / "csv" / "recommendations").iterdir())
    text = pd.concat([pd.read_csv(file, dtype={"reason_1": "str", "reason_2": "str"}) for file in files])
    expected = lists(tmp_path / "parquet")
    assert text["reason_1"].fillna("").tolist() == expected["reason_1"].fillna("").tolist()
    np.testing.assert_allclose(text["share_2"], expected["share_2"], rtol=1e-5)


def test_lists_without_reasons_are_what_they_were(saved, tmp_path):
    plan, targets = job(saved)
    assert ScoringPlan("m", "h", 7).hash == "7d426a5b6544155aedafc3d3abe217583c87b696d89a71f2f253c6db50748b88"
    write(tmp_path / "lists", saved, plan, targets)
    assert list(lists(tmp_path / "lists").columns) == ["user_id", "item_id", "rank", "score"]


def test_a_resumed_job_writes_the_same_bytes(saved, tmp_path):
    plan, targets = job(saved, reasons=2)
    write(tmp_path / "whole", saved, plan, targets)
    write(tmp_path / "killed", saved, plan, targets, limit=2)
    write(tmp_path / "killed", saved, plan, targets, resume=True)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_workers_and_batches_change_no_byte(tmp_path):
    model, ratings = save_vae(tmp_path, users=300, items=400)
    whole = score(model, ratings, tmp_path / "one", reasons=3, workers=1)
    score(model, ratings, tmp_path / "four", reasons=3, workers=4, batch_size=512)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "four")
    assert whole.manifest["rules"]["reasons_by"] == "integrated gradients"
    table = lists(tmp_path / "one")
    assert table["share_1"].dropna().between(0, 1).all() and table["reason_1"].notna().mean() > 0.5


def test_users_who_get_popular_items_have_no_reasons(saved, tmp_path):
    model = save_model(tmp_path / "model", saved)
    (tmp_path / "ratings.csv").write_text("user_id,item_id\nann,a\nann,b\nben,unknown\n")
    score(model, tmp_path / "ratings.csv", tmp_path / "lists", n=2, reasons=1, cold="popularity")
    table = lists(tmp_path / "lists")
    assert table.loc[table["source"] == "popularity", "reason_1"].isna().tolist() == [True, True]
    assert set(table.loc[table["source"] == "model", "reason_1"].dropna()) <= {"a", "b"}


def test_reasons_that_cannot_be_given_are_refused(saved, tmp_path):
    for settings, reason in (
        ({"reasons": -1}, "reasons from 0 to 100, found -1"),
        ({"reasons": 101}, "found 101"),
        ({"reasons": 1, "lists_for": "items"}, "lists of similar items"),
        ({"reasons": 1, "precision": "bf16"}, "precision fp32 with reasons"),
    ):
        with pytest.raises(ConfigError, match=reason):
            ScoringPlan("m", "h", 7, **settings)
    model = tmp_path / "popularity"
    save_small(model, "popularity")
    with pytest.raises(UnsupportedError, match="popularity scores all alike"):
        score(model, tmp_path / "is not even read.csv", tmp_path / "lists", reasons=1)


def test_memory_of_reasons_is_counted_for_each_thread():
    plan, plain = (ScoringPlan("m", "h", 7, reasons=reasons) for reasons in (3, 0))
    assert working_bytes(plan, 1000, 2) - working_bytes(plan, 1000, 1) == WORKING_BYTES + plan.tile * 1000 * 12
    assert working_bytes(plain, 1000, 1) < working_bytes(plan, 1000, 1)
