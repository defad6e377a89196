"""The later interactions held out: leave-one-out and temporal."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from splits import COLLECTOR, draw, from_drawing, full, pairs_of, same, table

from recsys.data.interactions import Interactions, Vocabulary
from recsys.errors import DataError
from recsys.splitting.by_time import leave_one_out, temporal


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


def test_rows_of_one_time_stay_on_the_later_side_of_the_cut():
    # The last 3 of 30 rows are test, the 3 before them validation; a tie of two rows lies across each cut.
    people = table([(user, item) for item in "abc" for user in range(10)], [*range(23), 23, 23, 25, 26, 26, 28, 29])
    split = temporal(people, share=0.1)
    sizes = [split.facts[f"{part}_interactions"] for part in ("train", "validation", "test")]
    assert sizes == [23, 3, 4]  # 23, 23, 25 | 26, 26, 28, 29
    assert "rows_at_divided_times" not in split.facts


def test_a_day_that_would_empty_or_swell_a_part_is_divided_at_random():
    # 300 rows: 240 on the first days, 60 on the last. Whole days would give test 60 rows instead of 30, validation 0.
    times = np.repeat([0, 1, 2], [120, 120, 60])
    users, items = np.tile(np.arange(30), 10), np.repeat(np.arange(10), 30)
    people = table(list(zip(users.tolist(), items.tolist(), strict=True)), times)
    split = temporal(people, share=0.1)
    facts = Counter(split.facts)
    held_out = [
        facts[f"{part}_interactions"] + facts[f"{part}_interactions_left_out"] for part in ("validation", "test")
    ]
    assert (facts["train_interactions"], held_out) == (240, [30, 30])
    assert facts["rows_at_divided_times"] == 60
    assert same(temporal(people, share=0.1), split)
    assert not same(temporal(people, share=0.1, seed=1), split)


def test_what_was_seen_on_a_divided_day_is_divided_too():
    pairs = [(0, 5), *((user, item) for item in range(10) for user in range(40) if item != 5)]
    people = table(pairs, np.repeat([0, 1, 2], [161, 128, 72]))
    low = np.arange(1, 40, dtype=np.int32), np.full(39, 5, dtype=np.int32)  # all others rate 5 low on the last day
    others = Interactions(people.users, Vocabulary.of(range(10)), *low, timestamp=np.full(39, 2))
    split = temporal(replace(people, seen_only=others), share=0.1)
    assert split.facts["rows_at_divided_times"] == 72
    assert 0 < split.test.seen.nnz - split.test.history.nnz < len(split.test)  # before the first row of the test


def test_temporal_needs_times():
    with pytest.raises(DataError, match="needs timestamps, found none"):
        temporal(full(10, 2))


@pytest.mark.parametrize("times", [[3] * 6, [3] * 5 + [4], [1], [1, 2]])
def test_temporal_needs_three_different_times(times):
    people = table([(1, place) for place in range(len(times))], times)
    with pytest.raises(DataError, match="at least three different times for two cuts"):
        temporal(people, share=0.4)


def test_a_part_without_users_is_an_error():
    people = table([(user, user) for user in range(30)], range(30))  # nobody has a past
    with pytest.raises(DataError, match="Expected validation users with a history"):
        temporal(people)
