"""Histories of two people."""

import numpy as np
import pytest
from tastes import two_tastes

from recsys.errors import UnsupportedError
from recsys.explain.shared_accounts import Relations, two_blocks
from recsys.models import create_model


def relations_of_two(size=10):
    """Items of two kinds: related within, not across."""
    kind = np.arange(2 * size) // size
    strength = (kind[:, None] == kind).astype(np.float32)
    np.fill_diagonal(strength, 0)
    return Relations(strength)


def test_two_unrelated_blocks_have_the_contrast_one_and_one_block_less():
    relations = relations_of_two()
    assert relations.contrast(np.arange(20, dtype=np.int32)) == pytest.approx(1)
    assert relations.contrast(np.arange(10, dtype=np.int32)) == pytest.approx(0)


def test_the_blocks_are_the_two_kinds():
    first, second = relations_of_two().blocks(np.arange(20, dtype=np.int32))
    assert {frozenset(first.tolist()), frozenset(second.tolist())} == {frozenset(range(10)), frozenset(range(10, 20))}


def test_a_short_history_says_nothing():
    assert np.isnan(relations_of_two().contrast(np.arange(7, dtype=np.int32)))


def test_merged_users_of_two_tastes_stand_out():
    data = two_tastes(users=60, items=40).to_matrix()
    matrix = data.matrix.tolil()
    matrix[0] = matrix[0].maximum(matrix[1])
    whole = matrix.tocsr()
    contrasts = two_blocks(Relations.of(create_model("ease", {"l2": 5}).fit(whole)), whole)
    assert np.nanargmax(contrasts) == 0


def test_models_of_ratings_are_refused():
    with pytest.raises(UnsupportedError, match="makes lists"):
        Relations.of(create_model("biases"))
