"""The threads of a reader have ended when it refuses a file, whoever still holds the error."""

import threading

import pytest

from recsys.data.reading import ReadingOptions, read_interactions
from recsys.errors import DataError


def of_pools():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]


def test_a_refused_file_leaves_no_thread_behind(tmp_path):
    (tmp_path / "ratings.csv").write_text("user_id,item_id\n" + "".join(f"u{n},i{n}\n" for n in range(50)))
    with pytest.raises(DataError, match="rating") as held:
        read_interactions(tmp_path / "ratings.csv", ReadingOptions(min_rating=4))
    assert not of_pools()
    assert held.value.__traceback__ is not None  # which holds the frames, and what they hold
