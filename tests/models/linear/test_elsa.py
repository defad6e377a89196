"""ELSA against its dense formula."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.sparse import csr_matrix

from recsys.models.linear.elsa import ELSA, ELSAConfig, ELSANetwork
from recsys.training.batches import SparseRows


def preferences(users=12, items=9, counts=False):
    rng = np.random.default_rng(0)
    values = rng.uniform(1, 5, (users, items)) if counts else 1.0
    return csr_matrix(((rng.random((users, items)) < 0.6) * values).astype(np.float32))


def batch_of(matrix):
    return SparseRows(matrix, torch.device("cpu")).everything()


def network(dropout=0.0):
    torch.manual_seed(0)
    return ELSANetwork(9, 3, dropout)


def scores_by_hand(net, x):
    codes = net.weight / net.weight.norm(dim=1, keepdim=True)
    return x @ codes @ codes.T - x


@pytest.mark.parametrize("counts", [False, True], ids=["ones", "counts"])
def test_loss_and_gradient_equal_those_of_the_dense_scores(counts):
    net, x = network(), preferences(counts=counts)
    net.loss(batch_of(x), 0.0).backward()
    ours, net.weight.grad = net.weight.grad, None
    dense = torch.as_tensor(x.toarray())
    wanted = (F.normalize(scores_by_hand(net, dense), dim=1) - F.normalize(dense, dim=1)).square().sum(1).mean()
    wanted.backward()
    torch.testing.assert_close(net.loss(batch_of(x), 0.0), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours, net.weight.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("width", [2, 9, 100])
def test_scores_are_the_history_through_the_codes_less_itself_in_blocks_of_any_width(width):
    net, x = network().eval(), preferences()
    found = torch.cat(list(net.blocks(batch_of(x), width)), dim=1)
    torch.testing.assert_close(found, scores_by_hand(net, torch.as_tensor(x.toarray())), rtol=1e-4, atol=1e-5)


def test_an_item_does_not_contribute_to_its_own_score():
    model = ELSA(ELSAConfig(latent=3, epochs=2)).fit(preferences())
    only_item_3 = csr_matrix(np.float32([[0, 0, 0, 1, 0, 0, 0, 0, 0]]))
    assert model.score(only_item_3)[0, 3] == pytest.approx(0, abs=1e-6)


def test_hidden_items_stay_in_the_target():
    # Nearly every cell is hidden from the input: no scores, a right angle to what is wanted.
    net, x = network(dropout=0.999), preferences()
    with torch.no_grad():
        assert float(net.train().loss(batch_of(x), 0.0)) == pytest.approx(2, abs=0.5)
        assert net.eval().loss(batch_of(x), 0.0) == network().loss(batch_of(x), 0.0)


def test_users_without_items_leave_loss_and_gradient_finite():
    net, empty = network(), csr_matrix((2, 9), dtype=np.float32)
    loss = net.loss(batch_of(empty), 0.0)
    loss.backward()
    assert loss.isfinite() and net.weight.grad.isfinite().all()
