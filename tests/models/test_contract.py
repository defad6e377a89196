"""What every model of MODELS is and how it is fitted. Tests of a single model are in its own file."""

import dataclasses

import numpy as np
import pytest
import torch
from model_contract import ALL_USERS, create, every_model, random_streams, scores_of, two_tastes
from scipy.sparse import csr_matrix

from recsys.errors import ConfigError, DataError, NotFittedError
from recsys.models import MODELS, create_model
from recsys.training.context import TrainingContext


@every_model
def test_a_model_says_what_it_is(name):
    model = MODELS[name]
    assert model.name == name
    assert model.task in ("ranking", "rating")
    assert model.family
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.Config().anything = 1


def test_an_unknown_model_is_refused_with_the_names_of_the_known_ones():
    with pytest.raises(ConfigError, match=r"popularity, .*vae, .*; found 'vea'"):
        create_model("vea")


@every_model
def test_an_unknown_setting_is_refused_with_the_names_of_the_known_ones(name):
    with pytest.raises(ConfigError, match=f"{name} has no setting 'size'. It has: ") as caught:
        create_model(name, {"size": 3})
    known = [field.name for field in dataclasses.fields(MODELS[name].Config)]
    assert all(setting in str(caught.value) for setting in known)


@every_model
def test_an_unknown_preset_is_refused_with_the_names_of_the_known_ones(name):
    known = ", ".join(MODELS[name].presets) or "none"
    with pytest.raises(ConfigError, match=f"Expected {name}.preset of {known}; found 'best'"):
        create_model(name, {"preset": "best"})


PRESETS = [(name, preset) for name, model in MODELS.items() for preset in model.presets]


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_a_preset_gives_its_settings_and_those_beside_it_win(name, preset):
    setting, value = next(iter(MODELS[name].presets[preset].items()))
    config = dataclasses.asdict(create_model(name, {"preset": preset}).config)
    assert config == {**dataclasses.asdict(MODELS[name].Config()), **MODELS[name].presets[preset]}
    assert getattr(create_model(name, {"preset": preset, setting: value * 2}).config, setting) == value * 2


SETTINGS = [
    (name, field.name)
    for name, model in MODELS.items()
    for field in dataclasses.fields(model.Config)
    if field.default is not dataclasses.MISSING  # those of a blend's members are looked at there
]


@pytest.mark.parametrize("value", [-1, float("nan"), "many", [1]])
@pytest.mark.parametrize(("name", "setting"), SETTINGS)
def test_nonsense_in_a_setting_is_refused_at_once(name, setting, value):
    with pytest.raises(ConfigError, match=setting):
        create_model(name, {setting: value})


@pytest.mark.parametrize("value", [2**31, "99999999999999999999", 1e30])
def test_a_whole_number_beyond_every_size_is_refused(value):
    with pytest.raises(ConfigError, match=r"Expected vae\.batch_size of at most 2,147,483,647"):
        create_model("vae", {"batch_size": value})


@pytest.mark.parametrize(("name", "setting"), SETTINGS)
def test_a_setting_may_come_as_text(name, setting):
    default = getattr(MODELS[name].Config(), setting)
    assert create_model(name, {setting: str(default)}).config == create_model(name).config


# Fitting


@every_model
def test_fit_returns_the_model(name):
    model = create(name)
    assert model.fit(two_tastes(name)) is model


@every_model
def test_the_same_seed_gives_the_same_scores(name, fitted):
    assert torch.equal(scores_of(create(name).fit(two_tastes(name))), scores_of(fitted(name)))


@every_model
def test_another_seed_gives_other_scores_where_the_model_says_it_is_random(name, fitted):
    other = create(name).fit(two_tastes(name), TrainingContext(seed=1))
    assert torch.equal(scores_of(other), scores_of(fitted(name))) is not MODELS[name].is_random


@every_model
def test_an_earlier_fit_leaves_no_trace(name, fitted):
    model = create(name).fit(csr_matrix(np.ones((3, 7), dtype=np.float32)))
    assert torch.equal(scores_of(model.fit(two_tastes(name))), scores_of(fitted(name)))


@every_model
def test_fit_changes_neither_its_input_nor_the_config_nor_the_callers_random_streams(name):
    matrix, model = two_tastes(name), create(name)
    before = [part.copy() for part in (matrix.data, matrix.indices, matrix.indptr)]
    config, streams = dataclasses.asdict(model.config), random_streams()
    model.fit(matrix)
    for part, was in zip((matrix.data, matrix.indices, matrix.indptr), before, strict=True):
        np.testing.assert_array_equal(part, was)
    assert dataclasses.asdict(model.config) == config
    assert random_streams() == streams


@every_model
def test_the_callers_random_stream_does_not_decide_the_scores(name, fitted):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        assert torch.equal(scores_of(create(name).fit(two_tastes(name))), scores_of(fitted(name)))


@every_model
def test_each_finds_the_unseen_item_of_the_users_own_taste_and_a_baseline_cannot(name):
    found = []
    for seed in range(3):
        model = create(name).fit(two_tastes(name), TrainingContext(seed=seed))
        best, _ = model.recommend(ALL_USERS, two_tastes(name), N=1)
        found.append((best[:, 0] == ALL_USERS).mean())
    # All items are liked as much: a baseline falls back on the first unseen one, right for users of the first taste.
    assert found == [0.5 if MODELS[name].family == "baseline" else 1.0] * 3


@every_model
@pytest.mark.parametrize(
    ("values", "complaint"),
    [([], "empty matrix"), ([1, np.nan], "NaN or infinity"), ([1, np.inf], "NaN or infinity"), ([1, -1], "found -1")],
)
def test_a_matrix_nothing_can_be_learned_from_is_refused(name, values, complaint):
    matrix = csr_matrix((np.float32(values), np.arange(len(values)), [0, len(values)]), shape=(1, 4))
    if MODELS[name].task == "rating" and complaint == "found -1":  # a rating as good as any
        assert create(name).fit(matrix).score(matrix).isfinite().all()
        return
    with pytest.raises(DataError, match=complaint):
        create(name).fit(matrix)


@every_model
def test_what_is_not_sparse_is_refused(name):
    with pytest.raises(DataError, match=r"scipy sparse matrix .* found ndarray"):
        create(name).fit(two_tastes(name).toarray())


@every_model
def test_a_fit_that_failed_leaves_an_unfitted_model(name, monkeypatch):
    model = create(name).fit(two_tastes(name))

    def fail(matrix, context):
        raise MemoryError

    monkeypatch.setattr(model, "_fit", fail)
    with pytest.raises(MemoryError):
        model.fit(two_tastes(name))
    with pytest.raises(NotFittedError):
        scores_of(model)


@every_model
def test_a_device_that_is_not_there_is_refused_before_any_work(name):
    with pytest.raises(ConfigError, match="'abacus' cannot be used"):
        create(name).fit(two_tastes(name), TrainingContext(device="abacus"))
