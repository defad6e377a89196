"""Protocol cold-items: items without an interaction in training, and metrics over cold and warm items alone."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix

import recsys
from recsys.data.interactions import Vocabulary
from recsys.data.item_features.features import ItemFeatures, with_features
from recsys.data.reading import read_interactions
from recsys.errors import ConfigError, DataError
from recsys.evaluation.evaluate import COLD_METRICS, evaluate
from recsys.splitting import Holdout, cold_items, split, train_on_validation, weak


def everybody_has_everything(users=12, items=20):
    """Item i first appears at time i."""
    user, item = np.divmod(np.arange(users * items), items)
    return read_interactions(pd.DataFrame({"user_id": user, "item_id": item, "timestamp": item + 10**9}))


def ids(part, columns):
    return set(np.array(part.items.to_list())[np.flatnonzero(columns)])


def test_cold_items_are_in_no_training_row_and_every_item_is_a_column():
    found = cold_items(everybody_has_everything(), share=0.2, seed=1)
    cold = found.test.scopes["cold"]
    assert cold.sum() == 4
    assert found.validation.scopes["cold"].sum() == 2
    assert len(found.train.items) == 20
    assert (found.train.item_counts[cold] == 0).all()
    assert (found.train.item_counts == 0).sum() == 6
    assert (found.test.scopes["warm"] == (found.train.item_counts > 0)).all()
    assert (found.facts["cold_items"], found.facts["cold_items_in_validation"]) == (4, 2)


def test_beside_cold_items_every_user_has_warm_ones_held_out():
    found = cold_items(everybody_has_everything(), share=0.2, warm=0.15)
    warm = found.test.held_out[:, np.flatnonzero(found.test.scopes["warm"])]
    cold = found.test.held_out[:, np.flatnonzero(found.test.scopes["cold"])]
    assert np.diff(warm.tocsr().indptr).tolist() == [2] * 12  # .15 of 14 warm items
    assert np.diff(cold.tocsr().indptr).tolist() == [4] * 12
    assert np.diff(found.test.history.indptr).tolist() == [20 - 2 - 4] * 12


def test_the_newest_items_by_their_first_interaction():
    found = cold_items(everybody_has_everything(), share=0.2, newest=True)
    assert ids(found.test, found.test.scopes["cold"]) == {16, 17, 18, 19}
    assert ids(found.validation, found.validation.scopes["cold"]) == {14, 15}


def test_without_times_there_are_no_newest_items():
    rows = everybody_has_everything()
    untimed = read_interactions(pd.DataFrame({"user_id": rows.user, "item_id": rows.item}))
    with pytest.raises(DataError, match="newest"):
        cold_items(untimed, newest=True)


def test_the_seed_decides():
    rows = everybody_has_everything()
    first, same, other = (cold_items(rows, seed=seed).test for seed in (0, 0, 1))
    assert (first.held_out != same.held_out).nnz == 0
    assert (first.scopes["cold"] != other.scopes["cold"]).any()


def test_without_a_test_part_the_share_is_of_the_validation():
    found = cold_items(everybody_has_everything(), share=0.2, test=False)
    assert found.test is None
    assert found.validation.scopes["cold"].sum() == 4


def test_validation_items_are_trained_on_once_all_is_chosen():
    before = cold_items(everybody_has_everything(), share=0.2)
    after = train_on_validation(before)
    assert ids(after.test, after.test.scopes["cold"]) == ids(before.test, before.test.scopes["cold"])
    assert (after.train.item_counts == 0).sum() == 4
    assert after.test.scopes["warm"].sum() == 16


@pytest.mark.parametrize("options", [{"share": 0}, {"share": 0.5}, {"warm": 0.6}])
def test_shares_out_of_range_are_refused(options):
    with pytest.raises(ConfigError):
        split(everybody_has_everything(), "cold-items", **options)


def test_too_few_items_are_refused():
    with pytest.raises(DataError, match="found 3"):
        cold_items(everybody_has_everything(items=3), share=0.2)


def test_items_that_only_the_features_know_are_columns_too():
    known = Vocabulary.of([3, 100, 99])
    features = ItemFeatures(known, csr_matrix(np.float32([[1, 2], [3, 4], [5, 6]])))
    for made in (cold_items, weak):
        train = made(with_features(everybody_has_everything(), features)).train
        assert train.items.to_list()[-2:] == [99, 100]
        assert train.matrix.shape[1] == len(train.items) == 22
        assert train.features[-2:].toarray().tolist() == [[5, 6], [3, 4]]
        assert train.features[train.items.positions([3])[0]].toarray().tolist() == [[1, 2]]
        assert train.features.nnz == 6  # the others have none


# Metrics


def two_parts():
    """Item scores 4 3 2 1; the user must find the second (warm) and the fourth (cold); items 3 and 4 are cold."""
    history, held_out = csr_matrix((1, 4), dtype=np.float32), csr_matrix(np.float32([[0, 1, 0, 1]]))
    scopes = {"cold": np.array([False, False, True, True]), "warm": np.array([True, True, False, False])}
    ids = Vocabulary.of(["u"]).ids
    return Holdout(history, held_out, ids, np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64), scopes=scopes)


def test_a_part_of_the_catalog_is_ranked_alone():
    score = lambda history: torch.tensor([[4.0, 3.0, 2.0, 1.0]])  # noqa: E731
    found = evaluate(score, two_parts(), ("recall@2", "cold_recall@1", "cold_recall@2", "warm_mrr@2", "mrr@2"))
    assert found.means() == {
        "recall@2": 1 / 2,  # of both
        "cold_recall@1": 0,
        "cold_recall@2": 1,
        "warm_mrr@2": 1 / 2,
        "mrr@2": 1 / 2,
    }
    assert found.positions.tolist() == [[0, 1]]  # the lists of all items


def test_items_without_a_column_are_cold_ones_that_no_model_can_find():
    score = lambda history: torch.tensor([[4.0, 3.0, 2.0, 1.0]])  # noqa: E731
    found = evaluate(score, replace(two_parts(), unknown=np.array([3])), ("recall@4", "cold_recall@2", "warm_recall@2"))
    assert found.means() == {"recall@4": 2 / 5, "cold_recall@2": 1 / 4, "warm_recall@2": 1}


def test_metrics_of_a_part_need_a_protocol_that_has_it():
    model = recsys.create_model("popularity")
    found = weak(everybody_has_everything())
    with pytest.raises(ConfigError, match="cold-items"):
        evaluate(model.fit(found.train.matrix), found.test, ("cold_ndcg@10",))


def test_popularity_knows_nothing_of_cold_items_and_its_metric_over_warm_ones_is_that_without_cold_columns():
    found = cold_items(everybody_has_everything(), share=0.2)
    model = recsys.create_model("popularity").fit(found.train.matrix)
    means = evaluate(model, found.test, COLD_METRICS).means()
    warm = np.flatnonzero(found.test.scopes["warm"])
    alone = Holdout(
        found.test.history[:, warm],
        found.test.held_out[:, warm],
        found.test.users,
        found.test.unknown,
        found.test.train_rows,
        items=Vocabulary.of(found.train.items.take(warm)),
    )
    narrow = recsys.create_model("popularity").fit(found.train.matrix[:, warm])
    assert means["warm_ndcg@100"] == evaluate(narrow, alone, ("ndcg@100",)).means()["ndcg@100"]
    assert means["cold_recall@100"] == 1  # four items in a list of a hundred
    assert list(means) == list(COLD_METRICS)
