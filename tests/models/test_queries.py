"""similar_items, similar_users and recommend with arrays, filters and what `implicit` also takes."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from recsys.errors import ConfigError, DataError, UnsupportedError
from recsys.inference.topn import top_n
from recsys.models import create_model
from recsys.models.checks import check_positions

# Users 0, 1, 2 took items 0 to 2, users 3, 4, 5 items 3 to 5.
TASTES = csr_matrix(
    np.float32(
        [
            [1, 1, 1, 0, 0, 0],
            [1, 1, 0, 0, 0, 0],
            [0, 1, 1, 0, 0, 0],
            [0, 0, 0, 1, 1, 1],
            [0, 0, 0, 1, 1, 0],
            [0, 0, 0, 0, 1, 1],
        ]
    )
)


@pytest.fixture(scope="module")
def ease():
    return create_model("ease", {"l2": 1.0}).fit(TASTES)


def test_several_items_get_a_row_each_and_the_same_as_alone(ease):
    positions, cosines = ease.similar_items([0, 3], N=3)
    assert positions.shape == cosines.shape == (2, 3)
    assert positions[:, 0].tolist() == [0, 3]
    assert cosines[:, 0] == pytest.approx([1, 1])
    for row, item in enumerate((0, 3)):
        alone = ease.similar_items(item, N=3)
        assert alone[0].tolist() == positions[row].tolist()
        assert alone[1] == pytest.approx(cosines[row])


def test_neighbors_can_be_limited_to_some_items_and_exclude_others(ease):
    assert set(ease.similar_items(0, N=2, items=[2, 4])[0]) == {2, 4}
    assert 0 not in ease.similar_items(0, N=5, filter_items=[0])[0][:5]
    positions, cosines = ease.similar_items(0, N=3, items=[2])
    assert positions.tolist() == [2, -1, -1]
    assert cosines[1:].tolist() == [-np.inf, -np.inf]


def test_no_more_neighbors_than_there_are_items(ease):
    assert ease.similar_items(0, N=300_000_000)[0].shape == (6,)
    assert ease.recommend(0, TASTES[0], N=300_000_000)[0].shape == (6,)
    assert ease.similar_users(0, TASTES, N=300_000_000)[0].shape == (6,)


@pytest.mark.parametrize("refused", [{"recalculate_item": True}, {"item_users": TASTES.T}])
def test_embeddings_of_items_are_not_made_anew_and_the_parameter_is_named(ease, refused):
    with pytest.raises(UnsupportedError, match=next(iter(refused))):
        ease.similar_items(0, **refused)


def test_recalculating_a_user_is_refused_where_the_model_knows_only_training_users(ease):
    lists = ease.recommend(0, TASTES[0], N=2, recalculate_user=True)
    assert lists[0].tolist() == ease.recommend(0, TASTES[0], N=2)[0].tolist()
    bpr = create_model("bpr", {"factors": 2, "iterations": 1}).fit(TASTES)
    with pytest.raises(UnsupportedError, match="recalculate_user"):
        bpr.recommend(0, TASTES[0], recalculate_user=True)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("popularity", {}),  # by the histories
        ("ease", {"l2": 1.0}),  # by the codes of their items
        ("als", {"factors": 2, "iterations": 3}),  # by folded-in factors
        ("bpr", {"factors": 2, "iterations": 1}),  # by the factors of training users
        ("vae", {"latent": 2, "hidden": 4, "epochs": 1}),  # by the posterior mean
    ],
)
def test_the_nearest_user_is_the_user_and_codes_are_compared_by_cosine(name, settings):
    model = create_model(name, settings).fit(TASTES)
    rows, cosines = model.similar_users([0, 3], TASTES, N=6)
    assert rows[:, 0].tolist() == [0, 3]
    assert cosines[:, 0] == pytest.approx([1, 1], abs=1e-5)
    assert (np.diff(cosines, axis=1) <= 1e-6).all()
    assert sorted(rows[0].tolist()) == list(range(6))


def test_users_of_one_taste_are_near_one_another(ease):
    assert set(ease.similar_users(0, TASTES, N=3)[0]) == {0, 1, 2}
    assert set(create_model("popularity").fit(TASTES).similar_users(4, TASTES, N=3)[0]) == {3, 4, 5}
    assert set(ease.similar_users(0, TASTES, N=2, filter_users=[0])[0]) == {1, 2}
    assert ease.similar_users(0, TASTES, N=2, users=[5])[0].tolist() == [5, -1]


def test_users_and_columns_that_are_not_there_are_refused(ease):
    with pytest.raises(DataError, match=r"0\.\.5, found 6"):
        ease.similar_users(6, TASTES)
    with pytest.raises(DataError, match="found 5 columns"):
        ease.similar_users(0, TASTES[:, :5])


def test_a_fit_shows_no_progress_and_says_what_to_use_instead():
    assert create_model("popularity").fit(TASTES, show_progress=False).n_items == 6
    with pytest.raises(UnsupportedError, match=r"show_progress: .* on_epoch"):
        create_model("popularity").fit(TASTES, show_progress=True)
    with pytest.raises(UnsupportedError, match="callback: "):
        create_model("popularity").fit(TASTES, callback=print)


@pytest.mark.parametrize("n", [0, -1, 1.5, None, True, "3"])
def test_a_length_that_is_no_whole_number_of_at_least_one_is_refused(n):
    with pytest.raises(ConfigError, match=r"n of at least 1, found|whole number as n"):
        top_n(np.zeros((1, 3), dtype=np.float32), n)


def test_positions_in_a_table_are_refused():
    with pytest.raises(DataError, match="Expected item positions"):
        check_positions([[0, 1]], 3)
