"""Ranking metrics: by hand, and against an independent package."""

from math import log2

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from recsys.errors import ConfigError
from recsys.evaluation.metrics import METRICS, capped_recall, find_hits, parse_metric

# Ranks 1 and 3 of the list are hits; the user has 5 held-out items.
HITS, FIVE = np.array([[True, False, True, False]]), np.array([5])


@pytest.mark.parametrize(
    ("name", "k", "expected"),
    [
        ("recall", 1, 1 / 5),
        ("recall", 4, 2 / 5),
        ("capped_recall", 1, 1 / min(1, 5)),
        ("capped_recall", 3, 2 / min(3, 5)),
        ("precision", 1, 1 / 1),
        ("precision", 4, 2 / 4),
        ("hit_rate", 1, 1),
        ("hit_rate", 4, 1),
        ("mrr", 4, 1 / 1),
        ("map", 1, (1 / 1) / 5),
        ("map", 4, (1 / 1 + 2 / 3) / 5),
        ("ndcg", 1, (1 / log2(2)) / (1 / log2(2))),
        ("ndcg", 3, (1 / log2(2) + 1 / log2(4)) / (1 / log2(2) + 1 / log2(3) + 1 / log2(4))),
    ],
)
def test_metric_by_hand(name, k, expected):
    assert METRICS[name](HITS, FIVE, k) == pytest.approx([expected])


@pytest.mark.parametrize(
    ("name", "expected"),
    [("hit_rate", [0, 1]), ("mrr", [0, 1 / 3]), ("map", [0, (1 / 3) / 2]), ("ndcg", [0, (1 / 2) / (1 + 1 / log2(3))])],
)
def test_the_first_hit_on_rank_three_counts_from_cut_off_three(name, expected):
    hits, relevant = np.array([[False, False, True]]), np.array([2])
    assert [METRICS[name](hits, relevant, k)[0] for k in (2, 3)] == pytest.approx(expected)


def test_ideal_ndcg_has_no_more_hits_than_were_held_out():
    assert METRICS["ndcg"](np.array([[True, False]]), np.array([1]), 2).tolist() == [1]


@pytest.mark.parametrize("name", METRICS)
def test_users_with_nothing_held_out_have_no_value(name):
    hits, relevant = np.array([[False, False], [True, False]]), np.array([0, 1])
    assert np.isnan(METRICS[name](hits, relevant, 2)).tolist() == [True, False]


@pytest.mark.parametrize("name", METRICS)
def test_a_list_shorter_than_k_has_misses_at_its_end(name):
    short, padded = np.array([[False, True]]), np.array([[False, True, False, False, False]])
    assert METRICS[name](short, np.array([2]), 5) == METRICS[name](padded, np.array([2]), 5)


@pytest.mark.parametrize("name", METRICS)
def test_an_empty_list_scores_zero(name):
    assert METRICS[name](np.zeros((1, 0), dtype=bool), np.array([2]), 5).tolist() == [0]


@pytest.mark.parametrize("name", METRICS)
def test_a_perfect_list_scores_one_and_a_worthless_one_zero(name):
    hits = np.array([[True, True], [False, False]])
    assert METRICS[name](hits, np.array([2, 2]), 2).tolist() == [1, 0]


IR_NAMES = {"ndcg": "nDCG", "recall": "R", "precision": "P", "map": "AP", "mrr": "RR", "hit_rate": "Success"}


@pytest.mark.filterwarnings("ignore:.*removed in Python 3.14:DeprecationWarning")  # of ir_measures
@pytest.mark.parametrize("seed", [0, 1])
def test_metrics_are_those_of_ir_measures(seed):
    rng = np.random.default_rng(seed)
    users, items, n = 50, 30, 20
    positions = np.argsort(rng.random((users, items)), axis=1)[:, :n].astype(np.int32)
    cells = rng.random((users, items)) < rng.uniform(0.05, 0.6, (users, 1))
    cells[:, 0] = True  # ir_measures knows no user without a held-out item
    held_out = csr_matrix(cells)
    relevant = np.diff(held_out.indptr)
    hits = find_hits(positions, held_out)
    run = {str(u): {str(i): float(n - rank) for rank, i in enumerate(positions[u])} for u in range(users)}
    judged = {str(u): {str(i): 1 for i in held_out[u].indices} for u in range(users)}
    theirs = {
        ir_measures.parse_measure(f"{theirs}@{k}"): (ours, k) for ours, theirs in IR_NAMES.items() for k in (1, 5, n)
    }
    expected = {wanted: np.full(users, np.nan) for wanted in theirs.values()}
    for value in ir_measures.iter_calc(list(theirs), judged, run):
        expected[theirs[value.measure]][int(value.query_id)] = value.value
    for (name, k), values in expected.items():
        assert METRICS[name](hits, relevant, k) == pytest.approx(values, abs=1e-7), (name, k)


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(0, 9), st.integers(1, 15))
def test_capped_recall_is_one_when_the_list_holds_all_it_could(hits, missed, k):
    relevant = sum(hits) + missed
    found = capped_recall(np.array([hits]), np.array([relevant]), k)[0]
    if relevant:
        assert found == sum(hits[:k]) / min(k, relevant)
    else:
        assert np.isnan(found)


def test_hits_are_the_held_out_items_of_the_same_user():
    held_out = csr_matrix([[1, 0, 1], [0, 0, 0], [0, 1, 0]])
    positions = np.array([[2, 1], [0, 2], [0, 1]], dtype=np.int32)
    assert find_hits(positions, held_out).tolist() == [[True, False], [False, False], [False, True]]


def test_an_empty_place_is_no_hit_even_when_the_previous_user_has_the_last_item():
    assert find_hits(np.int32([[0], [-1]]), csr_matrix([[0, 0, 1], [1, 0, 0]])).tolist() == [[False], [False]]


def test_a_held_out_item_with_a_stored_zero_is_a_hit():
    rated_zero = csr_matrix((np.float32([0]), [1], [0, 1]), shape=(1, 2))
    assert find_hits(np.int32([[1, 0]]), rated_zero).tolist() == [[True, False]]


def test_unsorted_held_out_items_are_found():
    backwards = csr_matrix((np.float32([1, 1]), [2, 0], [0, 2]), shape=(1, 3))
    assert find_hits(np.int32([[0, 1, 2]]), backwards).tolist() == [[True, False, True]]


def test_nothing_held_out_gives_no_hits():
    assert find_hits(np.int32([[0, 1]]), csr_matrix((1, 2))).tolist() == [[False, False]]


def test_a_label_is_a_name_and_a_cut_off():
    assert parse_metric("ndcg@100") == ("ndcg", 100)


@pytest.mark.parametrize("label", ["ndcg", "ndcg@", "ndcg@0", "ndcg@-1", "ndcg@1.5", "ndcg@²", "NDCG@10", "@10", ""])
def test_other_labels_are_refused(label):
    with pytest.raises(ConfigError, match="Expected a metric such as ndcg@100"):
        parse_metric(label)


def test_a_cutoff_beyond_the_catalog_costs_nothing_and_one_beyond_all_numbers_is_refused():
    hits, relevant = np.array([[True, False, True]]), np.array([2])
    for metric in METRICS.values():
        assert metric(hits, relevant, 999_999_999).shape == (1,)
    assert METRICS["ndcg"](hits, relevant, 999_999_999) == METRICS["ndcg"](hits, relevant, 3)
    with pytest.raises(ConfigError, match="ndcg@100"):
        parse_metric("ndcg@" + "9" * 20)
