"""Models of the implicit package behind our protocol: the same results, and none of its warnings."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from recsys.errors import ConfigError, MissingPackageError
from recsys.models import create_model
from recsys.models.factorization.scaled import scaled_weights
from recsys.training.context import TrainingContext

pytest.importorskip("implicit")


def preferences(users=40, items=25, seed=0):
    return csr_matrix((np.random.default_rng(seed).random((users, items)) < 0.25).astype(np.float32))


def implicits(module, kind, **settings):
    """A model of implicit itself, fitted as its users do."""
    import importlib
    import warnings

    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = getattr(importlib.import_module(f"implicit.{module}"), kind)(**settings)
        model.fit(preferences(), show_progress=False)
    return model


def test_als_lists_are_those_of_implicit_with_users_recalculated():
    theirs = implicits(
        "cpu.als", "AlternatingLeastSquares", factors=8, regularization=0.5, alpha=3.0, iterations=5, random_state=7
    )
    settings = {"factors": 8, "l2": 0.5, "alpha": 3.0, "iterations": 5}
    ours = create_model("als", settings).fit(preferences(), TrainingContext(seed=7))
    history = preferences(users=10, seed=1)  # of new users
    users = np.arange(10)
    expected, scores = theirs.recommend(users, history, N=5, recalculate_user=True)
    ids, values = ours.recommend(users, history, N=5)
    np.testing.assert_array_equal(ids, expected)
    np.testing.assert_allclose(values, scores, rtol=1e-4)


def test_als_folds_in_with_its_current_factors():
    settings = {"factors": 4, "iterations": 2}
    first, second = (create_model("als", settings).fit(preferences(seed=seed)) for seed in (0, 1))
    expected = second.score(preferences())
    first.score(preferences())
    assert not torch.equal(first.score(preferences()), expected)
    assert torch.equal(first.fit(preferences(seed=1)).score(preferences()), expected)
    first.fit(preferences(seed=0)).score(preferences())
    assert torch.equal(first.set_state(second.get_state(), 25, "cpu").score(preferences()), expected)


def test_als_folds_in_the_same_on_one_thread_as_on_two():
    model = create_model("als", {"factors": 8, "iterations": 2}).fit(preferences(users=400, items=150))
    history, threads = preferences(users=300, items=150, seed=1), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = model._fold_in(history)
        torch.set_num_threads(2)
        assert torch.equal(model._fold_in(history), alone)
    finally:
        torch.set_num_threads(threads)


def test_als_gives_a_history_without_items_no_preference():
    model = create_model("als", {"factors": 2, "iterations": 2}).fit(preferences())
    assert not model.score(csr_matrix((1, 25), dtype=np.float32)).any()


def test_weights_of_als_scale_with_the_density_and_with_the_interactions_of_an_item():
    matrix = csr_matrix(np.tile(np.eye(100, dtype=np.float32), (20, 1)))  # density 1 %, 20 interactions per item
    assert scaled_weights(matrix) == pytest.approx((11, 11 * 3.3))
    assert scaled_weights(3 * matrix) == pytest.approx((11 / 3, 11 * 3.3))  # weights of cells, values and all, stay
    assert scaled_weights(matrix, alpha=2.0) == pytest.approx((2, 2 * 3.3))
    sparser = csr_matrix(np.tile(np.eye(100, 200, dtype=np.float32), (20, 1)))  # half as dense, 10 per item
    assert scaled_weights(sparser) == pytest.approx((11 * 2**0.3, 11 * 2**0.3 * 3.3 * 0.5**0.4))


def test_als_says_which_weights_it_scaled_and_keeps_them():
    model = create_model("als", {"factors": 4, "iterations": 2}).fit(preferences())
    alpha, l2 = scaled_weights(preferences())
    assert model.summary() == f"alpha {alpha:.3g}, l2 {l2:.3g} (scaled with the data)"
    given = create_model("als", {"factors": 4, "iterations": 2, "alpha": alpha, "l2": l2}).fit(preferences())
    assert given.summary() == ""
    assert torch.equal(model.score(preferences()), given.score(preferences()))
    again = create_model("als", {"factors": 4, "iterations": 2}).set_state(model.get_state(), 25, "cpu")
    assert again.summary() == model.summary()
    assert torch.equal(again.score(preferences()), model.score(preferences()))


def test_auto_is_a_weight_scaled_with_the_data():
    assert create_model("als", {"l2": "auto", "alpha": "none"}).config == create_model("als").config
    assert create_model("als", {"alpha": 2.0}).scaled_config(preferences()).alpha == 2.0


def test_a_search_begins_with_the_scaled_weights():
    alpha, l2 = scaled_weights(preferences())
    scaled = create_model("als").scaled_config(preferences())
    assert (scaled.alpha, scaled.l2) == (alpha, l2)


def test_als_reports_every_iteration():
    reported = []
    context = TrainingContext(on_phase=lambda *phase: reported.append(phase))
    create_model("als", {"factors": 2, "iterations": 2}).fit(preferences(), context)
    assert reported == [("iterations", 0, 2), ("iterations", 1, 2), ("iterations", 2, 2)]


@pytest.mark.parametrize("name", ["bpr", "lmf"])
def test_models_of_known_users_give_implicits_own_factors(name):
    module, kind = {
        "bpr": ("cpu.bpr", "BayesianPersonalizedRanking"),
        "lmf": ("cpu.lmf", "LogisticMatrixFactorization"),
    }[name]
    theirs = implicits(module, kind, factors=4, iterations=5, random_state=3, num_threads=1, regularization=0.1)
    rate = {"learning_rate": theirs.learning_rate}
    ours = create_model(name, {"factors": 4, "iterations": 5, "l2": 0.1, **rate})
    ours.fit(preferences(), TrainingContext(seed=3))
    users = np.array([5, 2])
    expected = theirs.user_factors[users] @ theirs.item_factors.T
    np.testing.assert_allclose(ours.score(preferences()[users], users=users), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["als", "bpr", "lmf"])
def test_fits_repeat_under_a_seed_on_data_large_enough_for_threads_to_race(name):
    matrix = preferences(users=400, items=150)

    def fit(seed):
        return create_model(name, {"factors": 8, "iterations": 3}).fit(matrix, TrainingContext(seed=seed))

    first = fit(1).get_state()
    assert all(torch.equal(first[key], tensor) for key, tensor in fit(1).get_state().items())
    assert not torch.equal(first["item_factors"], fit(2).get_state()["item_factors"])


def test_diverging_factors_are_an_error_that_says_what_to_do():
    model = create_model("bpr", {"factors": 4, "iterations": 30, "learning_rate": 1000})
    with pytest.raises(ConfigError, match="Lower learning_rate, raise l2"):
        model.fit(preferences())


@pytest.mark.parametrize("name", ["als", "bpr", "lmf"])
def test_without_implicit_the_error_says_what_to_install(name, monkeypatch):
    for module in [module for module in sys.modules if module.partition(".")[0] == "implicit"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "implicit", None)
    with pytest.raises(MissingPackageError, match=r"needs the package implicit: run  pip install .*\[baselines\]"):
        create_model(name).fit(preferences())


def test_a_loaded_model_whose_scores_are_a_plain_product_needs_no_implicit():
    code = """
import sys
sys.modules["implicit"] = None
import numpy as np, torch
from scipy.sparse import csr_matrix
from recsys.models import create_model
from recsys.models.factorization.scaled import scaled_weights
model = create_model("bpr").set_state({"user_factors": torch.eye(2), "item_factors": torch.eye(2)}, 2)
print(model.score(csr_matrix(np.eye(2)), users=[0, 1]).tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[[1.0, 0.0], [0.0, 1.0]]"


@pytest.mark.parametrize("name", ["als", "bpr", "lmf"])
def test_no_warning_leaks_into_a_fresh_interpreter(name):
    """implicit warns of many BLAS threads once a process, and only where the environment sets none."""
    code = f"""
import numpy as np
from scipy.sparse import csr_matrix
from recsys.models import create_model
from recsys.models.factorization.scaled import scaled_weights
matrix = csr_matrix((np.random.default_rng(0).random((20, 10)) < .4).astype(np.float32))
model = create_model({name!r}, {{"factors": 2, "iterations": 2}}).fit(matrix)
model.score(matrix, users=np.arange(20))
"""
    threads = {"OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"}
    environment = {key: value for key, value in os.environ.items() if key not in threads}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("als", "factors", 0),
        ("als", "alpha", 0),
        ("bpr", "learning_rate", 0),
        ("lmf", "negatives", 0),
        ("lmf", "iterations", 0),
    ],
)
def test_settings_out_of_range_are_refused(name, setting, value):
    with pytest.raises(ConfigError, match=f"Expected {setting}"):
        create_model(name, {setting: value})
