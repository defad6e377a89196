"""Rated low means seen: rows below the minimum are no preference, and no list offers them again."""

import numpy as np
import pandas as pd
import pytest

import recsys
from recsys import splitting
from recsys.data.matrix import UserItemMatrix
from recsys.data.reading import ReadingOptions, read_interactions
from recsys.data.store import open_store, write_store
from recsys.evaluation.evaluate import evaluate

ROWS = "u1,a,5 u1,b,5 u1,c,1 u2,a,5 u2,c,5 u3,b,5 u3,c,5 u4,d,5 u4,a,4"


def read(text, **options):
    frame = pd.DataFrame([row.split(",") for row in text.split()])
    frame.columns = ["user_id", "item_id", "rating", "timestamp"][: frame.shape[1]]
    frame = frame.astype(dict.fromkeys(frame.columns[2:], float))
    return read_interactions(frame, ReadingOptions(**options))


def pairs(interactions):
    users, items = interactions.users.to_list(), interactions.items.to_list()
    return {(users[user], items[item]) for user, item in zip(interactions.user, interactions.item, strict=True)}


def cells(matrix, users, items):
    rows, columns = matrix.nonzero()
    return {(users[row], items[column]) for row, column in zip(rows, columns, strict=True)}


def test_a_low_rating_is_kept_aside_as_seen():
    assert pairs(read(ROWS, min_rating=4).seen_only) == {("u1", "c")}
    assert read(ROWS).seen_only is None


def test_a_rare_item_is_seen_too():
    assert pairs(read(ROWS, min_item_users=2).seen_only) == {("u4", "d")}


def test_who_liked_nothing_is_no_user_and_has_seen_something():
    interactions = read("u1,a,5 u2,a,1", min_rating=4)
    assert interactions.users.to_list() == ["u1"]
    assert pairs(interactions.seen_only) == {("u2", "a")}
    assert interactions.with_all_users().users.to_list() == ["u1", "u2"]


@pytest.mark.parametrize("protocol", sorted(set(splitting.PROTOCOLS) - {"given"}))
def test_who_liked_nothing_changes_no_split(protocol):
    rows = " ".join(
        f"u{user},i{item},{4 + (user + item) % 2},{10 * user + item}"
        for user in range(20)
        for item in range(9)
        if user != item
    )
    without, with_more = (
        recsys.split(read(text, min_rating=4), protocol) for text in (rows, rows + " x,i1,1,50 y,i2,2,1")
    )
    assert with_more.facts == without.facts
    assert (with_more.test.held_out != without.test.held_out).nnz == 0


def test_seen_holds_what_was_liked_and_what_was_not():
    interactions = read(ROWS, min_rating=4)
    matrix = UserItemMatrix.from_interactions(interactions)
    users, items = interactions.users.to_list(), interactions.items.to_list()
    assert cells(matrix.seen, users, items) == pairs(interactions) | {("u1", "c")}


def test_a_low_rated_item_that_only_the_model_knows_is_seen():
    model_items = read("x,c,5 x,a,5").items
    matrix = UserItemMatrix.from_interactions(read("u1,a,5 u1,c,1", min_rating=4), model_items)
    assert cells(matrix.matrix, ["u1"], model_items.to_list()) == {("u1", "a")}
    assert cells(matrix.seen, ["u1"], model_items.to_list()) == {("u1", "a"), ("u1", "c")}


@pytest.mark.parametrize(
    ("first", "then"), [({}, {"min_rating": 4}), ({"min_rating": 4}, {}), ({"min_rating": 2}, {"min_rating": 4})]
)
def test_a_store_keeps_what_was_seen(first, then, tmp_path):
    text = ROWS + " u2,d,3 u3,a,2"
    write_store(read(text, **first), tmp_path / "store")
    through = read_interactions(tmp_path / "store", ReadingOptions(**then))
    assert pairs(through.seen_only) == pairs(read(text, min_rating=4).seen_only)
    assert pairs(open_store(tmp_path / "store")) == pairs(read(text, **first))


# 40 users who like a, b and d and have rated c low, and 10 who like c.
MANY = " ".join(
    [f"u{n},{item},{rating}" for n in range(40) for item, rating in (("a", 5), ("b", 5), ("d", 5), ("c", 1))]
    + [f"z{n},{item},5" for n in range(10) for item in "acd"]
)


@pytest.mark.parametrize("make", [splitting.strong, splitting.weak, splitting.cells])
def test_what_was_rated_low_is_masked_in_evaluation(make):
    split = make(read(MANY, min_rating=4), share=0.3)
    column = split.train.items.to_list().index("c")
    rows = [row for row, user in enumerate(split.test.users.to_pylist()) if user.startswith("u")]
    assert {split.test.seen[row, column] for row in rows} == {1}
    wants_c = np.eye(len(split.train.items), dtype=np.float32)[column]
    found = evaluate(lambda history, **_: np.tile(wants_c, (history.shape[0], 1)), split.test, ("recall@1",))
    assert column not in found.positions[rows, 0]


def test_what_is_held_out_is_never_masked():
    split = splitting.strong(read(MANY, min_rating=4), share=0.3)
    assert not (split.test.seen.multiply(split.test.held_out)).nnz
    assert split.test.take(np.array([1, 0])).seen[0].nnz == split.test.seen[1].nnz


TIMED = " ".join(
    f"u{n},{item},{rating},{1000 * day + n}"
    for n in range(10)
    for item, rating, day in (("a", 5, 1), ("b", 5, 2), ("c", 1, 3), ("d", 5, 4), ("e", 1, 5), ("f", 5, 6), ("g", 1, 7))
)


def test_the_future_masks_nothing():
    """leave-one-out: f is test (day 6), d validation (day 4); c was rated on day 3, e on day 5, g on day 7."""
    split = splitting.leave_one_out(read(TIMED + " z,c,5,1 z,e,5,2 z,g,5,3 z,d,5,4 z,f,5,5", min_rating=4))
    items = split.train.items.to_list()
    for part, masked in ((split.validation, "abc"), (split.test, "abcde")):
        row = part.users.to_pylist().index("u0")
        assert {items[column] for column in part.seen[row].indices} == set(masked) & set(items)


def test_a_cut_in_time_masks_the_past_alone():
    split = splitting.temporal(read(TIMED + " z,c,5,1 z,e,5,2 z,g,5,3", min_rating=4), share=0.2)
    items = split.train.items.to_list()
    assert {items[column] for column in split.test.seen[0].indices} <= set("abcde")
