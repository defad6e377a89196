"""Held-out users: strong, k-fold, and test parts for a model that exists."""

from collections import Counter

import numpy as np
import pytest
from splits import draw, full, held_out, history, table

from recsys import splitting
from recsys.data.interactions import Vocabulary
from recsys.errors import ConfigError, DataError
from recsys.splitting.by_user import hide, holdout, strong


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
    with pytest.raises(DataError, match=r"Expected at least 10 users to hold 0\.1 of them out, found 9"):
        strong(full(9, 3))


def test_test_users_with_one_item_each_leave_nobody_to_test():
    with pytest.raises(DataError, match="validation users with a history and a held-out item"):
        strong(full(10, 1))


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
