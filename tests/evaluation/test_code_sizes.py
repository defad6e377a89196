"""Models at several sizes of their code: names, what stays fixed, reconstruction by hand, a choice in validation."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.sparse import csr_matrix
from tastes import two_tastes

from recsys.errors import ConfigError
from recsys.evaluation.code_sizes import at_sizes, best_sizes, reconstruction, size_of
from recsys.evaluation.evaluate import Validator
from recsys.evaluation.metrics import RECONSTRUCTION, formula
from recsys.evaluation.plan import ComparisonPlan
from recsys.evaluation.study import compare, prepare
from recsys.models import MODELS, create_model
from recsys.splitting.by_user import strong
from recsys.splitting.holdout import Holdout
from recsys.tuning import Tuner

PLAN = ComparisonPlan(metric="ndcg@5", metrics=("recall@3",), baselines=False, latent_sizes=(1, 4))


@pytest.fixture(scope="module")
def split():
    return strong(two_tastes(), share=0.2)


@pytest.fixture(scope="module")
def found(split):
    return compare(split, ["popularity", "svd", create_model("ae", {"epochs": 2})], PLAN)


def test_every_model_with_a_code_is_there_once_for_each_size():
    models = at_sizes({"vae": create_model("vae", {"hidden": 7}), "ease": create_model("ease")}, (2, 8))
    assert list(models) == ["vae-2", "vae-8", "ease"]
    assert [(model.config.hidden, model.config.latent) for model in list(models.values())[:2]] == [(7, 2), (7, 8)]


def test_the_size_of_a_code_is_the_setting_that_a_model_names():
    sizes = {name: size_of(model.create()) for name, model in MODELS.items() if "blend" not in name}
    assert sizes["vae"] == {"latent": 200} and sizes["svd"] == {"factors": 64} and sizes["rbm"] == {"hidden": 200}
    assert sizes["ease"] == sizes["popularity"] == {}


@pytest.mark.parametrize(
    ("models", "sizes", "message"),
    [
        (["svd"], (2, 2), "different sizes"),
        (["ease"], (2,), "Expected models with a code"),
        (["svd"], (0,), "at least 1"),
        (["svd"], (10**10,), "at most"),
    ],
)
def test_sizes_that_make_no_comparison_are_refused(split, models, sizes, message):
    with pytest.raises(ConfigError, match=message):
        prepare(split, models, replace(PLAN, latent_sizes=sizes))


def test_models_of_ratings_are_refused(split):
    with pytest.raises(ConfigError, match="models of lists for latent_sizes"):
        prepare(split, ["autorec"], ComparisonPlan(latent_sizes=(2,)))


# Reconstruction


def holdout_of(history):
    users = len(history)
    return Holdout(
        csr_matrix(np.float32(history)),
        csr_matrix(np.shape(history), dtype=np.float32),
        pa.array([f"u{i}" for i in range(users)]),
        np.zeros(users, dtype=np.int64),
        np.full(users, -1),
    )


def test_reconstruction_is_the_share_of_the_history_among_as_many_highest_scores():
    holdout = holdout_of([[1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0]])
    scores = torch.tensor([[9.0, -1, 8, 7, 0, -5], [0, 0, 0, 0, 0, 1], [1, 2, 3, 4, 5, 6]])
    found = reconstruction(lambda history, users=None: scores.clone(), holdout)
    assert found.each[:2].tolist() == [2 / 3, 1]  # of the first user's best three, items 0 and 2 are in the history
    assert found.n_users == 2  # nothing can come back of an empty history


def test_a_code_as_wide_as_the_catalog_gives_the_whole_history_back(split):
    [whole, narrow] = (
        reconstruction(create_model("svd", {"factors": size}).fit(split.train.matrix).score, split.test).mean
        for size in (12, 1)
    )
    assert whole == 1 > narrow


# Comparisons


def test_rows_are_named_by_model_and_size_and_have_both_measures(found):
    board = found.leaderboard.set_index("model")
    assert set(board.index) == {"popularity", "svd-1", "svd-4", "ae-1", "ae-4"}
    assert list(board.columns[1:5]) == ["ndcg@5", "ndcg@5_low", "ndcg@5_high", "users"]
    assert (board[f"{RECONSTRUCTION}_low"] <= board[RECONSTRUCTION]).all()
    assert board.loc["svd-4", RECONSTRUCTION] > board.loc["svd-1", RECONSTRUCTION]
    assert "n highest scores" in formula(RECONSTRUCTION)


def test_the_size_is_chosen_on_the_validation_part(found, split):
    validate, train = Validator(split.validation, "ndcg@5"), split.train.matrix
    values = {size: validate(create_model("svd", {"factors": size}).fit(train).score) for size in (1, 4)}
    assert found.best_sizes["svd"] == f"svd-{max(values, key=values.get)}"
    assert set(found.best_sizes) == {"svd", "ae"}
    assert found.facts()["best_sizes"] == found.best_sizes
    assert best_sizes(found.ranked.results[:1]) == {}  # a single size is no choice


def test_a_comparison_without_sizes_has_no_reconstruction(split):
    found = compare(split, ["svd"], replace(PLAN, latent_sizes=()))
    assert found.best_sizes == {} and RECONSTRUCTION not in found.leaderboard


def test_tuning_leaves_the_size_alone(split):
    found = compare(split, ["svd"], replace(PLAN, latent_sizes=(2, 64)), tuner=Tuner(trials=2))  # 64 is the default
    assert {result.name: result.first.model.config.factors for result in found.ranked.results} == {
        "svd-2": 2,
        "svd-64": 64,
    }
    assert all("factors" not in result.tuning["settings"] for result in found.ranked.results)


def test_models_may_have_names_of_their_own(split):
    models = {"weak": create_model("ease", {"l2": 1e9}), "strong": create_model("ease", {"l2": 1.0})}
    found = compare(split, models, replace(PLAN, latent_sizes=()))
    assert set(found.leaderboard["model"]) == {"weak", "strong"}
