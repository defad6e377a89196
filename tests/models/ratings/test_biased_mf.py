import numpy as np
import pytest
from scipy.sparse import csr_matrix

from recsys.models import create_model


def test_it_completes_a_table_of_rank_one():
    taste = np.outer([1, -1, 1, -1, 1, -1], [1, 1, 1, -1, -1, -1])
    hidden = np.eye(6, dtype=bool)
    matrix = csr_matrix(np.where(hidden, 0, 3 + 2 * taste).astype(np.float32))
    model = create_model("biased-mf", {"factors": 2, "l2": 0.1}).fit(matrix)
    np.testing.assert_allclose(model.score(matrix).numpy()[hidden], (3 + 2 * taste)[hidden], atol=0.7)


@pytest.mark.parametrize("power", [0, 1])
def test_with_power_1_the_regularization_is_proportional_to_the_number_of_ratings(power):
    matrix = csr_matrix(np.float32([[5, 1, 0, 0], [1, 5, 4, 2]]))
    model = create_model("biased-mf", {"factors": 1, "l2": 2, "power": power}).fit(matrix)
    firmness = model._l2(model.baseline.residual_rows(matrix, transposed=False).everything())
    assert firmness.tolist() == ([4, 8] if power else [2, 2])
