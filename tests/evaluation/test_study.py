"""compare() and its parts: what is fitted, added, refused, said and written."""

import json
from dataclasses import replace

import pandas as pd
import pytest
from tastes import two_tastes

import recsys
from recsys.errors import ConfigError, UnsupportedError
from recsys.evaluation.plan import ComparisonPlan, PlannedFit
from recsys.evaluation.study import compare, prepare
from recsys.models import create_model
from recsys.splitting.by_user import k_fold, strong
from recsys.tuning import Tuner

PLAIN = ComparisonPlan(metric="ndcg@5", metrics=("recall@3",), baselines=False, probe_trials=0)


@pytest.fixture(scope="module")
def split():
    return strong(two_tastes(), share=0.2)


@pytest.fixture(scope="module")
def found(split):
    return compare(split, ["popularity", "ease"], replace(PLAIN, probe_trials=2))


def test_a_comparison_is_a_table_with_the_best_model_first(found):
    assert found.leaderboard["model"].tolist() == ["ease", "popularity"]
    assert {"ndcg@5", "ndcg@5_low", "recall@3", "reference", "difference"} <= set(found.leaderboard)
    assert [sentence.split()[1] for sentence in found.conclusions] == ["beats"]


def test_a_table_of_interactions_is_split_as_the_task_says(tmp_path):
    table = two_tastes()
    frame = pd.DataFrame(
        {
            "user_id": table.users.ids.take(table.user).to_pylist(),
            "item_id": table.items.ids.take(table.item).to_pylist(),
        }
    )
    frame.to_csv(tmp_path / "ratings.csv", index=False)
    sources = recsys.read_interactions(frame), tmp_path / "ratings.csv"
    boards = [recsys.compare(each, ["popularity"], PLAIN) for each in sources]
    assert boards[0].protocol == "strong"
    assert boards[0].leaderboard["ndcg@5"].tolist() == boards[1].leaderboard["ndcg@5"].tolist()


def test_a_popularity_and_a_factorization_row_are_there_unless_asked_not_to(split):
    plan = replace(PLAIN, baselines=True)
    assert list(prepare(split, ["ease"], plan).models) == ["ease", "popularity", "als"]
    assert list(prepare(split, ["ials", "popularity"], plan).models) == ["ials", "popularity"]
    assert list(prepare(split, ["ease"], PLAIN).models) == ["ease"]


def test_random_models_are_fitted_under_every_seed_and_others_once(split):
    study = prepare(split, ["ease", "dae"], replace(PLAIN, seeds=3, seed=5))
    seeds = [[planned.seed for planned in study.fits(name)[0]] for name in study.models]
    assert seeds == [[5], [5, 6, 7]]
    assert study.fits("dae")[0][1].title == "dae seed 6"


def test_folds_are_splits_by_name():
    folds = dict(k_fold(two_tastes(), folds=3))
    found = compare(folds, ["popularity"], PLAIN)
    assert found.leaderboard["users"].tolist() == [40]


def test_a_function_around_each_fit_sees_them_all(split):
    seen = []

    def run(planned):
        seen.append(planned.title)
        return PlannedFit.run(planned)

    study = prepare(split, ["popularity", "ease"], PLAIN)
    results = [study.measure(name, run=run) for name in study.models]
    assert seen == ["popularity", "ease"]
    assert study.conclude(results).leaderboard["model"][0] == "ease"


def test_untuned_settings_are_said_first_with_what_a_few_random_ones_gave(found):
    assert found.note.startswith("Not tuned: ")
    by_name = {probe.model: probe for probe in found.probes}
    assert by_name["popularity"].reason == "it has no settings to search"
    assert by_name["ease"].trials == 2
    assert found.facts()["note"] == found.note


def test_the_model_with_the_largest_gain_is_named(split):
    """An ease whose regularization is far too strong against one that needs no tuning."""
    weak = create_model("ease", {"l2": 1e9})
    found = compare(split, [weak, "popularity"], replace(PLAIN, probe_trials=3))
    if found.probes[0].gain:
        assert "ease would gain most from tuning: the best of 3 random settings" in found.note
    else:
        assert "none was better" in found.note


def test_a_tuner_chooses_the_settings_of_every_model(split):
    found = compare(split, ["popularity", "ease"], PLAIN, tuner=Tuner(trials=2))
    tuning = {result.name: result.tuning for result in found.ranked.results}
    assert (tuning["ease"]["trials"], tuning["popularity"]["trials"]) == (2, 1)
    assert found.ranked.results[0].first.model.config.l2 == tuning["ease"]["settings"]["l2"]
    assert found.note.startswith("The settings of every model were chosen on the validation part")


def test_a_comparison_is_written_whole(found, tmp_path):
    found.save(tmp_path / "out")
    assert pd.read_csv(tmp_path / "out" / "leaderboard.csv")["model"].tolist() == ["ease", "popularity"]
    facts = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert (facts["protocol"], facts["reference"], facts["note"]) == ("strong", "ease", found.note)
    assert len(pd.read_parquet(tmp_path / "out" / "per_user.parquet")) == 2 * 8


def test_what_cannot_be_compared_is_refused_before_any_fit(split):
    with pytest.raises(ConfigError, match="each model once"):
        compare(split, ["ease", create_model("ease", {"l2": 1.0})], PLAIN)
    with pytest.raises(ConfigError, match="no metric in common"):
        compare(split, ["ease", "biases"], PLAIN)
    with pytest.raises(ConfigError, match="Expected a metric"):
        compare(split, ["ease"], replace(PLAIN, metric="rmse"))
    with pytest.raises(UnsupportedError, match="bpr"):
        compare(split, ["bpr"], PLAIN)
    assert list(prepare(split, ["bpr", "ease"], PLAIN).refused) == ["bpr"]


def test_a_model_a_trained_model_and_a_function_are_evaluated_alike(split):
    model = create_model("ease").fit(split.train.matrix)
    holder = recsys.TrainedModel(model, split.train.items, split.train.item_counts)
    means = [recsys.evaluate(each, split.test, ["ndcg@5"]).means() for each in (model, holder, model.score)]
    assert means[0] == means[1] == means[2]
    with pytest.raises(ConfigError, match="a model or a function"):
        recsys.evaluate("ease", split.test)
