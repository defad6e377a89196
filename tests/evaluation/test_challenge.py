import numpy as np
import pandas as pd
import pytest

from recsys import fit
from recsys.data.reading import read_interactions
from recsys.errors import UnsupportedError
from recsys.evaluation.averages import Interval
from recsys.evaluation.challenge import Challenge, challenge
from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.significance import Difference
from recsys.splitting import hide


def rows(users, items, seed, offset=0):
    """Users of two tastes: each takes most of one half of the items."""
    rng = np.random.default_rng(seed)
    found = []
    for user in range(users):
        half = [item for item in range(items) if (item % 2) == (user % 2)]
        found += [(f"u{user + offset}", f"i{item}") for item in half if rng.random() < 0.7]
    return pd.DataFrame(found, columns=["user_id", "item_id"])


JUDGES = read_interactions(rows(60, 20, 1, offset=1000))


def trained(model, items=20, seed=0):
    return fit(rows(60, items, seed), model, held_out=0)


def test_the_better_model_wins_and_the_worse_one_does_not():
    better, worse = trained("ease"), trained("popularity")
    found = challenge(worse, better, JUDGES)
    assert found.is_won(min_gain=0.01) and found.difference.gain.low > 0
    back = challenge(better, worse, JUDGES)
    assert not back.is_won() and not back.is_won(non_inferior=0.01)
    assert back.difference.gain.mean == pytest.approx(-found.difference.gain.mean)
    assert (found.champion.mean, found.challenger.mean) == (back.challenger.mean, back.champion.mean)


def test_an_equal_model_is_not_better_but_no_worse():
    found = challenge(trained("ease"), trained("ease"), JUDGES)
    assert found.difference.gain.mean == 0
    assert not found.is_won() and found.is_won(non_inferior=0.001)


def test_with_one_catalog_the_figures_are_those_of_evaluate():
    model = trained("ease")
    found = challenge(model, trained("popularity"), JUDGES, "recall@5", hidden=0.3, seed=3)
    expected = evaluate(model, hide(JUDGES, model.items, 0.3, 3), ["recall@5"])
    assert found.champion == expected.intervals(3)["recall@5"]


def test_an_item_that_a_model_does_not_know_counts_as_missed():
    whole, half = trained("ease"), trained("ease", items=10)
    assert len(half.items) == 10
    found = challenge(half, whole, JUDGES)
    assert found.champion.mean < found.challenger.mean
    assert found.champion.n_users == found.challenger.n_users
    assert challenge(whole, half, JUDGES).challenger.mean == pytest.approx(found.champion.mean, abs=0.02)


def test_models_that_cannot_judge_new_users_are_refused():
    with pytest.raises(UnsupportedError, match="lists for new users, found bpr"):
        challenge(trained("ease"), trained("bpr"), JUDGES)


@pytest.mark.parametrize(
    ("low", "mean", "min_gain", "non_inferior", "won"),
    [
        (0.001, 0.004, 0.002, None, True),
        (0.001, 0.0015, 0.002, None, False),  # surely better, yet by too little
        (-0.001, 0.004, 0.002, None, False),  # perhaps not better
        (-0.0005, 0.0, 0.002, 0.001, True),
        (-0.0015, 0.0, 0.0, 0.001, False),
    ],
)
def test_the_rule(low, mean, min_gain, non_inferior, won):
    interval = Interval(mean, low, 2 * mean - low, 100)
    found = Challenge(interval, interval, Difference("challenger", "champion", "ndcg@100", interval, 1, 0.01, 0.01))
    assert found.is_won(min_gain, non_inferior) is won
