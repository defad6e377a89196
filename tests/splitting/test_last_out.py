"""Protocol leave-last-out: the last item of every user, with places in time."""

import pandas as pd
import pytest

from recsys.data.matrix import OrderedMatrix
from recsys.data.reading import ReadingOptions, read_interactions
from recsys.errors import ConfigError, DataError
from recsys.splitting import leave_last_out, split, temporal, train_on_validation


def table():
    """u had d c b a, v had a b c, and w had b a; the items of a user in the order of the rows."""
    rows = [("u", item) for item in "dcba"] + [("v", item) for item in "abc"] + [("w", item) for item in "ba"]
    return read_interactions(pd.DataFrame(rows, columns=["user_id", "item_id"]), ReadingOptions(order="rows"))


def cells(matrix, items):
    """The items of each row with their places."""
    ids = items.to_list()
    return [{ids[at]: int(row.data[k]) for k, at in enumerate(row.indices)} for row in matrix]


def test_the_last_item_is_tested_and_the_one_before_it_validates():
    made = leave_last_out(table())
    items = made.train.items
    assert items.to_list() == ["a", "b", "c", "d"]
    assert cells(made.train.matrix, items) == [{"d": 1, "c": 2}, {"a": 1}, {"b": 1, "a": 2}]
    assert [set(row) for row in cells(made.validation.held_out, items)] == [{"b"}, {"b"}]
    assert cells(made.test.history, items) == [{"d": 1, "c": 2, "b": 3}, {"a": 1, "b": 2}]
    assert [set(row) for row in cells(made.test.held_out, items)] == [{"a"}, {"c"}]
    assert made.test.users.to_pylist() == ["u", "v"]
    assert isinstance(made.train.matrix, OrderedMatrix)
    assert isinstance(made.test.history, OrderedMatrix)


def test_lists_may_repeat_the_history_where_that_is_asked_for():
    assert leave_last_out(table()).test.seen is None  # the history is masked
    assert leave_last_out(table(), repeats=True).test.seen.nnz == 0


def test_without_a_test_part_the_last_item_validates():
    made = leave_last_out(table(), test=False)
    assert made.test is None
    assert [set(row) for row in cells(made.validation.held_out, made.train.items)] == [{"a"}, {"c"}, {"a"}]


def test_of_the_users_at_most_so_many_are_held_out_and_the_others_are_training():
    made = leave_last_out(table(), test=False, at_most=1)
    assert len(made.validation) == 1
    assert made.train.matrix.nnz == 9 - 1
    with pytest.raises(ConfigError, match="at_most of at least 1, found 0"):
        leave_last_out(table(), at_most=0)


def test_validation_rows_may_be_trained_on_at_last():
    made = train_on_validation(leave_last_out(table()))
    assert cells(made.train.matrix, made.train.items)[0] == {"d": 1, "c": 2, "b": 3}


def test_without_times_the_protocol_is_refused_unless_the_rows_are_in_order():
    rows = pd.DataFrame({"user_id": ["u"] * 3, "item_id": list("abc")})
    with pytest.raises(DataError, match="Expected times"):
        split(read_interactions(rows), "leave-last-out")
    assert split(read_interactions(rows), "leave-last-out", order="rows").protocol == "leave-last-out"


def test_the_temporal_protocol_keeps_the_order_and_the_days():
    day = 86_400
    frame = pd.DataFrame({"user_id": ["u", "v"] * 10, "item_id": [f"i{n // 4}" for n in range(20)]})
    frame["item_id"] = [f"i{n}" for n in (0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 1, 2, 2, 1, 3, 3)]
    frame = frame.drop_duplicates()
    frame["timestamp"] = [1_000_000_000 + n * day for n in range(len(frame))]
    made = temporal(read_interactions(frame, ReadingOptions(order="time", duplicates="first")), share=0.15)
    assert isinstance(made.train.matrix, OrderedMatrix)
    assert made.train.matrix.days.max() - made.train.matrix.days.min() == pytest.approx(made.train.matrix.nnz - 1)
    assert (made.test.history.data >= 1).all()
