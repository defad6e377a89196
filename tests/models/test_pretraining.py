"""A network over ratings begins with the first layers of an autoencoder over histories."""

import numpy as np
import pytest
import torch
from model_contract import ALL_USERS, create, two_tastes
from scipy.sparse import csr_matrix

from recsys.data.interactions import Vocabulary
from recsys.data.matrix import UserItemMatrix
from recsys.errors import ConfigError, DataError, UnsupportedError
from recsys.models.pretraining import PretrainedEncoder
from recsys.models.trained import TrainedModel
from recsys.training.context import TrainingContext

ITEMS = Vocabulary.of(list("abcdefghij"))


@pytest.fixture(scope="module")
def origin():
    return encoder("vae")


def encoder(name):
    return PretrainedEncoder(TrainedModel(create(name).fit(two_tastes(name)), ITEMS, np.full(10, 4)))


def ratings(items=ITEMS):
    matrix = two_tastes("rating-vae")
    return UserItemMatrix(csr_matrix(matrix[:, : len(items)]), Vocabulary.of(ALL_USERS), items)


def test_the_first_layer_of_a_history_of_mean_length_is_that_of_the_encoder(origin):
    model, train = origin.create(settings={"presence": 2.0}), ratings()
    begun, state = origin.start(model, train).state, origin.trained.model.get_state()
    cells = train.matrix.nnz // 10  # the same number for each user
    assert train.matrix[0].nnz == cells
    ours = model.config.presence * begun["members.0.encoder.places.weight"][train.matrix[0].indices].sum(0)
    theirs = state["encoder.weight"][train.matrix[0].indices].sum(0) / np.sqrt(cells)  # scaled to length 1
    torch.testing.assert_close(ours, theirs)
    assert torch.equal(begun["members.0.encoder.bias"], state["encoder.bias"])


def test_of_a_vae_without_hidden_layers_the_mean_alone_is_taken_over():
    vae = create("vae", hidden=0, latent=4).fit(two_tastes("vae"))
    flat = PretrainedEncoder(TrainedModel(vae, ITEMS, np.full(10, 4)))
    model = flat.create(settings={"presence": 2.0})
    assert (model.config.hidden, model.config.latent) == (4, 4)
    begun, train = flat.start(model, ratings()).state, ratings()
    cells = train.matrix.nnz // 10
    ours = begun["members.0.encoder.places.weight"] * 2.0 * np.sqrt(cells)
    torch.testing.assert_close(ours, vae.get_state()["encoder.weight"][:, :4])


@pytest.mark.parametrize(
    ("source", "target", "layers"),
    [
        ("vae", "rating-vae", {"encoder", "posterior", "hidden"}),
        ("vae", "rating-dae", {"encoder"}),  # its code has no variance: the layer is half as wide
        ("vae", "deep-autorec", {"encoder"}),
        ("dae", "rating-vae", {"encoder"}),
        ("sparse-ae", "autorec", {"encoder"}),
        ("ae", "rating-dae", {"encoder"}),
    ],
)
def test_layers_of_equal_name_and_shape_are_taken_over_as_far_as_they_reach(source, target, layers, origin):
    given = origin if source == "vae" else encoder(source)
    model = given.create(target, {"epochs": 1, "members": 2, "learning_rate": 1e-9})
    assert (model.config.side, model.config.hidden) == (
        "user",
        given.trained.model.get_state()["encoder.weight"].shape[1],
    )
    start = given.start(model, ratings())
    assert {name.split(".")[2] for name in start.state} == layers
    model.fit(ratings().matrix, TrainingContext(start=start))
    for name, begun in start.state.items():  # of both members, and hardly trained
        torch.testing.assert_close(model.get_state()[name], begun, atol=1e-6, rtol=0)


def test_all_epochs_are_planned_with_the_patience_that_was_asked_for(origin):
    model = origin.create(settings={"epochs": 7})
    context = TrainingContext(start=origin.start(model, ratings()), patience=20, validate=lambda score: 0.0)
    assert len(model.fit(ratings().matrix, context).epochs) == 7


def test_items_follow_their_ids_and_new_ones_begin_like_those_they_are_rated_with(origin):
    moved = Vocabulary.of(list("jihgfedcbk"))
    begun = origin.start(origin.create(), ratings(moved)).state["members.0.encoder.places.weight"]
    same = origin.start(origin.create(), ratings()).state["members.0.encoder.places.weight"]
    torch.testing.assert_close(begun[:9], same[1:].flip(0))
    assert torch.isfinite(begun[9]).all()
    assert begun[9].abs().sum() > 0


def test_what_an_encoder_does_not_fit_is_refused(origin):
    with pytest.raises(ConfigError, match="fit the encoder of vae: side user, hidden 8"):
        origin.create("rating-vae", {"side": "item", "hidden": 3})
    with pytest.raises(ConfigError, match="fit the encoder of vae: latent 4"):
        origin.create("rating-vae", {"latent": 3})
    with pytest.raises(ConfigError, match="presence above 0"):
        origin.create("rating-dae", {"presence": 0})
    for name in ("kernel-ae", "rating-rbm", "ease"):
        with pytest.raises(UnsupportedError, match=f"found {name}"):
            origin.create(name)
    with pytest.raises(UnsupportedError, match="found recvae"):
        encoder("recvae")
    with pytest.raises(DataError, match="found none among 10"):
        origin.start(origin.create(), ratings(Vocabulary.of(range(10))))


def test_the_record_names_the_encoder(origin):
    facts = origin.record(ratings(Vocabulary.of(list("abcdefghik"))))
    assert facts == {"encoder_from": {"model": None, "name": "vae", "known_items": 9, "new_items": 1}}
