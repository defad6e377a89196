"""Fits that go on from a trained model: exact Gram matrices, catalogs that grow, what the record says."""

import logging

import numpy as np
import pandas as pd
import pytest
import torch

import recsys
from recsys.artifacts import load_model, save_model
from recsys.data.interactions import Vocabulary
from recsys.errors import ArtifactError, ConfigError, UnsupportedError
from recsys.evaluation.warm_fit import earlier_training, find_origin, with_items
from recsys.system.storage import sha256

DAY = 86_400
KEEP = recsys.TrainingContext(keep_gram=True)
SMALL = {"vae": {"hidden": 8, "latent": 4, "epochs": 20}, "ials": {"factors": 4}, "bpr": {"factors": 4}}


def log(days, users=40, without=()):
    """The first days of a log in which users of two tastes take an item of 20 a day; those after 40 come later."""
    rng = np.random.default_rng(0)
    rows = [
        (f"u{user:02d}", f"i{item:02d}", 1_600_000_000 + DAY * (day + 8 * (user >= 40)))
        for user in range(users)
        for day, item in enumerate(rng.permutation(np.arange(user % 2, 20, 2))[:8])
    ]
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    return table[(table.timestamp < 1_600_000_000 + DAY * days) & ~table.item_id.isin(without)]


def fitted(table, **options):
    return recsys.fit(table, "ease", {"l2": 5.0}, context=KEEP, **options)


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO, "recsys.evaluation.warm_fit")
    return lambda: " ".join(record.message for record in caplog.records if "warm_fit" in record.name)


# Closed forms: the earlier Gram matrix plus what is new


@pytest.mark.parametrize("refit", [True, False])
def test_a_gram_matrix_plus_the_new_rows_gives_the_bytes_of_a_full_fit(refit, said):
    before = fitted(log(5), refit=refit)
    later = log(12, users=45)  # later days of the same users, and five new ones
    after = recsys.fit(later, init_from=before, refit=refit)
    assert torch.equal(after.model.weights, fitted(later, refit=refit).model.weights)
    assert "exact: the Gram matrix of the earlier fit and the rows that are new" in said()


def test_without_times_the_new_rows_are_those_at_the_end(said):
    every = log(8).sort_values("timestamp").drop(columns="timestamp").reset_index(drop=True)
    after = recsys.fit(every, init_from=fitted(every[:200]))
    assert torch.equal(after.model.weights, fitted(every).model.weights)
    assert "exact" in said()


def test_rows_that_are_not_those_of_the_earlier_fit_mean_a_full_fit_that_says_so(said):
    before = fitted(log(5))
    changed = log(8).drop(index=3)  # an early row is missing
    after = recsys.fit(changed, init_from=before)
    assert torch.equal(after.model.weights, fitted(changed).model.weights)
    assert "fitted in full, because the first of these ratings are not those of the earlier fit" in said()


def test_other_reasons_for_a_full_fit_are_said_too(said):
    recsys.fit(log(8), init_from=recsys.fit(log(5), "ease"))
    assert "did not keep its Gram matrix" in said()
    recsys.fit(log(8), init_from=recsys.fit(log(5), "edlae", {"user_power": 0.5}, context=KEEP))
    assert "user_power above 0" in said()
    recsys.fit(log(8), init_from=recsys.fit(log(5), "popularity"))
    assert "a fit of popularity begins with nothing: fitted in full" in said()


def test_a_gram_matrix_of_other_rows_is_noticed(said):
    before = fitted(log(5))
    before.model.gram[0, 1] += 1
    after = recsys.fit(log(8), init_from=before)
    assert torch.equal(after.model.weights, fitted(log(8)).model.weights)
    assert "the kept Gram matrix is not that of these ratings" in said()


def test_the_earlier_rows_are_found_as_they_were_split():
    before = fitted(log(5), refit=False)
    found = earlier_training(before, recsys.read_interactions(log(8)))
    assert found.items.to_list() == before.items.to_list()
    assert found.item_counts.tolist() == before.item_counts.tolist()
    assert earlier_training(before, recsys.read_interactions(log(4))) is None


@pytest.mark.parametrize(
    "about", [{}, {"data": 3}, {"data": {"time": ["no", 1]}, "split": {"held_out": "x"}, "seed": 1}]
)
def test_a_record_that_says_nothing_finds_nothing(about):
    trained = fitted(log(5))
    changed = recsys.TrainedModel(trained.model, trained.items, trained.item_counts, None, about)
    assert earlier_training(changed, recsys.read_interactions(log(8))) is None


def test_a_kept_gram_matrix_is_saved_and_read_only_where_it_is_asked_for(tmp_path):
    folder = save_model(tmp_path / "model", fitted(log(5)))
    assert load_model(folder).model.gram is None
    saved = load_model(folder, with_gram=True)
    assert torch.equal(recsys.fit(log(8), init_from=saved).model.weights, fitted(log(8)).model.weights)
    (folder / "gram.safetensors").write_bytes(b"damaged")
    assert load_model(folder).model.gram is None
    with pytest.raises(ArtifactError, match=r"gram\.safetensors is damaged"):
        load_model(folder, with_gram=True)


# Growing catalogs


@pytest.mark.parametrize("name", SMALL)
def test_a_catalog_that_grows_keeps_all_positions(name):
    before = recsys.fit(log(8, without=["i03"]), name, SMALL[name])
    after = recsys.fit(log(8, without=["i04"]), init_from=before, grow=True)
    assert after.items.to_list() == [*before.items.to_list(), "i03"]
    assert after.item_counts[before.items.positions(["i04"])[0]] == 0
    lists = after.recommend(log(8, without=["i04"]), n=20)
    assert set(lists.item_id) <= set(after.items.to_list())
    assert len(recsys.fit(log(8, without=["i04"]), init_from=before).items) == 19


def test_a_split_over_more_items_has_the_same_cells_elsewhere():
    split = recsys.split(recsys.read_interactions(log(8)), "strong")
    wider = with_items(split, Vocabulary.of(["new", *reversed(split.train.items.to_list())]))
    assert (wider.train.matrix[:, :0:-1] != split.train.matrix).nnz == 0
    assert (wider.test.held_out[:, :0:-1] != split.test.held_out).nnz == 0
    assert wider.train.matrix[:, 0].nnz == 0
    assert wider.facts["train_items"] == split.facts["train_items"] + 1


# The record


def test_the_record_has_the_chain_of_models_and_what_was_known(tmp_path):
    first = load_model(save_model(tmp_path / "1", recsys.fit(log(4, without=["i00"]), "vae", SMALL["vae"])))
    second = load_model(save_model(tmp_path / "2", recsys.fit(log(6), init_from=first)))
    third = load_model(save_model(tmp_path / "3", recsys.fit(log(8), init_from=second)))
    assert first.digest == sha256(tmp_path / "1" / "model.json")
    assert third.about["started_from"]["chain"] == [second.digest, first.digest]
    facts = second.about["started_from"]
    assert facts["model"] == first.digest
    assert facts["data"] == first.about["data"]["fingerprint"]
    assert (facts["known_items"], facts["new_items"], facts["items_left_out"]) == (19, 1, 0)


def test_a_crafted_chain_is_passed_over():
    trained = recsys.fit(log(8), "ials", SMALL["ials"])
    crafted = recsys.TrainedModel(
        trained.model, trained.items, trained.item_counts, None, {"started_from": {"chain": {"a": 1}}, "data": []}
    )
    assert recsys.fit(log(8), init_from=crafted).about["started_from"]["chain"] == []


# What does not go together


def test_what_a_fit_begins_with_is_one_model():
    vae = recsys.fit(log(8), "vae", SMALL["vae"])
    with pytest.raises(ConfigError, match="found both"):
        find_origin(vae, vae)
    with pytest.raises(ConfigError, match="found grow alone"):
        recsys.fit(log(8), "vae", grow=True)
    with pytest.raises(UnsupportedError, match="Expected an encoder of vae, dae, ae, sparse-ae, found ease"):
        recsys.fit(log(8), encoder_from=fitted(log(5)))
    with pytest.raises(ConfigError, match=r"latent 4 \(now 5\)"):
        recsys.fit(log(8), "vae", {"latent": 5}, init_from=vae)
    same = recsys.create_model("vae", SMALL["vae"])
    assert len(recsys.fit(log(8), same, init_from=vae).model.epochs) <= 20 / 8
