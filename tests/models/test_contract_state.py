"""What is kept of every model: saved, loaded, and checked against its declaration."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from model_contract import ALL_USERS, copy_state, create, every_model, random_streams, scores_of, states_equal
from safetensors.torch import load_file, save_file

from recsys.artifacts import TrainedModel, load_model, save_model
from recsys.data.interactions import Vocabulary
from recsys.errors import ArtifactError, DataError
from recsys.models import MODELS
from recsys.system.storage import sha256


def save(model, folder):
    users = Vocabulary.of(ALL_USERS) if model.needs_training_users else None
    return save_model(folder, TrainedModel(model, Vocabulary.of(list("abcdefghij")), np.full(10, 4), users))


@every_model
def test_a_saved_model_gives_exactly_the_same_scores_elsewhere(name, fitted, tmp_path):
    (tmp_path / "there").mkdir()
    shutil.move(save(fitted(name), tmp_path / "here" / "model"), tmp_path / "there" / "renamed")
    saved = load_model(tmp_path / "there" / "renamed", device="cpu")
    assert saved.model.config == fitted(name).config
    assert torch.equal(scores_of(saved.model), scores_of(fitted(name)))
    assert states_equal(saved.model.get_state(), fitted(name).get_state())


@pytest.mark.parametrize("most", [64_000_000, 0])
def test_small_tensors_are_loaded_where_they_round_as_after_the_fit_and_large_ones_stay_mapped(
    most, fitted, tmp_path, monkeypatch
):
    monkeypatch.setattr("recsys.artifacts._COPIED", most)
    loaded = load_model(save(fitted("rating-blend"), tmp_path / "model"), device="cpu").model.get_state()
    codes = [tensor.data_ptr() % 64 for name, tensor in loaded.items() if name.endswith("codes")]
    assert len(codes) == 2 and (codes == [0, 0]) == bool(most)


@every_model
def test_a_saved_model_holds_safetensors_and_no_pickle(name, fitted, tmp_path):
    folder = save(fitted(name), tmp_path / "model")
    ours = {"model.json", "weights.safetensors", "items.parquet"}
    extra = {"users.parquet"} if MODELS[name].needs_training_users else set()
    assert {file.name for file in folder.iterdir()} == ours | extra
    header = int.from_bytes((folder / "weights.safetensors").read_bytes()[:8], "little")  # its length, then JSON
    assert (folder / "weights.safetensors").read_bytes()[8 : 8 + header].startswith(b"{")


@every_model
def test_loading_leaves_the_callers_random_streams_alone(name, fitted, tmp_path):
    folder, streams = save(fitted(name), tmp_path / "model"), random_streams()
    load_model(folder)
    assert random_streams() == streams


@every_model
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_scores_on_a_gpu_are_those_on_the_processor(name, fitted, tmp_path):
    on_gpu = load_model(save(fitted(name), tmp_path / "model"), device="cuda").model
    torch.testing.assert_close(scores_of(on_gpu).cpu(), scores_of(fitted(name)).cpu(), rtol=1e-4, atol=1e-5)


# A state from elsewhere is checked before it is used


def refused(name, state, match):
    with pytest.raises(DataError, match=match):
        create(name).set_state(state, 10, "cpu")


# An older state lacks the values of svd; a graph filter of a large catalog is not one matrix.
MAY_LACK = {"svd": {"values"}, "bspm": {"filter"}, "chebycf": {"filter"}}


@every_model
def test_every_tensor_of_a_state_must_be_there_and_no_other(name, fitted):
    for missing in fitted(name).get_state().keys() - MAY_LACK.get(name, set()):
        state = copy_state(fitted(name))
        state.pop(missing)
        refused(name, state, re.escape(missing))
    refused(name, {**copy_state(fitted(name)), "extra": torch.zeros(1)}, "extra")


@every_model
def test_every_tensor_of_a_state_must_have_its_shape(name, fitted):
    for key, tensor in fitted(name).get_state().items():
        # An empty axis, a number where a tensor was, one row more, one axis more.
        for other in (tensor.new_zeros(0, 0, 0), torch.cat([tensor.ravel(), tensor.ravel()[:1]]), tensor[None]):
            # One more weight is that of a feature that no item has.
            if other.shape != tensor.shape and (name, key, other.dim()) != ("content-knn", "weights", 1):
                refused(name, {**copy_state(fitted(name)), key: other}, "Expected")


@every_model
def test_every_tensor_of_a_state_must_have_its_type(name, fitted):
    for key, tensor in fitted(name).get_state().items():
        for other in {torch.float16, torch.int16, torch.bool} - {tensor.dtype}:
            refused(name, {**copy_state(fitted(name)), key: tensor.to(other)}, re.escape(key))


@every_model
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_no_number_of_a_state_may_be_other_than_finite(name, value, fitted):
    for key, tensor in fitted(name).get_state().items():
        if tensor.is_floating_point() and not (key.endswith("user_shrinkage") and value > 0):  # it may be infinite
            state = copy_state(fitted(name))
            state[key].ravel()[-1:] = value
            refused(name, state, re.escape(key))


MATRICES = [name for name in MODELS if name in ("item-knn", "sparse-ease", "bspm", "chebycf")]


def with_changed(state, key, change):
    changed = {**state, key: state[key].clone()}
    change(changed[key])
    return changed


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("position", [-1, 10, 50_000_000])
def test_a_position_outside_of_the_catalog_is_refused(name, position, fitted):
    refused(
        name, with_changed(fitted(name).get_state(), "indices", lambda t: t[-1:].fill_(position)), "'indices' in 0..9"
    )


@pytest.mark.parametrize("name", MATRICES)
def test_positions_of_a_row_must_rise(name, fitted):
    state = fitted(name).get_state()
    refused(name, with_changed(state, "indices", lambda t: t[:2].copy_(t[:2].flip(0))), "sorted and distinct")
    refused(name, with_changed(state, "indices", lambda t: t[1:2].copy_(t[:1])), "sorted and distinct")


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize(("place", "value"), [(0, 1), (1, -1), (1, 10_000), (-1, 1), (-1, 10_000)])
def test_row_pointers_must_rise_from_zero_to_the_number_of_cells(name, place, value, fitted):
    def change(pointers):
        pointers[place] = value

    refused(name, with_changed(fitted(name).get_state(), "indptr", change), "'indptr' to rise from 0")


def test_sizes_of_one_name_must_agree(fitted):
    state = copy_state(fitted("bpr"))
    state["user_factors"] = state["user_factors"][:, :-1]
    refused("bpr", state, "item_factors")


def test_a_crafted_folder_with_a_position_outside_of_the_catalog_is_refused(fitted, tmp_path):
    folder = save(fitted("item-knn"), tmp_path / "model")
    state = load_file(folder / "weights.safetensors")
    state["indices"][-1] = 50_000_000
    save_file(state, folder / "weights.safetensors")
    about = json.loads((folder / "model.json").read_text())
    about["files"]["weights.safetensors"] = sha256(folder / "weights.safetensors")
    (folder / "model.json").write_text(json.dumps(about))
    with pytest.raises(ArtifactError, match=r"'indices' in 0\.\.9"):
        load_model(folder, "cpu")
