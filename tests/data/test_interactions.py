from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from recsys.data.interactions import ColumnUse, Interactions, Ledger, RatingScale, Vocabulary
from recsys.data.matrix import UserItemMatrix, cell_order, sparse_rows
from recsys.errors import DataError


def table(user=(0, 0, 1), item=(0, 1, 1), rating=(1.0, 0.0, 5.0), **more) -> Interactions:
    users = Vocabulary.of([f"u{n}" for n in range(max(user) + 1)])
    items = Vocabulary.of([f"i{n}" for n in range(max(item) + 1)])
    return Interactions(users, items, np.int32(user), np.int32(item), np.float32(rating), **more)


def test_positions_are_those_of_the_ids_and_minus_one_for_strangers():
    assert Vocabulary.of(["a", "b"]).positions(["b", "c", "a"]).tolist() == [1, -1, 0]


def test_between_text_and_integers_the_spelling_decides():
    assert Vocabulary.of([7, 12]).positions(["7", "007", "12"]).tolist() == [0, -1, 1]
    assert Vocabulary.of(["7", "007"]).positions([7]).tolist() == [0]


def test_ids_are_added_at_the_end_as_text_where_text_meets_integers():
    known = Vocabulary.of([7, 12])
    assert known.extended(Vocabulary.of([3]).ids).to_list() == [7, 12, 3]
    assert known.extended(Vocabulary.of(["a"]).ids).to_list() == ["7", "12", "a"]


@pytest.mark.parametrize(("ids", "words"), [(["a", None], "1 missing"), (["a", "a"], "repeated")])
def test_a_vocabulary_refuses_missing_and_repeated_ids(ids, words):
    with pytest.raises(DataError, match=words):
        Vocabulary.of(ids)


def test_the_ledger_adds_up_in_one_line():
    assert Ledger(12, {"missing user id": 1, "duplicate (last kept)": 2}).line() == (
        "rows read 12 = kept 9 + missing user id 1 + duplicate (last kept) 2"
    )


@pytest.mark.parametrize(
    ("ratings", "scale"),
    [
        ([0.5, 3, 5], RatingScale(0.5, 5, 0.5, "rating")),
        ([1, 5, 4, 4], RatingScale(1, 5, 1, "rating")),
        ([-9.95, 0, 10], RatingScale(-9.95, 10, 0.05, "rating")),
        ([20, 70, 100], RatingScale(20, 100, 10, "rating")),
        ([1, 1], RatingScale(1, 1, None, "constant")),
        ([1, 2, 3, 2, 1, 500], RatingScale(1, 500, 1, "count")),
        ([0.1, 0.2, 4.5, 11754], RatingScale(0.1, 11754, 0.1, "count")),
        ([0.12345, 1], RatingScale(0.12345, 1, None, "rating")),
    ],
)
def test_the_scale_of_ratings_is_found(ratings, scale):
    found = RatingScale.of(np.float32(ratings))
    assert found == RatingScale(pytest.approx(scale.min), scale.max, scale.step, scale.kind)


def test_without_ratings_there_is_no_scale():
    assert replace(table(), rating=None).scale is None


def test_columns_of_unequal_length_are_refused():
    with pytest.raises(DataError, match="rating for each of 3 rows"):
        table(rating=(1.0,))


def test_the_fingerprint_is_of_ids_and_values_and_nothing_else():
    data = table()
    assert data.fingerprint() == table(ledger=Ledger(99), row=np.int32([4, 5, 6])).fingerprint()
    assert data.fingerprint() != table(rating=(1.0, 0.5, 5.0)).fingerprint()
    assert data.fingerprint() != replace(table(), rating=None).fingerprint()
    assert data.fingerprint() != replace(table(), users=Vocabulary.of(["u0", "uX"])).fingerprint()


def test_the_fingerprint_tells_apart_ids_that_only_join_to_the_same_text():
    one, other = (replace(table(), users=Vocabulary.of(ids)) for ids in (["a", "bc"], ["ab", "c"]))
    assert one.fingerprint() != other.fingerprint()
    wide = replace(one, users=Vocabulary(one.users.ids.cast(pa.large_string())))
    assert one.fingerprint() == wide.fingerprint()


def test_a_description_is_plain_arithmetic():
    facts = table(timestamp=np.int64([0, 1000, 86_400_000]), ledger=Ledger(4, {"missing rating": 1})).describe()
    assert facts["density"] == 3 / 4
    assert facts["rows_per_user"] == {"min": 1, "median": 1.5, "max": 2}
    assert facts["time"] == ["1970-01-01T00:00:00", "1970-01-02T00:00:00"]
    assert facts["ledger"] == {"read": 4, "kept": 3, "missing rating": 1}
    assert facts["scale"] == {"min": 0, "max": 5, "step": 1, "kind": "rating"}


def test_the_matrix_stores_real_zeros():
    matrix = UserItemMatrix.from_interactions(table(), ratings=True).matrix
    assert matrix.nnz == 3
    assert matrix.toarray().tolist() == [[1, 0], [0, 5]]
    assert UserItemMatrix.from_interactions(table()).matrix.toarray().tolist() == [[1, 1], [0, 1]]


def test_a_model_s_items_give_the_columns_and_strangers_are_counted():
    found = UserItemMatrix.from_interactions(table(), items=Vocabulary.of(["i9", "i1"]))
    assert found.matrix.toarray().tolist() == [[0, 1], [0, 1]]
    assert found.unknown == 1


def test_a_matrix_may_be_changed_without_changing_the_interactions():
    data = table(user=(0, 0, 1), item=(0, 1, 1))
    matrix = UserItemMatrix.from_interactions(data, ratings=True).matrix
    matrix.data *= 9
    matrix.eliminate_zeros()
    assert data.rating.tolist() == [1, 0, 5]
    assert data.item.tolist() == [0, 1, 1]


@pytest.mark.parametrize("size", [(5, 4), (2**31, 2**31)])
def test_cells_are_ordered_by_row_then_column_equal_ones_as_they_stand(size):
    row, column = np.int32([1, 0, 1, 1, 0]), np.int32([3, 2, 0, 3, 2])
    assert cell_order(row, column, size).tolist() == [1, 4, 2, 0, 3]
    assert cell_order(np.sort(row), np.int32([1, 1, 0, 2, 2]), size) is None


def test_rows_and_columns_without_cells_keep_their_place():
    matrix = sparse_rows(np.int32([2, 0]), np.int32([1, 1]), np.float32([7, 8]), (4, 3))
    assert matrix.toarray().tolist() == [[0, 8, 0], [0, 0, 0], [0, 7, 0], [0, 0, 0]]
    assert matrix.indices.dtype == matrix.indptr.dtype == np.int32


def test_an_empty_matrix_is_a_matrix():
    assert sparse_rows(np.int32([]), np.int32([]), np.float32([]), (2, 3)).shape == (2, 3)


@pytest.mark.parametrize("ids", [["a", "b"], [7, 8]])
def test_the_id_at_minus_one_is_missing(ids):
    vocabulary = Vocabulary.of(ids)
    assert vocabulary.take(np.int32([1, -1, 0])).to_pylist() == [ids[1], None, ids[0]]
    assert vocabulary.take(np.empty(0, dtype=np.int32)).to_pylist() == []


def test_interactions_become_a_matrix_of_ones_or_of_ratings():
    data = table(rating=(4, 0, 5))
    assert data.to_matrix().matrix.toarray().tolist() == [[1, 1], [0, 1]]
    matrix = data.to_matrix(ratings=True)
    assert matrix.matrix.toarray().tolist() == [[4, 0], [0, 5]]
    assert matrix.matrix.nnz == 3  # a rating of zero is stored
    assert (matrix.users, matrix.items) == (data.users, data.items)
    with pytest.raises(DataError, match="rating_column"):
        replace(data, rating=None).to_matrix(ratings=True)


def test_columns_read_and_not_read_are_written_in_one_line():
    assert ColumnUse({"user": "u", "item": "i"}).line() == "columns read: user = u, item = i"
    many = ColumnUse({"user": "u", "item": "i"}, tuple("abcdefghij")).line()
    assert many.endswith("not read: a, b, c, d, e, f, g, h and 2 more")


@pytest.mark.parametrize("ratings", [(1e-7, 1e-7), (1e-7, 3e-7), (1e30, 2e30), (1e-40, 1), (-3e38, 3e38)])
def test_a_scale_of_any_size_keeps_its_ends(ratings):
    scale = RatingScale.of(np.float32(ratings))
    assert (np.float32(scale.min), np.float32(scale.max)) == (np.float32(min(ratings)), np.float32(max(ratings)))
    assert scale.step is None or scale.step > 0


@pytest.mark.parametrize("ids", ["ab", b"ab", ["a", 1], [10**25], [object()], [["a"]], ["\ud800"]])
def test_what_is_no_list_of_ids_is_refused(ids):
    with pytest.raises(DataError, match=r"Expected (a list of )?ids"):
        Vocabulary.of(["a", "b"]).positions(ids)


@pytest.mark.parametrize("positions", [[], 1, np.int64(1), np.array([]), [-1, 1]])
def test_ids_are_taken_at_a_number_a_list_and_an_empty_list(positions):
    expected = ["b" if position == 1 else None for position in np.atleast_1d(positions)]
    assert Vocabulary.of(["a", "b"]).take(positions).to_pylist() == expected
