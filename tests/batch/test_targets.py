"""Targets and rules of a batch: small files of ids in any common form, and fingerprints."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.sparse import csr_matrix

from recsys.batch.rules import ListRules, allowed_items
from recsys.batch.targets import Targets, excluded_pairs, fingerprint
from recsys.data.interactions import Vocabulary
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


def test_the_id_column_comes_first_whatever_its_position(tmp_path):
    (tmp_path / "groups.csv").write_text("brand,item_id\nx,a\ny,b\n")
    item, group = read_columns(tmp_path / "groups.csv", "item", 2)
    assert item.to_pylist() == ["a", "b"] and group.to_pylist() == ["x", "y"]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        read_ids(tmp_path / "nowhere", "user")


def targets(ids=("ann", "bob"), cells=((1, 0), (0, 1)), training_rows=None):
    return Targets(pa.array(ids), csr_matrix(np.float32(cells)), None, training_rows)


def test_a_fingerprint_changes_with_any_part_of_the_content():
    others = [
        targets(ids=("bob", "ann")),
        targets(cells=((0, 1), (0, 1))),
        targets(training_rows=np.array([0, 1])),
        ListRules(),
        ListRules(min_score=1.0),
        ListRules(allowed=np.array([True, False])),
        ListRules(cap=GroupCap(np.int32([0, 1]), 1)),
        ListRules(cap=GroupCap(np.int32([0, 1]), 2)),
        ListRules(popularity=np.float32([1, 2])),
    ]
    found = [fingerprint(each) for each in (targets(), *others)]
    assert len(set(found)) == len(found)
    assert fingerprint(targets()) == found[0]


def test_users_without_a_known_item_or_outside_the_training_are_cold():
    assert targets(cells=((1, 0), (0, 0))).cold.tolist() == [False, True]
    assert targets(training_rows=np.array([3, -1])).cold.tolist() == [False, True]


def test_items_the_model_does_not_know_have_no_effect(tmp_path):
    (tmp_path / "never").write_text("item_id\na\nx\n")
    assert allowed_items(Vocabulary.of(["a", "b"]), None, tmp_path / "never").tolist() == [False, True]
    assert allowed_items(Vocabulary.of(["a", "b"]), tmp_path / "never", None).tolist() == [True, False]


def test_excluded_pairs_of_other_users_or_items_have_no_effect(tmp_path):
    (tmp_path / "pairs.csv").write_text("user_id,item_id\nann,a\nann,z\neve,a\n")
    pairs = excluded_pairs(tmp_path / "pairs.csv", targets(), Vocabulary.of(["a", "b"]))
    assert pairs.toarray().tolist() == [[1, 0], [0, 0]]
