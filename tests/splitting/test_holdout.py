"""What a split refuses, and what its parts have in common."""

from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from scipy.sparse import csr_matrix
from splits import draw, from_drawing, full, held_out, marks, pairs_of, people_of, rated, same, table, train_cells

from recsys import splitting
from recsys.data.interactions import Vocabulary
from recsys.data.matrix import UserItemMatrix
from recsys.errors import ConfigError, DataError
from recsys.splitting import everybody
from recsys.splitting.by_row import weak
from recsys.splitting.by_time import leave_one_out, temporal
from recsys.splitting.by_user import hide, strong
from recsys.splitting.holdout import Holdout, Split

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
    with pytest.raises(DataError, match="Expected validation users with a history and a held-out item"):
        protocol(full(5, 1))


@pytest.mark.parametrize("protocol", [strong, weak])
def test_the_seed_decides_the_split(protocol):
    people = full(20, 10)
    assert same(protocol(people, seed=1), protocol(people, seed=1))
    assert not same(protocol(people, seed=1), protocol(people, seed=2))


def test_the_seed_decides_what_is_hidden():
    people, items = full(20, 10), Vocabulary.of(range(10))
    once, again, other = (held_out(hide(people, items, seed=seed), items) for seed in (1, 1, 2))
    assert once == again != other


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


def test_everybody_trains_on_all_rows():
    drawing = ["x . x", ". x ."]
    split = everybody(from_drawing(drawing, "x"))
    assert draw(split, from_drawing(drawing)) == drawing
    assert split.validation is split.test is None
    assert (split.facts["train_interactions"], split.facts["test_users"]) == (3, 0)


def test_taking_some_users_keeps_what_is_said_of_the_whole():
    train, test = rated(table([("1", "a"), ("3", "a"), ("3", "c")])), rated(table([("1", "c"), ("2", "a"), ("3", "d")]))
    part = splitting.given(train, test, ratings=True).test
    some = part.take(np.array([1]))
    assert some.users.to_pylist() == ["3"]
    assert (some.left_out, some.unpredicted.tolist()) == (part.left_out, part.unpredicted.tolist()) == (1, [1, 2])
    assert some.items is part.items


# A protocol by its name


@pytest.mark.parametrize("name", [name for name in splitting.PROTOCOLS if name != "given"])
def test_a_protocol_is_called_by_its_name(name):
    people = replace(full(20, 10), timestamp=np.tile(np.arange(10), 20))
    found, expected = splitting.split(people, name), splitting.PROTOCOLS[name](people)
    assert found.protocol == name
    assert same(found, expected)


def test_strong_is_the_usual_protocol_and_options_are_its_parameters():
    people = full(20, 10)
    assert same(splitting.split(people, share=0.2, seed=3), strong(people, share=0.2, seed=3))


@pytest.mark.parametrize(
    ("name", "options"), [("stron", {}), ("given", {}), ("temporal", {"history": 0.5}), ("weak", {"n": 1})]
)
def test_unknown_protocols_and_options_are_refused_with_those_there_are(name, options):
    with pytest.raises(ConfigError, match=r"Expected a protocol of weak|Expected options of \w+ \(share"):
        splitting.split(full(20, 10), name, **options)


# A part that is asked for is never empty


def two_items_each():
    return table([(user, item) for user in range(30) for item in "ab"])


@pytest.mark.parametrize("name", ["weak", "leave-one-out"])
def test_two_items_a_user_leave_none_to_validate_on(name):
    with pytest.raises(DataError, match="Expected validation users with a history and a held-out item"):
        splitting.split(two_items_each(), name)


def test_given_files_must_each_have_somebody_with_a_history():
    train, stranger, known = table([(1, "a"), (1, "b")]), table([(2, "a")]), table([(1, "c")])
    with pytest.raises(DataError, match="Expected validation users"):
        splitting.given(train, known, stranger)
    with pytest.raises(DataError, match="Expected test users"):
        splitting.given(train, stranger, known)


def test_folds_must_each_have_somebody_to_test():
    people = table([(user, user % 2) for user in range(9)])
    for folds in (splitting.k_fold(people, folds=3), splitting.k_fold_cells(people, folds=3)):
        with pytest.raises(DataError, match="Expected validation users"):
            list(folds)
