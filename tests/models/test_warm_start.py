"""A state over old ids becomes a state over new ids, and a fit goes on from it."""

import numpy as np
import pytest
import torch
from model_contract import ALL_USERS, create, every_model, knowing_items, scores_of, states_equal, two_tastes
from scipy.sparse import csr_matrix

from recsys.data.interactions import Vocabulary
from recsys.data.matrix import UserItemMatrix
from recsys.errors import ConfigError, DataError
from recsys.models import MODELS
from recsys.models.autoencoders.mult_vae import VAENetwork
from recsys.models.autoencoders.network import with_weight_averaging
from recsys.models.trained import TrainedModel
from recsys.models.warm_start import Earlier, IdMap, carry_state, item_axes, taken_together
from recsys.training.context import TrainingContext, WarmStart
from recsys.training.parts import Counter

ITEMS = Vocabulary.of(list("abcdefghij"))
OTHER_ORDER = np.array([3, 1, 2, 0, 9, 8, 7, 6, 5, 4])

# Rows


def test_known_rows_follow_their_ids_and_a_new_one_is_made_of_its_neighbors():
    near = csr_matrix([[0, 0, 0], [0, 0.25, 0.75], [0, 0, 0]])
    carried = IdMap(old=3, source=np.array([2, -1, -1]), near=near).carry(torch.tensor([[1.0], [4.0], [8.0]]))
    mean = (1 + 4 + 8) / 3  # of the last one, which has no neighbors
    assert carried.ravel().tolist() == pytest.approx([8, 0.25 * 4 + 0.75 * 8, mean])


def test_any_axis_can_be_over_items_also_with_several_places_for_each():
    table = torch.tensor([[1.0, 2.0, 3.0, 4.0]])  # items a and b, two levels each
    carried = IdMap(old=2, source=np.array([1, -1, 0])).carry(table, axis=1)
    assert carried.tolist() == [[3, 4, (1 + 3) / 2, (2 + 4) / 2, 1, 2]]


def test_new_items_are_near_the_known_items_they_are_taken_with():
    #                     a  b  new, and an item nobody has
    matrix = csr_matrix([[1, 0, 1, 0], [1, 1, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0]], dtype=np.float32)
    near = taken_together(matrix, np.array([1, 0, -1, -1]), old=2)
    a, b = 2 / np.sqrt(2 * 3), 1 / np.sqrt(2 * 2)  # cosines
    assert near.toarray() == pytest.approx(np.array([[0, 0], [0, 0], [b / (a + b), a / (a + b)], [0, 0]]))


# States of every model


def carried_to(model, order):
    return carry_state(model, model.get_state(), IdMap.of(ITEMS, Vocabulary(ITEMS.take(order))), same_users())


def same_users():
    return IdMap(old=10, source=np.arange(10))


CLOSED = {
    "popularity",
    "recent-popularity",
    "last-item",
    "item-knn",
    "svd",
    "ease",
    "edlae",
    "sparse-ease",
    "bspm",
    "chebycf",
    "content-knn",
    "global-mean",
    "biases",
    "rating-knn",
}
BY_ITEMS = {
    "autorec",
    "rating-dae",
    "rating-vae",
    "kernel-ae",
    "rating-blend",
}  # their networks are not kept, only codes of items
IN_SUMS = {"content-dae"}  # vectors of items and of their features are kept as one sum
FULL_FITS = CLOSED | BY_ITEMS | IN_SUMS


@every_model
def test_a_fit_begins_with_a_state_unless_it_is_a_closed_form(name, fitted):
    assert bool(carried_to(fitted(name), np.arange(10))) == (name not in FULL_FITS)


@every_model
def test_carried_to_the_same_items_a_state_is_the_same(name, fitted):
    state, carried = fitted(name).get_state(), carried_to(fitted(name), np.arange(10))
    assert all(torch.equal(carried[key], state[key]) for key in carried)


@every_model
def test_carried_to_another_order_of_the_items_a_model_scores_the_same(name, fitted):
    carried = carried_to(fitted(name), OTHER_ORDER)
    if carried.keys() != fitted(name).get_state().keys():
        pytest.skip("a fit begins with a part of the state")
    moved = create(name).set_state(carried, 10, "cpu")
    scores = scores_of(moved, csr_matrix(two_tastes(name)[:, OTHER_ORDER]))
    torch.testing.assert_close(scores, scores_of(fitted(name))[:, OTHER_ORDER])


@every_model
def test_the_axes_over_items_are_those_that_grow_with_the_catalog(name, fitted):
    axes = item_axes(fitted(name), 10, fitted(name).get_state())
    for key, found in axes.items():
        for axis, places in found:
            assert fitted(name).get_state()[key].shape[axis] == 10 * places
    assert not axes or any(axes.values())


def earlier(model, items=ITEMS, **options):
    users = Vocabulary.of(ALL_USERS) if model.needs_training_users else None
    return Earlier(TrainedModel(model, items, np.full(len(items), 4), users), **options)


def two_tastes_with_a_new_item(name):
    """The two tastes without item a, and with a new item k that the users of item b have."""
    matrix = two_tastes(name)
    return UserItemMatrix(
        csr_matrix(matrix[:, [1, 2, 3, 4, 5, 6, 7, 8, 9, 1]]),
        Vocabulary.of(ALL_USERS),
        Vocabulary.of(list("bcdefghijk")),
    )


@every_model
def test_a_model_goes_on_with_other_items_and_still_knows_the_two_tastes(name, fitted):
    train = two_tastes_with_a_new_item(name)
    model = earlier(fitted(name)).create()
    model = knowing_items(model) if model.uses_features else model
    start = earlier(fitted(name)).start(model, train)
    if start is None:
        assert name in FULL_FITS
        return
    model.fit(train.matrix, TrainingContext(start=start))
    history = csr_matrix(train.matrix.multiply(np.arange(10) != 9).tocsr())  # without the new item
    scores = scores_of(model, history).numpy()
    if name != "rating-rbm":  # two stars apart, which ten users do not teach it
        first, second = scores[:5, 9], scores[5:, 9]
        assert np.median(first) > np.median(second)


@every_model
def test_a_start_of_other_sizes_is_refused(name, fitted):
    carried = carried_to(fitted(name), np.arange(10))
    if carried:
        with pytest.raises(DataError, match="of shape"):
            create(name).fit(two_tastes(name)[:, :9], TrainingContext(start=WarmStart(carried)))


def test_a_model_that_begins_with_nothing_refuses_a_start():
    with pytest.raises(DataError, match="Expected no tensor 'weights'"):
        create("svd").fit(two_tastes("svd"), TrainingContext(start=WarmStart({"weights": torch.zeros(1)})))


def test_users_without_a_row_begin_with_the_mean_of_the_others(fitted):
    train = UserItemMatrix(csr_matrix(np.eye(2, 10), dtype=np.float32), Vocabulary.of([3, 99]), ITEMS)
    start = earlier(fitted("bpr")).start(create("bpr"), train)
    factors = fitted("bpr").get_state()["user_factors"]
    torch.testing.assert_close(start.state["user_factors"], torch.stack([factors[3], factors.mean(0)]))


# The schedule


def test_annealing_does_not_start_over(monkeypatch, fitted):
    seen, loss = [], VAENetwork.loss
    monkeypatch.setattr(
        VAENetwork, "loss", lambda self, batch, progress: seen.append(progress) or loss(self, batch, progress)
    )
    state = fitted("vae").get_state()
    create("vae").fit(two_tastes("vae"), TrainingContext(start=WarmStart(state), stop_after=2))
    assert set(seen) == {1.0}


def test_a_quarter_of_the_epochs_is_planned_with_less_patience(fitted):
    start = WarmStart(fitted("vae").get_state(), share=0.25, patience=2)
    model = create("vae", epochs=40).fit(two_tastes("vae"), TrainingContext(start=start))
    assert len(model.epochs) == 10
    assert model.stopped.startswith("trained for 10 of 10 epochs")
    never_better = TrainingContext(start=start, validate=lambda score: 0.0)
    assert len(create("vae", epochs=40).fit(two_tastes("vae"), never_better).epochs) == 1 + 2


def test_an_average_that_holds_an_epoch_already_moves_half_of_the_way():
    one, average = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        one.weight.fill_(2.0)
        average.weight.fill_(0.0)
    with_weight_averaging(lambda: 0.0, one, average, 0.9, Counter(1))()
    assert average.weight.item() == 2 * 1 / 2


def test_the_earlier_model_is_left_as_it_was(fitted):
    before = {key: tensor.clone() for key, tensor in fitted("ials").get_state().items()}
    model = earlier(fitted("ials")).create()
    train = two_tastes_with_a_new_item("ials")
    model.fit(train.matrix, TrainingContext(start=earlier(fitted("ials")).start(model, train)))
    assert states_equal(fitted("ials").get_state(), before)


# Settings, ids


def test_settings_are_those_of_the_earlier_model_and_others_are_refused_by_name(fitted):
    before = earlier(fitted("vae"))
    assert before.create().config == fitted("vae").config
    assert before.create("vae", {"epochs": "3", "learning_rate": "0.5"}).config.epochs == 3
    with pytest.raises(ConfigError, match=r"hidden 8 \(now 9\), latent 4 \(now 5\)"):
        before.create("", {"hidden": 9, "latent": 5})
    with pytest.raises(ConfigError, match="Expected vae, the model to start from, found ease"):
        before.create("ease")
    with pytest.raises(ConfigError, match="found ease"):
        before.check(create("ease"))


def test_ids_of_another_world_are_refused(fitted):
    train = UserItemMatrix(two_tastes("vae"), Vocabulary.of(ALL_USERS), Vocabulary.of(range(10)))
    with pytest.raises(DataError, match="found none among 10"):
        earlier(fitted("vae")).start(create("vae"), train)


def test_a_catalog_that_grows_keeps_positions_and_appends(fitted):
    train = UserItemMatrix(csr_matrix((1, 4)), Vocabulary.of([0]), Vocabulary.of(list("kbxa")))
    grown = earlier(fitted("vae"), grow=True).items_of(train)
    assert grown.to_list() == [*"abcdefghij", "k", "x"]
    assert earlier(fitted("vae")).items_of(train).to_list() == list("kbxa")


GOING_ON = [name for name in MODELS if name not in FULL_FITS | {"blend"}]


@pytest.mark.parametrize("name", GOING_ON)
def test_what_was_learned_of_items_that_nobody_has_any_more_is_kept(name, fitted):
    matrix = csr_matrix(two_tastes(name).multiply(np.arange(10) != 7).tocsr())
    matrix.eliminate_zeros()
    train = UserItemMatrix(matrix, Vocabulary.of(ALL_USERS), ITEMS)
    before = earlier(fitted(name), grow=True)
    start = before.start(create(name), train)
    model = create(name).fit(matrix, TrainingContext(start=start))
    epochs = len(model.epochs)
    before.keep_vanished(model, start, train, "cpu")
    assert len(model.epochs) == epochs
    for key, axes in item_axes(model, 10, start.state).items():
        for axis, places in axes:
            rows = torch.arange(7 * places, 8 * places)
            ours, theirs = (
                state[key].index_select(axis, rows) for state in (model.get_state(), fitted(name).get_state())
            )
            torch.testing.assert_close(ours, theirs)
