"""How every model scores histories: forms of the matrix, shapes, blocks, empty histories, precision."""

import numpy as np
import pytest
import torch
from model_contract import (
    ALL_USERS,
    copy_state,
    create,
    every_model,
    random_streams,
    scores_of,
    states_equal,
    two_tastes,
)
from scipy.sparse import coo_matrix, csc_matrix, csr_array, csr_matrix

from recsys.errors import DataError, NotFittedError, UnsupportedError
from recsys.models import MODELS
from recsys.models.autoencoders.network import NetworkRecommender

# Forms of the matrix


def as_array(matrix):
    return csr_array(matrix)


def with_wide_indices(matrix):
    wide = matrix.copy()
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    return wide


def unsorted(matrix):
    mixed = matrix.copy()
    for start, stop in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
        mixed.indices[start:stop] = matrix.indices[start:stop][::-1]
        mixed.data[start:stop] = matrix.data[start:stop][::-1]
    mixed.has_sorted_indices = False
    return mixed


def in_halves(matrix):
    """Each cell twice, each time with half of its value."""
    cells = coo_matrix(matrix)
    row, column, halves = np.tile(cells.row, 2), np.tile(cells.col, 2), np.tile(cells.data / 2, 2)
    order = np.lexsort((column, row))
    return csr_matrix((halves[order], column[order], 2 * matrix.indptr), shape=matrix.shape)


def read_only(matrix):
    locked = matrix.copy()
    for part in (locked.data, locked.indices, locked.indptr):
        part.flags.writeable = False
    return locked


def float64(matrix):
    return matrix.astype(np.float64)


@every_model
@pytest.mark.parametrize("form", [as_array, with_wide_indices, unsorted, in_halves, read_only, float64, csc_matrix])
def test_every_sparse_form_gives_the_same_scores(name, form, fitted):
    model = create(name).fit(form(two_tastes(name)))
    assert torch.equal(scores_of(model, form(two_tastes(name))), scores_of(fitted(name)))


@every_model
def test_one_row_of_a_sparse_array_is_one_history(name, fitted):
    row = csr_array(two_tastes(name))[7]
    assert row.ndim == 1
    best, _ = fitted(name).recommend(7, row, N=1)
    np.testing.assert_array_equal(best, fitted(name).recommend(7, two_tastes(name)[7], N=1)[0])


@every_model
def test_a_stored_zero_is_an_item_seen_and_gives_finite_scores(name):
    matrix = two_tastes(name)
    matrix.data[0] = 0  # user 0, item 1
    model = create(name).fit(matrix)
    assert scores_of(model, matrix).isfinite().all()
    assert 1 not in model.recommend(0, matrix[0], N=10)[0]


@every_model
def test_an_item_without_users_has_a_finite_score(name):
    matrix = csr_matrix((two_tastes(name).data, two_tastes(name).indices, two_tastes(name).indptr), shape=(10, 12))
    assert scores_of(create(name).fit(matrix), matrix).isfinite().all()


# Scoring


@every_model
def test_scores_are_float32_a_user_and_an_item(name, fitted):
    scores = scores_of(fitted(name))
    assert (scores.dtype, tuple(scores.shape)) == (torch.float32, (10, 10))


@every_model
def test_scores_of_some_items_are_those_of_all_items_at_their_places(name, fitted):
    some = scores_of(fitted(name), items=[7, 0, 7])
    assert torch.equal(some, scores_of(fitted(name))[:, [7, 0, 7]])
    assert scores_of(fitted(name), items=[]).shape == (10, 0)


@every_model
@pytest.mark.parametrize("width", [3, 10, 99])
def test_blocks_of_scores_side_by_side_are_the_scores(name, width, fitted):
    blocks = list(fitted(name).score_blocks(two_tastes(name), ALL_USERS, width))
    torch.testing.assert_close(torch.cat(blocks, dim=1), scores_of(fitted(name)), rtol=1e-5, atol=1e-6)


@every_model
@pytest.mark.parametrize("items", [[10], [-1], ["a"], [True], [0.5]])
def test_items_that_are_no_positions_are_refused(name, items, fitted):
    for ask in (
        lambda: scores_of(fitted(name), items=items),
        lambda: fitted(name).recommend(ALL_USERS, two_tastes(name), items=items),
        lambda: fitted(name).recommend(ALL_USERS, two_tastes(name), filter_items=items),
    ):
        with pytest.raises(DataError, match=r"item positions in 0\.\.9, found"):
            ask()


@every_model
def test_a_user_scores_the_same_alone_and_in_a_batch(name, fitted):
    together = scores_of(fitted(name))
    for user in (0, 9):
        alone = scores_of(fitted(name), two_tastes(name)[user], users=[user])
        torch.testing.assert_close(alone[0], together[user], rtol=1e-5, atol=1e-6)


@every_model
def test_score_changes_nothing(name, fitted):
    model, history = fitted(name), two_tastes(name)
    state, streams, first = copy_state(model), random_streams(), scores_of(fitted(name), history)
    assert torch.equal(scores_of(model, history), first)
    assert states_equal(model.get_state(), state)
    assert (history != two_tastes(name)).nnz == 0
    assert random_streams() == streams


@every_model
def test_writing_into_the_scores_does_not_change_the_model(name, fitted):
    first = scores_of(fitted(name))
    before = first.clone()
    first[:] = -torch.inf
    assert torch.equal(scores_of(fitted(name)), before)


@every_model
def test_histories_without_items_have_finite_scores(name, fitted):
    empty = csr_matrix((2, 10), dtype=np.float32)
    assert scores_of(fitted(name), empty, users=[0, 1]).isfinite().all()


@every_model
def test_no_histories_have_no_scores(name, fitted):
    assert scores_of(fitted(name), csr_matrix((0, 10), dtype=np.float32), users=[]).shape == (0, 10)


@every_model
def test_an_unfitted_model_says_what_to_call(name):
    model = create(name)
    for ask in (
        lambda: scores_of(model),
        lambda: model.recommend(ALL_USERS, two_tastes(name)),
        lambda: model.similar_items(0),
        model.get_state,
    ):
        with pytest.raises(NotFittedError, match=r"call fit\(\)"):
            ask()


@every_model
def test_histories_over_another_catalog_are_refused(name, fitted):
    with pytest.raises(DataError, match="the model's 10 items, found 9 columns"):
        scores_of(fitted(name), two_tastes(name)[:, :9])


needing_users = pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name].needs_training_users])


@needing_users
@pytest.mark.parametrize("users", [None, [0], [-1] * 10, range(1, 11)])
def test_a_model_of_its_training_users_refuses_others_with_the_reason(name, users, fitted):
    with pytest.raises(UnsupportedError, match=r"only users it was trained on|was trained on 10 users, found user 10"):
        scores_of(fitted(name), users=users)


@pytest.mark.parametrize("name", [name for name in MODELS if not MODELS[name].needs_training_users])
def test_every_other_model_scores_new_users(name, fitted):
    new_user = csr_matrix(np.float32([[1, 1, 0, 0, 0, 0, 0, 0, 0, 0]]))
    assert fitted(name).score(new_user).isfinite().all()


# Precision


def in_bf16(name, fitted):
    model = create(name).set_state(fitted(name).get_state(), 10, "cpu")
    model.to_bf16()
    return model


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if issubclass(model, NetworkRecommender)])
def test_networks_score_in_bfloat16_within_its_digits(name, fitted):
    exact, near = scores_of(fitted(name)), scores_of(in_bf16(name, fitted))
    assert near.dtype == torch.float32
    assert not torch.equal(near, exact)
    assert (near - exact).abs().max() < 0.03 * exact.abs().max()


def test_a_model_without_products_refuses_bfloat16(fitted):
    with pytest.raises(UnsupportedError, match="fp32 only"):
        in_bf16("popularity", fitted)
