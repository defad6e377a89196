"""Blends of models of ratings: weighted means of predictions, the same model under several seeds."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from recsys.errors import ConfigError, UnsupportedError
from recsys.models import create_model
from recsys.training.context import TrainingContext

RATINGS = csr_matrix(np.float32([[1, 2, 0], [3, 0, 5], [0, 2, 5]]))
SMALL = {"autorec.hidden": 3, "autorec.epochs": 2}


def test_predictions_are_the_weighted_mean_of_the_members():
    blend = create_model("rating-blend", {"members": "global-mean,biases", "weights": "1,3"}).fit(RATINGS)
    mean, biases = (member.score(RATINGS) for member in blend.members)
    assert mean[0, 0] == 3
    torch.testing.assert_close(blend.score(RATINGS), mean / 4 + 3 * biases / 4)


def test_a_model_named_twice_has_two_seeds():
    blend = create_model("rating-blend", {"members": "autorec,autorec", "weights": "1,1", **SMALL}).fit(RATINGS)
    first, second = (member.score(RATINGS) for member in blend.members)
    assert not torch.equal(first, second)


def test_five_seeds_of_autorec_are_the_default():
    assert create_model("rating-blend").config.names == ["autorec"] * 5


def test_weights_are_those_of_the_smallest_error_on_held_out_ratings():
    history = csr_matrix(np.float32([[1, 1, 0]]))
    context = TrainingContext(validate=lambda score: -abs(float(score(history)[0, 2]) - 3))  # the error of one rating
    blend = create_model("rating-blend", {"members": "biases,global-mean"}).fit(RATINGS, context)
    assert blend.members[1].score(history)[0, 2] == 3 != blend.members[0].score(history)[0, 2]
    assert blend.weights.tolist() == [0, 1]


@pytest.mark.parametrize("member", ["ease", "rating-blend"])
def test_members_predict_ratings(member):
    with pytest.raises(ConfigError, match=f"found '{member}'"):
        create_model("rating-blend", {"members": f"biases,{member}"})


def test_new_items_are_refused_if_a_member_refuses_them():
    model = create_model("rating-blend", {"members": "biases,global-mean", "weights": "1,1"}).fit(RATINGS)
    with pytest.raises(UnsupportedError, match="global-mean cannot represent an item"):
        model.check_new_items()
