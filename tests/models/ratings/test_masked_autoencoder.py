import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from recsys.models import create_model
from recsys.models.ratings.cell_products import cell_products
from recsys.models.ratings.masked_autoencoder import MaskedInput
from recsys.training.batches import SparseRows
from recsys.training.context import TrainingContext

MATRIX = csr_matrix(np.float32([[5, 1, 0], [0, 2, 0], [0, 0, 0]]))
BATCH = SparseRows(MATRIX, torch.device("cpu")).everything()  # cells (0, 0), (0, 1), (1, 1)


def test_products_at_the_cells_are_those_of_the_whole_table():
    codes, table = torch.arange(6.0).reshape(3, 2), torch.arange(6.0).reshape(3, 2) + 1
    found = cell_products(codes, table, BATCH)
    np.testing.assert_array_equal(found, (codes @ table.T)[[0, 0, 1], [0, 1, 1]])


def test_their_gradients_are_those_of_the_whole_table():
    codes, table = torch.randn(3, 2, requires_grad=True), torch.randn(3, 2, requires_grad=True)
    weights = torch.tensor([1.0, -2.0, 3.0])
    ours = torch.autograd.grad((cell_products(codes, table, BATCH) * weights).sum(), (codes, table))
    theirs = torch.autograd.grad(((codes @ table.T)[[0, 0, 1], [0, 1, 1]] * weights).sum(), (codes, table))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_the_input_uses_values_and_presence():
    layer = MaskedInput(3, 1, dropout=0.0, presence=2.0)
    with torch.no_grad():
        layer.values.weight.copy_(torch.tensor([[1.0], [10.0], [100.0]]))
        layer.places.weight.copy_(torch.tensor([[0.5], [0.25], [9.0]]))
    assert layer(BATCH).ravel().tolist() == [5 * 1 + 1 * 10 + 2 * (0.5 + 0.25), 2 * 10 + 2 * 0.25, 0]


@pytest.mark.parametrize("side", ["item", "user"])
def test_a_network_learns_more_than_biases(side):
    two_tastes = np.where(np.kron(np.eye(2), np.ones((6, 6))) == 1, 5, 1).astype(np.float32)
    hidden_cells = np.eye(12, dtype=bool)
    matrix = csr_matrix(np.where(hidden_cells, 0, two_tastes))
    gentle = {"dropout": 0, "code_dropout": 0, "l2": 0.1, "input_l2": 0.01, "fold_l2": 0.5, "learning_rate": 0.02}
    model = create_model("autorec", {**gentle, "side": side, "hidden": 8, "epochs": 60, "members": 2}).fit(matrix)
    assert model.score(matrix).numpy()[hidden_cells].min() > 4


def test_validation_sees_every_epoch_as_it_is():
    matrix = csr_matrix(np.random.default_rng(0).integers(1, 6, (9, 7)).astype(np.float32))
    seen = []
    context = TrainingContext(validate=lambda score: seen.append(score(matrix).numpy().copy()) or len(seen))
    create_model("autorec", {"hidden": 4, "epochs": 3, "learning_rate": 0.1}).fit(matrix, context)
    assert len(seen) == 3
    assert not np.array_equal(seen[0], seen[1])


def test_the_best_epochs_codes_are_kept():
    matrix = csr_matrix(np.random.default_rng(0).integers(1, 6, (9, 7)).astype(np.float32))
    settings = {"hidden": 4, "epochs": 5, "learning_rate": 0.1}
    seen = []
    context = TrainingContext(validate=lambda score: seen.append(score(matrix).numpy().copy()) or -len(seen))
    model = create_model("autorec", settings).fit(matrix, context)  # the first epoch is the best
    np.testing.assert_array_equal(model.score(matrix), seen[0])


def test_a_bad_first_half_does_not_end_the_training():
    matrix = csr_matrix(np.float32([[5, 1, 4], [1, 5, 2], [4, 2, 5]]))
    values = iter([9, 1, 1, 1, 10, 1, 1, 1])
    context = TrainingContext(validate=lambda score: next(values), patience=1)
    model = create_model("autorec", {"hidden": 3, "epochs": 8}).fit(matrix, context)
    assert [epoch.value for epoch in model.epochs[:5]] == [9, 1, 1, 1, 10]
