"""Lists by rules, against hand-made lists and a slow, obvious implementation."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray
from rule_case import random_rules, slow_list
from scipy.sparse import csr_matrix

from recsys.data.interactions import Vocabulary
from recsys.errors import ConfigError
from recsys.inference.reranking import Request, RuledLists, recommend_by_rules, ruled_lists
from recsys.inference.rules import Rule, RuleSet
from recsys.inference.topn import GroupCap, top_n
from recsys.inference.variety import Variety


def lists_of(scores: list[list[float]], *rules: Rule, n: int = 3, variety: Variety | None = None) -> RuledLists:
    """Lists of users "0", "1", ... by rules, from scores that come in blocks of two items."""
    table = torch.tensor(scores)
    users = pa.array([str(user) for user in range(len(table))])
    request = Request(users, csr_matrix(table.shape, dtype=np.float32), n)
    return ruled_lists(lambda: [block.clone() for block in table.split(2, dim=1)], RuleSet(rules, variety), request)


def items(*chosen: int, of: int = 5) -> NDArray[np.bool_]:
    return np.isin(np.arange(of), chosen)


FALLING = [[0.9, 0.8, 0.7, 0.6, 0.5]]


def test_without_rules_lists_are_those_of_top_n() -> None:
    found = lists_of([[1, 5, 3, 4, 2]], n=3)
    assert found.positions.tolist() == found.without.tolist() == [[1, 3, 2]]
    np.testing.assert_array_equal(found.scores, [[5, 4, 3]])


def test_excluded_items_are_not_listed_and_others_take_their_places() -> None:
    found = lists_of(FALLING, Rule("no", "exclude", items(0, 2)))
    assert found.positions.tolist() == [[1, 3, 4]]
    assert found.without.tolist() == [[0, 1, 2]]


def test_only_the_items_of_all_rules_of_the_kind_only_are_listed() -> None:
    found = lists_of(FALLING, Rule("a", "only", items(0, 2, 3)), Rule("b", "only", items(2, 3, 4)))
    assert found.positions.tolist() == [[2, 3, -1]]


def test_a_rule_for_some_users_leaves_the_others_alone() -> None:
    found = lists_of(FALLING * 2, Rule("no", "exclude", items(0), users=Vocabulary.of(["1"])))
    assert found.positions.tolist() == [[0, 1, 2], [1, 2, 3]]


def test_a_boost_of_1_lifts_the_last_of_the_best_to_the_first() -> None:
    found = lists_of(FALLING, Rule("up", "boost", items(4), strength=1.25))  # .5 + 1.25 (.9 - .5) = 1
    assert found.positions.tolist() == [[4, 0, 1]]
    assert found.scores[0, 0] == pytest.approx(1.0)


def test_a_boost_is_the_same_in_any_unit_of_the_scores() -> None:
    rule = Rule("up", "boost", items(3, 4), strength=0.6)
    plain = lists_of([[5, 4, 3, 2, 1]], rule)
    assert plain.positions.tolist() == lists_of([[-500, -600, -700, -800, -900]], rule).positions.tolist()


def test_a_promotion_has_the_places_that_it_names() -> None:
    found = lists_of(FALLING, Rule("own", "promote", items(3, 4), places=(2,)))
    assert found.positions.tolist() == [[0, 3, 1]]


def test_a_promotion_by_share_has_at_least_that_part_of_the_first_places() -> None:
    found = lists_of(FALLING, Rule("own", "promote", items(3, 4), share=0.5), n=4)
    assert found.positions.tolist() == [[0, 3, 1, 4]]
    found = lists_of([[0.5, 0.4, 0.3, 0.9, 0.8]], Rule("own", "promote", items(3, 4), share=0.5), n=4)
    assert found.positions.tolist() == [[3, 4, 0, 1]]  # it has its part already


def test_the_first_of_two_promotions_has_the_place() -> None:
    first, second = Rule("a", "promote", items(4), places=(1,)), Rule("b", "promote", items(3), places=(1, 2))
    assert lists_of(FALLING, first, second).positions.tolist() == [[4, 3, 0]]


def test_a_promotion_does_not_list_what_another_rule_excludes() -> None:
    own, no = Rule("own", "promote", items(3, 4), places=(1,)), Rule("no", "exclude", items(3))
    assert lists_of(FALLING, own, no).positions.tolist() == [[4, 0, 1]]


def test_a_cap_counts_an_item_for_each_of_its_groups() -> None:
    groups = csr_matrix([[1, 0], [1, 1], [0, 1], [0, 0], [0, 1]])
    found = lists_of(FALLING, Rule("few", "cap", items(0, 1, 2, 4), groups=groups, most=1), n=4)
    assert found.positions.tolist() == [[0, 2, 3, -1]]  # 1 is of the group of 0, 4 of the group of 2


def test_a_cap_of_single_groups_is_that_of_top_n() -> None:
    cap = GroupCap(np.array([0, 0, -1, 1, 1], dtype=np.int32), 1)
    assert lists_of(FALLING, Rule.of_cap("few", cap)).positions.tolist() == [[0, 2, 3]]


def test_lists_are_filled_from_far_below_where_a_cap_uses_up_the_best() -> None:
    scores = np.linspace(1, 0, 500, dtype=np.float32)[None]
    groups = np.where(np.arange(500) < 499, 0, 1).astype(np.int32)
    found = lists_of(scores.tolist(), Rule.of_cap("few", GroupCap(groups, 1)), n=2)
    assert found.positions.tolist() == [[0, 499]]


def test_a_promotion_under_a_cap_ends_where_its_items_do() -> None:
    cap = Rule.of_cap("few", GroupCap(np.array([0, 0, 1, 2, 2], dtype=np.int32), 1))
    own = Rule("own", "promote", items(3, 4), places=(1, 2))
    assert lists_of(FALLING, own, cap).positions.tolist() == [[3, 0, 2]]


def test_diversity_prefers_what_is_unlike_the_list() -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [1, 0]], dtype=np.float32)
    # relevance 1, .75, .5, .25, 0. After 0: item 1 has .5 x .75 - .5 x 1, item 2 has .5 x .5 - 0
    found = lists_of(FALLING, variety=Variety(vectors, 0.5))
    assert found.positions.tolist() == [[0, 2, 1]]
    assert found.without.tolist() == [[0, 1, 2]]
    assert lists_of(FALLING, variety=Variety(vectors, 0.0)).positions.tolist() == [[0, 1, 2]]


def test_calibration_keeps_the_shares_of_the_history() -> None:
    vectors = np.array([[1, 0], [1, 0], [1, 0], [0, 1], [0, 1], [1, 0], [0, 1]], dtype=np.float32)
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.6, 0.5, -torch.inf, -torch.inf]])
    history = csr_matrix(np.array([[0, 0, 0, 0, 0, 1, 1]], dtype=np.float32))  # one of each
    request = Request(pa.array(["a"]), history, 4)
    found = ruled_lists(lambda: [scores.clone()], RuleSet((), Variety(vectors, 0.9, calibrated=True)), request)
    assert sorted(found.positions[0].tolist()) == [0, 1, 3, 4]


@pytest.mark.parametrize("weight", [-0.1, 1.0, math.nan])
def test_a_weight_out_of_range_is_refused(weight: float) -> None:
    with pytest.raises(ConfigError, match="from 0 to below 1"):
        Variety(np.ones((2, 2), dtype=np.float32), weight)


def test_effects_are_places_without_and_with_the_rules() -> None:
    cap = Rule.of_cap("few", GroupCap(np.array([0, 0, 0, 1, 1], dtype=np.int32), 1))
    own = Rule("own", "promote", items(4), users=Vocabulary.of(["1"]), places=(2,))
    rules = RuleSet((Rule("no", "exclude", items(2)), own, cap))
    found = lists_of(FALLING * 2, *rules.rules, n=3)
    assert found.positions.tolist() == [[0, 3, -1], [0, 4, -1]]
    # 0 1 2 without rules: item 2 twice, item 4 never for user 1, two items of group 0 too many in each list
    users = pa.array(["0", "1"])
    assert rules.effects(users, found.without, found.positions) == [(2, 0), (0, 1), (4, 0)]


def test_batches_of_users_are_as_one() -> None:
    generator = np.random.default_rng(0)
    table = generator.normal(size=(7, 30)).astype(np.float32)
    history = csr_matrix(np.eye(7, 30, dtype=np.float32))
    rules = RuleSet((Rule("up", "boost", items(3, 4, of=30), strength=0.5),))
    request = Request(pa.array([None] * 7, pa.string()), history, 5, history)
    of_row = {int(row.indices[0]): at for at, row in enumerate(history)}

    def score(part: csr_matrix) -> NDArray[np.float32]:
        return table[[of_row[int(at)] for at in part.indices]]

    parts = [lists.positions for lists in recommend_by_rules(score, rules, request, batch_size=2)]
    (whole,) = recommend_by_rules(score, rules, request)
    np.testing.assert_array_equal(np.concatenate(parts), whole.positions)
    assert not (whole.positions == np.arange(7)[:, None]).any()


@pytest.mark.parametrize("seed", range(60))
def test_random_rules_give_the_lists_of_a_slow_obvious_implementation(seed: int) -> None:
    generator = np.random.default_rng(seed)
    case = random_rules(generator)

    def blocks() -> Iterator[torch.Tensor]:
        return (block.clone() for block in torch.from_numpy(case.scores).split(case.width, dim=1))

    found = ruled_lists(blocks, case.rules, case.request)
    for user in range(len(case.scores)):
        slow = slow_list(case, user, found.positions[user])
        assert found.positions[user].tolist() == slow, (seed, user)
    plain, _ = top_n(case.scores, case.request.n, case.request.masked, case.request.allowed)
    np.testing.assert_array_equal(found.without, plain)
