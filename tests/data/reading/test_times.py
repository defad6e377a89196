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


SECONDS = [978300000 + place for place in range(9)]  # in January 2001


def frame_of(times):
    return pd.DataFrame({"user": range(len(times)), "item": ["a"] * len(times), "timestamp": times})


def read_as(form, folder, times):
    """The same times in a text file, a Parquet file or a DataFrame."""
    if form == "frame":
        return read_interactions(frame_of(times))
    if form == "csv":
        return read(folder, "user,item,timestamp\n" + "".join(f"{n},a,{time}\n" for n, time in enumerate(times)))
    pq.write_table(pa.table({"user": range(len(times)), "item": ["a"] * len(times), "timestamp": times}), folder / "r")
    return read_interactions(folder / "r")


@pytest.mark.parametrize("form", ["csv", "parquet", "frame"])
@pytest.mark.parametrize("scale", [1, 10**3, 10**6, 10**9])
@pytest.mark.parametrize(
    "stray", [978300000, 978300000 * 10**3, 978300000 * 10**6, 978300000 * 10**9, 0, -1, 2**63 - 1]
)
def test_a_stray_in_another_unit_is_rejected_and_changes_no_other_time(tmp_path, form, scale, stray):
    found = read_as(form, tmp_path, [second * scale for second in SECONDS] + [stray])
    kept = 10 if stray == SECONDS[0] * scale else 9
    assert found.timestamp.tolist() == [1000 * second for second in [*SECONDS, SECONDS[0]]][:kept]
    assert dict(found.ledger.rejected) == ({} if kept == 10 else {"implausible timestamp": 1})
    assert len(found.users) == kept


def test_times_beyond_64_bits_are_strays_too(tmp_path):
    for found in (read_as("csv", tmp_path, [*SECONDS, 10**25]), read_as("frame", tmp_path, [*SECONDS, 10**25])):
        assert dict(found.ledger.rejected) == {"implausible timestamp": 1}
        assert found.timestamp.tolist() == [1000 * second for second in SECONDS]
    found = read_interactions(frame_of(pd.Series([*SECONDS, 2**64 - 1], dtype="uint64")))
    assert dict(found.ledger.rejected) == {"implausible timestamp": 1}


def test_a_stray_is_written_to_the_rejects_with_its_value_and_stops_where_that_is_wanted(tmp_path):
    text = "user,item,timestamp\nu,a,978300000\nv,b,978300000000\nw,c,978300001\n"
    read(tmp_path, text, rejects=tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().splitlines()[
        1
    ] == 'ratings.csv,3,implausible timestamp,"v,b,978300000000"'
    with pytest.raises(DataError, match=r"implausible timestamp, found 978300000000 in line 3 of ratings\.csv"):
        read(tmp_path, text, on_bad_row="fail")


def test_times_without_a_unit_for_most_rows_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"one unit.*timestamp_column='none'"):
        read_as("csv", tmp_path, [978300000, 978300000000])


def test_days_counted_from_any_start_are_no_epochs(tmp_path):
    assert read_as("csv", tmp_path, [0, 1, 2, 500]).timestamp.tolist() == [0, 1000, 2000, 500_000]


def test_markers_of_missing_dates_are_rejected(tmp_path):
    found = read_as("csv", tmp_path, ["2020-01-01", "2020-01-02", "2020-01-03", "0001-01-01", "9999-12-31"])
    assert dict(found.ledger.rejected) == {"implausible timestamp": 2}


@pytest.mark.parametrize(
    ("times", "days"),
    [
        (["31/12/2020", "1/2/2021"], ["2020-12-31", "2021-02-01"]),
        (["12/31/2020", "1/2/2021"], ["2020-12-31", "2021-01-02"]),
        (["31.12.2020", "01.02.2021"], ["2020-12-31", "2021-02-01"]),
        (["31-12-2020", "01-02-2021"], ["2020-12-31", "2021-02-01"]),
        (["2020/12/31", "2021/2/1"], ["2020-12-31", "2021-02-01"]),
        (["31/12/2020 10:00", "01/02/2021 9:30:15"], ["2020-12-31T10", "2021-02-01T09:30:15"]),
        (["12/31/2020 1:05 PM", "1/2/2021 12:00 am"], ["2020-12-31T13:05", "2021-01-02"]),
        (["20201231", "20210201"], ["2020-12-31", "2021-02-01"]),
        (["20201231101500", "20210201000000"], ["2020-12-31T10:15", "2021-02-01"]),
    ],
)
def test_dates_in_other_orders_are_read_where_they_are_certain(tmp_path, times, days):
    found = read_as("csv", tmp_path, times)
    assert found.timestamp.tolist() == [int(np.datetime64(day, "ms").astype(int)) for day in days]


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (["03/04/2020", "01/02/2021"], "day and month can be distinguished"),
        (["31/12/2020", "12/31/2020"], "one order"),
        (["31/12/20", "01/02/21"], "year of four digits"),
    ],
)
def test_dates_whose_order_is_uncertain_are_refused_by_name(tmp_path, times, words):
    with pytest.raises(DataError, match=f"{words}.*2026-12-31.*timestamp_column='none'"):
        read_as("csv", tmp_path, times)
    text = "user,item,timestamp\n" + "".join(f"u,a{n},{time}\n" for n, time in enumerate(times))
    assert read(tmp_path, text, timestamp_column="none").timestamp is None


def test_times_in_words_are_refused_with_what_to_write(tmp_path):
    with pytest.raises(DataError, match="Write times as epochs or as dates such as"):
        read_as("csv", tmp_path, ["31 Dec 2020", "1 Jan 2021"])


def test_days_that_do_not_exist_are_rejected(tmp_path):
    found = read_as("csv", tmp_path, ["31/12/2020", "31/02/2021", "30/01/2021"])
    assert dict(found.ledger.rejected) == {"missing or unreadable timestamp": 1}
    found = read_as("csv", tmp_path, ["20201231", "20210231", "20210130"])
    assert dict(found.ledger.rejected) == {"implausible timestamp": 1}


def test_files_with_dates_and_with_epochs_are_not_mixed(tmp_path):
    (tmp_path / "1.csv").write_text("user,item,timestamp\nu,a,978300000\n")
    (tmp_path / "2.csv").write_text("user,item,timestamp\nu,b,2020-01-01\n")
    with pytest.raises(DataError, match="times in one form"):
        read_interactions(tmp_path)
