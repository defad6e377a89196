"""Who gets lists and what may stand in them: small files in any common shape, and fingerprints that notice a change."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.sparse import csr_matrix

from recsys.batch.audience import Audience, Rules, fingerprint
from recsys.data.reading.id_files import read_columns, read_ids
from recsys.errors import DataError
from recsys.inference.topn import GroupCap


@pytest.mark.parametrize(
    "text",
    [
        "user_id\n007\nann\n",
        "007\nann\n",
        "userId,age\n007,3\nann,4\n",
        "age;user\n3;007\n4;ann\n",
        "007\n\nann\n007\n",
    ],
)
def test_ids_are_read_from_a_column_with_or_without_header_and_stay_as_they_are(tmp_path, text):
    (tmp_path / "users").write_text(text)
    assert read_ids(tmp_path / "users", "user").to_list() == ["007", "ann"]


def test_ids_of_a_parquet_file_keep_their_type(tmp_path):
    pq.write_table(pa.table({"age": [1, 2], "user_id": [7, 8]}), tmp_path / "users.parquet")
    assert read_ids(tmp_path / "users.parquet", "user").to_list() == [7, 8]


def test_the_id_column_comes_first_wherever_it_stands(tmp_path):
    (tmp_path / "groups.csv").write_text("brand,item_id\nx,a\ny,b\n")
    item, group = read_columns(tmp_path / "groups.csv", "item", 2)
    assert item.to_pylist() == ["a", "b"] and group.to_pylist() == ["x", "y"]


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        read_ids(tmp_path / "nowhere", "user")


def audience(ids=("ann", "bob"), cells=((1, 0), (0, 1)), trained=None):
    return Audience(pa.array(ids), csr_matrix(np.float32(cells)), None, trained)


def test_a_fingerprint_changes_with_whatever_it_is_of():
    others = [
        audience(ids=("bob", "ann")),
        audience(cells=((0, 1), (0, 1))),
        audience(trained=np.array([0, 1])),
        Rules(),
        Rules(min_score=1.0),
        Rules(allowed=np.array([True, False])),
        Rules(cap=GroupCap(np.int32([0, 1]), 1)),
        Rules(cap=GroupCap(np.int32([0, 1]), 2)),
        Rules(popularity=np.float32([1, 2])),
    ]
    found = [fingerprint(each) for each in (audience(), *others)]
    assert len(set(found)) == len(found)
    assert fingerprint(audience()) == found[0]


def test_who_has_no_known_item_or_is_a_stranger_is_cold():
    assert audience(cells=((1, 0), (0, 0))).cold.tolist() == [False, True]
    assert audience(trained=np.array([3, -1])).cold.tolist() == [False, True]
