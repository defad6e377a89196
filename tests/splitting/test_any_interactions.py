"""What holds of every protocol for any interactions."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from splits import held_out, history, marks, pairs_of, people_of, table, train_cells

from recsys.errors import DataError
from recsys.splitting import PROTOCOLS

# For any interactions


@st.composite
def some_interactions(draw):
    """Up to eight users, half of them with many items, in any order, at times with many ties."""
    names = st.integers(0, 7)
    pairs = draw(st.sets(st.tuples(names, names), min_size=1, max_size=30))
    pairs |= {(user, item) for user in range(0, 8, 2) for item in range(draw(names))}
    ordered = draw(st.permutations(sorted(pairs)))
    return table(ordered, draw(st.lists(st.integers(0, 20), min_size=len(pairs), max_size=len(pairs))))


def split_any(name, people, share, seed):
    chosen = {"share": share, "seed": seed}
    for other in {"leave-one-out": ["share"], "leave-last-out": ["share"]}.get(name, []):
        del chosen[other]
    try:
        return PROTOCOLS[name](people, **chosen)
    except DataError:
        reject()  # too little to divide


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if name != "given"])
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(people=some_interactions(), share=st.floats(0.05, 0.499), seed=st.integers(0, 9))
def test_any_split_is_sound(name, people, share, seed):
    split = split_any(name, people, share, seed)
    pairs = set(pairs_of(people))
    parts = [part for part in (split.validation, split.test) if part is not None]

    found = marks(split)  # no pair in two places
    assert found.keys() <= pairs

    trained = train_cells(split)
    columns = {item for _, item in (pairs if name == "cold-items" else trained)}  # there, cold items are columns too
    assert columns == set(split.train.items.to_list())
    assert {user for user, _ in trained} == set(split.train.users.to_list())

    for part in parts:
        assert len(part) > 0
        assert (np.diff(part.history.indptr) > 0).all()
        assert (part.relevant > 0).all()
        assert part.train_rows.tolist() == split.train.users.positions(part.users).tolist()
        for matrix in (part.history, part.held_out, split.train.matrix):
            assert (matrix.dtype, matrix.indices.dtype) == (np.float32, np.int32)
            assert matrix.has_canonical_format

    facts = Counter(split.facts)
    assert len(pairs) == (
        facts["train_interactions"]
        + facts["validation_interactions"]
        + facts["validation_interactions_left_out"]
        + facts["test_interactions"]
        + facts["test_interactions_left_out"]
        + (facts["held_out_interactions_on_untrained_items"] if name == "strong" else 0)
        + (sum(part.history.nnz for part in parts) if name == "strong" else 0)
    )
    assert facts["test_users"] == len(split.test)
    assert facts["test_users_left_out"] == split.test.left_out
    assert facts["test_interactions"] == split.test.held_out.nnz + split.test.unknown.sum()


def times_of(people):
    return dict(zip(pairs_of(people), people.timestamp.tolist(), strict=True))


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(people=some_interactions(), share=st.floats(0.05, 0.499))
def test_temporal_training_and_histories_hold_nothing_of_the_future(people, share):
    split, when = split_any("temporal", people, share, 0), times_of(people)
    latest, is_divided = max(when[pair] for pair in train_cells(split)), "rows_at_divided_times" in split.facts
    for part in (split.validation, split.test):
        if part is not None:
            found = [when[pair] for pair in held_out(part, split.train.items)]
            assert all(time > latest or (is_divided and time == latest) for time in found)
            latest = max([latest, *found])
            for user in people_of(part):
                past = [when[pair] for pair in history(part, split.train.items) if pair[0] == user]
                own = [when[pair] for pair in held_out(part, split.train.items) if pair[0] == user]
                assert all(max(past) < time or (is_divided and max(past) == time) for time in own)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(people=some_interactions(), seed=st.integers(0, 9))
def test_leave_one_out_leaves_out_the_latest_of_each_user(people, seed):
    split, when = split_any("leave-one-out", people, None, seed), times_of(people)
    assert set(split.test.relevant.tolist()) == {1}
    for pair in held_out(split.test, split.train.items):
        own = sorted(time for (user, _), time in when.items() if user == pair[0])
        assert when[pair] == own[-1]
    if split.validation is not None:
        for pair in held_out(split.validation, split.train.items):
            own = sorted(time for (user, _), time in when.items() if user == pair[0])
            assert when[pair] == own[-2]


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(people=some_interactions(), share=st.floats(0.05, 0.499), seed=st.integers(0, 9))
def test_weak_keeps_every_user_in_training_and_counts_what_it_holds_out(people, share, seed):
    split = split_any("weak", people, share, seed)
    sizes = Counter(user for user, _ in pairs_of(people))
    assert sorted(split.train.users.to_list()) == sorted(sizes)
    tested = dict(zip(people_of(split.test), split.test.relevant.tolist(), strict=True))
    for user, count in tested.items():
        assert count == max(1, int(sizes[user] * share + 1e-9))
