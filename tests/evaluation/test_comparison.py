import json
from dataclasses import replace

import numpy as np
import pytest
from tastes import two_tastes

from recsys.evaluation import comparison
from recsys.evaluation.comparison import Result, rank
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
    return [Result([[fit(split, "popularity")]]), Result([[fit(split)]]), Result([seeds])]


def test_values_are_means_over_seeds_and_the_spread_is_that_of_their_means(results):
    first, second = results[2].fits
    values = [each.evaluation.values[METRIC] for each in (first, second)]
    assert results[2].values(METRIC) == pytest.approx((values[0] + values[1]) / 2)
    assert results[2].spread(METRIC) == pytest.approx(abs(values[0].mean() - values[1].mean()) / np.sqrt(2))
    assert results[1].spread(METRIC) is None


def test_folds_of_users_follow_one_another():
    one, two, _ = (fit(split) for _, split in k_fold(two_tastes(), folds=3))
    values = [each.evaluation.values[METRIC] for each in (one, two)]
    assert Result([[one], [two]]).values(METRIC).tolist() == [*values[0], *values[1]]


def test_a_user_with_cells_in_several_folds_is_one_user():
    table = replace(two_tastes(), rating=np.arange(len(two_tastes()), dtype=np.float32) % 5)
    folds = [[rating_fit(split)] for _, split in k_fold_cells(table, folds=2, ratings=True)]
    result = Result(folds)
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


def test_without_factorization_all_are_measured_against_the_best(results):
    standing = rank(results, METRIC, [METRIC])
    assert standing.rival is standing.results[0]
    assert len(standing.verdicts()) == 2


def test_the_best_factorization_is_the_rival_even_when_it_loses(results, split):
    als = Result([[fit(split, "als", factors=2, iterations=1)]])
    standing = rank([*results, als], METRIC, [METRIC])
    assert standing.rival.name == "als"
    assert standing.against_rival(als) is None
    assert standing.against_rival(results[0]).first == "popularity"


def test_the_facts_are_json_and_hold_no_id(results, split):
    text = json.dumps(comparison.facts(rank(results, METRIC, [METRIC])))
    ids = [*split.test.users.to_pylist(), *split.train.items.to_list()]
    assert not any(f'"{each}"' in text for each in ids)


def test_of_a_saved_model_all_is_told_but_what_needs_training_rows_or_a_clock(results, split):
    fitted = results[1].first
    saved = described(fitted.model, split)
    whole, part = (comparison.facts(rank([Result([[one]])], METRIC, [METRIC]))["models"][0] for one in (fitted, saved))
    assert {key for key in whole if whole[key] != part[key]} == {"beyond", "costs"}
    assert whole["beyond"].keys() - part["beyond"].keys() == {"novelty@10", "diversity@10"}
    assert (whole["costs"]["fit_seconds"], part["costs"]["fit_seconds"]) == (1.0, None)


def test_every_average_says_how_many_users_are_behind_it(results):
    [first, *_] = comparison.facts(rank(results, METRIC, [METRIC]))["models"]
    assert first["metrics"][METRIC]["n_users"] == 8
    assert sum(part["n_users"] for part in first["user_slices"].values()) == 8


def test_new_items_stand_in_the_facts_beside_the_popular_and_the_rare():
    few = strong(two_tastes(users=10), share=0.2)  # six training users, three a taste: every item is new
    fit_of_few = fit(few)
    [alone] = comparison.facts(rank([Result([[fit_of_few]])], METRIC, [METRIC]))["models"]
    assert alone["item_slices"]["new items (at most 5 training users)"] == alone["metrics"][fit_of_few.sliced]


def test_examples_are_users_with_short_to_long_histories_and_hits_are_marked(results, split):
    people = comparison.examples(results, split.test, *known(split), {"i0": "The First"}, count=3)
    lengths = [person.history_length for person in people]
    assert lengths == sorted(lengths)
    marked = [hit for person in people for _, hit in person.lists["ease"]]
    assert sum(marked) == sum(person.to_find for person in people)  # twelve items: all stand in the list of ten unseen


def test_no_examples_are_made_where_none_are_wanted(results, split):
    assert comparison.examples(results, split.test, *known(split), {}, count=0) == []
