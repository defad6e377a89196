"""Blend: weighted scores of several models."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from recsys.errors import ConfigError
from recsys.models import create_model
from recsys.models.blend import Blend, BlendConfig
from recsys.models.weight_search import search_weights
from recsys.training.context import TrainingContext

PAIR = {"members": "ease,popularity", "ease.l2": 1.0}


def some_rows():
    return csr_matrix(np.float32([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1], [0, 1, 1, 1]]))


def fitted(weights, **more):
    return create_model("blend", {**PAIR, "weights": weights, **more}).fit(some_rows())


# Settings


def test_dotted_settings_go_to_the_member_of_that_name_and_its_defaults_are_kept_beside_them():
    blend = create_model("blend", {"members": "ease,dae", "ease.l2": "7", "dae.latent": "3"})
    assert blend.config.settings["ease"]["l2"] == 7.0
    assert blend.config.settings["dae"]["latent"] == 3
    assert blend.config.settings["dae"]["dropout"] == 0.5


def test_a_config_read_back_from_json_is_the_same():
    config = create_model("blend", {**PAIR, "weights": "2,1"}).config
    again = create_model("blend", {"members": config.members, "weights": "2,1", "settings": config.settings}).config
    assert again == config


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"members": "ease"}, "two or more members"),
        ({"members": "ease,blend"}, "Expected members of .* found 'blend'"),
        ({"members": "ease,bpr"}, "Expected members of .* found 'bpr'"),
        ({"members": "ease,unknown"}, "found 'unknown'"),
        ({"members": "ease,dae", "vae.latent": 3}, "found some of 'vae'"),
        ({"members": "ease,dae", "dae.depth": 3}, "dae has no setting 'depth'"),
        ({"members": "ease,dae", "weights": "1"}, "weights of 0 or more for ease, dae"),
        ({"members": "ease,dae", "weights": "1,-1"}, "weights of 0 or more"),
        ({"members": "ease,dae", "weights": "0,0"}, "one above 0"),
        ({"members": "ease,dae", "weights": "1,x"}, "weights such as 0.5,0.3,0.2"),
        ({"settings": 3}, "settings of members by their names"),
        ({"depth": 3}, "blend has no setting 'depth'"),
    ],
)
def test_invalid_blends_are_refused_with_the_reason(settings, complaint):
    with pytest.raises(ConfigError, match=complaint):
        create_model("blend", settings)


def test_without_weights_and_validation_it_says_what_it_needs():
    with pytest.raises(ConfigError, match="Expected validation users to choose the weights"):
        create_model("blend", PAIR).fit(some_rows())


# Scores


def test_scores_are_the_weighted_sum_of_the_members_scores_each_divided_by_its_scale():
    blend = fitted("3,1")
    ease, popularity = (
        create_model(name, s).fit(some_rows()) for name, s in (("ease", {"l2": 1.0}), ("popularity", {}))
    )
    expected = 0
    for weight, member in ((0.75, ease), (0.25, popularity)):
        scores = member.score(some_rows())
        expected = expected + weight * scores / scores.std(dim=1).mean()
    torch.testing.assert_close(blend.score(some_rows()), expected)


def test_a_fitted_blend_reports_its_weights():
    assert fitted("3,1").summary() == "ease 0.75, popularity 0.25"


def test_a_weight_of_one_ranks_as_that_member_alone():
    alone = create_model("ease", {"l2": 1.0}).fit(some_rows())
    blended = fitted("1,0").score(some_rows())
    assert torch.equal(blended.argsort(stable=True), alone.score(some_rows()).argsort(stable=True))


def test_a_member_named_twice_is_fitted_under_two_seeds():
    blend = create_model("blend", {"members": "dae,dae", "weights": "1,1", "dae.epochs": 1, "dae.latent": 2})
    first, second = blend.fit(some_rows()).members
    assert not torch.equal(first.score(some_rows()), second.score(some_rows()))


# Weights


def test_the_search_finds_the_weights_of_highest_value():
    best = np.array([0.6, 0.3, 0.1])
    found = search_weights(lambda weights: -np.square(weights - best).sum(), 3)
    assert sum(found) == pytest.approx(1)
    np.testing.assert_allclose(found, best, atol=0.03)


def test_a_harmful_member_gets_weight_zero():
    assert search_weights(lambda weights: weights[1] - weights[0], 2) == [0, 1]


def test_weights_are_chosen_by_validation_and_members_are_scored_once_for_all_trials(monkeypatch):
    asked = []
    score = Blend._parts
    monkeypatch.setattr(Blend, "_parts", lambda self, history: asked.append(1) or score(self, history))
    trials = []

    def validate(score):  # best for popularity alone: the same order for all users
        trials.append(1)
        scores = score(some_rows())
        return -float((scores - scores.mean(dim=0)).abs().sum())

    blend = create_model("blend", PAIR).fit(some_rows(), TrainingContext(validate=validate))
    assert blend.weights.tolist() == [0, 1]
    assert len(asked) == 1 < len(trials)


def test_scores_that_do_not_fit_the_cache_are_computed_again(monkeypatch):
    monkeypatch.setattr("recsys.models.blend._CACHE_BYTES", 0)

    def validate(score):
        return -float(score(some_rows()).std())

    blend = create_model("blend", PAIR).fit(some_rows(), TrainingContext(validate=validate))
    assert sum(blend.weights) == pytest.approx(1)


def test_fitted_models_can_be_blended_as_they_are():
    members = [create_model(name).fit(some_rows()) for name in ("ease", "popularity")]
    blend = Blend.of(members, some_rows(), lambda score: float(score(some_rows())[0, 0]))
    assert blend.members == members
    assert blend.config == Blend(BlendConfig("ease,popularity")).config


def test_a_refit_keeps_the_weights_and_learns_the_other_rows():
    blend = create_model("blend", PAIR).fit(
        some_rows(), TrainingContext(validate=lambda score: float(score(some_rows())[0, 0]))
    )
    again = blend.refit(some_rows()[:2])
    assert torch.equal(again.weights, blend.weights)
    assert torch.equal(again.members[0].weights, create_model("ease", {"l2": 1.0}).fit(some_rows()[:2]).weights)
