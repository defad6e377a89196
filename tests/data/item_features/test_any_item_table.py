"""Whatever a file of item features holds, its rows are accounted for, or it is refused by a DataError."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.data.item_features import read_item_table
from recsys.data.item_features.encoder import FeatureEncoder
from recsys.data.item_features.features import read_item_features
from recsys.errors import DataError

CELLS = st.one_of(
    st.sampled_from(
        ["", "1", "007", "1e400", "-2.5", "2020-01-31", "31/12/2020", "a|b", "|", "é", '"', "nan", "x y z"]
    ),
    st.text(max_size=12),
)
LOOSE = settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))


@LOOSE
@given(
    rows=st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=12), mark=st.sampled_from([",", "\t", ";", "::"])
)
def test_text_is_read_with_an_account_or_refused(tmp_path_factory, rows, mark):
    file = tmp_path_factory.mktemp("any") / "items.csv"
    text = "\n".join([mark.join(["item", "a", "b"]), *(mark.join(row) for row in rows)])
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    check(file)


@LOOSE
@given(content=st.binary(max_size=300))
def test_bytes_are_read_or_refused(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("any") / "items.csv"
    file.write_bytes(content)
    check(file)


VALUES = st.one_of(
    st.lists(st.one_of(st.none(), st.floats()), min_size=3, max_size=3),
    st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), min_size=3, max_size=3),
    st.lists(st.one_of(st.none(), st.booleans()), min_size=3, max_size=3),
    st.lists(st.one_of(st.none(), st.lists(st.floats(width=32), min_size=2, max_size=2)), min_size=3, max_size=3),
    st.lists(st.one_of(st.none(), st.lists(st.text(max_size=3), max_size=3)), min_size=3, max_size=3),
    st.lists(st.one_of(st.none(), st.datetimes()), min_size=3, max_size=3),
    st.lists(st.one_of(st.none(), st.binary(max_size=3)), min_size=3, max_size=3),
)


@LOOSE
@given(first=VALUES, second=VALUES)
def test_typed_columns_are_read_or_refused(tmp_path_factory, first, second):
    file = tmp_path_factory.mktemp("any") / "items.parquet"
    pq.write_table(pa.table({"item": ["a", "b", "c"], "first": first, "second": second}), file)
    check(file)


def check(file):
    try:
        table = read_item_table(file)
    except DataError:
        return
    assert table.ledger.kept >= len(table) > 0
    assert all(len(column) == len(table) for column in table.columns.values())
    try:
        features = read_item_features(file)
    except DataError:
        return
    matrix = features.matrix
    assert matrix.shape == (len(table), len(features.encoder.names))
    assert np.isfinite(matrix.data).all()
    folder = file.parent
    features.encoder.save(folder)
    again = FeatureEncoder.load(folder)
    assert (again.transform(table) != matrix).nnz == 0


@pytest.mark.parametrize("content", [b"", b"\n", b"item,a\n", b"item\n1\n", b"a\n", b"PAR1", b"\x80\x04"])
def test_files_without_a_table_are_refused(tmp_path, content):
    (tmp_path / "items.csv").write_bytes(content)
    with pytest.raises(DataError):
        read_item_table(tmp_path / "items.csv")
