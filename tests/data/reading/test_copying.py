"""A copy without some interactions: every other line stays as it is."""

import gzip

import pandas as pd
import pyarrow as pa
import pytest

from recsys.data.reading import ReadingOptions
from recsys.data.reading.copying import Pairs, copy_without
from recsys.errors import DataError, UnsupportedError


def pairs(*wanted):
    users, items = zip(*wanted, strict=True)
    return Pairs(pa.array(users), pa.array(items))


def copied(source, *wanted, target="out.csv", options=None):
    target = source.with_name(target)
    dropped = copy_without(source, target, pairs(*wanted), options)
    return dropped, target


def test_lines_that_are_not_named_stay_byte_for_byte(tmp_path):
    source = tmp_path / "in.csv"
    source.write_bytes(b'user_id,item_id,note\r\nu1,i1,"a, b"\r\n u2 , i2 ,x\r\nbad line\r\n\r\nu1,i2,\xc3\xa9\r\n')
    dropped, target = copied(source, ("u1", "i2"), ("u9", "i9"))
    assert dropped == 1
    assert target.read_bytes() == source.read_bytes().replace(b"u1,i2,\xc3\xa9\r\n", b"")


def test_every_row_that_repeats_a_pair_goes(tmp_path):
    source = tmp_path / "in.csv"
    source.write_text("user_id,item_id,rating\na,x,1\nb,x,2\na,x,3\n")
    dropped, target = copied(source, ("a", "x"))
    assert (dropped, target.read_text()) == (2, "user_id,item_id,rating\nb,x,2\n")


def test_a_record_of_several_lines_goes_as_a_whole(tmp_path):
    source = tmp_path / "in.csv"
    source.write_text('user_id,item_id,review\na,x,"fine\n\nslow"\nb,x,"loud\ndear"\n')
    _, target = copied(source, ("a", "x"))
    assert target.read_text() == 'user_id,item_id,review\nb,x,"loud\ndear"\n'


def test_files_without_a_header_and_with_ids_like_numbers(tmp_path):
    source = tmp_path / "in.dat"
    source.write_text("1::7::5\n1::007::4\n2::7::3\n")
    _, target = copied(source, ("1", "7"))
    assert target.read_text() == "1::007::4\n2::7::3\n"


def test_gzip_and_other_encodings_are_kept(tmp_path):
    source = tmp_path / "in.csv"
    source.write_bytes("user_id,item_id\né,x\nü,x\n".encode("utf-16"))
    _, target = copied(source, ("ü", "x"), target="out.csv.gz", options=ReadingOptions(encoding="utf-16"))
    assert gzip.decompress(target.read_bytes()).decode("utf-16") == "user_id,item_id\né,x\n"


def test_a_parquet_file_keeps_its_columns_and_types(tmp_path):
    source = tmp_path / "in.parquet"
    frame = pd.DataFrame({"when": [1.5, 2.5, None], "user_id": [1, 2, 2], "item_id": ["a", "a", "b"]})
    frame.to_parquet(source, index=False)
    dropped, target = copied(source, (2, "a"), target="out.parquet")
    assert dropped == 1
    pd.testing.assert_frame_equal(pd.read_parquet(target), frame.iloc[[0, 2]].reset_index(drop=True))


def test_what_cannot_be_copied_is_refused(tmp_path):
    with pytest.raises(UnsupportedError, match="a folder"):
        copied(tmp_path, ("a", "b"))
    with pytest.raises(DataError, match="found nothing"):
        copied(tmp_path / "none.csv", ("a", "b"))
    lines = tmp_path / "train.txt"
    lines.write_text("0 1 2 3\n1 4\n2 5 6 7 8\n")
    with pytest.raises(UnsupportedError, match="found several"):
        copied(lines, ("0", "1"))
