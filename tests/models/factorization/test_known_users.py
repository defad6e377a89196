"""Factors of the training users: recognized by their histories, and bit by bit those of folding in."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from recsys.errors import DataError
from recsys.models import create_model
from recsys.models.factorization import known_users
from recsys.models.factorization.known_users import KnownUsers, hash_rows

MODELS = pytest.mark.parametrize("name", ["als", "ials"])


def histories(users=12, seed=0):
    rng = np.random.default_rng(seed)
    return csr_matrix((rng.random((users, 9)) < 0.4).astype(np.float32))


def fit(name, x):
    return create_model(name, {"factors": 4, "iterations": 2}).fit(x)


def test_rows_of_equal_cells_have_equal_hashes_and_others_do_not():
    rows = csr_matrix(np.float32([[1, 0, 1], [1, 0, 1], [1, 0, 2], [0, 1, 1], [0, 0, 0], [0, 0, 0]]))
    found = hash_rows(rows)
    assert found[0] == found[1]
    assert found[4] == found[5]
    assert len(set(found.tolist())) == 4


def test_a_hash_depends_neither_on_the_other_rows_nor_on_the_order_of_the_cells():
    x = histories()
    shuffled = csr_matrix((x.data[:2][::-1].copy(), np.int32([5, 3]), [0, 2]), shape=(1, 9))
    ordered = csr_matrix((x.data[:2].copy(), np.int32([3, 5]), [0, 2]), shape=(1, 9))
    assert hash_rows(shuffled) == hash_rows(ordered)
    np.testing.assert_array_equal(hash_rows(x[3:5]), hash_rows(x)[3:5])


def test_known_histories_are_looked_up_and_only_the_others_are_folded_in():
    x, asked = histories(), []

    def fold_in(rows):
        asked.append(rows.shape[0])
        return torch.as_tensor(rows.sum(axis=1)).float().repeat(1, 2)

    known = KnownUsers.of(x, fold_in, width=2)
    mixed = csr_matrix(np.vstack([x.toarray()[7], np.ones(9), x.toarray()[2]]).astype(np.float32))
    found = known.factors_of(mixed, fold_in)
    torch.testing.assert_close(found[:, 0], torch.as_tensor(mixed.toarray().sum(axis=1)))
    assert asked[1:] == [1]


@MODELS
def test_scores_are_bit_by_bit_those_of_folding_in(name):
    x = histories()
    model = fit(name, x)
    quick = model.score(x)
    model._known = KnownUsers(np.empty(0, dtype=np.int64), torch.empty(0, 4))
    assert torch.equal(quick, model.score(x))


@MODELS
def test_a_changed_history_is_folded_in(name):
    x = histories()
    model = fit(name, x)
    changed = x.toarray()
    changed[0] = 1 - changed[0]
    assert not torch.equal(model.score(csr_matrix(changed))[0], model.score(x)[0])


@MODELS
def test_the_state_holds_them_and_one_without_them_scores_the_same(name):
    x = histories()
    model = fit(name, x)
    state = model.get_state()
    without = {key: tensor for key, tensor in state.items() if not key.startswith("known.")}
    for kept in (state, without):
        again = create_model(name, {"factors": 4, "iterations": 2})
        again.set_state(kept, 9)
        assert torch.equal(again.score(x), model.score(x))


@MODELS
def test_half_of_them_is_refused(name):
    state = fit(name, histories()).get_state()
    del state["known.hashes"]
    with pytest.raises(DataError, match=r"known\.hashes"):
        create_model(name, {"factors": 4, "iterations": 2}).set_state(state, 9)


@MODELS
def test_too_many_are_not_kept(name, monkeypatch):
    monkeypatch.setattr(known_users, "MOST_BYTES", 4 * 4 * 11)  # eleven users of four factors
    x = histories()
    model = fit(name, x)
    assert len(model.get_state()["known.hashes"]) == 0
    assert torch.isfinite(model.score(x)).all()
