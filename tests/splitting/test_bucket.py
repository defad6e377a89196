import hashlib

import numpy as np
import pandas as pd
import pytest

from recsys.data.interactions import Vocabulary
from recsys.data.reading import ReadingOptions, read_interactions
from recsys.errors import ConfigError, DataError
from recsys.splitting.bucket import divide_by_bucket as divide
from recsys.splitting.bucket import in_bucket


def table(users, low=False):
    rows = [(user, item, 5.0 - 4 * (low and item == "c")) for user in users for item in ("a", "b", "c")]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "rating"])
    return read_interactions(frame, ReadingOptions(min_rating=4 if low else None))


def test_a_user_is_in_the_bucket_where_the_hash_is_below_the_share():
    value = int.from_bytes(hashlib.sha256(b"recsys test bucket:u7").digest()[:8], "big") / 2**64
    assert in_bucket(Vocabulary.of(["u7"]), value + 1e-9).tolist() == [True]
    assert in_bucket(Vocabulary.of(["u7"]), value - 1e-9).tolist() == [False]


def test_the_spelling_of_an_id_decides_not_its_type():
    ids = list(range(1000))
    as_text = in_bucket(Vocabulary.of([str(i) for i in ids]), 0.2)
    assert np.array_equal(in_bucket(Vocabulary.of(ids), 0.2), as_text)
    assert 150 < as_text.sum() < 250


def test_a_larger_bucket_holds_a_smaller_one():
    users = Vocabulary.of([f"u{i}" for i in range(500)])
    small, large = in_bucket(users, 0.1), in_bucket(users, 0.3)
    assert (small <= large).all() and small.sum() < large.sum()


def test_other_users_change_nothing():
    few, many = [f"u{i}" for i in range(50)], [f"u{i}" for i in range(100)]
    _, small = divide(table(few), 0.3)
    _, large = divide(table(many), 0.3)
    assert set(small.users.to_list()) == set(large.users.to_list()) & set(few)


def test_every_user_is_on_one_side_with_all_rows():
    whole = table([f"u{i}" for i in range(60)])
    training, bucket = divide(whole, 0.2)
    sides = set(training.users.to_list()), set(bucket.users.to_list())
    assert not sides[0] & sides[1] and sides[0] | sides[1] == set(whole.users.to_list())
    assert len(training) + len(bucket) == len(whole) == 180
    assert len(bucket) == 3 * len(bucket.users)


def test_what_was_rated_low_stays_seen_on_its_side():
    training, bucket = divide(table([f"u{i}" for i in range(60)], low=True), 0.2)
    for side in (training, bucket):
        seen = side.seen_only
        assert seen is not None and len(seen) == len(side.users)  # one row of c each
        assert set(seen.users.take(np.unique(seen.user)).to_pylist()) == set(side.users.to_list())
        assert seen.users.to_list()[: len(side.users)] == side.users.to_list()


def test_a_side_without_users_is_refused():
    with pytest.raises(DataError, match="in the bucket, found none of 1"):
        divide(table(["u1"]), 1e-6)
    with pytest.raises(ConfigError, match="share"):
        divide(table(["u1"]), 0.7)
