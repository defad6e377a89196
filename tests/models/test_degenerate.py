"""Data at the edges, by every model: a fit either works, with finite scores also when saved, or is refused."""

import numpy as np
import pytest
import torch
from model_contract import create, every_model
from scipy.sparse import csr_matrix

from recsys.errors import RecsysError
from recsys.models import MODELS
from recsys.training.context import TrainingContext


def ones(users, items):
    return np.ones((users, items), dtype=np.float32)


def with_row(matrix, value):
    matrix = matrix.copy()
    matrix[0] = value
    return matrix


def pairs():
    rng = np.random.default_rng(0)
    return (rng.random((12, 7)) < 0.4) * rng.integers(1, 6, (12, 7)).astype(np.float32)


def alone(users, items):
    """Only the last user has an item, the last."""
    matrix = np.zeros((users, items), dtype=np.float32)
    matrix[-1, -1] = 3
    return matrix


SETS = {
    "one cell": ones(1, 1),
    "one user": ones(1, 5),
    "one item": ones(5, 1),
    "one interaction": alone(4, 6),
    "all equal": ones(6, 5),
    "all equal but large": 5 * ones(6, 5),
    "two users who share nothing": np.eye(2, dtype=np.float32),
    "no two users share an item": np.eye(8, dtype=np.float32),
    "a user with all items": with_row(np.eye(8, dtype=np.float32), 1),
    "an item of all users": with_row(np.eye(8, dtype=np.float32), 1).T,
    "equal users": np.repeat(pairs()[:1], 9, axis=0),
    "equal items": np.repeat(pairs()[:, :1], 9, axis=1),
    "empty rows and columns": np.pad(pairs(), 4),
    "more items than users": np.tile(pairs(), (1, 5)),
    "more users than items": np.tile(pairs(), (5, 1)),
    "values of 1e-7": 1e-7 * pairs(),
    "values of 1e-30": 1e-30 * pairs(),
    "values of 1e7": 1e7 * pairs(),
    "values of 1e18": 1e18 * pairs(),
    "values of 1e30": 1e30 * pairs(),
    "one value of 1e30": with_row(pairs(), 1e30),
    "values of 1 and 1e-20": np.where(pairs() > 2, 1, 1e-20 * pairs()),
}


def stored(values, zeros):
    """The matrix; with `zeros`, cells of value 0 are stored in every tenth place."""
    matrix = csr_matrix(values.astype(np.float32))
    if not zeros:
        return matrix
    mask = csr_matrix((values != 0) | (np.arange(values.size).reshape(values.shape) % 10 == 0))
    return csr_matrix((values.astype(np.float32)[mask.nonzero()], mask.indices, mask.indptr), shape=values.shape)


@every_model
@pytest.mark.parametrize("data", SETS)
@pytest.mark.parametrize("zeros", [False, True], ids=["plain", "with stored zeros"])
def test_a_fit_works_or_is_refused(name, data, zeros):
    matrix = stored(SETS[data], zeros)
    quick = {key: 3 for key in ("epochs", "iterations") if hasattr(MODELS[name].Config, key)}
    model = create(name, **quick)
    try:
        model.fit(matrix, TrainingContext(device="cpu"))
    except RecsysError as error:
        assert len(str(error)) > 30  # it says what was expected
        return
    users = np.arange(matrix.shape[0])
    scores = model.score(matrix, users=users)
    assert scores.shape == matrix.shape
    assert scores.isfinite().all()
    again = create(name, **quick).set_state(model.get_state(), matrix.shape[1], "cpu")
    assert torch.equal(again.score(matrix, users=users), scores)


@pytest.mark.parametrize("data", ["one user", "one item", "all equal", "an item of all users", "values of 1e-7"])
@every_model
def test_default_settings_work_on_data_smaller_than_their_factors(name, data):
    matrix, quick = stored(SETS[data], False), {}
    if hasattr(MODELS[name].Config, "epochs"):
        quick["epochs"] = 2
    if "blend" in name:
        quick = {"members": "ease,als" if name == "blend" else "biases,biased-mf", "weights": "1,1"}
    try:
        model = MODELS[name].create(quick).fit(matrix, TrainingContext(device="cpu"))
    except RecsysError:
        return
    assert model.score(matrix, users=np.arange(matrix.shape[0])).isfinite().all()
