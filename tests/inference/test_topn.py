"""The best n items: against a slow and obvious reference, with ties, masks and short lists."""

from collections import deque

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from recsys.errors import ConfigError, DataError
from recsys.inference import selection, topn
from recsys.inference.topn import GroupCap, recommend, top_n, top_n_of_blocks

INF = float("inf")


def obvious_top_n(scores, n, seen=None, allowed=None):
    """Sort by score, then position; drop what is seen, not allowed or -inf; take n, at most all items."""
    users, items = scores.shape
    n = min(n, items)
    positions, values = np.full((users, n), -1), np.full((users, n), -INF)
    for user in range(users):
        hidden = set() if seen is None else set(seen[user].indices.tolist())
        left = [i for i in range(items) if i not in hidden and (allowed is None or allowed[i])]
        left = [i for i in left if scores[user, i] > -INF]
        for rank, item in enumerate(sorted(left, key=lambda i: (-scores[user, i], i))[:n]):
            positions[user, rank], values[user, rank] = item, scores[user, item]
    return positions, values


@st.composite
def tables(draw):
    """Scores of few levels, so that most are ties, wide enough for the margin beyond n; masks of every kind."""
    users, items = draw(st.integers(1, 4)), draw(st.integers(1, 60))
    levels = draw(st.lists(st.sampled_from([-INF, -2, -1, -0.0, 0, 0.5, 1, 3, INF]), min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scores = rng.choice(np.float32(levels), (users, items))
    cells = rng.random((users, items)) < draw(st.sampled_from([0, 0.2, 1]))
    seen = csr_matrix((rng.integers(0, 2, cells.sum()), cells.nonzero()), shape=(users, items))  # zeros stay stored
    allowed = rng.random(items) < draw(st.sampled_from([0, 0.5, 1]))
    return scores, draw(st.none() | st.just(seen)), draw(st.none() | st.just(allowed))


@settings(deadline=None, max_examples=300)
@given(tables(), st.integers(1, 70), st.sampled_from(["array", "float32", "bfloat16"]))
def test_lists_are_those_of_the_obvious_reference(table, n, kind):
    scores, seen, allowed = table
    given_as = scores if kind == "array" else torch.from_numpy(scores).to(getattr(torch, kind))
    positions, values = top_n(given_as, n, seen, allowed)
    wanted, their_scores = obvious_top_n(scores, n, seen, allowed)
    assert positions.tolist() == wanted.tolist()
    assert values.tolist() == their_scores.tolist()
    assert (positions.dtype, values.dtype) == (np.int32, np.float32)


@pytest.mark.parametrize("ties", [False, True], ids=["no_ties", "ties"])
@pytest.mark.parametrize("middle", [0, 1, 2], ids=["above_zero", "both_signs", "below_zero"])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("items", [39, 40, 79, 80, 81, 499, 4999])
def test_wide_rows_are_searched_group_by_group_and_nothing_is_lost(items, kind, middle, ties):
    rng = np.random.default_rng(items)
    scores = rng.integers(0, items // 3, (4, items)) if ties else rng.random((4, items)) * items
    table = torch.from_numpy(scores - middle * items / 2).to(kind)
    positions, values = top_n(table, 20)
    wanted, their_scores = obvious_top_n(table.float().numpy(), 20)
    assert positions.tolist() == wanted.tolist()
    assert values.tolist() == their_scores.tolist()


def test_seen_items_never_return_even_when_all_other_scores_are_negative():
    best, scores = top_n(np.float32([[9, -2, -1]]), n=3, seen=csr_matrix([[1, 0, 0]]))
    assert best.tolist() == [[2, 1, -1]]
    assert scores.tolist() == [[-1, -2, -INF]]


def test_a_stored_zero_is_seen_too():
    rated_zero = csr_matrix((np.float32([0]), [0], [0, 1]), shape=(1, 2))
    assert top_n(np.float32([[9, 1]]), 2, rated_zero)[0].tolist() == [[1, -1]]


def test_equal_scores_come_in_order_of_position():
    assert top_n(np.float32([[1, 2, 2, 1, 2]]), 4)[0].tolist() == [[1, 2, 4, 0]]


def test_a_thousand_equal_scores_come_in_order_of_position():
    assert top_n(np.zeros((2, 1000), dtype=np.float32), 5)[0].tolist() == [[0, 1, 2, 3, 4]] * 2


def test_a_list_is_never_longer_than_the_catalog():
    best, scores = top_n(np.float32([[1, 2]]), 300_000_000)
    assert best.tolist() == [[1, 0]]
    assert scores.tolist() == [[2, 1]]
    blocks = [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]])]
    assert top_n_of_blocks(blocks, 300_000_000)[0].tolist() == [[2, 1, 0]]
    cap = GroupCap(np.int32([0, 0, 1]), 1)
    blocks = [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]])]
    assert top_n_of_blocks(blocks, 300_000_000, cap=cap)[0].tolist() == [[2, 1, -1]]


def test_a_user_who_has_seen_everything_gets_an_empty_list():
    assert top_n(np.float32([[1, 2], [1, 2]]), 1, csr_matrix([[1, 1], [0, 0]]))[0].tolist() == [[-1], [1]]


def test_an_empty_catalog_gives_empty_lists():
    assert top_n(np.zeros((2, 0), dtype=np.float32), 2)[0].shape == (2, 0)


def test_no_users_give_no_lists():
    assert top_n(np.zeros((0, 5), dtype=np.float32), 2)[0].shape == (0, 2)


def test_only_allowed_items_are_listed():
    assert top_n(np.float32([[3, 2, 1]]), 3, allowed=np.array([False, True, True]))[0].tolist() == [[1, 2, -1]]


@pytest.mark.parametrize("place", [0, 3, 499])
@pytest.mark.parametrize("nan", [np.float32("nan"), -np.float32("nan")])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_nan_is_an_error_wherever_it_stands_and_infinity_is_none(place, nan, kind):
    scores = np.arange(1000, dtype=np.float32).reshape(2, 500)
    scores[:, place] = np.inf, -np.inf
    assert top_n(torch.from_numpy(scores).to(kind), 1)[0][0] == [place]
    scores[1, place] = nan
    with pytest.raises(DataError, match="found NaN"):
        top_n(torch.from_numpy(scores).to(kind), 1)


@settings(deadline=None)
@given(tables(), st.integers(1, 70))
def test_on_other_devices_topk_finds_the_same(table, n):
    scores = torch.from_numpy(table[0])
    n = min(n, scores.shape[1])
    values, positions = selection._best_by_keys(scores, n)
    theirs, there = selection._best_by_topk(scores, n)
    assert values.tolist() == theirs.tolist()
    assert torch.where(values > -INF, positions, -1).tolist() == torch.where(theirs > -INF, there, -1).tolist()


def test_nan_in_a_wide_row_is_an_error_too():
    scores = np.zeros((1, 5000), dtype=np.float32)
    scores[0, 4321] = np.nan
    with pytest.raises(DataError, match="NaN"):
        top_n(scores, 3)


def test_nan_under_the_mask_does_no_harm():
    assert top_n(np.float32([[np.nan, 1]]), 1, csr_matrix([[1, 0]]))[0].tolist() == [[1]]


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("mask", [{"seen": csr_matrix([[1, 0, 0]])}, {"allowed": np.array([True, False, True])}])
def test_the_callers_scores_stay_as_they_were(convert, mask):
    scores = np.float32([[3, 2, 1]])
    top_n(convert(scores), 2, **mask)
    assert scores.tolist() == [[3, 2, 1]]


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_overwrite_spares_the_copy(convert):
    scores = np.float32([[3, 2, 1]])
    top_n(convert(scores), 2, csr_matrix([[1, 0, 0]]), overwrite=True)
    assert scores.tolist() == [[-INF, 2, 1]]


def test_n_below_one_is_refused():
    with pytest.raises(ConfigError, match="n of at least 1, found 0"):
        top_n(np.float32([[1]]), 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"scores": np.float32([1, 2])},
        {"seen": csr_matrix((1, 3))},
        {"seen": csr_matrix((2, 2))},
        {"allowed": np.array([True])},
        {"allowed": np.array([0, 1])},  # positions, not a mask
    ],
)
def test_shapes_that_do_not_fit_are_refused(wrong):
    with pytest.raises(DataError, match="Expected"):
        top_n(**{"scores": np.float32([[1, 2]]), "n": 1} | wrong)


HISTORY = csr_matrix(np.random.default_rng(0).random((23, 40)) < 0.2, dtype=np.float32)
WEIGHTS = torch.from_numpy(np.random.default_rng(1).integers(-2, 3, (40, 40)).astype(np.float32))


def whole_numbers(history, users=None):
    """Scores of histories that are exact and often equal; the users' numbers decide too where they are given."""
    extra = 0 if users is None else torch.from_numpy(users % 3)[:, None] * torch.arange(40)
    return torch.from_numpy(history.toarray()) @ WEIGHTS + extra


def joined(batches):
    batches = list(batches)
    assert [batch.start for batch in batches] == np.cumsum([0] + [len(b.positions) for b in batches[:-1]]).tolist()
    return np.concatenate([b.positions for b in batches]), np.concatenate([b.scores for b in batches])


@pytest.mark.parametrize("batch_size", [1, 2, 5, 22, 23, 24, 1000])
@pytest.mark.parametrize("users", [None, np.arange(23)[::-1].copy()])
def test_lists_are_the_same_whatever_the_batch(batch_size, users):
    known = {} if users is None else {"users": users}
    wanted = top_n(whole_numbers(HISTORY, **known), 7, HISTORY)
    found = joined(recommend(whole_numbers, HISTORY, 7, batch_size, **known))
    assert [table.tolist() for table in found] == [table.tolist() for table in wanted]


def test_seen_items_come_back_when_asked_for():
    score = lambda history: torch.tensor([[3.0, 2.0, 1.0]])  # noqa: E731
    history = csr_matrix([[1, 0, 0]])
    assert joined(recommend(score, history, 2))[0].tolist() == [[1, 2]]
    assert joined(recommend(score, history, 2, filter_seen=False))[0].tolist() == [[0, 1]]
    only_last = np.array([False, False, True])
    assert joined(recommend(score, history, 2, allowed=only_last))[0].tolist() == [[2, -1]]


def test_lengths_count_the_items_of_each_list():
    history = csr_matrix([[1, 1, 0], [0, 0, 0]])
    (batch,) = recommend(lambda history: torch.zeros(2, 3), history, 3)
    assert batch.lengths.tolist() == [1, 3]


def test_the_next_batch_is_scored_only_when_it_is_wanted():
    scored = []
    lists = recommend(lambda history: scored.append(history.shape) or torch.zeros(history.shape), HISTORY, 1, 10)
    assert scored == []
    next(lists)
    assert scored == [(10, 40)]
    assert len(list(lists)) == 2
    assert scored == [(10, 40), (10, 40), (3, 40)]


def test_a_wide_catalog_is_scored_for_fewer_users_at_once(monkeypatch):
    monkeypatch.setattr(topn, "MAX_SCORES", 3 * 40)
    sizes = []
    deque(recommend(lambda history: sizes.append(history.shape[0]) or torch.zeros(history.shape), HISTORY, 1, 10), 0)
    assert sizes == [3] * 7 + [2]


def test_gradients_are_off_while_scoring_and_as_before_between_batches():
    modes = []
    score = lambda history: modes.append(torch.is_inference_mode_enabled()) or torch.zeros(history.shape)  # noqa: E731
    for _ in recommend(score, HISTORY, 1, 10):
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()
    assert modes == [True, True, True]


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_size_below_one_is_refused(batch_size):
    with pytest.raises(ConfigError, match="batch_size of at least 1"):
        next(recommend(whole_numbers, HISTORY, 1, batch_size))


def capped(scores, n, groups, most):
    """Walk down each row; leave out what is too much of its group; stop at n."""
    lists = []
    for row in scores:
        taken: dict[int, int] = {}
        kept = []
        for item in sorted(range(len(row)), key=lambda i: (-row[i], i)):
            if row[item] > -INF and (groups[item] < 0 or taken.get(groups[item], 0) < most):
                taken[groups[item]] = taken.get(groups[item], 0) + 1
                kept.append(item)
        lists.append((kept + [-1] * n)[:n])
    return lists


@settings(deadline=None)
@given(tables(), st.integers(1, 70), st.integers(1, 25))
def test_blocks_of_items_give_the_lists_of_the_whole_row(table, n, width):
    scores, seen, allowed = table
    whole = top_n(scores, n, seen, allowed)
    blocks = (torch.as_tensor(scores[:, i : i + width].copy()) for i in range(0, scores.shape[1], width))
    positions, values = top_n_of_blocks(blocks, n, seen, allowed)
    assert positions.tolist() == whole[0][:, : positions.shape[1]].tolist()
    assert values.tolist() == whole[1][:, : positions.shape[1]].tolist()
    assert (whole[0][:, positions.shape[1] :] == -1).all()


@settings(deadline=None)
@given(tables(), st.integers(1, 12), st.integers(1, 3), st.integers(1, 25))
def test_a_cap_takes_the_next_best_item_of_another_group(table, n, most, width):
    scores, groups = table[0], np.arange(table[0].shape[1], dtype=np.int32) % 4 - 1
    blocks = (torch.as_tensor(scores[:, i : i + width].copy()) for i in range(0, scores.shape[1], width))
    positions, _ = top_n_of_blocks(blocks, n, cap=GroupCap(groups, most))
    expected = [row[: positions.shape[1]] for row in capped(scores, n, groups, most)]
    assert positions.tolist() == expected


def test_a_score_of_infinity_is_refused_as_a_score_that_is_no_number_is():
    history = csr_matrix(np.float32([[1, 0, 0]]))
    for scores in ([[0, np.inf, 1]], [[0, np.nan, 1]]):
        table = torch.tensor(scores)
        with pytest.raises(DataError, match="Expected finite scores"):
            list(recommend(lambda history, table=table, **_: table.clone(), history, 2))
