"""recommend() and similar_items() of every model, with the signatures of `implicit`."""

import inspect

import numpy as np
import pytest
from model_contract import ALL_USERS, every_model, scores_of, two_tastes

from recsys.errors import DataError, UnsupportedError
from recsys.models import MODELS


@every_model
@pytest.mark.parametrize(
    ("method", "more"), [("recommend", []), ("similar_items", []), ("similar_users", ["user_items"])]
)
def test_methods_take_what_those_of_implicit_take(name, method, more):
    base = pytest.importorskip("implicit.recommender_base")
    theirs = inspect.signature(getattr(base.RecommenderBase, method)).parameters
    ours = inspect.signature(getattr(MODELS[name], method)).parameters
    assert [key for key in ours if key not in more] == list(theirs)
    assert [ours[key].default for key in theirs] == [theirs[key].default for key in theirs]


@every_model
def test_one_user_gets_one_list_and_several_get_a_row_each(name, fitted):
    ids, scores = fitted(name).recommend(3, two_tastes(name)[3], N=2)
    assert (ids.shape, scores.shape, ids.dtype, scores.dtype) == ((2,), (2,), np.int32, np.float32)
    several, values = fitted(name).recommend([3, 4], two_tastes(name)[3:5], N=2)
    assert several.shape == values.shape == (2, 2)
    own = scores_of(fitted(name)).numpy()[3]  # of items that are equal but for rounding, either may be listed
    np.testing.assert_allclose(own[several[0]], own[ids], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(values[0], scores, rtol=1e-5, atol=1e-6)


@every_model
def test_lists_hold_the_best_unseen_items_best_first(name, fitted):
    scores = scores_of(fitted(name)).numpy()
    scores[two_tastes(name).nonzero()] = -np.inf
    ids, values = fitted(name).recommend(ALL_USERS, two_tastes(name), N=3)
    np.testing.assert_array_equal(ids, np.argsort(-scores, axis=1, kind="stable")[:, :3])
    np.testing.assert_array_equal(values, -np.sort(-scores, axis=1)[:, :3])


@every_model
def test_a_list_that_runs_short_ends_in_minus_one_and_minus_infinity(name, fitted):
    unseen = sorted(set(range(10)) - set(two_tastes(name)[0].indices))
    ids, scores = fitted(name).recommend(0, two_tastes(name)[0], N=12)
    found = len(unseen)
    assert sorted(ids[:found]) == unseen and (ids[found:] == -1).all()
    assert np.isfinite(scores[:found]).all() and (scores[found:] == -np.inf).all()


@every_model
def test_seen_items_come_back_when_asked_for(name, fitted):
    ids, _ = fitted(name).recommend(0, two_tastes(name)[0], N=10, filter_already_liked_items=False)
    assert sorted(ids) == list(range(10))


@every_model
def test_filtered_items_are_out_and_given_items_are_the_only_candidates(name, fitted):
    assert 0 not in fitted(name).recommend(0, two_tastes(name)[0], N=10, filter_items=[0])[0]
    assert sorted(fitted(name).recommend(0, two_tastes(name)[0], N=3, items=[0, 8, 1])[0]) == [-1, 0, 8]  # 1 is seen
    both = fitted(name).recommend(0, two_tastes(name)[0], N=2, items=[0, 8], filter_items=[8])[0]
    assert both.tolist() == [0, -1]


@every_model
def test_no_filter_is_an_empty_filter(name, fitted):
    ids, _ = fitted(name).recommend(ALL_USERS, two_tastes(name), N=5, filter_items=[])
    np.testing.assert_array_equal(ids, fitted(name).recommend(ALL_USERS, two_tastes(name), N=5)[0])


@every_model
def test_one_history_per_user_is_required(name, fitted):
    with pytest.raises(DataError, match="one row of user_items per user, found 10 for 1"):
        fitted(name).recommend(0, two_tastes(name))


@every_model
def test_the_nearest_items_start_with_the_item_itself_and_stay_within_its_taste(name, fitted):
    if MODELS[name].family == "baseline":
        with pytest.raises(UnsupportedError, match=f"{name} has no embeddings"):
            fitted(name).similar_items(0)
        return
    ids, cosines = fitted(name).similar_items(6, N=3)
    assert (ids.shape, ids[0]) == ((3,), 6)
    assert cosines[0] == pytest.approx(1, abs=1e-5)
    assert (np.diff(cosines) <= 0).all()
    assert (ids >= 5).all()
    with pytest.raises(DataError, match=r"0\.\.9, found -1"):
        fitted(name).similar_items(-1)
