import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix, vstack
from tastes import two_tastes

import recsys
from recsys.errors import DataError, UnsupportedError
from recsys.latent.generate import Source
from recsys.training.batches import SparseRows
from recsys.training.context import TrainingContext


@pytest.fixture(scope="module")
def people():
    return two_tastes(users=120, items=20).to_matrix().matrix


@pytest.fixture(scope="module", params=["vae", "recvae"])
def model(request, people):
    settings = {
        "vae": {"hidden": 16, "latent": 3, "epochs": 60, "learning_rate": 0.01, "beta": 0.05},
        "recvae": {"hidden": 16, "latent": 3, "epochs": 15, "learning_rate": 0.01},
    }[request.param]
    return recsys.create_model(request.param, settings).fit(people, TrainingContext(seed=1))


def drawn(source, users=2000, seed=0):
    return csr_matrix(vstack(list(source.draw(users, seed))))


def test_generated_users_have_one_taste_or_the_other_and_as_many_items_as_real_ones(model, people):
    made = drawn(Source.fitted(model, people))
    dense = made.toarray()
    assert set(np.unique(dense)) == {0.0, 1.0}
    real_lengths, lengths = np.diff(people.indptr), np.diff(made.indptr)
    assert set(lengths) <= set(real_lengths)
    assert lengths.mean() == pytest.approx(real_lengths.mean(), abs=0.3)
    share = dense[:, :10].sum(1) / dense.sum(1)
    # Nobody real mixes, and of people who take anything a tenth do not; both tastes are there.
    assert ((share < 0.3) | (share > 0.7)).mean() > 0.5
    assert 0.3 < (share > 0.5).mean() < 0.7


def test_the_seed_decides_and_more_users_change_none_of_the_first(model, people):
    source = Source.fitted(model, people)
    first = drawn(source, 3000, seed=5).toarray()
    np.testing.assert_array_equal(drawn(source, 3000, seed=5).toarray(), first)
    np.testing.assert_array_equal(drawn(source, 50, seed=5).toarray(), first[:50])
    assert (drawn(source, 50, seed=6).toarray() != first[:50]).any()


def test_users_are_drawn_block_by_block_however_many_are_asked_for(people):
    model = recsys.create_model("vae", {"hidden": 4, "latent": 2}).untrained(20)
    source = Source.fitted(model, people)
    assert next(source.draw(10_000_000)).shape == (2048, 20)
    assert [block.shape[0] for block in source.draw(2049)] == [2048, 1]
    assert source.count_blocks(2049) == 2 and source.count_blocks(2048) == 1


class Told:
    """A source whose shares of the items are given, whatever the code."""

    def __init__(self, shares, lengths):
        self.shares, self.lengths = np.log(np.float32(shares)), np.array(lengths)

    def source(self, people):
        found = Source.prior(recsys.create_model("vae", {"hidden": 4, "latent": 2}).untrained(len(self.shares)), people)
        object.__setattr__(found.decoder, "log_shares", lambda codes: np.tile(self.shares, (len(codes), 1)))
        return found


def test_items_are_drawn_without_replacement_by_their_shares():
    people = csr_matrix(np.array([[1, 1, 0]], dtype=np.float32))  # everybody has two
    made = drawn(Told([0.6, 0.3, 0.1], [2]).source(people), 40_000).toarray()
    assert (made.sum(1) == 2).all()
    pairs = {(0, 1): made[:, 0] * made[:, 1], (0, 2): made[:, 0] * made[:, 2], (1, 2): made[:, 1] * made[:, 2]}
    p = np.array([0.6, 0.3, 0.1])
    for (i, j), found in pairs.items():  # first i then j, or first j then i
        assert found.mean() == pytest.approx(p[i] * p[j] / (1 - p[i]) + p[j] * p[i] / (1 - p[j]), abs=0.01)


def test_the_normal_distribution_has_the_moments_of_codes_and_activity(model, people):
    source = Source.fitted(model, people)
    codes = model.embed_users(people)
    np.testing.assert_allclose(source.center[:-1], codes.mean.numpy().mean(0), rtol=1e-5, atol=1e-6)
    covariance = source.root @ source.root.T
    expected = np.cov(codes.mean.numpy().T, bias=True) + np.diag((codes.deviation.numpy() ** 2).mean(0))
    np.testing.assert_allclose(covariance[:-1, :-1], expected, rtol=1e-4, atol=1e-6)
    assert source.center[-1] == pytest.approx(np.log(np.diff(people.indptr)).mean())


def test_what_smoothing_spread_over_all_items_is_taken_off_again(people):
    plain = recsys.create_model("vae", {"hidden": 4, "latent": 2, "epochs": 1}).fit(people)
    smooth = recsys.create_model("vae", {"hidden": 4, "latent": 2, "epochs": 1, "smoothing": 0.2}).fit(people)
    smooth.set_state(plain.get_state(), 20)
    codes = np.zeros((1, 2))
    shares = plain.decode(codes).numpy()
    found = np.exp(Source.fitted(smooth, people).decoder.log_shares(codes))
    np.testing.assert_allclose(found, np.maximum((shares - 0.2 / 20) / 0.8, 1e-30), rtol=1e-4)


def test_the_prior_is_that_of_a_vae_alone(model, people):
    if model.name == "vae":
        made = drawn(Source.prior(model, people), 500)
        assert set(np.diff(made.indptr)) <= set(np.diff(people.indptr))
    else:
        with pytest.raises(UnsupportedError, match="not one of users alone"):
            Source.prior(model, people)


def test_models_that_cannot_generate_and_empty_people_are_refused(people):
    with pytest.raises(UnsupportedError, match="vae, recvae, rating-vae"):
        Source.fitted(recsys.create_model("popularity").fit(people), people)
    gray = recsys.create_model("vae", {"hidden": 4, "latent": 2, "likelihood": "bernoulli"}).untrained(20)
    with pytest.raises(UnsupportedError, match="multinomial"):
        Source.fitted(gray, people)
    model = recsys.create_model("vae", {"hidden": 4, "latent": 2}).untrained(20)
    with pytest.raises(DataError, match="found none"):
        Source.fitted(model, csr_matrix((3, 20), dtype=np.float32))
    with pytest.raises(DataError, match="at least 1 user"):
        next(Source.fitted(model, people).draw(0))


def test_one_person_is_enough_to_draw_from():
    model = recsys.create_model("vae", {"hidden": 4, "latent": 2}).untrained(6)
    torch.manual_seed(0)
    made = drawn(Source.fitted(model, csr_matrix(np.float32([[1, 0, 1, 0, 0, 1]]))), 10)
    assert (np.diff(made.indptr) == 3).all()


# Ratings


@pytest.fixture(scope="module", params=["item", "user"])
def rater(request):
    """A model of ratings of two tastes: what one half gives 5 or 4, the other gives 1 or 2; half the items are rare."""
    rng = np.random.default_rng(0)
    taste = np.arange(160)[:, None] % 2 == np.arange(20)[None, :] % 2
    rated = rng.random((160, 20)) < np.where(np.arange(20) < 10, 0.9, 0.4)
    dense = np.where(rated, np.where(taste, rng.integers(4, 6, rated.shape), rng.integers(1, 3, rated.shape)), 0)
    history = csr_matrix(dense.astype(np.float32))
    settings = {"side": request.param, "hidden": 16, "latent": 4, "epochs": 40, "dropout": 0.2, "code_dropout": 0.0}
    more = {"l2": 1.0, "input_l2": 0.1, "fold_l2": 1.0, "beta": 0.01, "learning_rate": 0.01}
    model = recsys.create_model("rating-vae", settings | more).fit(history, TrainingContext(seed=0))
    return model, history


def test_generated_ratings_are_those_of_one_taste_or_the_other(rater):
    model, history = rater
    made = drawn(Source.fitted(model, history), 1500)
    assert set(np.unique(made.data)) <= {1, 2, 4, 5}
    assert set(np.diff(made.indptr)) <= set(np.diff(history.indptr))
    counts, real = np.bincount(made.indices, minlength=20) / 1500, np.bincount(history.indices, minlength=20) / 160
    assert np.corrcoef(counts, real)[0, 1] > 0.95  # items by popularity
    assert made.data.mean() == pytest.approx(history.data.mean(), abs=0.3)
    even = np.asarray(made[:, ::2].sum(1) / np.maximum(made[:, ::2].getnnz(1)[:, None], 1)).ravel()
    odd = np.asarray(made[:, 1::2].sum(1) / np.maximum(made[:, 1::2].getnnz(1)[:, None], 1)).ravel()
    assert np.corrcoef(even, odd)[0, 1] < -0.5  # who likes the ones dislikes the others


def test_ratings_of_codes_are_the_predictions_of_the_users_who_have_them(rater):
    model, history = rater
    biases = model.baseline.split(SparseRows(history, torch.device("cpu")).everything())[1]
    found = model.decode(model.embed_users(history).mean, biases)
    torch.testing.assert_close(found, model.score(history), rtol=1e-4, atol=1e-4)


def test_generated_ratings_follow_the_seed(rater):
    source = Source.fitted(*rater)
    first = drawn(source, 60, seed=2).toarray()
    np.testing.assert_array_equal(drawn(source, 60, seed=2).toarray(), first)
    np.testing.assert_array_equal(drawn(source, 20, seed=2).toarray(), first[:20])


def test_ratings_of_many_levels_stay_within_the_scale(rater):
    model, history = rater
    finer = history.copy()
    finer.data = (finer.data + np.random.default_rng(0).random(finer.nnz)).astype(np.float32)
    made = drawn(Source.fitted(model, finer), 100)
    assert made.data.min() >= 1 and made.data.max() <= 5 and len(np.unique(made.data)) > 100
