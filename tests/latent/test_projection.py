import numpy as np
import pytest
from sklearn.manifold import trustworthiness

from recsys.errors import DataError
from recsys.latent.projection import measure_trust, project, unit_vectors


def cloud(n=60, size=8, seed=0):
    return unit_vectors(np.random.default_rng(seed).standard_normal((n, size)))


def two_blobs(each=30):
    """Vectors near one of two perpendicular directions."""
    directions = np.repeat(np.eye(6)[:2], each, axis=0)
    return unit_vectors(directions + 0.1 * np.random.default_rng(0).standard_normal(directions.shape))


def test_units_have_length_one_and_nothing_stays_nothing():
    np.testing.assert_allclose(unit_vectors(np.array([[3.0, 4.0], [0.0, 0.0]])), [[0.6, 0.8], [0.0, 0.0]], atol=1e-7)


def test_numbers_that_are_not_finite_are_refused():
    with pytest.raises(DataError, match="finite"):
        unit_vectors(np.array([[1.0, np.nan]]))


def test_pca_finds_the_plane_that_points_lie_in_whatever_its_direction():
    flat = np.array([[0, 0], [4, 0], [0, 1], [4, 1], [2, 0.5]], dtype=np.float32)
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((5, 5)))[0][:2]
    plane = project((flat @ rotation).astype(np.float32), "pca")
    np.testing.assert_allclose(np.abs(plane), np.abs(flat - flat.mean(0)), atol=1e-5)


def test_vectors_of_one_number_lie_on_a_line():
    plane = project(np.array([[1.0], [2.0], [4.0]], dtype=np.float32))
    assert (plane[:, 1] == 0).all() and len(np.unique(plane[:, 0])) == 3


def test_tsne_keeps_two_groups_apart_and_the_seed_decides():
    vectors = two_blobs()
    plane = project(vectors, "tsne", seed=3)
    first, second = plane[:30], plane[30:]
    gap = np.linalg.norm(first.mean(0) - second.mean(0))
    assert gap > 2 * max(np.linalg.norm(part - part.mean(0), axis=1).mean() for part in (first, second))
    np.testing.assert_array_equal(project(vectors, "tsne", seed=3), plane)


def test_fewer_than_three_points_make_no_map():
    with pytest.raises(DataError, match="at least 3 points"):
        project(cloud(2))


def test_a_plane_that_changes_nothing_is_trusted_wholly():
    vectors = cloud(50, 2)
    trust = measure_trust(vectors, 5 * vectors)
    assert (trust.kept, trust.trustworthiness) == (1, 1)


def test_a_plane_of_chance_keeps_as_many_neighbors_as_chance():
    vectors = cloud(1500, 20)
    plane = np.random.default_rng(1).standard_normal((1500, 2)).astype(np.float32)
    trust = measure_trust(vectors, plane)
    assert trust.by_chance == 10 / 1499
    assert abs(trust.kept - trust.by_chance) < 0.004
    assert abs(trust.trustworthiness - 0.5) < 0.02


def test_trustworthiness_is_that_of_scikit_learn():
    vectors = cloud(80, 10)
    plane = project(vectors)
    expected = trustworthiness(vectors, plane, n_neighbors=10)
    assert measure_trust(vectors, plane).trustworthiness == pytest.approx(expected, abs=1e-9)


def test_few_points_have_few_neighbors():
    vectors = cloud(5)
    assert measure_trust(vectors, project(vectors)).neighbors == 2
