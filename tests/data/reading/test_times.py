"""Timestamps of every unit and form."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reading_case import read

from recsys.data.reading import read_interactions
from recsys.errors import DataError


@pytest.mark.parametrize(
    "text",
    [
        *("1425211200", "1425211200000", "1425211200000000", "1425211200000000000", "1425211200.0", "1.4252112e9"),
        *("2015-03-01 12:00:00", "2015-03-01T12:00:00", "2015-03-01T12:00:00Z", "2015-03-01T14:00:00.000+02:00"),
    ],
)
def test_times_become_milliseconds_whatever_they_are_written_in(tmp_path, text):
    found = read(tmp_path, f"user;item;timestamp\nu;a;{text}\nv;b;{text}\n")
    assert found.timestamp.tolist() == [1425211200000] * 2
    assert np.datetime64(1425211200000, "ms") == np.datetime64("2015-03-01T12:00")


@pytest.mark.parametrize("kind", [pa.duration("s"), pa.time32("s"), pa.string()])
def test_times_of_parquet_that_are_no_dates_are_refused_by_their_type(tmp_path, kind):
    times = pa.array(["2020-01-01" if kind == pa.string() else 5], kind)
    pq.write_table(pa.table({"user_id": ["u"], "item_id": ["a"], "timestamp": times}), tmp_path / "r.parquet")
    with pytest.raises(DataError, match="Expected numbers, dates or timestamps as times"):
        read_interactions(tmp_path / "r.parquet")


def test_days_and_times_of_parquet_and_frames_are_read(tmp_path):
    when = pd.Timestamp("2015-03-01 12:00")
    frame = pd.DataFrame({"user": [1], "item": [1], "timestamp": [when]})
    assert read_interactions(frame).timestamp.tolist() == [1425211200000]
    frame["timestamp"] = frame["timestamp"].dt.tz_localize("Europe/Berlin")
    assert read_interactions(frame).timestamp.tolist() == [1425211200000 - 3_600_000]
    pq.write_table(pa.table({"user": [1], "item": [1], "date": [when.date()]}), tmp_path / "r.parquet")
    assert read_interactions(tmp_path / "r.parquet").timestamp.tolist() == [1425211200000 - 43_200_000]
