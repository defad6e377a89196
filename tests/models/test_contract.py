"""The contract: what every model of MODELS keeps, new ones included. What is special to one has its own file."""

import dataclasses
import inspect
import random
import shutil

import numpy as np
import pytest
import torch
from scipy.sparse import coo_matrix, csc_matrix, csr_array, csr_matrix

from recsys.artifacts import load_model, save_model
from recsys.data.interactions import Vocabulary
from recsys.errors import ConfigError, DataError, NotFittedError, UnsupportedError
from recsys.models import MODELS, create_model
from recsys.models.autoencoders.network import NetworkRecommender
from recsys.models.trained import TrainedModel
from recsys.training.context import TrainingContext

# By the name of the setting: the vocabulary of settings is one for all models.
TINY = {"factors": 2, "latent": 4, "hidden": 8, "neighbors": 10, "epochs": 60, "iterations": 100, "batch_size": 4}
RATINGS = {"dropout": 0.0, "code_dropout": 0.0, "l2": 0.1, "input_l2": 0.01, "fold_l2": 0.5, "learning_rate": 0.02}
SPECIAL = {
    "als": {"l2": 0.1, "iterations": 10},
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
    "recvae": {"learning_rate": 0.02, "epochs": 20},
    "blend": {"members": "ease,ials", "weights": "1,1", "ease.l2": 1.0, "ials.factors": 2},
    "biased-mf": {"l2": 1.0},
    "autorec": RATINGS,
    "deep-autorec": RATINGS,
    "rating-dae": RATINGS,
    "rating-vae": RATINGS,
    "kernel-ae": RATINGS,
    "rating-rbm": {"l2": 0.01, "learning_rate": 0.05},
    "rating-knn": {"shrinkage": 1.0},
}


def create(name, **settings):
    known = {field.name for field in dataclasses.fields(MODELS[name].Config)}
    tiny = {key: value for key, value in TINY.items() if key in known}
    return create_model(name, {**tiny, **SPECIAL.get(name, {}), **settings})


def two_tastes(name):
    """Users 0-4 took items 0-4 and users 5-9 took items 5-9, each all but the one with their own number.

    A model of ratings learns that they gave those 5 stars and two of the other taste 1 star.
    """
    same_taste, other = np.kron(np.eye(2), np.ones((5, 5))) - np.eye(10), np.zeros((10, 10))
    if MODELS[name].task == "rating":
        for user in range(10):
            other[user, [5 * (user < 5) + (user + place) % 5 for place in (1, 2)]] = 1
    return csr_matrix(5 * same_taste + other if other.any() else same_taste, dtype=np.float32)


EVERYBODY = np.arange(10)


@pytest.fixture(autouse=True)
def _implicit(request):
    name = request.node.callspec.params.get("name") if hasattr(request.node, "callspec") else None
    if name in ("item-knn", "als", "bpr", "lmf"):
        pytest.importorskip("implicit")


every_model = pytest.mark.parametrize("name", list(MODELS))


@pytest.fixture(scope="module")
def fitted():
    """Models by name, each fitted once on the two tastes; no test may change them."""
    models = {}
    return lambda name: models.get(name) or models.setdefault(name, create(name).fit(two_tastes(name)))


def scores_of(model, history=None, users=EVERYBODY, **arguments):
    return model.score(two_tastes(model.name) if history is None else history, users=users, **arguments)


# What a model is


@every_model
def test_a_model_says_what_it_is(name):
    model = MODELS[name]
    assert model.name == name
    assert model.task in ("ranking", "rating")
    assert model.family
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.Config().anything = 1


def test_an_unknown_model_is_refused_with_the_names_of_the_known_ones():
    with pytest.raises(ConfigError, match=r"popularity, .*vae, .*; found 'vea'"):
        create_model("vea")


@every_model
def test_an_unknown_setting_is_refused_with_the_names_of_the_known_ones(name):
    with pytest.raises(ConfigError, match=f"{name} has no setting 'size'. It has: ") as caught:
        create_model(name, {"size": 3})
    known = [field.name for field in dataclasses.fields(MODELS[name].Config)]
    assert all(setting in str(caught.value) for setting in known)


@every_model
def test_an_unknown_preset_is_refused_with_the_names_of_the_known_ones(name):
    known = ", ".join(MODELS[name].presets) or "none"
    with pytest.raises(ConfigError, match=f"Expected {name}.preset of {known}; found 'best'"):
        create_model(name, {"preset": "best"})


PRESETS = [(name, preset) for name, model in MODELS.items() for preset in model.presets]


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_a_preset_gives_its_settings_and_those_beside_it_win(name, preset):
    setting, value = next(iter(MODELS[name].presets[preset].items()))
    config = dataclasses.asdict(create_model(name, {"preset": preset}).config)
    assert config == {**dataclasses.asdict(MODELS[name].Config()), **MODELS[name].presets[preset]}
    assert getattr(create_model(name, {"preset": preset, setting: value * 2}).config, setting) == value * 2


SETTINGS = [
    (name, field.name)
    for name, model in MODELS.items()
    for field in dataclasses.fields(model.Config)
    if field.default is not dataclasses.MISSING  # those of a blend's members are looked at there
]


@pytest.mark.parametrize("value", [-1, float("nan"), "many", [1]])
@pytest.mark.parametrize(("name", "setting"), SETTINGS)
def test_nonsense_in_a_setting_is_refused_at_once(name, setting, value):
    with pytest.raises(ConfigError, match=setting):
        create_model(name, {setting: value})


@pytest.mark.parametrize(("name", "setting"), SETTINGS)
def test_a_setting_may_come_as_text(name, setting):
    default = getattr(MODELS[name].Config(), setting)
    assert create_model(name, {setting: str(default)}).config == MODELS[name].Config()


# Learning


@every_model
def test_fit_returns_the_model(name):
    model = create(name)
    assert model.fit(two_tastes(name)) is model


@every_model
def test_the_same_seed_gives_the_same_scores(name, fitted):
    assert torch.equal(scores_of(create(name).fit(two_tastes(name))), scores_of(fitted(name)))


@every_model
def test_another_seed_gives_other_scores_where_the_model_says_it_is_random(name, fitted):
    other = create(name).fit(two_tastes(name), TrainingContext(seed=1))
    assert torch.equal(scores_of(other), scores_of(fitted(name))) is not MODELS[name].is_random


@every_model
def test_an_earlier_fit_leaves_no_trace(name, fitted):
    model = create(name).fit(csr_matrix(np.ones((3, 7), dtype=np.float32)))
    assert torch.equal(scores_of(model.fit(two_tastes(name))), scores_of(fitted(name)))


@every_model
def test_fit_changes_neither_its_input_nor_the_config_nor_the_callers_random_streams(name):
    matrix, model = two_tastes(name), create(name)
    before = [part.copy() for part in (matrix.data, matrix.indices, matrix.indptr)]
    config, streams = dataclasses.asdict(model.config), random_streams()
    model.fit(matrix)
    for part, was in zip((matrix.data, matrix.indices, matrix.indptr), before, strict=True):
        np.testing.assert_array_equal(part, was)
    assert dataclasses.asdict(model.config) == config
    assert random_streams() == streams


def random_streams():
    kind, keys, *place = np.random.get_state()  # noqa: NPY002 - the old stream is what a caller may rely on
    return torch.get_rng_state().tolist(), kind, keys.tolist(), place, random.getstate()


@every_model
def test_the_callers_random_stream_does_not_decide_the_scores(name, fitted):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        assert torch.equal(scores_of(create(name).fit(two_tastes(name))), scores_of(fitted(name)))


@every_model
def test_each_finds_the_unseen_item_of_the_users_own_taste_and_a_baseline_cannot(name):
    found = []
    for seed in range(3):
        model = create(name).fit(two_tastes(name), TrainingContext(seed=seed))
        best, _ = model.recommend(EVERYBODY, two_tastes(name), N=1)
        found.append((best[:, 0] == EVERYBODY).mean())
    # All items are liked as much: a baseline falls back on the first unseen one, right for users of the first taste.
    assert found == [0.5 if MODELS[name].family == "baseline" else 1.0] * 3


@every_model
@pytest.mark.parametrize(
    ("values", "complaint"),
    [([], "empty matrix"), ([1, np.nan], "NaN or infinity"), ([1, np.inf], "NaN or infinity"), ([1, -1], "found -1")],
)
def test_a_matrix_nothing_can_be_learned_from_is_refused(name, values, complaint):
    matrix = csr_matrix((np.float32(values), np.arange(len(values)), [0, len(values)]), shape=(1, 4))
    if MODELS[name].task == "rating" and complaint == "found -1":  # a rating as good as any
        assert create(name).fit(matrix).score(matrix).isfinite().all()
        return
    with pytest.raises(DataError, match=complaint):
        create(name).fit(matrix)


@every_model
def test_what_is_not_sparse_is_refused(name):
    with pytest.raises(DataError, match=r"scipy sparse matrix .* found ndarray"):
        create(name).fit(two_tastes(name).toarray())


@every_model
def test_a_fit_that_failed_leaves_an_unfitted_model(name, monkeypatch):
    model = create(name).fit(two_tastes(name))

    def fail(matrix, context):
        raise MemoryError

    monkeypatch.setattr(model, "_fit", fail)
    with pytest.raises(MemoryError):
        model.fit(two_tastes(name))
    with pytest.raises(NotFittedError):
        scores_of(model)


@every_model
def test_a_device_that_is_not_there_is_refused_before_any_work(name):
    with pytest.raises(ConfigError, match="'abacus' cannot be used"):
        create(name).fit(two_tastes(name), TrainingContext(device="abacus"))


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
def test_an_item_nobody_took_has_a_finite_score(name):
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
    blocks = list(fitted(name).score_blocks(two_tastes(name), EVERYBODY, width))
    torch.testing.assert_close(torch.cat(blocks, dim=1), scores_of(fitted(name)), rtol=1e-5, atol=1e-6)


@every_model
@pytest.mark.parametrize("items", [[10], [-1], ["a"], [True], [0.5]])
def test_items_that_are_no_positions_are_refused(name, items, fitted):
    for ask in (
        lambda: scores_of(fitted(name), items=items),
        lambda: fitted(name).recommend(EVERYBODY, two_tastes(name), items=items),
        lambda: fitted(name).recommend(EVERYBODY, two_tastes(name), filter_items=items),
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


def copy_state(model):
    return {key: tensor.clone() for key, tensor in model.get_state().items()}


def states_equal(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@every_model
def test_the_caller_may_write_into_the_scores_and_the_model_does_not_mind(name, fitted):
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
        lambda: model.recommend(EVERYBODY, two_tastes(name)),
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
def test_every_other_model_scores_strangers(name, fitted):
    stranger = csr_matrix(np.float32([[1, 1, 0, 0, 0, 0, 0, 0, 0, 0]]))
    assert fitted(name).score(stranger).isfinite().all()


# recommend(), as implicit has it


@every_model
def test_recommend_takes_what_recommend_of_implicit_takes(name):
    base = pytest.importorskip("implicit.recommender_base")
    theirs = inspect.signature(base.RecommenderBase.recommend).parameters
    ours = inspect.signature(MODELS[name].recommend).parameters
    shared = [parameter for parameter in theirs if parameter != "recalculate_user"]  # ours always folds in
    assert list(ours) == shared
    assert [ours[key].default for key in shared] == [theirs[key].default for key in shared]


@every_model
def test_one_user_gets_one_list_and_several_get_a_row_each(name, fitted):
    ids, scores = fitted(name).recommend(3, two_tastes(name)[3], N=2)
    assert (ids.shape, scores.shape, ids.dtype, scores.dtype) == ((2,), (2,), np.int32, np.float32)
    several, values = fitted(name).recommend([3, 4], two_tastes(name)[3:5], N=2)
    assert several.shape == values.shape == (2, 2)
    np.testing.assert_array_equal(several[0], ids)
    np.testing.assert_allclose(values[0], scores, rtol=1e-5, atol=1e-6)


@every_model
def test_lists_hold_the_best_unseen_items_best_first(name, fitted):
    scores = scores_of(fitted(name)).numpy()
    scores[two_tastes(name).nonzero()] = -np.inf
    ids, values = fitted(name).recommend(EVERYBODY, two_tastes(name), N=3)
    np.testing.assert_array_equal(ids, np.argsort(-scores, axis=1, kind="stable")[:, :3])
    np.testing.assert_array_equal(values, -np.sort(-scores, axis=1)[:, :3])


@every_model
def test_a_list_that_runs_short_ends_in_minus_one_and_minus_infinity(name, fitted):
    unseen = sorted(set(range(10)) - set(two_tastes(name)[0].indices))
    ids, scores = fitted(name).recommend(0, two_tastes(name)[0], N=12)
    found = len(unseen)
    assert sorted(ids[:found]) == unseen and (ids[found:] == -1).all()
    assert np.isfinite(scores[:found]).all() and (scores[found:] == -np.inf).all()


@every_model
def test_seen_items_come_back_when_asked_for(name, fitted):
    ids, _ = fitted(name).recommend(0, two_tastes(name)[0], N=10, filter_already_liked_items=False)
    assert sorted(ids) == list(range(10))


@every_model
def test_filtered_items_are_out_and_given_items_are_the_only_candidates(name, fitted):
    assert 0 not in fitted(name).recommend(0, two_tastes(name)[0], N=10, filter_items=[0])[0]
    assert sorted(fitted(name).recommend(0, two_tastes(name)[0], N=3, items=[0, 8, 1])[0]) == [-1, 0, 8]  # 1 is seen
    both = fitted(name).recommend(0, two_tastes(name)[0], N=2, items=[0, 8], filter_items=[8])[0]
    assert both.tolist() == [0, -1]


@every_model
def test_no_filter_is_an_empty_filter(name, fitted):
    ids, _ = fitted(name).recommend(EVERYBODY, two_tastes(name), N=5, filter_items=[])
    np.testing.assert_array_equal(ids, fitted(name).recommend(EVERYBODY, two_tastes(name), N=5)[0])


@every_model
def test_a_history_a_user_is_wanted(name, fitted):
    with pytest.raises(DataError, match="one row of user_items a user, found 10 for 1"):
        fitted(name).recommend(0, two_tastes(name))


@every_model
def test_the_nearest_items_start_with_the_item_itself_and_stay_within_its_taste(name, fitted):
    if MODELS[name].family == "baseline":
        with pytest.raises(UnsupportedError, match=f"{name} has no item codes"):
            fitted(name).similar_items(0)
        return
    ids, cosines = fitted(name).similar_items(6, N=3)
    assert (ids.shape, ids[0]) == ((3,), 6)
    assert cosines[0] == pytest.approx(1, abs=1e-5)
    assert (np.diff(cosines) <= 0).all()
    assert (ids >= 5).all()
    with pytest.raises(DataError, match=r"0\.\.9, found -1"):
        fitted(name).similar_items(-1)


# Keeping


def save(model, folder):
    users = Vocabulary.of(EVERYBODY) if model.needs_training_users else None
    return save_model(folder, TrainedModel(model, Vocabulary.of(list("abcdefghij")), np.full(10, 4), users))


@every_model
def test_a_saved_model_gives_exactly_the_same_scores_elsewhere(name, fitted, tmp_path):
    (tmp_path / "there").mkdir()
    shutil.move(save(fitted(name), tmp_path / "here" / "model"), tmp_path / "there" / "renamed")
    saved = load_model(tmp_path / "there" / "renamed", device="cpu")
    assert saved.model.config == fitted(name).config
    assert torch.equal(scores_of(saved.model), scores_of(fitted(name)))
    assert states_equal(saved.model.get_state(), fitted(name).get_state())


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
