"""Fidelity: histories are taken apart in the order of an explanation; true explanations are told from false ones."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from recsys.errors import DataError
from recsys.explain.explainers import (
    at_random,
    by_contributions,
    by_cosine,
    by_leave_one_out,
    by_popularity,
    rivals,
)
from recsys.explain.fidelity import STEPS, Fidelity, choose_users, join_users, measure_fidelity
from recsys.models import create_model
from recsys.models.popularity import Popularity


def row(values):
    return csr_matrix(np.float32([values]))


class OneReason(Popularity):
    """Item 5 scores 1 more for a history that holds item 0, item 4 scores .5 always, all others 0."""

    def _score(self, history, users):
        scores = torch.zeros(history.shape)
        scores[:, 4] = 0.5
        scores[:, 5] = torch.as_tensor(history[:, [0]].toarray()[:, 0])
        return scores


@pytest.fixture
def model():
    return OneReason().fit(csr_matrix(np.eye(7)))


def measured(model, importance, history=(1, 1, 0, 0, 0, 0, 0), seen=None):
    users = measure_fidelity(model, row(history), {"it": lambda history, item: np.array(importance)}, seen)
    return join_users(users)["it"]


def test_the_curves_of_two_items_are_what_hand_arithmetic_says(model):
    true, false = measured(model, [2.0, 1.0]), measured(model, [1.0, 2.0])
    gone = 1 / np.log2(1 + 3.5)  # behind item 4, in the middle of items 2, 3, 5 and 6
    np.testing.assert_allclose(true.curves["POS"][0], [1] + [gone] * 10)
    assert false.curves["POS"][0].tolist() == pytest.approx([1] * 6 + [gone] * 5)
    assert true.curves["NEG"][0].tolist() == pytest.approx([1] * 6 + [gone] * 5)
    assert false.curves["NEG"][0].tolist() == pytest.approx([1] + [gone] * 10)


def test_deletion_and_insertion_follow_the_standardized_score(model):
    true = measured(model, [2.0, 1.0])
    rivals_with, rivals_without = np.array([0, 0, 0.5, 1, 0]), np.array([0, 0, 0.5, 0, 0])
    start = (1 - rivals_with.mean()) / rivals_with.std()
    lost = (0 - rivals_without.mean()) / rivals_without.std() / start
    np.testing.assert_allclose(true.curves["deletion"][0], [1] + [lost] * 10, rtol=1e-6)
    np.testing.assert_allclose(true.curves["insertion"][0], [lost] * 5 + [1] * 6, rtol=1e-6)
    np.testing.assert_allclose(true.means("deletion"), [lost], rtol=1e-6)


def test_items_that_were_seen_are_neither_recommended_nor_rivals(model):
    seen = row([1, 1, 0, 0, 1, 0, 0])
    found = measured(model, [2.0, 1.0], seen=seen)
    assert found.curves["POS"][0, 1] == pytest.approx(1 / np.log2(1 + 2.5))  # item 4 is out of the way


def test_a_true_explanation_is_better_on_every_curve():
    rng = np.random.default_rng(0)
    users = csr_matrix(rng.random((60, 20)) < np.where(np.arange(20) % 2 == (np.arange(60) % 2)[:, None], 0.6, 0.1))
    model = create_model("ease", {"l2": 5.0}).fit(csr_matrix(users, dtype=np.float32))
    explainers = {"own": by_contributions(model), "left out": by_leave_one_out(model), **rivals(model_input(users))}
    found = join_users(measure_fidelity(model, model_input(users), explainers))
    for rival in ("popularity", "random"):
        for curve, sign in (("POS", -1), ("NEG", 1), ("deletion", -1), ("insertion", 1)):
            assert sign * (found["own"].means(curve).mean() - found[rival].means(curve).mean()) > 0, (rival, curve)
    np.testing.assert_allclose(found["own"].curves["POS"], found["left out"].curves["POS"], atol=0.2)
    assert all(one.seconds > 0 and one.curves["NEG"].shape == (60, STEPS + 1) for one in found.values())


def model_input(users):
    return csr_matrix(users, dtype=np.float32)


def test_all_explainers_start_and_end_at_the_same_point():
    users = model_input(np.random.default_rng(1).random((12, 15)) < 0.4)
    model = create_model("ials", {"factors": 3}).fit(users)
    rows = choose_users(users, 12)
    found = join_users(measure_fidelity(model, users[rows], rivals(users)))
    for curve in ("POS", "NEG", "deletion", "insertion"):
        for end in (0, STEPS):
            values = [one.curves[curve][:, end] for one in found.values()]
            np.testing.assert_allclose(values[0], values[1], rtol=1e-6)


def test_users_are_those_whose_history_can_be_taken_apart():
    users = csr_matrix(np.float32([[1, 0, 0], [1, 1, 0], [1, 1, 1], [0, 1, 1], [0, 0, 0]]))
    assert choose_users(users, 10).tolist() == [1, 3]
    assert len(choose_users(users, 1, seed=3)) == 1
    with pytest.raises(DataError, match="at least two items"):
        choose_users(users[:1], 10)


def test_nobody_to_measure_is_an_error_and_not_a_table_of_nothing(model):
    with pytest.raises(DataError, match="an item to recommend"):
        join_users(measure_fidelity(model, row([1] * 7), {"it": at_random()}))


def test_the_simple_explainers_are_what_they_are_called():
    users = csr_matrix(np.float32([[1, 1, 0], [1, 0, 1], [0, 1, 1], [0, 1, 1]]))
    history = row([1, 1, 0])
    np.testing.assert_allclose(by_cosine(users)(history, 2), [1 / 6**0.5, 2 / 3])
    assert by_popularity(np.array([2, 3, 3]))(history, 2).tolist() == [2, 3]
    first, again, other = at_random(1)(history, 2), at_random(1)(history, 2), at_random(2)(history, 2)
    assert (first == again).all() and (first != other).all()


def test_the_mean_of_a_curve_leaves_out_the_start():
    curve = np.arange(11.0)[None]
    assert Fidelity({"POS": curve}, 0.0).means("POS").tolist() == [5.5]
