import numpy as np
import pytest
from scipy.sparse import csr_matrix

from recsys.errors import ConfigError
from recsys.latent.clusters import find_clusters, typical_items, typical_points
from recsys.latent.projection import unit_vectors


def test_obvious_clusters_are_found_the_largest_first():
    vectors = unit_vectors(np.array([[1, 0.1], [0, 1], [0.1, 1], [0, 1.1], [1, 0]]))
    assert find_clusters(vectors, 2).tolist() == [1, 0, 0, 0, 1]


def test_there_are_never_more_clusters_than_different_vectors():
    vectors = unit_vectors(np.array([[1.0, 0], [1, 0], [0, 1]]))
    assert find_clusters(vectors, 3).tolist() == [0, 0, 1]


def test_the_number_of_clusters_grows_with_the_points():
    rng = np.random.default_rng(0)
    assert [find_clusters(unit_vectors(rng.standard_normal((n, 4)))).max() + 1 for n in (10, 400)] == [2, 5]


@pytest.mark.parametrize("count", [0, 17])
def test_a_number_of_clusters_out_of_range_is_refused(count):
    with pytest.raises(ConfigError, match=r"clusters in 1\.\.16"):
        find_clusters(np.eye(3, dtype=np.float32), count)


def test_a_name_is_the_nearest_to_the_center_among_the_popular():
    angles = np.radians([0, 10, 20, 30, 90])
    vectors = unit_vectors(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    labels = np.array([0, 0, 0, 0, 1], dtype=np.int32)
    # The center of the first cluster is at 15 degrees; its popularity has the upper quartile 81.
    found = typical_points(vectors, labels, np.array([100, 5, 5, 75, 1]))
    assert [one.tolist() for one in found] == [[0], [4]]
    everybody = typical_points(vectors, labels, np.array([7, 7, 7, 7, 1]))[0].tolist()
    assert sorted(everybody[:2]) == [1, 2] and len(everybody) == 3


def test_users_are_named_by_what_others_have_less_often():
    #                items   0  1  2
    history = csr_matrix([[1, 1, 0], [1, 1, 0], [1, 0, 1]])
    found = typical_items(history, np.array([0, 0, 1], dtype=np.int32))
    # first cluster: item 1 has 2/2 - 0/1, item 0 2/2 - 1/1; second: item 2 has 1/1 - 0/2, item 0 1/1 - 2/2
    assert [one.tolist() for one in found] == [[1, 0], [2, 0]]
