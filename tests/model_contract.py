"""What the tests of the contract share: small models of every kind, and the ratings of users of two tastes."""

import dataclasses
import random

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from recsys.data.matrix import OrderedMatrix
from recsys.models import MODELS, create_model
from recsys.training.context import TrainingContext

# By the name of the setting: all models name the same settings alike.
TINY = {
    "width": 8,
    "factors": 2,
    "latent": 4,
    "hidden": 8,
    "neighbors": 10,
    "epochs": 60,
    "iterations": 100,
    "batch_size": 4,
}
RATINGS = {"dropout": 0.0, "code_dropout": 0.0, "l2": 0.1, "input_l2": 0.01, "fold_l2": 0.5, "learning_rate": 0.02}
SPECIAL = {
    "als": {"alpha": 8.0, "l2": 0.1, "iterations": 10},
    "ease": {"l2": 1.0},
    "edlae": {"l2": 1.0},
    "sparse-ease": {"l2": 1.0},
    "elsa": {"learning_rate": 0.02},
    "bpr": {"learning_rate": 0.1},
    "dae": {"learning_rate": 0.02},
    "vae": {"learning_rate": 0.02},
    "ae": {"hidden": 0, "learning_rate": 0.02, "l2": 0.01},
    "sparse-ae": {"learning_rate": 0.02},
    "rbm": {"learning_rate": 0.02},
    "sasrec": {"dropout": 0.0, "learning_rate": 0.01, "batch_size": 10},
    "svae": {
        "dropout": 0.0,
        "learning_rate": 0.03,
        "batch_size": 10,
        "beta": 0.001,
        "next_items": 9,
        "width": 32,
        "latent": 16,
        "hidden": 32,
    },
    "recvae": {"learning_rate": 0.02, "epochs": 20},
    "blend": {"members": "ease,ials", "weights": "1,1", "ease.l2": 1.0, "ials.factors": 2},
    "rating-blend": {"members": "autorec,autorec", "weights": "1,3", **{f"autorec.{k}": v for k, v in RATINGS.items()}},
    "content-map": {"member": "ials", "ials.factors": 2, "ials.iterations": 100},
    "content-dae": {"learning_rate": 0.02},
    "biased-mf": {"l2": 1.0},
    "autorec": RATINGS,
    "deep-autorec": RATINGS,
    "rating-dae": RATINGS,
    "rating-vae": RATINGS,
    "kernel-ae": RATINGS,
    "rating-rbm": {"l2": 0.01, "learning_rate": 0.05},
    "rating-knn": {"shrinkage": 1.0},
}
NEED_IMPLICIT = ("als", "bpr", "lmf")
ALL_USERS = np.arange(10)

every_model = pytest.mark.parametrize("name", list(MODELS))


def create(name, **settings):
    """A small model, with other settings where given."""
    known = {field.name for field in dataclasses.fields(MODELS[name].Config)}
    tiny = {key: value for key, value in TINY.items() if key in known}
    model = create_model(name, {**tiny, **SPECIAL.get(name, {}), **settings})
    return knowing_items(model) if model.uses_features else model


def knowing_items(model):
    """A model whose fits are given features of the items: their taste, and a number of their own."""
    fit = model.fit

    def fit_with(matrix, context=None, **more):
        items = matrix.shape[1]
        features = csr_matrix(np.hstack([np.arange(items)[:, None] // 5 == np.arange(items // 5 + 1), np.eye(items)]))
        return fit(
            matrix, dataclasses.replace(context or TrainingContext(), item_features=features.astype(np.float32)), **more
        )

    model.fit = fit_with
    return model


def two_tastes(name):
    """Users 0-4 have items 0-4 and users 5-9 have items 5-9, each all but the item with their own number.

    Those of a model of sequences go round their taste. For a model of ratings, those have 5 stars, and two items of the
    other taste have 1 star.
    """
    same_taste, other = np.kron(np.eye(2), np.ones((5, 5))) - np.eye(10), np.zeros((10, 10))
    if MODELS[name].task == "rating":
        for user in range(10):
            other[user, [5 * (user < 5) + (user + place) % 5 for place in (1, 2)]] = 1
    if MODELS[name]().uses_order:  # user 0 had 1 2 3 4, user 1 had 2 3 4 0: the own number comes next
        return OrderedMatrix(same_taste * ((np.arange(10) - np.arange(10)[:, None]) % 5), dtype=np.float32)
    return csr_matrix(5 * same_taste + other if other.any() else same_taste, dtype=np.float32)


def scores_of(model, history=None, users=ALL_USERS, **arguments):
    """The scores of the ten users of two tastes, or of other histories."""
    return model.score(two_tastes(model.name) if history is None else history, users=users, **arguments)


def copy_state(model):
    """The state of a model in memory of its own."""
    return {key: tensor.clone() for key, tensor in model.get_state().items()}


def states_equal(ours, theirs):
    """Whether two states have the same names and the same numbers."""
    return ours.keys() == theirs.keys() and all((ours[key] == theirs[key]).all() for key in ours)


def random_streams():
    """The state of the generators of torch, NumPy and Python."""
    kind, keys, *place = np.random.get_state()  # noqa: NPY002 - the old stream is what a caller may rely on
    return torch.get_rng_state().tolist(), kind, keys.tolist(), place, random.getstate()
