"""Per-user metrics of a score function, intervals and differences one can trust."""

from functools import cache
from math import log2

import numpy as np
import pyarrow as pa
import pytest
import torch
from paths import SHARED
from scipy.sparse import csr_matrix

from recsys import splitting
from recsys.data.matrix import sparse_rows
from recsys.data.reading import read_interactions
from recsys.errors import ConfigError, DataError
from recsys.evaluation.evaluate import Validator, evaluate, evaluate_ratings
from recsys.models import create_model
from recsys.splitting.holdout import Holdout

PUBLISHED = SHARED / "ml-1m" / "random-80-10-10"


def a_holdout(history, held_out, unknown=None, train_rows=None):
    users = len(history)
    return Holdout(
        csr_matrix(np.float32(history)),
        csr_matrix(np.float32(held_out)),
        pa.array([f"user {row}" for row in range(users)]),
        np.zeros(users, dtype=np.int64) if unknown is None else np.array(unknown),
        np.full(users, -1) if train_rows is None else np.array(train_rows),
    )


def always(*scores):
    """A score function with the same scores for everybody."""
    return lambda history: torch.tensor(scores, dtype=torch.float32).repeat(history.shape[0], 1)


# Metrics of lists


def test_popularity_scores_what_the_arithmetic_says():
    train = csr_matrix(np.float32([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]]))  # 4, 3, 2, 1 users
    popularity = create_model("popularity").fit(train)
    # The lists are b c d, a c d and a b d: found on ranks 1, 2 (with a missed, rank 1) and not at all.
    holdout = a_holdout(
        [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], [[0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]], [0, 0, 1]
    )
    found = evaluate(popularity.score, holdout, ("ndcg@2", "recall@2", "mrr@2", "hit_rate@1"))
    assert found.values["ndcg@2"] == pytest.approx([1, (1 / log2(3)) / (1 / log2(2) + 1 / log2(3)), 0])
    assert found.values["recall@2"].tolist() == [1 / 1, 1 / 2, 0 / 1]
    assert found.values["mrr@2"].tolist() == [1 / 1, 1 / 2, 0]
    assert found.values["hit_rate@1"].tolist() == [1, 0, 0]
    assert found.means()["recall@2"] == (1 + 1 / 2 + 0) / 3
    assert found.n_users == 3


def test_held_out_items_outside_the_vocabulary_count_as_relevant():
    holdout = a_holdout([[1, 0, 0]], [[0, 1, 0]], unknown=[3])
    assert evaluate(always(0, 2, 1), holdout, ("recall@2",)).values["recall@2"].tolist() == [1 / (1 + 3)]


def test_a_seen_item_takes_no_place_in_the_list():
    assert evaluate(always(9, -2, -1), a_holdout([[1, 0, 0]], [[0, 0, 1]]), ("ndcg@1",)).means() == {"ndcg@1": 1}


def test_users_with_nothing_held_out_are_left_out_of_the_mean():
    found = evaluate(always(0, 2, 1), a_holdout([[1, 0, 0], [1, 0, 0]], [[0, 1, 0], [0, 0, 0]]), ("recall@1",))
    assert np.isnan(found.values["recall@1"]).tolist() == [False, True]
    assert found.means() == {"recall@1": 1}
    assert found.intervals()["recall@1"].n_users == 1


def test_a_cut_off_beyond_the_catalog_is_as_good_as_the_whole_list():
    found = evaluate(always(0, 2, 1), a_holdout([[1, 0, 0]], [[0, 0, 1]]), ("recall@100", "precision@100", "mrr@100"))
    assert found.means() == {"recall@100": 1, "precision@100": 1 / 100, "mrr@100": 1 / 2}


def test_coverage_is_the_share_of_the_catalog_in_some_list():
    holdout = a_holdout([[1, 0, 0, 0], [0, 1, 0, 0]], [[0, 1, 0, 0], [1, 0, 0, 0]])
    score = always(4, 3, 2, 1)
    assert evaluate(score, holdout, ("recall@1",)).coverage == 2 / 4  # lists: b, a
    assert evaluate(score, holdout, ("recall@1", "ndcg@2")).coverage == 3 / 4  # lists: b c, a c


def test_values_do_not_depend_on_the_batch():
    rng = np.random.default_rng(0)
    taken = rng.integers(0, 3, (31, 20))
    holdout = a_holdout(taken == 1, taken == 2)
    weights = torch.from_numpy(rng.integers(0, 4, (20, 20)).astype(np.float32))
    tables = [
        evaluate(lambda history: torch.from_numpy(history.toarray()) @ weights, holdout, ("ndcg@5",), size).values[
            "ndcg@5"
        ]
        for size in (1, 7, 31, 512)
    ]
    assert all(np.array_equal(table, tables[0], equal_nan=True) for table in tables)


def test_with_users_the_score_function_receives_their_training_rows():
    received = []

    def score(history, users=None):
        received.append(users if users is None else users.tolist())
        return torch.zeros(history.shape)

    holdout = a_holdout([[1, 0]] * 3, [[0, 1]] * 3, train_rows=[5, 3, 8])
    evaluate(score, holdout, ("recall@1",), batch_size=2, with_users=True)
    evaluate(score, holdout, ("recall@1",))
    assert received == [[5, 3], [8], None]


def test_an_unknown_metric_is_refused_before_anything_is_scored():
    with pytest.raises(ConfigError, match="found 'precison@10'"):
        evaluate(lambda history: pytest.fail("scored"), a_holdout([[1, 0]], [[0, 1]]), ("recall@1", "precison@10"))


def test_the_validator_gives_the_mean_of_its_metric():
    holdout = a_holdout([[1, 0, 0], [0, 0, 1]], [[0, 1, 0], [0, 1, 0]])
    assert Validator(holdout, "recall@1")(always(3, 1, 2)) == (0 + 0) / 2
    assert Validator(holdout, "recall@1")(always(3, 4, 2)) == (1 + 1) / 2
    assert Validator(holdout, "recall@2")(always(3, 1, 2)) == (1 + 1) / 2


def test_only_gives_what_measuring_these_metrics_alone_gives():
    holdout = a_holdout([[1, 0, 0, 0], [0, 0, 1, 0]], [[0, 1, 0, 0], [0, 1, 0, 0]])
    score = always(3, 1, 2, 0)
    both, alone = (evaluate(score, holdout, labels) for labels in (("recall@1", "recall@3"), ("recall@1",)))
    some = both.only(["recall@1"])
    assert (some.intervals(), some.coverage) == (alone.intervals(), alone.coverage)
    assert both.coverage > some.coverage


# Predicted ratings


def rated(history, held_out, unpredicted=()):
    """A holdout of ratings from {(user, item): rating} on four items."""

    def cells(ratings):
        row, column = (np.array([pair[side] for pair in ratings]) for side in (0, 1))
        return sparse_rows(row, column, np.array(list(ratings.values())), (2, 4))

    return Holdout(
        cells(history),
        cells(held_out),
        pa.array(["a", "b"]),
        np.zeros(2, dtype=np.int64),
        np.array([-1, -1]),
        unpredicted=np.array(unpredicted, dtype=np.float32),
    )


ONE_EACH = {(0, 0): 5.0, (1, 0): 0.0}


def test_rmse_and_mae_are_over_cells_not_over_users():
    holdout = rated(ONE_EACH, {(0, 1): 3.0, (0, 2): 1.0, (1, 1): 6.0})
    found = evaluate_ratings(always(0, 2, 3, 9), holdout)
    assert found.predicted.tolist() == [2, 3, 2]
    assert found.means() == {"rmse": np.sqrt((1**2 + 2**2 + 4**2) / 3), "mae": (1 + 2 + 4) / 3}
    assert found.values["mae"].tolist() == [(1 + 2) / 2, 4]
    assert (found.cells, found.n_users, found.coverage) == (3, 2, 1)


def test_a_held_out_rating_of_zero_is_a_rating():
    found = evaluate_ratings(always(9, 2, 1, 9), rated(ONE_EACH, {(0, 1): 0.0, (1, 2): 1.0}))
    assert found.cells == 2
    assert found.means()["rmse"] == np.sqrt((2**2 + 0**2) / 2)


def test_cells_without_a_prediction_are_counted_and_can_be_given_a_value():
    holdout = rated(ONE_EACH, {(0, 1): 3.0, (1, 1): 3.0}, unpredicted=[1.0, 5.0])
    found = evaluate_ratings(always(9, 2, 9, 9), holdout)
    assert found.coverage == 2 / 4
    assert found.means()["rmse"] == 1
    assert found.rmse_of_all(4.0) == np.sqrt((1 + 1 + 3**2 + 1**2) / 4)


def test_predictions_do_not_depend_on_the_batch():
    holdout = rated(ONE_EACH, {(0, 1): 3.0, (0, 2): 1.0, (1, 3): 6.0})
    alone, batched = (evaluate_ratings(always(0, 2, 3, 9), holdout, batch_size=size).predicted for size in (1, 9))
    assert alone.tolist() == batched.tolist()


def test_a_prediction_of_nan_is_refused():
    with pytest.raises(DataError, match="finite predictions"):
        evaluate_ratings(always(0, float("nan"), 0, 0), rated(ONE_EACH, {(0, 1): 3.0, (1, 1): 3.0}))


def test_a_holdout_without_cells_is_refused():
    with pytest.raises(DataError, match="Expected held-out ratings of items and users in the training data"):
        evaluate_ratings(always(0, 0, 0, 0), rated(ONE_EACH, {}))


def test_a_metric_of_lists_is_refused_for_ratings():
    with pytest.raises(ConfigError, match="of rmse, mae; found 'ndcg@10'"):
        evaluate_ratings(
            lambda history: pytest.fail("scored"), rated(ONE_EACH, {(0, 1): 3.0, (1, 1): 3.0}), ["ndcg@10"]
        )


def test_the_validator_of_an_error_is_higher_where_the_error_is_lower():
    holdout = rated(ONE_EACH, {(0, 1): 3.0, (1, 1): 3.0})
    assert Validator(holdout, "rmse")(always(0, 2, 0, 0)) == -1
    assert Validator(holdout, "rmse")(always(0, 5, 0, 0)) == -2


# Known scores on public data


@cache
def published_split():
    if not PUBLISHED.is_dir():
        pytest.skip("needs ../shared/data/ml-1m/random-80-10-10, which is not here")
    train, validation, test = (read_interactions(PUBLISHED / f"{name}.csv") for name in ("train", "validation", "test"))
    return splitting.given(train, test, validation)


@pytest.mark.parametrize(
    ("model", "settings", "ndcg_10", "ndcg_100", "tolerance"),
    [
        ("popularity", {}, 0.1435, 0.1999, 0.0005),
        ("ease", {"l2": 1000}, 0.3407, 0.4317, 0.002),
    ],
)
def test_known_models_reach_their_known_scores(model, settings, ndcg_10, ndcg_100, tolerance):
    split = published_split()
    fitted = create_model(model, settings).fit(split.train.matrix)
    means = evaluate(fitted.score, split.test, ("ndcg@10", "ndcg@100")).means()
    assert means == pytest.approx({"ndcg@10": ndcg_10, "ndcg@100": ndcg_100}, abs=tolerance)
