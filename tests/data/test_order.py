"""Order of histories: places in time, ties, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from recsys.data.matrix import OrderedMatrix, UserItemMatrix, as_csr, without_order
from recsys.data.order import for_models, in_order, order_line, places, tied_rows
from recsys.data.reading import ReadingOptions, read_interactions
from recsys.data.store import open_store, write_store
from recsys.errors import DataError
from recsys.models import create_model


def table(times=(5, 3, 3, 1), **options):
    """One user with items c a d b; in canonical order of the items, and so of the rows: a b c d."""
    frame = pd.DataFrame({"user_id": "u", "item_id": list("cadb")})
    if times is not None:
        frame["timestamp"] = [1_000_000_000 + second for second in times]
    return read_interactions(frame, ReadingOptions(**options))


def test_places_are_by_time_and_equal_times_by_row():
    assert places(in_order(table())).tolist() == [2, 1, 4, 3]  # b at 1, a and d at 3 in this order, c at 5


def test_places_may_be_those_of_the_rows_with_times_or_without():
    assert places(in_order(table(), "rows")).tolist() == [2, 4, 1, 3]
    assert places(table(None, order="rows")).tolist() == [2, 4, 1, 3]


def test_without_times_the_order_is_refused_unless_it_is_that_of_the_rows():
    with pytest.raises(DataError, match=r"Expected times.*order=rows"):
        in_order(table(None))
    with pytest.raises(DataError, match="Expected times"):
        table(None, order="time")


def test_rows_at_equal_times_are_counted_within_a_user():
    assert tied_rows(table()) == 2
    assert order_line(in_order(table())) == (
        "Histories are in order of time; 2 of 4 rows at equal times in that of the rows."
    )
    assert in_order(table()).describe()["rows_at_equal_times"] == 2
    assert "order" not in table().describe()
    assert order_line(in_order(table(None), "rows")) == "Histories are in the order of the rows."


def test_a_matrix_in_order_holds_places_and_its_rows_too():
    data = in_order(table()).to_matrix()
    assert isinstance(data.matrix, OrderedMatrix)
    assert isinstance(as_csr(data.matrix[[0]]), OrderedMatrix)
    assert data.matrix.toarray().tolist() == [[2, 1, 4, 3]]
    assert without_order(data.matrix).toarray().tolist() == [[1, 1, 1, 1]]
    assert table().to_matrix().matrix.toarray().tolist() == [[1, 1, 1, 1]]
    assert UserItemMatrix.from_interactions(in_order(table()), order=False).matrix.data.tolist() == [1, 1, 1, 1]


def test_only_a_model_that_uses_the_order_needs_times():
    assert for_models(table(None), [create_model("ease")]).order is None
    with pytest.raises(DataError, match="Expected times"):
        for_models(table(None), [create_model("ease"), create_model("last-item")])


def test_a_prepared_store_keeps_the_order(tmp_path):
    stored = open_store(write_store(table(), tmp_path / "store"))
    np.testing.assert_array_equal(places(in_order(stored)), [2, 1, 4, 3])
    np.testing.assert_array_equal(places(in_order(stored, "rows")), [2, 4, 1, 3])
