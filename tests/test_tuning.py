import sqlite3
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("optuna")

from tastes import two_tastes

from recsys.errors import ArtifactError, ConfigError, UnsupportedError
from recsys.models import MODELS, create_model
from recsys.models.search_space import Categorical, Range, search_space
from recsys.splitting import everybody
from recsys.splitting.by_user import strong
from recsys.training.context import TrainingContext
from recsys.tuning import Budget, Search, Trial, Tuned, settings_toml, tune


@pytest.fixture(scope="module")
def split():
    return strong(two_tastes(), share=0.2)


def search(split, model="ease", **fixed):
    return Search(model, fixed, split, "ndcg@5")


def run(split, tmp_path, trials=3, model="ease", plan=None, **more):
    return tune(search(split, model), Budget(trials), tmp_path / "trials.db", plan or {"data": "x"}, **more)


def test_the_first_trial_is_the_defaults(split, tmp_path):
    assert run(split, tmp_path, 1).trials[0].settings == {"l2": MODELS["ease"].Config().l2}


def test_every_model_gets_the_same_number_of_trials(split, tmp_path):
    for model in ("ease", "dae"):
        fixed = {"epochs": 2, "latent": 2} if model == "dae" else {}
        found = tune(Search(model, fixed, split, "ndcg@5"), Budget(3), tmp_path / "trials.db", {})
        assert len(found.trials) == 3


def test_a_model_without_settings_is_tried_once(split, tmp_path):
    assert [trial.settings for trial in run(split, tmp_path, 5, "popularity").trials] == [{}]


def test_two_searches_with_one_seed_try_the_same(split, tmp_path):
    first, second = (run(split, tmp_path / name, 7) for name in ("a", "b"))
    assert [trial.settings for trial in first.trials] == [trial.settings for trial in second.trials]


def test_a_search_in_two_parts_tries_what_it_would_have_tried_in_one(split, tmp_path):
    run(split, tmp_path / "parts", 4)
    parts, whole = run(split, tmp_path / "parts", 8), run(split, tmp_path / "whole", 8)
    assert [trial.settings for trial in parts.trials] == [trial.settings for trial in whole.trials]
    assert [trial.value for trial in parts.trials] == [trial.value for trial in whole.trials]


class Killed(BaseException):
    """Ends a process in the middle of a trial."""


@pytest.mark.parametrize("dies_in", [1, 3])
def test_the_trial_a_search_was_killed_in_is_made_again_and_no_other_is_lost(split, tmp_path, dies_in, monkeypatch):
    whole = run(split, tmp_path / "whole", 5)
    fit, calls = MODELS["ease"]._fit, []

    def die(self, matrix, context):
        calls.append(1)
        if len(calls) == dies_in:
            raise Killed
        fit(self, matrix, context)

    with monkeypatch.context() as patch:
        patch.setattr(MODELS["ease"], "_fit", die)
        with pytest.raises(Killed):
            run(split, tmp_path / "killed", 5)
    again = run(split, tmp_path / "killed", 5)
    assert [trial.settings for trial in again.trials] == [trial.settings for trial in whole.trials]
    assert [trial.number for trial in again.trials] == [1, 2, 3, 4, 5]


def test_trials_of_another_plan_are_refused_with_what_differs(split, tmp_path):
    run(split, tmp_path, 1)
    with pytest.raises(ArtifactError, match="another data"):
        run(split, tmp_path, 1, plan={"data": "y"})
    other = strong(two_tastes(), share=0.2, seed=5)
    with pytest.raises(ArtifactError, match="another split"):
        run(other, tmp_path, 1)


def test_a_trial_worse_than_half_of_the_others_ends_early(split, tmp_path):
    """The learning rate of the last trials is so small that nothing is learned."""
    storage, reported = tmp_path / "trials.db", []
    for rate in (0.05, 0.05, 0.05, 0.05, 1e-9):
        fixed = {"learning_rate": rate, "latent": 2, "epochs": 12, "dropout": 0.0, "l2": 0.0}
        wanted = Search("dae", fixed, split, "ndcg@5")
        reported.append(_one_more(wanted, storage))
    assert [trial.state for trial in reported] == ["complete"] * 4 + ["pruned"]
    assert reported[-1].value is not None


def _one_more(wanted, storage):
    """A trial of other fixed settings in the same study."""
    from recsys.tuning import search as tuning

    study = tuning._open_study(replace(wanted, fixed={}), storage, {})
    trial = study.ask()
    tuning._run(study, trial, wanted, TrainingContext(patience=100))
    return tuning._finished(study, wanted.metric)[-1]


def test_settings_that_do_not_work_are_told_and_the_search_goes_on(split, tmp_path, monkeypatch):
    fit, calls = MODELS["ease"]._fit, []

    def fail_once(self, matrix, context):
        calls.append(1)
        if len(calls) == 1:
            raise ConfigError("too small")
        fit(self, matrix, context)

    monkeypatch.setattr(MODELS["ease"], "_fit", fail_once)
    found = run(split, tmp_path, 3)
    assert [trial.state for trial in found.trials] == ["failed", "complete", "complete"]
    assert found.trials[0].reason == "too small"
    assert found.best.number > 1


def test_without_a_single_good_trial_the_reasons_are_told():
    tuned = Tuned("ease", "ndcg@5", [Trial(1, {}, None, "failed", 0.1, "too small")])
    with pytest.raises(ConfigError, match="too small"):
        _ = tuned.best


def test_the_best_trial_is_complete_and_the_first_of_equals():
    states = [(0.5, "complete"), (0.9, "pruned"), (0.5, "complete"), (0.0, "complete")]
    tuned = Tuned("x", "m", [Trial(i, {}, value, state, 1) for i, (value, state) in enumerate(states, start=1)])
    assert tuned.best.number == 1


def test_fixed_settings_are_not_searched(split, tmp_path):
    found = tune(Search("als", {"factors": "2"}, split, "ndcg@5"), Budget(2), tmp_path / "trials.db", {})
    assert all("factors" not in trial.settings and "alpha" in trial.settings for trial in found.trials)


def test_minutes_are_an_alternative_budget_and_one_trial_is_always_made(split, tmp_path):
    found = tune(search(split), Budget(minutes=1e-9), tmp_path / "trials.db", {})
    assert len(found.trials) == 1
    slow = [Trial(1, {}, 0.1, "complete", 61.0)]
    assert Budget(minutes=1).is_spent(slow)
    assert not Budget(minutes=2).is_spent(slow)


def test_a_split_without_a_validation_part_is_refused(tmp_path):
    with pytest.raises(UnsupportedError, match="validation"):
        run(everybody(two_tastes()), tmp_path)


def test_test_users_do_not_influence_the_search(tmp_path):
    """The same training and validation users, with and without a test part: the same trials."""
    whole = strong(two_tastes(), share=0.2)
    blind = replace(whole, test=None)
    first, second = (run(each, tmp_path / name, 4) for name, each in (("a", whole), ("b", blind)))
    assert [(t.settings, t.value) for t in first.trials] == [(t.settings, t.value) for t in second.trials]


def test_every_trial_is_told_with_the_best_so_far(split, tmp_path):
    reported = []
    run(split, tmp_path, 3, on_trial=lambda trial, so_far: reported.append((trial.number, so_far.best.value)))
    assert [number for number, _ in reported] == [1, 2, 3]
    assert np.all(np.diff([best for _, best in reported]) >= 0)


@pytest.mark.parametrize("name", MODELS)
def test_defaults_lie_in_their_own_search_space(name, split):
    config = create_model(name).scaled_config(split.train.matrix)
    for key, space in search_space(type(config)).items():
        value = getattr(config, key)
        if isinstance(space, Categorical):
            assert value in space.options
        else:
            assert isinstance(space, Range)
            assert space.low <= value <= space.high
            assert space.is_whole == isinstance(value, int)


@pytest.mark.parametrize("name", MODELS)
def test_best_settings_come_back_from_toml_as_they_were(name):
    model = create_model(name)
    read = tomllib.loads(settings_toml(model))
    assert read["model"] == name
    assert create_model(name, read["settings"]).config == model.config


def test_the_trials_are_an_ordinary_sqlite_file(split, tmp_path):
    run(split, tmp_path, 2)
    assert Path(tmp_path / "trials.db").is_file()
    with sqlite3.connect(tmp_path / "trials.db") as database:
        assert database.execute("select count(*) from trials").fetchone() == (2,)
    database.close()


def test_settings_of_features_are_searched_only_where_features_are_used(split):
    def searched(**fixed):
        return Search("edlae", fixed, split, "ndcg@100").space()

    assert "feature_l2" not in searched()
    assert "feature_l2" in searched(feature_weight=3.0)
