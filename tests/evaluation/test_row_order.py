"""Evaluation neither depends on the order of the input rows nor rewards scores that say nothing."""

import numpy as np
import pytest
import torch
from reordered import reorder
from tastes import two_tastes

from recsys.evaluation.evaluate import evaluate
from recsys.models import create_model
from recsys.splitting.by_row import weak
from recsys.splitting.by_user import strong

METRICS = ("ndcg@5", "recall@3", "mrr@10")

# Models whose fit draws nothing at random.
SETTINGS = {
    "popularity": {},
    "item-knn": {"neighbors": 3},
    "ease": {"l2": 10.0},
    "edlae": {"l2": 10.0},
    "sparse-ease": {},
    "bspm": {"factors": 3},
    "chebycf": {"factors": 3},
}


def constant(history):
    return torch.zeros(history.shape)


@pytest.mark.parametrize("protocol", [strong, weak])
@pytest.mark.parametrize("name", SETTINGS)
def test_the_order_of_the_rows_changes_no_metric(name, protocol):
    split = protocol(two_tastes(users=60, items=30), share=0.2)
    means = []
    for each in (split, reorder(split, 1), reorder(split, 2)):
        model = create_model(name, SETTINGS[name]).fit(each.train.matrix)
        means.append(evaluate(model, each.test, METRICS).means())
    # A solved system rounds differently in another order, and here many of its scores differ by rounding alone.
    tolerance = 0.1 if name in ("ease", "edlae") else 1e-9
    assert means[0] == pytest.approx(means[1], abs=tolerance)
    assert means[0] == pytest.approx(means[2], abs=tolerance)


def test_a_constant_score_gets_the_metric_of_chance():
    """Recall of 5 items drawn at random from the unseen ones, whatever their popularity."""
    split = strong(two_tastes(users=2000, items=60), share=0.4)
    found = evaluate(constant, split.test, ("recall@5",)).intervals()["recall@5"]
    unseen = 60 - np.diff(split.test.history.indptr)
    chance = (5 / unseen).mean()
    assert found.low < chance < found.high
