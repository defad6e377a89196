import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from recsys.models import create_model
from recsys.models.rating import Baseline, fold_in, rate_by_codes
from recsys.training import SparseRows

CPU = torch.device("cpu")


def ratings(*cells, shape):
    users, items, values = zip(*cells, strict=True)
    return csr_matrix((np.float32(values), (users, items)), shape=shape)


def rows(matrix):
    return SparseRows(matrix, CPU).everything()


def test_biases_without_shrinkage_explain_a_table_that_is_a_sum():
    table = np.add.outer([0, 1], [1, 2, 4]).astype(np.float32)
    model = create_model("biases", {"user_shrinkage": 0, "item_shrinkage": 0}).fit(csr_matrix(table))
    np.testing.assert_allclose(model.score(csr_matrix(table)), table, atol=0.005)  # the ends of the scale give way


def test_a_bias_is_shrunk_as_if_there_were_more_ratings_as_expected():
    one_item = csr_matrix(np.float32([[5], [1]]))  # mean 3; residuals 2 and -2
    model = create_model("biases", {"user_shrinkage": 1, "item_shrinkage": 0}).fit(one_item)
    np.testing.assert_allclose(model.score(one_item)[:, 0], [3 + 2 / (1 + 1), 3 - 2 / (1 + 1)])


def test_the_global_mean_is_everybodys():
    model = create_model("global-mean").fit(csr_matrix(np.float32([[5, 1], [3, 0]])))
    assert model.score(csr_matrix(np.float32([[5, 5]]))).tolist() == [[3, 3]]


def test_a_person_without_ratings_gets_the_items_means():
    model = create_model("biases", {"item_shrinkage": 0}).fit(csr_matrix(np.float32([[5, 2], [5, 2]])))
    np.testing.assert_allclose(model.score(csr_matrix((1, 2), dtype=np.float32)), [[5, 2]], atol=0.005)


def test_predictions_stay_on_the_scale_of_training():
    matrix = ratings((0, 0, 5.0), (0, 1, 4.0), (1, 1, 4.0), shape=(2, 2))
    model = create_model("biases", {"user_shrinkage": 0, "item_shrinkage": 0}).fit(matrix)
    enthusiast = csr_matrix(np.float32([[0, 9]]))
    best, other = sorted(model.score(enthusiast)[0].tolist(), reverse=True)
    assert 4.99 < other < best <= 5


def test_a_real_zero_and_a_negative_rating_count():
    matrix = ratings((0, 0, 0.0), (1, 0, -6.0), shape=(2, 1))
    assert create_model("global-mean").fit(matrix).score(matrix)[:, 0].tolist() == [-3, -3]


@pytest.mark.parametrize("lengths", [[3], [1, 9, 2, 9, 0, 4], [0, 0]])
@pytest.mark.parametrize("shared", [True, False])
def test_folding_in_is_ridge_regression(lengths, shared, monkeypatch):
    monkeypatch.setattr("recsys.models.rating._SHARED", 100 if shared else 0)
    rng = np.random.default_rng(0)
    codes = torch.as_tensor(rng.normal(size=(9, 4)), dtype=torch.float32)  # lengths on both sides of the width
    matrix = csr_matrix((len(lengths), 9), dtype=np.float32).tolil()
    for user, length in enumerate(lengths):
        matrix[user, rng.permutation(9)[:length]] = rng.normal(size=length)
    l2 = torch.arange(1.0, len(lengths) + 1)
    found = fold_in(rows(csr_matrix(matrix)), codes, l2)
    for user in range(len(lengths)):
        z, e = codes.numpy()[matrix[user].nonzero()[1]], np.asarray(matrix[user, matrix[user].nonzero()[1]].todense())
        by_hand = np.linalg.solve(z.T @ z + (user + 1) * np.eye(4), z.T @ e.ravel())
        np.testing.assert_allclose(found[user], by_hand, atol=1e-5)


def test_people_are_folded_in_on_what_biases_leave():
    matrix = csr_matrix(np.float32([[5, 1, 5], [1, 5, 1]]))
    baseline = Baseline.fit(matrix, 1e9, 1e9, CPU)  # the mean alone: 3
    codes = torch.tensor([[1.0], [-1.0], [1.0]])
    found = rate_by_codes(baseline, codes, torch.ones(1), rows(csr_matrix(np.float32([[5, 0, 0]]))))
    np.testing.assert_allclose(found, [[3 + 1, 3 - 1, 3 + 1]], atol=1e-5)  # weight 2 * 1 / (1 + 1)


def test_what_is_left_by_items_is_what_is_left_by_users_turned():
    matrix = ratings((0, 0, 5.0), (0, 2, 1.0), (1, 2, 4.0), shape=(2, 3))
    baseline = Baseline.fit(matrix, 1.0, 1.0, CPU)
    by_user, by_item = (baseline.residual_rows(matrix, transposed).everything() for transposed in (False, True))
    assert by_item.offsets.tolist() == [0, 1, 1, 3]
    assert by_item.items.tolist() == [0, 0, 1]
    np.testing.assert_allclose(by_item.values, by_user.values)  # cells (0, 0), (0, 2), (1, 2) in both orders


def test_predictions_beyond_the_scale_come_into_it_in_their_order():
    baseline = Baseline(*(torch.tensor(number) for number in (3.0, [0.0], 1.0, 5.0, 5.0)))
    beyond = torch.tensor([[-4.0, 0.5, 1.0, 1.5, 4.0, 4.98, 5.0, 5.5, 9.0]])
    within = baseline.within(beyond)
    assert (within.diff() > 0).all()
    assert within.min() > 1
    assert within.max() < 5
    torch.testing.assert_close(within[0, 3:6], beyond[0, 3:6])  # inside nothing moves
    assert within[0, 6] == pytest.approx(4.992 + 0.004)  # m = .008, reach .008: half of the edge


def test_a_scale_of_one_value_gives_that_value():
    baseline = Baseline(*(torch.tensor(number) for number in (3.0, [0.0], 3.0, 3.0, 5.0)))
    assert baseline.within(torch.tensor([[2.0, 3.0, 7.0]])).tolist() == [[3.0, 3.0, 3.0]]
