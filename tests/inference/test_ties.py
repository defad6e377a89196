"""Equal scores in the order of hashed ids: against a slow and obvious reference, and fair to every item."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from recsys.inference import ties
from recsys.inference.ties import TieBreak
from recsys.inference.topn import recommend, top_n

INF = float("inf")


def obvious(scores, n, tie_break):
    """Sort by score, then by place in the user's own order; leave out -inf; take n."""
    users, items = scores.shape
    lists = np.full((users, min(n, items)), -1)
    for user in range(users):
        prime, factor, offset = tie_break.prime, int(tie_break.factors[user]), int(tie_break.offsets[user])
        place = {item: factor * (number - offset) % prime for number, item in enumerate(tie_break.order)}
        left = [item for item in range(items) if scores[user, item] > -INF]
        best = sorted(left, key=lambda item: (-scores[user, item], place[item]))[:n]
        lists[user, : len(best)] = best
    return lists


@settings(deadline=None, max_examples=200)
@given(
    st.integers(1, 5),
    st.integers(1, 60),
    st.integers(1, 70),
    st.lists(st.sampled_from([-INF, -1, -0.0, 0, 0.5, INF]), min_size=1, max_size=4),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.integers(0, 100),
)
def test_lists_are_those_of_the_obvious_reference(users, items, n, levels, kind, seed):
    scores = np.random.default_rng(seed).choice(np.float32(levels), (users, items))
    tie_break = TieBreak.from_ids(range(items), range(users), seed)
    positions, values = top_n(torch.from_numpy(scores).to(kind), n, tie_break=tie_break)
    assert positions.tolist() == obvious(scores, n, tie_break).tolist()
    assert values.tolist() == top_n(scores, n)[1].tolist()


def test_rows_are_looked_at_in_parts_with_the_same_result(monkeypatch):
    scores, tie_break = np.zeros((7, 30), dtype=np.float32), TieBreak.from_ids(range(30), range(7))
    whole = top_n(scores, 5, tie_break=tie_break)[0]
    monkeypatch.setattr(ties, "_CELLS", 60)
    assert top_n(scores, 5, tie_break=tie_break)[0].tolist() == whole.tolist()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.99])
def test_wide_rows_of_mostly_equal_scores_give_the_same(share):
    rng = np.random.default_rng(0)
    scores = np.where(rng.random((6, 3000)) < share, rng.integers(1, 5, (6, 3000)), 0).astype(np.float32)
    scores[5] = -INF
    scores[4, 3:] = -INF
    tie_break = TieBreak.from_ids(range(3000), range(6))
    assert top_n(scores, 20, tie_break=tie_break)[0].tolist() == obvious(scores, 20, tie_break).tolist()


def test_scores_without_ties_are_not_touched():
    scores = np.random.default_rng(0).random((4, 50), dtype=np.float32)
    assert (
        top_n(scores, 9, tie_break=TieBreak.from_ids(range(50), range(4)))[0].tolist() == top_n(scores, 9)[0].tolist()
    )


def test_the_order_follows_ids_not_positions():
    ids = [f"item {number}" for number in range(40)]
    shuffled = np.random.default_rng(0).permutation(40)
    users = ["anna", "boris"]
    first = TieBreak.from_ids(ids, users)
    other = TieBreak.from_ids([ids[position] for position in shuffled], users[::-1])
    scores = np.zeros((2, 40), dtype=np.float32)
    lists, again = top_n(scores, 5, tie_break=first)[0], top_n(scores, 5, tie_break=other)[0]
    named = [[ids[position] for position in row] for row in lists]
    assert named == [[ids[shuffled[position]] for position in row] for row in again[::-1]]


def test_every_item_is_as_likely_at_every_rank():
    tie_break = TieBreak.from_ids(range(20), range(4000))
    lists, _ = top_n(np.zeros((4000, 20), dtype=np.float32), 3, tie_break=tie_break)
    expected, deviation = 4000 / 20, np.sqrt(4000 * (1 / 20) * (19 / 20))
    for rank in range(3):
        assert np.abs(np.bincount(lists[:, rank], minlength=20) - expected).max() < 4 * deviation


def test_the_items_at_all_places_are_all_items_each_once():
    for count in (1, 2, 10, 24):
        tie_break = TieBreak.from_ids(range(count), range(3))
        for user in range(3):
            rows = np.full(tie_break.prime, user)
            items = tie_break.items(rows, np.arange(tie_break.prime))
            assert sorted(items[items >= 0]) == list(range(count))
            there = np.flatnonzero(items >= 0)
            assert tie_break.places(rows[there], items[there]).tolist() == there.tolist()


def test_another_seed_gives_another_order():
    orders = [TieBreak.from_ids(range(40), range(2), seed).order.tolist() for seed in (0, 0, 1, 123_456)]
    assert orders[0] == orders[1]
    assert orders[1] != orders[2] != orders[3]


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_lists_do_not_depend_on_the_batch(batch_size):
    history = csr_matrix((5, 30), dtype=np.float32)
    tie_break = TieBreak.from_ids(range(30), range(5))
    constant = lambda rows: torch.zeros(rows.shape)  # noqa: E731
    lists = [batch.positions for batch in recommend(constant, history, 4, batch_size, tie_break=tie_break)]
    (whole,) = recommend(constant, history, 4, tie_break=tie_break)
    assert np.concatenate(lists).tolist() == whole.positions.tolist()
