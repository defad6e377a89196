"""The two tasks: what each asks of models, metrics and data."""

from dataclasses import replace

import numpy as np
import pytest
from tastes import two_tastes

from recsys.errors import ConfigError
from recsys.evaluation.tasks import TASKS, find_task
from recsys.models import create_model
from recsys.splitting.by_row import cells


def test_the_task_is_that_of_the_models():
    assert find_task(None, ["biases", "global-mean"]).name == "rating"
    assert find_task(None, ["ease"]).name == "ranking"
    assert find_task(None, []).name == "ranking"
    assert find_task("rating", []).name == "rating"


@pytest.mark.parametrize(
    ("task", "models"), [(None, ["ease", "biases"]), ("rating", ["ease"]), ("ranking", ["biases"])]
)
def test_models_of_another_task_are_refused_with_the_reason(task, models):
    with pytest.raises(ConfigError, match="no metric in common"):
        find_task(task, models)


@pytest.mark.parametrize(("task", "metric"), [("rating", "ndcg@10"), ("ranking", "rmse")])
def test_a_metric_of_the_other_task_is_refused(task, metric):
    with pytest.raises(ConfigError, match=f"found '{metric}'"):
        TASKS[task].check(metric)


@pytest.mark.parametrize("name", TASKS)
def test_the_defaults_of_a_task_belong_to_it(name):
    task = TASKS[name]
    assert find_task(name, [*filter(None, [task.model]), *task.models]) is task
    for label in (task.metric, *task.metrics):
        task.check(label)


def test_predicted_ratings_are_described_by_slices_calibration_and_cells_without_a_prediction():
    table = replace(two_tastes(), rating=np.arange(len(two_tastes()), dtype=np.float32) % 5)
    split = cells(table, share=0.2, ratings=True)
    model = create_model("global-mean").fit(split.train.matrix)
    task = TASKS["rating"]
    found = task.evaluate(model, split.test, ("mae",))
    assert set(found.averages) == {"mae"}
    found = task.evaluate(model, split.test, task.labels(("mae",)))
    fit = task.describe(model, found, split.test, split.train.item_counts, split.train.matrix)
    mean = split.train.matrix.data.mean()
    observed = split.test.held_out.data
    assert fit.calibration == [
        {"predicted": pytest.approx(mean), "observed": pytest.approx(observed.mean()), "cells": len(observed)}
    ]
    assert fit.beyond_accuracy["mean_error"] == pytest.approx(mean - observed.mean(), abs=1e-6)
    assert fit.counts == {"cells": len(observed), "cells_without_prediction": len(split.test.unpredicted)}
    by_items = [part for name, part in fit.item_slices.items() if "new items" not in name]
    assert sum(part.weights.sum() for part in by_items) == len(observed)
    everything = np.concatenate([observed, split.test.unpredicted])
    assert fit.beyond_accuracy["rmse_of_all_cells"] == pytest.approx(np.sqrt(np.mean((everything - mean) ** 2)))
