"""The contract of resuming: whatever moment a fit is interrupted at, it goes on to the bytes of an undisturbed one."""

import numpy as np
import pytest
import torch
from model_contract import copy_state, create, every_model, states_equal, two_tastes
from scipy.sparse import csr_matrix

from recsys.errors import ArtifactError
from recsys.models import create_model
from recsys.training.checkpoint import Checkpoints
from recsys.training.checkpoint_files import list_checkpoints
from recsys.training.context import TrainingContext, WarmStart

SHORT = {"epochs": 3, "iterations": 4}
WITHOUT_PROGRESS = ("bpr", "lmf")  # the generator of `implicit` cannot be read: they begin anew


class Killed(BaseException):
    """Stands for a kill: nothing is tidied up after it."""


def short(name, **settings):
    known = create(name).config.__dataclass_fields__
    own = {key: value for key, value in SHORT.items() if key in known}
    if name == "blend":
        own = {"members": "ease,ials,vae", "weights": "1,1,1", "ials.iterations": 3, "vae.epochs": 2, "vae.hidden": 4}
    if name == "recvae":
        own = {"epochs": 2, "encoder_passes": 2, "batch_size": 6}
    return create(name, **{**own, **settings})


def value_of(matrix):
    """A validation function of any model: no matter what it says, it says the same of the same scores."""
    return lambda score: float(score(matrix, users=np.arange(10)).double().square().mean().sin())


def fit(model, folder=None, kill_at=None, **context):
    """Fit a model with a checkpoint at every chance; raise Killed at a step, epoch or iteration. Their number too."""
    count = 0

    def tick(*_):
        nonlocal count
        count += 1
        if count == kill_at:
            raise Killed

    matrix = two_tastes(model.name)
    kept = {} if folder is None else {"checkpoints": Checkpoints(folder, every=0)}
    watched = {"on_step": tick, "on_epoch": tick, "on_phase": tick}
    validated = {"validate": value_of(matrix), "patience": 2, "device": "cpu"}
    model.fit(matrix, TrainingContext(**{**validated, **watched, **kept, **context}))
    return model, count


def assert_resumes(make, folder, **context):
    """A fit killed a few times, at moments spread over it, ends with the bytes and the record of an undisturbed one."""
    whole, moments = fit(make(), **context)
    for number, start in enumerate((moments // 2, moments)):
        place, kills = folder / str(number), 0
        for at in (start, 2):
            try:
                model, rest = fit(make(), place, at, **context)
            except Killed:
                kills += 1
                continue
            break
        else:
            model, rest = fit(make(), place, **context)
        assert kills or not moments
        assert states_equal(copy_state(whole), copy_state(model)), f"killed at {start} of {moments}"
        assert [without_times(e) for e in whole.epochs] == [without_times(e) for e in model.epochs]
    return moments, rest


def without_times(epoch):
    return epoch.number, epoch.loss, epoch.value, epoch.best


@every_model
def test_an_interrupted_fit_goes_on_to_the_bytes_of_an_undisturbed_one(name, tmp_path):
    moments, rest = assert_resumes(lambda: short(name), tmp_path)
    if list_checkpoints(tmp_path / "1") and moments > 4 and name not in WITHOUT_PROGRESS:
        assert rest < moments / 2  # it did go on: a fit from the beginning would pass this test too


VARIANTS = {
    "average": ("vae", {"average": 0.9}, {}),
    "sampled softmax": ("vae", {"softmax": "sampled", "negatives": 3}, {}),
    "bf16": ("dae", {"average": 0.5}, {"precision": "bf16"}),
    "persistent chains": ("rbm", {"persistent": True}, {}),
    "composite prior": ("recvae", {"average": 0.0}, {}),
    "without validation": ("vae", {}, {"validate": None}),
    "stopped early": ("vae", {}, {"stop_after": 2}),
    "by users": ("rating-vae", {"side": "user", "members": 2}, {}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_a_variant_of_training_changes_is_kept_too(variant, tmp_path):
    name, settings, context = VARIANTS[variant]
    assert_resumes(lambda: short(name, **settings), tmp_path, **context)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_weights_are_the_same_within_a_hundred_thousandth(tmp_path):
    whole, moments = fit(short("vae"), device="cuda")
    with pytest.raises(Killed):
        fit(short("vae"), tmp_path, moments // 2, device="cuda")
    resumed, _ = fit(short("vae"), tmp_path, device="cuda")
    for name, weights in whole.get_state().items():
        torch.testing.assert_close(resumed.get_state()[name], weights, atol=1e-5, rtol=1e-5)


# What an interrupted fit is not


def interrupted(folder, name="vae", **settings):
    with pytest.raises(Killed):
        fit(short(name, **settings), folder, 8)


@pytest.mark.parametrize(
    ("settings", "context", "complaint"),
    [
        ({"beta": 0.3}, {}, "settings.beta was not set and is 0.3"),
        ({}, {"seed": 1}, "seed was 0 and is 1"),
        ({}, {"patience": 3}, "patience was 2 and is 3"),
        ({}, {"validate": None}, "validated was True and is False"),
    ],
)
def test_another_fit_is_refused_with_what_differs(tmp_path, settings, context, complaint):
    interrupted(tmp_path)
    with pytest.raises(ArtifactError, match=f"Expected the training in .* to go on .*; {complaint}"):
        fit(short("vae", **settings), tmp_path, **context)


def test_another_model_or_matrix_is_refused(tmp_path):
    interrupted(tmp_path)
    with pytest.raises(ArtifactError, match="model was vae and is dae"):
        fit(short("dae"), tmp_path)
    other = two_tastes("vae")
    other.data[0] = 2
    with pytest.raises(ArtifactError, match="ratings was 10 x 10, "):
        short("vae").fit(
            other, TrainingContext(checkpoints=Checkpoints(tmp_path), validate=value_of(other), patience=2)
        )


def test_other_item_features_are_refused(tmp_path):
    matrix = two_tastes("ease")

    def fit_with(features):
        context = TrainingContext(item_features=csr_matrix(features), checkpoints=Checkpoints(tmp_path, every=0))
        return create_model("ease", {"feature_weight": 1.0}).fit(matrix, context)

    features = np.eye(10, dtype=np.float32)
    fit_with(features)
    fit_with(features)
    with pytest.raises(ArtifactError, match=r"item_features was 10 x 10, .* and is 10 x 10, "):
        fit_with(features[::-1].copy())


def test_a_damaged_checkpoint_is_skipped_with_a_word_and_the_one_before_taken(tmp_path, caplog):
    whole, moments = fit(short("vae"))
    interrupted(tmp_path)
    before, newest = list_checkpoints(tmp_path)
    damaged = bytearray(newest.read_bytes())
    damaged[-1] ^= 1
    newest.write_bytes(damaged)
    resumed, rest = fit(short("vae"), tmp_path)
    assert f"The checkpoint {newest} is damaged and is skipped: its checksum" in caplog.text
    assert str(before) not in caplog.text
    assert states_equal(whole.get_state(), resumed.get_state())
    assert 0 < rest < moments


def test_with_both_damaged_a_fit_begins_anew(tmp_path, caplog):
    whole, moments = fit(short("vae"))
    interrupted(tmp_path)
    for file in list_checkpoints(tmp_path):
        file.write_bytes(file.read_bytes()[:100])
    resumed, rest = fit(short("vae"), tmp_path)
    assert caplog.text.count("is damaged and is skipped") == 2
    assert rest == moments
    assert states_equal(whole.get_state(), resumed.get_state())


def test_a_network_of_another_shape_cannot_take_a_checkpoint_whose_facts_were_changed(tmp_path, monkeypatch):
    interrupted(tmp_path)
    monkeypatch.setattr("recsys.training.checkpoint.different", lambda before, now: "")
    with pytest.raises(ArtifactError, match=r"does not fit this model: expected .* found"):
        fit(short("vae", latent=3), tmp_path)


def test_a_finished_member_of_a_blend_is_not_fitted_again(tmp_path):
    settings = {"members": "ease,ials", "weights": "1,1", "ials.iterations": 3}
    with pytest.raises(Killed):
        fit(create_model("blend", settings), tmp_path, 9)  # after the first iteration of ials
    assert [place.name for place in sorted(tmp_path.iterdir())] == ["0-ease", "1-ials"]
    phases = []
    context = TrainingContext(
        device="cpu",
        checkpoints=Checkpoints(tmp_path),
        on_phase=lambda *phase: phases.append(phase[0]),
        validate=value_of(two_tastes("blend")),
        patience=2,
    )
    create_model("blend", settings).fit(two_tastes("blend"), context)
    assert "matrix inverse" not in phases
    assert phases.count("iterations") == 3  # one of three was done: said at once, then two


@pytest.mark.parametrize("name", ["ials", "vae", "recvae", "svae"])
def test_a_warm_start_is_resumed_and_another_one_refused(name, tmp_path):
    whole, moments = fit(short(name))
    state = copy_state(whole)
    declared = whole._start_spec(whole.n_items, state).names
    start = WarmStart({name: tensor for name, tensor in state.items() if name in declared}, share=1.0)
    assert_resumes(lambda: short(name), tmp_path, start=start)
    with pytest.raises(Killed):
        fit(short(name), tmp_path / "refused", moments - 1, start=start)
    with pytest.raises(ArtifactError, match=r"start was .* and is not set"):
        fit(short(name), tmp_path / "refused")
