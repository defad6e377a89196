"""What rules of lists cost, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from scipy.sparse import csr_matrix

from recsys.errors import ConfigError
from recsys.evaluation.evaluate import evaluate_lists
from recsys.evaluation.ruled import WEIGHTS, apart, facts_of, measure_rules
from recsys.inference.rules import Rule, RuleSet
from recsys.inference.variety import Variety
from recsys.models import create_model
from recsys.splitting.holdout import Holdout

TRAIN = csr_matrix(np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]], dtype=np.float32))
MODEL = create_model("popularity").fit(TRAIN)  # scores 4, 3, 2, 1


def test_equal_scores_are_moved_apart_by_the_least_and_unequal_ones_keep_their_order():
    one, below = np.float32(1), np.nextafter(np.float32(1), np.float32(0))
    scores = np.array([[one, below, one, 0.5], [-2, 0, -2, -0.0]], dtype=np.float32)
    found = apart(scores, np.array([[3, 0, 1, 2], [0, 3, 1, 2]]))
    assert np.argsort(-found, axis=1).tolist() == [
        [2, 0, 1, 3],
        [3, 1, 0, 2],
    ]  # `below` is after both of 1, whatever its place
    steps = [one, below, np.nextafter(below, np.float32(0)), 0.5]
    assert found[0].tolist() == [steps[1], steps[2], steps[0], steps[3]]
    assert found[1, 0] == -2 and found[1, 2] == np.nextafter(np.float32(-2), np.float32(-3))
    assert np.abs(found[1, [1, 3]]).max() < 1e-44 and len(set(found[1].tolist())) == 4


@pytest.fixture
def holdout() -> Holdout:
    """One user without a history; item 1 is to be found."""
    history, held_out = csr_matrix((2, 4), dtype=np.float32), csr_matrix(np.array([[0, 1, 0, 0], [0, 1, 0, 0]]) * 1.0)
    zeros = np.zeros(2, dtype=np.int64)
    return Holdout(history, csr_matrix(held_out, dtype=np.float32), pa.array(["u", "v"]), zeros, zeros - 1)


def test_without_rules_the_metric_is_that_of_the_evaluation(holdout: Holdout) -> None:
    rules = RuleSet((Rule("no", "exclude", np.array([True, False, False, False])),))
    none, ruled = measure_rules(MODEL, holdout, rules, "recall@1")
    assert (none.name, none.is_chosen, none.accuracy.mean) == ("no rules", False, 0.0)
    assert none.accuracy.mean == evaluate_lists(MODEL.score, holdout, ("recall@1",)).means()["recall@1"]
    assert (ruled.name, ruled.is_chosen, ruled.accuracy.mean, ruled.distance) == ("rules", True, 1.0, None)
    assert (none.coverage, none.gini) == (0.25, 0.75)


def test_a_row_for_each_weight_of_variety_and_the_given_one_is_marked(holdout: Holdout) -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=np.float32)
    found = measure_rules(MODEL, holdout, RuleSet((), Variety(vectors, 0.55)), "recall@2")
    assert [one.name for one in found] == [
        "no rules",
        *(f"diversity {weight:g}" for weight in sorted([*WEIGHTS, 0.55])),
    ]
    assert [one.name for one in found if one.is_chosen] == ["diversity 0.55"]
    # lists 0 1 without variety; item 2 comes before item 1 where (1 - w) / 3 > (1 - w) 2 / 3 - w, for w above 1 / 4
    assert [one.accuracy.mean for one in found] == [1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert [one.distance for one in found] == [0, 0, 0, 1, 1, 1, 1, 1, 1]


def test_rules_are_shown_apart_from_variety(holdout: Holdout) -> None:
    vectors = np.eye(4, dtype=np.float32)
    rules = RuleSet((Rule("no", "exclude", np.array([True, False, False, False])),), Variety(vectors, 0.3, True))
    names = [facts_of(one, seed=0)["name"] for one in measure_rules(MODEL, holdout, rules, "ndcg@2")]
    assert names == ["no rules", "rules", *(f"calibration {weight:g}" for weight in WEIGHTS)]


def test_a_metric_of_some_items_is_measured_on_lists_of_these_alone(holdout: Holdout) -> None:
    part = replace(holdout, scopes={"warm": np.array([False, True, True, True])})
    none, _ = measure_rules(MODEL, part, RuleSet((Rule("no", "exclude", np.zeros(4, dtype=bool)),)), "warm_recall@1")
    assert none.accuracy.mean == evaluate_lists(MODEL.score, part, ("warm_recall@1",)).means()["warm_recall@1"] == 1
    with pytest.raises(ConfigError, match="metrics of cold items alone"):
        measure_rules(MODEL, holdout, RuleSet(), "cold_recall@1")
