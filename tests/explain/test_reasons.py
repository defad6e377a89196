"""Reasons in ids and in a sentence, for one item, for lists, and in a data frame."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix

from recsys.data.interactions import Vocabulary
from recsys.data.matrix import UserItemMatrix
from recsys.errors import DataError, UnsupportedError
from recsys.explain.reasons import Reason, explain_item, reasons_of_lists, sentence
from recsys.models import create_model
from recsys.models.trained import TrainedModel

ITEMS = ["a", "b", "c", "d"]


def linear(weights):
    """A linear model with these weights of a, b, c and d (rows) in the scores of a, b, c and d (columns)."""
    model = create_model("ease").fit(csr_matrix(np.float32([[1, 1, 1, 1]])))
    model.weights = torch.tensor(weights)
    return TrainedModel(model, Vocabulary.of(ITEMS), np.ones(4, dtype=np.int64))


@pytest.fixture
def trained():
    """a and b speak for d, 3 to 1, and c speaks against it."""
    return linear([[0.0, 0, 0, 0.3], [0, 0, 0, 0.1], [0, 0, 0, -0.2], [0, 0, 0.5, 0]])


def histories(*rows, seen=None):
    matrix = csr_matrix(np.float32([[letter in row for letter in ITEMS] for row in rows]))
    ids = Vocabulary.of(range(len(rows)))
    return UserItemMatrix(matrix, ids, Vocabulary.of(ITEMS), seen=seen)


def test_an_item_is_explained_by_what_speaks_for_and_against_it(trained):
    found = explain_item(trained, histories("abc"), 0, 3)
    assert [reason.item_id for reason in found.reasons] == ["a", "b"]
    assert [reason.share for reason in found.reasons] == pytest.approx([0.75, 0.25])
    assert [reason.contribution for reason in found.reasons] == pytest.approx([0.3, 0.1])
    (against,) = found.against
    assert (against.item_id, against.share) == ("c", 0) and against.contribution == pytest.approx(-0.2)
    assert found.score == pytest.approx(0.3 + 0.1 - 0.2)
    assert (found.item_id, found.rank, found.candidates, found.history, found.supporting) == ("d", 1, 1, 3, 2)
    assert found.method == "exact"


def test_without_an_item_the_first_recommendation_is_explained(trained):
    assert explain_item(trained, histories("ab"), 0).item_id == "d"
    assert explain_item(trained, histories("d"), 0).item_id == "c"


def test_ranks_are_those_among_unseen_items(trained):
    assert explain_item(trained, histories("bd"), 0, 0).rank == 2  # c scores .5
    assert explain_item(trained, histories("bd"), 0, 3).rank is None
    low = csr_matrix(np.float32([[0, 1, 1, 1]]))
    found = explain_item(trained, histories("bd", seen=low), 0, 0)
    assert (found.rank, found.candidates) == (1, 1)  # c was rated low: it is seen


def test_only_so_many_reasons_are_given(trained):
    assert explain_item(trained, histories("abc"), 0, 3, count=1).reasons == [Reason("a", 0.30000001192092896, 0.75)]


def test_what_has_no_explanation_is_refused(trained):
    with pytest.raises(DataError, match="an item that the model knows"):
        explain_item(trained, histories(""), 0)
    with pytest.raises(DataError, match="holds all items"):
        explain_item(trained, histories("abcd"), 0)
    model = create_model("popularity").fit(csr_matrix(np.float32([[1, 1, 1, 1]])))
    popular = TrainedModel(model, trained.items, trained.item_counts)
    with pytest.raises(UnsupportedError, match="scores all alike"):
        explain_item(popular, histories("ab"), 0)


@pytest.mark.parametrize(
    ("names", "task", "liked", "expected"),
    [
        (["X", "Y", "Z"], "ranking", True, "Because you liked X and Y."),
        (["X"], "ranking", True, "Because you liked X."),
        (["X", "Y"], "ranking", False, "Because of X and Y in your history."),
        (["X", "Y"], "rating", True, "Because of your ratings of X and Y."),
        (["X"], "rating", False, "Because of your rating of X."),
        ([], "ranking", True, "No item of the history supports it."),
    ],
)
def test_a_shop_can_print_the_sentence(names, task, liked, expected):
    assert sentence(names, task, liked) == expected


def test_lists_get_the_reasons_of_each_place(trained):
    rows = histories("abc", "", "d").matrix
    items, shares = reasons_of_lists(trained.model, rows, np.int32([[3, -1], [-1, -1], [2, 0]]), 2)
    assert items.tolist() == [[[0, 1], [-1, -1]], [[-1, -1], [-1, -1]], [[3, -1], [-1, -1]]]
    np.testing.assert_allclose(shares[0, 0], [0.75, 0.25])
    np.testing.assert_allclose(shares[2, 0], [1, np.nan])


RATINGS = pd.DataFrame({"user_id": ["u", "u", "u", "v"], "item_id": ["a", "b", "c", "zzz"]})


def test_a_frame_has_a_row_for_each_reason(trained):
    frame = trained.explain(RATINGS, "u", ["d", "c"], n=5)
    assert frame.columns.tolist() == ["item_id", "rank", "reason_id", "contribution", "share"]
    assert frame[["item_id", "rank", "reason_id"]].values.tolist() == [["d", 1, "a"], ["d", 2, "b"]]
    np.testing.assert_allclose(frame["share"], [0.75, 0.25])
    pd.testing.assert_frame_equal(trained.explain(RATINGS, "u", n=5), frame)  # d is all there is to recommend
    assert len(trained.explain(RATINGS, "u", ["d"], n=1)) == 1
    assert len(trained.explain(RATINGS, "u", ["c"])) == 0


def test_a_frame_of_what_is_not_there_is_refused_by_name(trained):
    with pytest.raises(DataError, match="users that are among histories, found 1 unknown, first 'nobody'"):
        trained.explain(RATINGS, "nobody")
    with pytest.raises(DataError, match="found 1 unknown, first 'x'"):
        trained.explain(RATINGS, "u", ["x"])
    with pytest.raises(DataError, match="history of 'v' with an item that the model knows"):
        trained.explain(RATINGS, "v", ["a"])
