"""The canonical order of ids."""

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.id_order import canonical_order


def ordered(ids):
    return ids.take(pa.array(canonical_order(ids))).to_pylist()


def test_whole_numbers_come_first_by_value_then_text_by_code_point():
    ids = ["-70", "-7", "0", "9", "10", " 7", "+7", "-0", "007", "7.0", "B", "a", "é", "жук", "🦊"]
    shuffled = random.Random(0).sample(ids, len(ids))
    assert ordered(pa.array(shuffled)) == ids
    assert ordered(pa.array(shuffled, pa.large_string())) == ids


def test_numbers_of_64_bits_are_compared_by_value_and_longer_ones_are_text():
    ids = ["-9223372036854775808", "8", "18446744073709551614", "18446744073709551615", "100000000000000000000"]
    assert ordered(pa.array(ids[::-1])) == ids
    assert ordered(pa.array(["100000000000000000000", "99", "1000000000000000000000", "9" * 5000, "a"])) == [
        "99",
        "100000000000000000000",
        "1000000000000000000000",
        "9" * 5000,
        "a",
    ]


@pytest.mark.parametrize("kind", [pa.int8(), pa.int64(), pa.uint64()])
@given(numbers=st.lists(st.integers(0, 127), unique=True))
def test_integers_have_the_order_of_the_text_they_are_written_as(kind, numbers):
    integers = pa.array(numbers, kind)
    assert ordered(integers) == sorted(numbers)
    np.testing.assert_array_equal(canonical_order(integers), canonical_order(integers.cast(pa.string())))


@given(ids=st.lists(st.text(max_size=3), unique=True))
def test_the_order_is_that_of_the_ids_alone(ids):
    assert ordered(pa.array(ids, pa.string())) == ordered(pa.array(sorted(ids), pa.string()))
    assert sorted(ordered(pa.array(ids, pa.string()))) == sorted(ids)
