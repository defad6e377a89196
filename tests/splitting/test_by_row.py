"""Held-out interactions: weak, cells, given, k-fold of cells."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from splits import draw, from_drawing, from_files, full, held_out, history, pairs_of, rated, table, train_cells

from recsys import splitting
from recsys.data.interactions import Interactions, Vocabulary
from recsys.errors import DataError, UnsupportedError
from recsys.splitting import PROTOCOLS
from recsys.splitting.by_row import weak
from recsys.splitting.by_user import strong


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


# random cells, and ratings


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
    with pytest.raises(DataError, match="Expected interactions with ratings, found none"):
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
    again = splitting.train_on_validation(split)
    assert again.validation is None
    assert train_cells(again) == train_cells(split) | held_out(split.validation, split.train.items)
    assert held_out(again.test, again.train.items) == held_out(split.test, split.train.items)
    assert again.facts["validation_rows_in_training"] == split.facts["validation_interactions"] == 9
    for other in (strong(full(10, 5)), again):
        with pytest.raises(UnsupportedError, match="Expected validation rows that training could have had"):
            splitting.train_on_validation(other)


def test_in_folds_of_cells_every_cell_is_tested_once():
    people = full(9, 5)
    folds = dict(splitting.k_fold_cells(people, folds=4))
    tested = [pair for split in folds.values() for pair in held_out(split.test, split.train.items)]
    assert sorted(tested) == sorted(pairs_of(people))
    assert next(iter(folds)) == "fold 1 of 4"
    assert {split.facts["test_interactions"] for split in folds.values()} == {11, 12}  # 45 / 4
