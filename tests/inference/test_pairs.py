import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from recsys.inference.pairs import predict_pairs

HISTORIES = csr_matrix(np.float32([[1, 0, 0], [0, 2, 0], [0, 0, 3]]))


def score(history, users=None):
    """Ten times what a user rated, plus the number of the item."""
    rated = torch.from_numpy(history.toarray()).sum(1, keepdim=True)
    return 10 * rated + torch.arange(3.0)


@pytest.mark.parametrize("batch_size", [1, 2, 512])
def test_pairs_are_answered_in_their_order_whoever_they_are_of(batch_size):
    user, item = np.array([2, 0, 2, 1, 0]), np.array([0, 2, 1, 1, 2])
    assert predict_pairs(score, HISTORIES, user, item, batch_size).tolist() == [30, 12, 31, 21, 12]


def test_a_pair_without_a_place_has_no_rating():
    found = predict_pairs(score, HISTORIES, np.array([-1, 0, 0]), np.array([0, -1, 0]))
    assert np.isnan(found).tolist() == [True, True, False]
    assert predict_pairs(score, HISTORIES, np.array([], dtype=int), np.array([], dtype=int)).tolist() == []


def test_each_user_is_scored_once_and_others_not_at_all():
    seen = []

    def watched(history):
        seen.extend(history.indices.tolist())
        return score(history)

    predict_pairs(watched, HISTORIES, np.array([2, 0, 2, 0]), np.array([0, 1, 2, 0]), batch_size=1)
    assert seen == [0, 2]


def test_training_rows_are_passed_on():
    received = []

    def watched(history, users):
        received.append(users.tolist())
        return score(history)

    predict_pairs(watched, HISTORIES, np.array([2, 0]), np.array([0, 1]), trained=np.array([7, 8, 9]))
    assert received == [[7, 9]]
