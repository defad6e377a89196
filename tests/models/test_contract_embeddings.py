"""The contract of embeddings: short vectors of users and items, and vectors whose inner products are the scores."""

import numpy as np
import pytest
import torch
from model_contract import ALL_USERS, create, every_model, scores_of, two_tastes
from scipy.sparse import csr_matrix

from recsys.errors import ConfigError, DataError, NotFittedError, UnsupportedError
from recsys.models import MODELS, create_model
from recsys.models.embeddings import Embedder, truncated

WITHOUT = {"popularity", "recent-popularity", "global-mean", "biases"}
# Models of items x items weights
LONG_ROWS = {"ease", "edlae", "sparse-ease", "item-knn", "content-knn", "last-item", "rating-knn", "blend"}
VARIATIONAL = {"recvae", "svae", "vae"}
SCORES_ARE_PRODUCTS = {
    name
    for name, model in MODELS.items()
    if model.task == "ranking" and name not in WITHOUT | LONG_ROWS | {"bspm", "chebycf"}
}


def embed(model, history=None):
    return model.embed_users(two_tastes(model.name) if history is None else history, ALL_USERS)


@every_model
def test_users_and_items_have_vectors_and_a_baseline_says_that_it_has_none(name, fitted):
    model = fitted(name)
    if name in WITHOUT:
        with pytest.raises(UnsupportedError, match=f"{name} has no embeddings"):
            model.embed_items()
        with pytest.raises(UnsupportedError, match=f"{name} has no embeddings"):
            embed(model)
        return
    items, users = model.embed_items(), embed(model)
    assert items.shape[0] == len(users) == 10
    assert items.dtype == users.mean.dtype == torch.float32
    assert items.isfinite().all()
    assert users.mean.isfinite().all()
    assert (model.item_weights() is not None) == (name in LONG_ROWS)


@every_model
def test_users_and_items_of_one_taste_lie_together(name, fitted):
    # bpr, lmf: biases of items are part of their vectors; sasrec: items are near those that follow them, users to come
    if name in WITHOUT | {"bpr", "lmf", "rating-rbm", "sasrec"}:
        return
    model = fitted(name)
    for vectors in (model.embed_items(), embed(model).mean):
        units = torch.nn.functional.normalize(vectors - (vectors.mean(0) if name not in LONG_ROWS else 0), dim=1)
        cosines = (units @ units.T).fill_diagonal_(0)
        same = torch.block_diag(torch.ones(5, 5), torch.ones(5, 5)).fill_diagonal_(0)
        assert (cosines * same).sum() / 40 > (cosines * (1 - same)).sum() / 50 + 0.1


@every_model
def test_only_variational_models_have_a_deviation_and_it_is_above_0(name, fitted):
    if name in WITHOUT:
        return
    found = embed(fitted(name))
    assert (found.deviation is not None) == (name in VARIATIONAL)
    if found.deviation is not None:
        assert found.deviation.shape == found.mean.shape
        assert (found.deviation > 0).all()


@every_model
def test_a_user_has_the_same_embedding_alone_and_in_a_batch(name, fitted):
    if name in WITHOUT:
        return
    model = fitted(name)
    alone = model.embed_users(two_tastes(name)[3], [3]).mean
    torch.testing.assert_close(alone, embed(model).mean[3:4], rtol=1e-4, atol=1e-5)


@every_model
def test_a_loaded_model_gives_the_same_embeddings(name, fitted):
    if name in WITHOUT:
        return
    model = fitted(name)
    loaded = create(name).set_state(model.get_state(), 10, "cpu")
    assert torch.equal(loaded.embed_items(), model.embed_items())
    assert torch.equal(embed(loaded).mean, embed(model).mean)


@every_model
def test_inner_products_of_scoring_vectors_are_the_scores(name, fitted):
    model, history = fitted(name), two_tastes(name)
    if name not in SCORES_ARE_PRODUCTS:
        with pytest.raises(UnsupportedError, match="not inner products"):
            model.user_scoring_vectors(history, ALL_USERS)
        with pytest.raises(UnsupportedError, match="not inner products"):
            model.item_scoring_vectors()
        return
    products = model.user_scoring_vectors(history, ALL_USERS) @ model.item_scoring_vectors().T
    scores = scores_of(model)
    if name == "elsa":  # it takes the history off the scores, of items that are never recommended
        scores += torch.as_tensor(history.toarray())
    torch.testing.assert_close(products, scores, rtol=1e-4, atol=1e-4)


def test_a_blend_of_models_with_short_vectors_has_short_vectors_and_scoring_vectors():
    settings = {"members": "ials,dae", "weights": "1,3", "ials.factors": 2, "dae.latent": 4, "dae.epochs": 2}
    blend = create_model("blend", settings)
    blend.fit(two_tastes("blend"))
    assert blend.item_weights() is None
    assert blend.embed_items().shape == embed(blend).mean.shape == (10, 2 + 4)
    assert embed(blend).mean.square().sum(1).numpy() == pytest.approx(np.ones(10))  # the shares of the weights
    products = blend.user_scoring_vectors(two_tastes("blend")) @ blend.item_scoring_vectors().T
    torch.testing.assert_close(products, scores_of(blend), rtol=1e-4, atol=1e-4)


@every_model
def test_before_a_fit_and_with_other_columns_embeddings_are_refused(name, fitted):
    for ask in ("embed_items", "item_weights", "item_scoring_vectors"):
        with pytest.raises(NotFittedError):
            getattr(create(name), ask)()
    with pytest.raises(DataError, match="found 3 columns"):
        fitted(name).embed_users(csr_matrix((10, 3), dtype=np.float32), ALL_USERS)


@every_model
def test_an_embedder_gives_vectors_of_one_size_from_every_model(name, fitted):
    if name in WITHOUT:
        with pytest.raises(UnsupportedError, match="no embeddings"):
            Embedder.of(fitted(name))
        return
    model = fitted(name)
    embedder = Embedder.of(model, 3 if name in LONG_ROWS else None)
    assert embedder.is_factorized == (name in LONG_ROWS)
    users = embedder.users(two_tastes(name), ALL_USERS).mean
    if name in LONG_ROWS:
        assert embedder.items.shape == users.shape == (10, 3)
        with pytest.raises(ConfigError, match="size of at least 1"):
            Embedder.of(model, 0)
        return
    assert torch.equal(embedder.items, model.embed_items())
    assert torch.equal(users, embed(model).mean)
    with pytest.raises(ConfigError, match="size it was trained with"):
        Embedder.of(model, 7)


def test_a_factorization_of_full_size_keeps_every_cosine_and_a_smaller_one_the_largest_part():
    model = create("ease").fit(two_tastes("ease"))
    rows = torch.nn.functional.normalize(model.embed_items(), dim=1)
    full = Embedder.of(model, 300)
    torch.testing.assert_close(full.items @ full.items.T, rows @ rows.T, rtol=1e-4, atol=1e-5)
    users = full.users(two_tastes("ease")).mean
    own = embed(model).mean
    torch.testing.assert_close(users @ users.T, own @ own.T, rtol=1e-4, atol=1e-4)
    kept = Embedder.of(model, 4).items.square().sum(0)  # squared singular values; equal ones have many bases
    torch.testing.assert_close(kept, full.items.square().sum(0)[:4], rtol=1e-4, atol=1e-4)


def test_a_factorization_of_sparse_rows_is_that_of_dense_ones_and_signs_are_not_left_to_chance():
    dense = np.float32([[3, 0, 0, 1], [0, 2, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0.5]])
    for size in (2, 9):
        found = truncated(torch.as_tensor(dense), size)
        torch.testing.assert_close(truncated(csr_matrix(dense), size), found)
        torch.testing.assert_close(truncated(torch.as_tensor(-dense), size), -found)
        basis = np.linalg.svd(dense)[2][: found.shape[1]]
        assert np.abs(found.numpy()) == pytest.approx(np.abs(dense @ basis.T), abs=1e-5)


def test_rating_autoencoders_by_users_embed_what_their_network_encodes():
    for name, size, deviation in (("rating-vae", 4, True), ("rating-dae", 4, False), ("deep-autorec", 4, False)):
        model = create(name, side="user", epochs=2, members=2).fit(two_tastes(name))
        found = embed(model)
        assert found.mean.shape == (10, 2 * size)
        assert (found.deviation is not None) == deviation
