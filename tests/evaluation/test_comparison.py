import json
from dataclasses import replace

import numpy as np
import pytest
from tastes import two_tastes

from recsys.evaluation import comparison
from recsys.evaluation.comparison import rank
from recsys.evaluation.examples import examples
from recsys.evaluation.results import ModelResult
from recsys.evaluation.tasks import TASKS
from recsys.models import create_model
from recsys.splitting.by_row import k_fold_cells
from recsys.splitting.by_user import k_fold, strong
from recsys.training.context import TrainingContext

METRIC = "ndcg@5"
DAE = {"latent": 2, "epochs": 3, "learning_rate": 0.05}


@pytest.fixture(scope="module")
def split():
    return strong(two_tastes(), share=0.2)


def fit(split, name="ease", seed=0, **settings):
    model = create_model(name, settings).fit(split.train.matrix, TrainingContext(seed))
    return replace(described(model, split, split.train.matrix), fit_seconds=1.0, seed=seed)


def described(model, split, train=None):
    task = TASKS[model.task]
    found = task.evaluate(model, split.test, task.labels([METRIC]))
    return task.describe(model, found, split.test, split.train.item_counts, train)


def known(split):
    return split.train.items, split.train.item_counts


@pytest.fixture(scope="module")
def results(split):
    seeds = [fit(split, "dae", seed, **DAE) for seed in (0, 1)]
    return [ModelResult([[fit(split, "popularity")]]), ModelResult([[fit(split)]]), ModelResult([seeds])]


def test_values_are_means_over_seeds_and_the_spread_is_that_of_their_means(results):
    first, second = results[2].fits
    values = [each.evaluation.values[METRIC] for each in (first, second)]
    assert results[2].values(METRIC) == pytest.approx((values[0] + values[1]) / 2)
    assert results[2].seed_spread(METRIC) == pytest.approx(abs(values[0].mean() - values[1].mean()) / np.sqrt(2))
    assert results[1].seed_spread(METRIC) is None


def test_folds_of_users_follow_one_another():
    one, two, _ = (fit(split) for _, split in k_fold(two_tastes(), folds=3))
    values = [each.evaluation.values[METRIC] for each in (one, two)]
    assert ModelResult([[one], [two]]).values(METRIC).tolist() == [*values[0], *values[1]]


def test_a_user_with_cells_in_several_folds_is_one_user():
    table = replace(two_tastes(), rating=np.arange(len(two_tastes()), dtype=np.float32) % 5)
    folds = [[rating_fit(split)] for _, split in k_fold_cells(table, folds=2, ratings=True)]
    result = ModelResult(folds)
    counts = result.counts()
    assert result.average("rmse").weights.sum() == counts["cells"] == len(table) - counts["cells_without_prediction"]
    assert len(set(result.users.to_pylist())) == len(result.users) < sum(len(fit.users) for [fit] in folds)
    together = [fit.evaluation.averages["rmse"] for [fit] in folds]
    assert result.average("rmse").mean == pytest.approx(
        np.sqrt(sum(part.totals.sum() for part in together) / counts["cells"])
    )


def rating_fit(split):
    model = create_model("biases").fit(split.train.matrix)
    found = TASKS["rating"].evaluate(model, split.test, ("rmse",))
    return TASKS["rating"].describe(model, found, split.test, split.train.item_counts)


def test_without_a_factorization_all_are_compared_with_the_best(results):
    ranked = rank(results, METRIC, [METRIC])
    assert ranked.reference is ranked.results[0]
    assert len(ranked.conclusions()) == 2


def test_the_best_factorization_is_the_reference_even_when_it_loses(results, split):
    als = ModelResult([[fit(split, "als", factors=2, iterations=1)]])
    ranked = rank([*results, als], METRIC, [METRIC])
    assert ranked.reference.name == "als"
    assert ranked.against_reference(als) is None
    assert ranked.against_reference(results[0]).first == "popularity"


def test_the_facts_are_json_and_hold_no_id(results, split):
    text = json.dumps(comparison.facts(rank(results, METRIC, [METRIC])))
    ids = [*split.test.users.to_pylist(), *split.train.items.to_list()]
    assert not any(f'"{each}"' in text for each in ids)


def test_a_saved_model_lacks_only_what_needs_training_rows_or_a_clock(results, split):
    fitted = results[1].first
    saved = described(fitted.model, split)
    whole, part = (
        comparison.facts(rank([ModelResult([[one]])], METRIC, [METRIC]))["models"][0] for one in (fitted, saved)
    )
    assert {key for key in whole if whole[key] != part[key]} == {"beyond_accuracy", "costs"}
    assert whole["beyond_accuracy"].keys() - part["beyond_accuracy"].keys() == {"novelty@10", "diversity@10"}
    assert (whole["costs"]["fit_seconds"], part["costs"]["fit_seconds"]) == (1.0, None)


def test_every_average_says_how_many_users_are_behind_it(results):
    [first, *_] = comparison.facts(rank(results, METRIC, [METRIC]))["models"]
    assert first["metrics"][METRIC]["n_users"] == 8
    assert sum(part["n_users"] for part in first["user_slices"].values()) == 8


def test_new_items_are_a_slice_beside_the_popular_and_the_rare():
    few = strong(two_tastes(users=10), share=0.2)  # six training users, three a taste: every item is new
    fit_of_few = fit(few)
    [alone] = comparison.facts(rank([ModelResult([[fit_of_few]])], METRIC, [METRIC]))["models"]
    assert alone["item_slices"]["new items (at most 5 training users)"] == alone["metrics"][fit_of_few.slice_metric]


def test_examples_are_users_with_short_to_long_histories_and_hits_are_marked(results, split):
    shown = examples(results, split.test, *known(split), {"i0": "The First"}, count=3)
    lengths = [each.history_length for each in shown]
    assert lengths == sorted(lengths)
    marked = [hit for each in shown for _, hit in each.lists["ease"]]
    assert sum(marked) == sum(each.held_out for each in shown)  # twelve items: all stand in the list of ten unseen


def test_no_examples_are_made_where_none_are_wanted(results, split):
    assert examples(results, split.test, *known(split), {}, count=0) == []
