import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from recsys.errors import DataError, UnsupportedError
from recsys.models import create_model
from recsys.models.ratings.base import fold_in, rate_by_codes
from recsys.models.ratings.baseline import Baseline
from recsys.training.batches import SparseRows

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


def test_the_global_mean_is_predicted_for_all_users():
    model = create_model("global-mean").fit(csr_matrix(np.float32([[5, 1], [3, 0]])))
    assert model.score(csr_matrix(np.float32([[5, 5]]))).tolist() == [[3, 3]]


def test_a_user_without_ratings_gets_the_means_of_the_items():
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
    monkeypatch.setattr("recsys.models.ratings.base._SHARED", 100 if shared else 0)
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


def test_users_are_folded_in_on_residuals():
    matrix = csr_matrix(np.float32([[5, 1, 5], [1, 5, 1]]))
    baseline = Baseline.fit(matrix, 1e9, 1e9, CPU)  # the mean alone: 3
    codes = torch.tensor([[1.0], [-1.0], [1.0]])
    found = rate_by_codes(baseline, codes, torch.ones(1), rows(csr_matrix(np.float32([[5, 0, 0]]))))
    np.testing.assert_allclose(found, [[3 + 1, 3 - 1, 3 + 1]], atol=1e-5)  # weight 2 * 1 / (1 + 1)


def test_residuals_by_items_are_the_transposed_residuals_by_users():
    matrix = ratings((0, 0, 5.0), (0, 2, 1.0), (1, 2, 4.0), shape=(2, 3))
    baseline = Baseline.fit(matrix, 1.0, 1.0, CPU)
    by_user, by_item = (baseline.residual_rows(matrix, transposed).everything() for transposed in (False, True))
    assert by_item.offsets.tolist() == [0, 1, 1, 3]
    assert by_item.items.tolist() == [0, 0, 1]
    np.testing.assert_allclose(by_item.values, by_user.values)  # cells (0, 0), (0, 2), (1, 2) in both orders


def test_predictions_beyond_the_scale_are_clipped_softly_in_their_order():
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


# New items


def test_the_bias_of_a_new_item_is_the_shrunken_mean_of_the_residuals_of_its_raters():
    known = csr_matrix(np.float32([[5], [1], [3]]))  # mean 3; users 2 / (1 + 1) = 1, -1 and 0
    model = create_model("biases", {"user_shrinkage": 1, "item_shrinkage": 2}).fit(known)
    more = model.with_rated_items(known, ratings((0, 0, 5.0), (1, 0, 4.0), shape=(3, 1)))
    assert more.baseline.items[1] == pytest.approx(((5 - 3 - 1) + (4 - 3 + 1)) / (2 + 2))
    assert (more.n_items, model.n_items, len(model.baseline.items)) == (2, 1, 1)  # the first is as it was
    no_ratings = csr_matrix((1, 2), dtype=np.float32)
    np.testing.assert_allclose(more.score(no_ratings), [[3, 3.75]])


TASTE = {
    "biased-mf": {"factors": 2, "l2": 0.5},
    "autorec": {"hidden": 20, "dropout": 0.2, "code_dropout": 0, "l2": 0.5, "input_l2": 0.1, "fold_l2": 1.0},
    "kernel-ae": {"hidden": 20, "dropout": 0.2, "code_dropout": 0, "l2": 0.5, "input_l2": 0.1, "fold_l2": 1.0},
    "rating-blend": {"members": "biased-mf,biased-mf", "weights": "1,1", "biased-mf.factors": 2, "biased-mf.l2": 0.5},
}


def planted():
    """60 users of two tastes: 5 stars for items of their own taste, 1 for the others. The last item is new."""
    taste = np.where(np.arange(60) % 2, 1, -1)[:, None] * np.where(np.arange(13) % 2, 1, -1)
    table = np.float32(3 + 2 * taste)
    first = np.where(np.arange(60) < 20, table[:, 12], 0)[:, None]
    return csr_matrix(table[:, :12]), csr_matrix(first), table[20:, 12]


@pytest.mark.parametrize("name", TASTE)
def test_a_new_item_is_predicted_by_the_taste_of_its_raters(name):
    known, first, others = planted()
    settings = TASTE[name] | ({} if "biased-mf" in str(TASTE[name]) + name else {"epochs": 150, "learning_rate": 0.02})
    model = create_model(name, settings).fit(known).with_rated_items(known, first)
    bias_alone = create_model("biases").fit(known).with_rated_items(known, first)
    histories = csr_matrix(np.hstack([known.toarray(), first.toarray()])[20:])
    errors = [np.abs(found.score(histories)[:, 12].numpy() - others).mean() for found in (model, bias_alone)]
    assert errors[0] < 1 < 1.9 < errors[1]


def test_a_model_with_new_items_is_saved_like_any_other():
    known, first, _ = planted()
    more = create_model("biased-mf", {"factors": 2}).fit(known).with_rated_items(known, first)
    again = create_model("biased-mf", {"factors": 2}).set_state(more.get_state(), 13, "cpu")
    histories = csr_matrix((1, 13), dtype=np.float32)
    assert again.score(histories).tolist() == more.score(histories).tolist()


def test_a_new_item_gets_a_code_without_shrinkage_too():
    known, first, _ = planted()
    model = create_model("autorec", {"hidden": 4, "epochs": 1, "item_shrinkage": 0}).fit(known)
    assert torch.isfinite(model.with_rated_items(known, first).embed_items()).all()


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("global-mean", {}, "by a bias and a code alone"),
        ("rating-knn", {}, "by a bias and a code alone"),
        ("autorec", {"side": "user", "hidden": 2, "epochs": 1}, "use side=item"),
    ],
)
def test_models_without_codes_of_items_refuse_new_items(name, settings, says):
    known, first, _ = planted()
    model = create_model(name, settings).fit(known)
    with pytest.raises(UnsupportedError, match=says):
        model.with_rated_items(known, first)


@pytest.mark.parametrize(
    ("new", "says"),
    [
        (csr_matrix(np.float32([[1]])), "a row of ratings for each of 2 histories, found 1"),
        (csr_matrix(np.float32([[1, 0], [2, 0]])), "a rating of every new item, found none of 1"),
        (csr_matrix(np.float32([[1], [np.nan]])), "finite ratings"),
    ],
)
def test_ratings_of_new_items_that_do_not_fit_are_refused(new, says):
    known = csr_matrix(np.float32([[5, 1], [1, 5]]))
    with pytest.raises(DataError, match=says):
        create_model("biases").fit(known).with_rated_items(known, new)
