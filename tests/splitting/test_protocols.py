"""Who may see what: every protocol as a drawing, and what holds for any interactions.

In a drawing a row is a user (1, 2, ...), a column an item (a, b, ...). x training, v validation, o test,
h a history outside training, . nothing.
"""

from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from recsys import splitting
from recsys.data.interactions import Interactions, Vocabulary
from recsys.data.matrix import UserItemMatrix
from recsys.errors import ConfigError, DataError
from recsys.splitting import PROTOCOLS
from recsys.splitting.by_row import leave_one_out, temporal, weak
from recsys.splitting.by_user import hide, holdout, strong
from recsys.splitting.holdout import Holdout, Split, everybody


def table(pairs, times=None):
    """Interactions of (user, item) pairs in the order given."""
    users, items = (list(dict.fromkeys(side)) for side in zip(*pairs, strict=True))
    user = np.array([users.index(user) for user, _ in pairs], dtype=np.int32)
    item = np.array([items.index(item) for _, item in pairs], dtype=np.int32)
    when = None if times is None else np.array(times, dtype=np.int64)
    return Interactions(Vocabulary.of(users), Vocabulary.of(items), user, item, timestamp=when)


def full(users, items):
    """Interactions of everybody with everything."""
    return table([(user, item) for user in range(users) for item in range(items)])


def from_drawing(drawing, marks="xvo"):
    """Interactions of the cells that bear one of the marks."""
    rows = [(str(number), row.split()) for number, row in enumerate(drawing, start=1)]
    return table([(user, "abcdefgh"[place]) for user, row in rows for place, mark in enumerate(row) if mark in marks])


# Trains on whatever anybody has: its last two items, g and h, are nobody else's.
COLLECTOR = [("9", item) for item in "abcdefgh"]


def from_files(drawing, marks):
    """The given protocol with one file a mark."""
    return splitting.given(*(from_drawing(drawing, mark) for mark in marks))


def pairs_of(interactions):
    users, items = interactions.users.to_list(), interactions.items.to_list()
    return [(users[user], items[item]) for user, item in zip(interactions.user, interactions.item, strict=True)]


def cells(matrix, users, items):
    """The stored cells of a matrix as (user, item) ids."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return {(users[row], items[item]) for row, item in zip(rows, matrix.indices, strict=True)}


def train_cells(split):
    return cells(split.train.matrix, split.train.users.to_list(), split.train.items.to_list())


def history(part, items):
    return cells(part.history, part.users.to_pylist(), items.to_list())


def held_out(part, items):
    return cells(part.held_out, part.users.to_pylist(), items.to_list())


def marks(split):
    """The mark of every (user, item) pair that has one; no pair may have two."""
    places, seen = {"x": train_cells(split)}, set()
    for mark, part in (("v", split.validation), ("o", split.test)):
        if part is not None:
            places[mark] = held_out(part, split.train.items)
            seen |= history(part, split.train.items)
    places["h"] = seen - places["x"] - places.get("v", set())
    found = {pair: mark for mark, pairs in places.items() for pair in pairs}
    assert len(found) == sum(map(len, places.values())), "a pair stands in two places"
    return found


def draw(split, interactions):
    found, items = marks(split), sorted(interactions.items.to_list())
    return [" ".join(found.get((user, item), ".") for item in items) for user in sorted(interactions.users.to_list())]


# Drawings: the given protocol


def test_given_follows_the_files():
    drawing = ["x x v x o", ". x o v x", ". . x . x"]
    split = from_files(drawing, "xov")
    assert draw(split, from_drawing(drawing)) == drawing
    assert (split.validation.train_rows.tolist(), split.test.train_rows.tolist()) == ([0, 1], [0, 1])


def test_at_test_the_history_is_training_and_validation_together():
    drawing = ["x x v x o", ". x o v x", ". . x . x"]
    split = from_files(drawing, "xov")
    assert history(split.validation, split.train.items) == set(pairs_of(from_drawing(drawing[:2], "x")))
    assert history(split.test, split.train.items) == set(pairs_of(from_drawing(drawing[:2], "xv")))


def test_given_without_a_validation_file_has_no_validation():
    split = from_files(["x x o", "x o x"], "xo")
    assert split.validation is None
    assert draw(split, from_drawing(["x x o", "x o x"])) == ["x x o", "x o x"]


def test_a_held_out_item_outside_training_is_absent_and_counts_as_not_to_be_found():
    split = from_files(["x o o o", "x x . ."], "xo")
    assert split.train.items.to_list() == ["a", "b"]
    assert held_out(split.test, split.train.items) == {("1", "b")}
    assert (split.test.unknown.tolist(), split.test.relevant.tolist()) == ([2], [3])
    assert split.facts["test_interactions_on_untrained_items"] == 2


def test_a_test_user_without_history_is_left_out_and_counted():
    split = from_files(["x x o", "o o .", "x . x"], "xo")
    assert split.test.users.to_pylist() == ["1"]
    assert split.test.left_out == split.facts["test_users_left_out"] == 1
    assert split.facts["test_interactions_left_out"] == 2


def test_a_user_of_validation_and_test_alone_has_a_history_but_no_training_row():
    split = from_files(["x x x", "v o .", "x v o"], "xov")
    assert (split.test.users.to_pylist(), split.test.train_rows.tolist()) == (["3", "2"], [1, -1])
    assert history(split.test, split.train.items) == {("2", "a"), ("3", "a"), ("3", "b")}
    assert split.validation.users.to_pylist() == ["3"]


def test_a_pair_in_two_files_is_refused():
    train, test = table([(1, "a"), (1, "b"), (2, "b")]), table([(1, "b"), (2, "b")])
    with pytest.raises(DataError, match="found 2 in more than one"):
        splitting.given(train, test)


def test_where_text_meets_integers_the_spelling_decides():
    train, test = table([(1, 7), (1, 8), (2, 7)]), table([("2", "8"), ("02", "7")])
    split = splitting.given(train, test)
    assert held_out(split.test, split.train.items) == {("2", "8")}
    assert split.test.left_out == 1  # "02" is nobody the training knows
    with pytest.raises(DataError, match="found 1 in more than one"):
        splitting.given(train, table([("1", "7")]))


def test_integers_of_different_width_stay_integers():
    train, test = table([(1, 7), (1, 8), (2, 7)]), table([(2, 8)])
    narrow = Vocabulary(test.users.ids.cast(pa.int32())), Vocabulary(test.items.ids.cast(pa.int16()))
    split = splitting.given(train, Interactions(*narrow, test.user, test.item))
    assert held_out(split.test, split.train.items) == {(2, 8)}


# Drawings: strong


def test_strong_trains_on_other_people():
    people = full(10, 5)
    drawing = draw(strong(people, share=0.2, history=0.8), people)
    assert Counter(Counter(row.replace(" ", "")).most_common(1)[0] for row in drawing) == {("x", 5): 6, ("h", 4): 4}
    assert sum("v" in row for row in drawing) == sum("o" in row for row in drawing) == 2


def test_users_held_out_have_no_training_row():
    split = strong(full(10, 3))
    assert split.validation.train_rows.tolist() == split.test.train_rows.tolist() == [-1]
    assert not {*split.validation.users.to_pylist(), *split.test.users.to_pylist()} & {*split.train.users.to_list()}


@pytest.mark.parametrize(
    ("items", "seen", "hidden"),
    [(2, 0.8, 1), (5, 0.8, 1), (9, 0.8, 1), (10, 0.8, 2), (3, 0.5, 1), (5, 0.01, 4), (5, 1e-12, 4), (5, 0.99, 1)],
)
def test_strong_hides_a_share_but_at_least_one_item_and_never_all(items, seen, hidden):
    test = strong(full(10, items), history=seen).test
    assert (test.history.nnz, test.relevant.tolist()) == (items - hidden, [hidden])


@pytest.mark.parametrize(("users", "share", "count"), [(10, 0.1, 1), (19, 0.1, 1), (3, 0.4, 1), (100, 0.29, 29)])
def test_strong_holds_out_the_share_of_users_twice(users, share, count):
    split = strong(full(users, 2), share=share)
    assert (len(split.validation), len(split.test)) == (count, count)
    assert len(split.train.users) == users - 2 * count


def test_strong_holds_out_at_most_so_many_users():
    split = strong(full(20, 2), share=0.4, at_most=3)
    assert (len(split.train.users), len(split.validation), len(split.test)) == (14, 3, 3)


def test_a_user_with_one_item_cannot_be_tested_and_is_counted():
    people = table([(user, item) for user in range(20) for item in ("ab" if user % 2 else "a")])
    split = strong(people, share=0.4, seed=0)
    assert len(split.test) + split.test.left_out == 8
    assert split.facts["test_users_left_out"] == split.facts["test_interactions_left_out"] == split.test.left_out > 0


def test_an_item_of_held_out_users_alone_is_taken_out_first_and_counted():
    people = table([(user, item) for user in range(10) for item in ("a", "b", f"own {user}")])
    split = strong(people)
    assert len(split.train.items) == 2 + 8
    assert (split.test.history.nnz, split.test.held_out.nnz, split.test.unknown.tolist()) == (1, 1, [0])
    assert split.facts["held_out_interactions_on_untrained_items"] == 2


def test_too_few_users_to_hold_any_out_is_a_clear_error():
    with pytest.raises(DataError, match="Expected at least 10 users to hold 10% of them out, found 9"):
        strong(full(9, 3))


def test_test_users_with_one_item_each_leave_nobody_to_test():
    with pytest.raises(DataError, match="test users with a history and a held-out item"):
        strong(full(10, 1))


# Drawings: weak, leave-one-out, temporal


def test_weak_divides_the_items_of_each_user():
    drawing = ["x x x x x", ". x x x .", "x . . . x", ". x . . ."]
    people = table(pairs_of(from_drawing(drawing)) + [(f"9{n}", item) for n in range(9) for item in "abcde"])
    drawn = draw(weak(people), people)[: len(drawing)]
    assert [row.replace("v", "x").replace("o", "x") for row in drawn] == drawing
    assert [(row.count("v"), row.count("o")) for row in drawn] == [(1, 1), (1, 1), (0, 1), (0, 0)]


@pytest.mark.parametrize(("items", "share", "count"), [(20, 0.1, 2), (19, 0.1, 1), (5, 0.49, 2), (100, 0.29, 29)])
def test_weak_holds_out_the_share_of_each_users_items_twice(items, share, count):
    split = weak(full(3, items), share=share)
    assert split.validation.relevant.tolist() == split.test.relevant.tolist() == [count] * 3


def test_leave_one_out_takes_the_last_item_by_time():
    drawing, times = ["x x x v o", "x v o . .", "x o . . .", "x . . . ."], [0, 1, 2, 3, 4, 0, 1, 2, 0, 1, 0]
    in_order, times = pairs_of(from_drawing(drawing)) + COLLECTOR, [*times, *range(8)]
    shuffled = np.random.default_rng(0).permutation(len(times))
    people = table([in_order[row] for row in shuffled], [times[row] for row in shuffled])
    assert [row[:9] for row in draw(leave_one_out(people), people)] == [*drawing, "x x x x x"]


def test_leave_one_out_orders_equal_times_at_random():
    pairs = [(f"{user}", item) for user in range(10, 60) for item in "abcd"]
    people = table(pairs + COLLECTOR, [1, 2, 3, 3] * 50 + [*range(8)])
    assert {row.index("o") // 2 for row in draw(leave_one_out(people), people)[:-1]} == {2, 3}


def test_the_seed_decides_among_equal_times():
    people = table([(user, item) for user in range(20) for item in "abcd"], [5] * 80)
    assert same(leave_one_out(people, seed=1), leave_one_out(people, seed=1))
    assert not same(leave_one_out(people, seed=1), leave_one_out(people, seed=2))


def test_leave_one_out_without_times_goes_by_the_place_in_the_file():
    people = table([(user, item) for user in "12" for item in "abcd"] + COLLECTOR)
    assert [row[:7] for row in draw(leave_one_out(people), people)[:2]] == ["x x v o"] * 2
    read = replace(people, row=np.int32([7, 0, 1, 2, 3, 4, 6, 5, *range(8, 16)]))  # sorted by user and item since
    assert [row[:7] for row in draw(leave_one_out(read), people)[:2]] == ["o x x v", "x x o v"]


# Ten rows at the times 1 to 10; a cut before 7 and before 9 holds out a fifth and a fifth.
IN_TIME = {
    ("1", "a"): 1, ("1", "b"): 2, ("1", "c"): 7, ("1", "d"): 9,
    ("2", "c"): 3, ("2", "d"): 4, ("2", "a"): 8,
    ("3", "a"): 5, ("3", "b"): 6,
    ("4", "b"): 10,
}  # fmt: skip


def test_temporal_cuts_time_for_everybody_at_once():
    people = table(list(IN_TIME), list(IN_TIME.values()))
    split = temporal(people, share=0.2)
    assert draw(split, people) == ["x x v o", "v . x x", "x x . .", ". . . ."]
    assert (split.test.left_out, split.facts["test_interactions_left_out"]) == (1, 1)  # user 4 has no past


def test_rows_of_one_instant_stay_on_the_later_side_of_the_cut():
    people = table([(user, item) for item in "ab" for user in range(10)], [1] * 10 + [5] * 10)
    split = temporal(people, share=0.1)  # the last 2 and the 2 before them would cut through the ten of time 5
    assert split.validation is None
    assert (split.facts["train_interactions"], split.test.unknown.tolist()) == (10, [1] * 10)


def test_temporal_needs_times():
    with pytest.raises(DataError, match="needs timestamps, found none"):
        temporal(full(10, 2))


@pytest.mark.parametrize("times", [[3] * 6, [3] * 5 + [4], [1]])
def test_temporal_needs_rows_before_the_cuts(times):
    people = table([(1, place) for place in range(len(times))], times)
    with pytest.raises(DataError, match="before and after two cuts in time"):
        temporal(people, share=0.4)


# For training alone


@pytest.mark.parametrize("protocol", [strong, weak])
def test_without_a_test_part_its_rows_are_training_and_the_validation_users_the_same(protocol):
    people = full(20, 10)
    both, alone = protocol(people), protocol(people, test=False)
    assert alone.test is None
    assert alone.validation.users.equals(both.validation.users)
    assert train_cells(alone) == train_cells(both) | {
        pair
        for pair in pairs_of(people)
        if marks(both)[pair] == "o" or (protocol is strong and pair[0] in people_of(both.test))
    }


def people_of(part):
    return part.users.to_pylist()


def test_everybody_trains_on_all_rows():
    drawing = ["x . x", ". x ."]
    split = everybody(from_drawing(drawing, "x"))
    assert draw(split, from_drawing(drawing)) == drawing
    assert split.validation is split.test is None
    assert (split.facts["train_interactions"], split.facts["test_users"]) == (3, 0)


# For a model that is already there


def test_holdout_uses_the_models_items_and_training_rows():
    histories, wanted = table([(1, "a"), (1, "z"), (2, "b"), (3, "z")]), table([(1, "b"), (2, "y"), (3, "a"), (4, "a")])
    items, trained = Vocabulary.of(["b", "a"]), Vocabulary.of([9, 2])
    part = holdout(histories, wanted, items, trained)
    assert part.users.to_pylist() == [1, 2]
    assert (history(part, items), held_out(part, items)) == ({(1, "a"), (2, "b")}, {(1, "b")})
    assert (part.unknown.tolist(), part.train_rows.tolist()) == ([0, 1], [-1, 1])
    assert part.left_out == 2  # 3 has no history on the model's items, 4 none at all


def test_holdout_of_strangers_alone_is_an_error():
    with pytest.raises(DataError, match="test users with a history"):
        holdout(table([(1, "a")]), table([(2, "a")]), Vocabulary.of(["a"]))


def test_hide_holds_out_a_share_of_the_items_of_everybody():
    people = table([(user, item) for user in range(3) for item in range(10)] + [(3, 0), (3, 99)])
    items = Vocabulary.of(range(10))
    part = hide(people, items, share=0.3)
    assert part.users.to_pylist() == [0, 1, 2]
    assert part.left_out == 1  # 3 has one item that the model knows
    assert (part.relevant.tolist(), np.diff(part.history.indptr).tolist()) == ([3] * 3, [7] * 3)
    assert not history(part, items) & held_out(part, items)
    assert part.train_rows.tolist() == [-1] * 3


# Leaks


def a_holdout(history, held_out, train_rows=(-1,)):
    one = np.zeros(1, dtype=np.int64)
    return Holdout(csr_matrix(history), csr_matrix(held_out), pa.array(["u"]), one, np.array(train_rows))


def a_split(train, test):
    matrix = csr_matrix(train)
    users, items = (Vocabulary.of(range(size)) for size in matrix.shape)
    return Split("given", UserItemMatrix(matrix, users, items), None, test)


def test_a_history_that_shows_what_is_held_out_is_refused():
    with pytest.raises(DataError, match="found 1 pairs in both"):
        a_holdout([[1, 1, 0]], [[0, 1, 1]])


def test_a_leak_of_a_stored_zero_is_refused():
    zero = csr_matrix((np.float32([0]), [1], [0, 1]), shape=(1, 3))
    with pytest.raises(DataError, match="found 1 pairs in both"):
        a_holdout(zero, zero)


def test_a_held_out_item_in_the_training_row_of_its_user_is_refused():
    part = a_holdout([[1, 0, 0]], [[0, 0, 1]], train_rows=[1])
    with pytest.raises(DataError, match="outside the training rows of their user"):
        a_split([[0, 0, 0], [1, 0, 1]], part)


def test_the_same_item_in_another_users_training_row_is_no_leak():
    part = a_holdout([[1, 0, 0]], [[0, 0, 1]], train_rows=[0])
    assert a_split([[1, 0, 0], [1, 0, 1]], part).test is part
    stranger = a_holdout([[1, 0, 0]], [[0, 0, 1]])
    assert a_split([[1, 0, 0], [1, 0, 1]], stranger).test is stranger


def test_parts_that_do_not_fit_together_are_refused():
    with pytest.raises(DataError, match="Expected equal shapes"):
        a_holdout([[1, 0]], [[0, 1, 0]])
    with pytest.raises(DataError, match="training row for 1 users"):
        a_holdout([[1, 0]], [[0, 1]], train_rows=[0, 1])


# Settings


@pytest.mark.parametrize("protocol", [strong, weak, temporal])
@pytest.mark.parametrize("share", [0, 0.5, -0.1, 1, float("nan")])
def test_a_share_outside_its_range_is_refused(protocol, share):
    with pytest.raises(ConfigError, match="share above 0 and below"):
        protocol(full(10, 2), share=share)


@pytest.mark.parametrize("wrong", [{"history": 0}, {"history": 1}, {"at_most": 0}])
def test_other_settings_outside_their_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"Expected {next(iter(wrong))}"):
        strong(full(10, 2), **wrong)


@pytest.mark.parametrize("protocol", [weak, leave_one_out, partial(weak, test=False)])
def test_nothing_to_hold_out_is_an_error(protocol):
    with pytest.raises(DataError, match="enough items to hold one out"):
        protocol(full(5, 1))


def same(left, right):
    return marks(left) == marks(right) and left.facts == right.facts


@pytest.mark.parametrize("protocol", [strong, weak])
def test_the_seed_decides_the_split(protocol):
    people = full(20, 10)
    assert same(protocol(people, seed=1), protocol(people, seed=1))
    assert not same(protocol(people, seed=1), protocol(people, seed=2))


def test_the_seed_decides_what_is_hidden():
    people, items = full(20, 10), Vocabulary.of(range(10))
    once, again, other = (held_out(hide(people, items, seed=seed), items) for seed in (1, 1, 2))
    assert once == again != other


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
    for other in {"leave-one-out": ["share"], "temporal": ["seed"]}.get(name, []):
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
    assert {item for _, item in trained} == set(split.train.items.to_list())
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
    split, when = split_any("temporal", people, share, None), times_of(people)
    latest = max(when[pair] for pair in train_cells(split))
    for part in (split.validation, split.test):
        if part is not None:
            found = [when[pair] for pair in held_out(part, split.train.items)]
            assert all(time > latest for time in found)
            latest = max([latest, *found])
            for user in people_of(part):
                past = [when[pair] for pair in history(part, split.train.items) if pair[0] == user]
                assert all(max(past) < when[pair] for pair in held_out(part, split.train.items) if pair[0] == user)


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


# k-fold of users


def test_in_folds_every_user_is_tested_once_and_validates_once():
    people = full(9, 5)
    folds = dict(splitting.k_fold(people, folds=3))
    assert list(folds) == ["fold 1 of 3", "fold 2 of 3", "fold 3 of 3"]
    for part in ("test", "validation"):
        users = [user for split in folds.values() for user in getattr(split, part).users.to_pylist()]
        assert sorted(users) == list(range(9))


def test_in_a_fold_nobody_who_is_tested_has_a_part_in_training():
    for _, split in splitting.k_fold(full(9, 5), folds=3):
        trained = set(split.train.users.to_list())
        assert not trained & {*split.test.users.to_pylist(), *split.validation.users.to_pylist()}
        assert len(trained) == 3


def test_folds_need_somebody_left_to_train_on():
    for folds in (2, 10):
        with pytest.raises(ConfigError, match="3 folds or more"):
            next(splitting.k_fold(full(9, 5), folds=folds))


# random cells, and ratings


def rated(interactions):
    """The same with the ratings 0, 1, 2, ... in the order of the rows."""
    return replace(interactions, rating=np.arange(len(interactions), dtype=np.float32))


def test_cells_hold_out_a_share_of_all_rows_and_then_of_the_others():
    split = splitting.cells(full(10, 10), share=0.2, validation=0.1)
    assert split.facts["test_interactions"] == 100 * 0.2
    assert split.facts["validation_interactions"] == (100 - 20) * 0.1
    assert split.facts["train_interactions"] == 100 - 20 - 8


def test_a_rating_of_zero_is_a_cell_of_its_part():
    split = splitting.cells(replace(full(10, 10), rating=np.zeros(100, dtype=np.float32)), share=0.2, ratings=True)
    assert (split.train.matrix.nnz, split.validation.held_out.nnz, split.test.held_out.nnz) == (72, 8, 20)
    assert split.test.history.nnz > 0


@pytest.mark.parametrize("name", ["strong", "weak", "cells"])
def test_every_cell_of_a_split_holds_the_rating_of_its_row(name):
    people = rated(full(10, 5))
    split = PROTOCOLS[name](people, ratings=True)
    ratings = dict(zip(pairs_of(people), people.rating.tolist(), strict=True))
    trained, tested = split.train.users.to_list(), split.test.users.to_pylist()
    for matrix, users in ((split.train.matrix, trained), (split.test.history, tested), (split.test.held_out, tested)):
        coo = matrix.tocoo()
        items = split.train.items.to_list()
        assert coo.nnz
        for row, item, value in zip(coo.row, coo.col, coo.data, strict=True):
            assert ratings[users[row], items[item]] == value


def test_without_being_asked_for_ratings_every_cell_is_a_preference():
    assert set(splitting.cells(rated(full(10, 5))).train.matrix.data.tolist()) == {1}


def test_ratings_of_a_table_without_any_are_refused():
    with pytest.raises(DataError, match="--rating-column"):
        splitting.cells(full(10, 5), ratings=True)


def test_held_out_ratings_without_a_prediction_are_kept_aside():
    train = rated(table([("1", "a"), ("3", "a"), ("3", "c"), ("1", "b")]))
    test = rated(table([("1", "c"), ("2", "a"), ("3", "b"), ("3", "d")]))
    part = splitting.given(train, test, ratings=True).test
    assert part.users.to_pylist() == ["1", "3"]
    assert part.held_out.data.tolist() == [0, 2]
    assert part.unpredicted.tolist() == [1, 3]  # user 2 has no history, and nobody knows item d


def test_given_without_a_validation_file_takes_a_share_of_training_if_asked():
    split = splitting.given(full(10, 10), table([(10, 0), (0, 11)]), share=0.1)
    assert split.facts["validation_interactions"] == 10
    assert split.facts["train_interactions"] == 90


def test_a_refit_trains_on_validation_rows_too_and_tests_on_the_same():
    split = splitting.cells(rated(full(10, 10)), ratings=True)
    again = split.refit()
    assert again.validation is None
    assert train_cells(again) == train_cells(split) | held_out(split.validation, split.train.items)
    assert held_out(again.test, again.train.items) == held_out(split.test, split.train.items)
    assert again.refit is None
    assert again.facts["validation_rows_in_training"] == split.facts["validation_interactions"] == 9
    assert strong(full(10, 5)).refit is None


def test_in_folds_of_cells_every_cell_is_tested_once():
    people = full(9, 5)
    folds = dict(splitting.k_fold_cells(people, folds=4))
    tested = [pair for split in folds.values() for pair in held_out(split.test, split.train.items)]
    assert sorted(tested) == sorted(pairs_of(people))
    assert next(iter(folds)) == "fold 1 of 4"
    assert {split.facts["test_interactions"] for split in folds.values()} == {11, 12}  # 45 / 4
