"""Ratings files with a fault each: their bytes, the flags, the exit code, and words of the message.

A file that still holds usable rows is read (exit code 0) and its ledger accounts for the rest.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import zipfile
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

HEAD = b"user_id,item_id,rating\n"
GOOD = HEAD + b"u,a,5\nv,b,4\n"


@dataclass(frozen=True)
class Case:
    """A file by its bytes; what `recsys check` must answer."""

    name: str
    data: bytes
    says: tuple[str, ...]
    code: int = 1
    flags: tuple[str, ...] = ()
    suffix: str = ".csv"


@dataclass(frozen=True)
class Accounted:
    """A file by its bytes; the rows it must lose, by reason, and the rows it must keep."""

    name: str
    data: bytes
    rejected: dict[str, int]
    kept: int = 2


def parquet(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def zipped(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("ratings.csv", data)
    return buffer.getvalue()


DATED = b"user,item,time\nu,a,%s\nv,b,%s\n"
TIMED = b"user,item,time\nu,a,978300000\nu,b,978300001\nv,b,978300002\n"
GOOD_TRUTH = HEAD + b"u,a,True\nv,b,False\n"
BAD_DATE = {"missing or unreadable timestamp": 1}
WHOLE = parquet(user_id=["u", "v"], item_id=["a", "b"], rating=[5.0, 4.0])
MANY = HEAD + b"".join(b"u%d,i%d,3\n" % (n, n % 7) for n in range(2000))

NAN = float("nan")
AGAIN = {"repeated header": 8, "duplicate (last kept)": 16}  # GOOD * 9: headers and rows that come again

REFUSED = [
    Case("empty", b"", ("empty file",)),
    Case("blank lines only", b"\n\n \n", ("empty file",)),
    Case("byte order mark only", b"\xef\xbb\xbf", ("empty file",)),
    Case("header only", HEAD, ("only the header",)),
    Case("header only, no line end", HEAD.strip(), ("only the header",)),
    Case("header and blank lines", HEAD + b"\n\n", ("only the header",)),
    Case("one column", b"user_id\nu\nv\n", ("separated by", "--separator")),
    Case("one column with a given separator", b"user_id\nu\nv\n", ("--separator",), flags=("--separator", ",")),
    Case("the wrong separator", GOOD, ("--separator",), flags=("--separator", ";")),
    Case(
        "prose", b"It was a dark\nand stormy night and\nthe rain fell\nin torrents except\n", ("found none", "column")
    ),
    Case("no item column", b"user_id,thing,rating\nu,a,5\n", ("item ids", "'thing'", "--item-column")),
    Case("no user column", b"someone,item_id,rating\nu,a,5\n", ("user ids", "'someone'", "--user-column")),
    Case("unknown names above numbers", b"a,b,c\n1,2,3\n", ("--user-column", "--no-header")),
    Case("user column named twice", b"user_id,user_id,item_id\nu,v,a\n", ("found 2", "--user-column")),
    Case("item column under two aliases", b"user,movieId,asin\nu,1,a\n", ("found 2", "'movieId', 'asin'")),
    Case("rating column under two aliases", b"user,item,score,weight\nu,a,1,2\n", ("found 2", "--rating-column")),
    Case("given column that is not there", GOOD, ("'kind'", "'item_id'"), flags=("--user-column", "kind")),
    Case("given column twice", GOOD, ("for two of them",), flags=("--item-column", "user_id")),
    Case("given name without header", b"1,2,3\n", ("number from 1 to 3",), flags=("--user-column", "u", "--no-header")),
    Case("given number too large", b"1,2,3\n", ("number from 1 to 3",), flags=("--item-column", "4", "--no-header")),
    Case("given header that is data", b"1,2,3\n4,5,6\n", ("--user-column",), flags=("--header",)),
    Case("all rows ragged", HEAD + b"u,a\nv,b\n", ("found none", "unparsable line 2", "2 columns for 3")),
    Case("all ids missing", HEAD + b",a,5\n,b,4\n", ("found none", "missing user id 2")),
    Case("all ratings text", HEAD + b"u,a,good\nv,b,bad\n", ("found none", "non-numeric rating 2", "'good'", "line 2")),
    Case("all ratings NaN", HEAD + b"u,a,nan\nv,b,NaN\n", ("found none", "missing rating 2")),
    Case("all ratings infinite", HEAD + b"u,a,inf\nv,b,-inf\n", ("found none", "infinite rating 2")),
    Case("decimal commas", b"x;a;3,5\ny;b;4,5\n", ("found none", "'3,5'"), flags=("--no-header",)),
    Case("all times unreadable", b"user,item,timestamp\nu,a,soon\nv,b,late\n", ("unreadable timestamp 2", "'soon'")),
    Case("NUL bytes all over", b"u\0,\0a\0\n\0" * 50, ("binary",)),
    Case("random bytes", bytes(range(256)) * 40, ("binary",)),
    Case("zip", zipped(GOOD), ("zip archive", "unpack"), suffix=".zip"),
    Case("bzip2", bz2.compress(GOOD), ("bzip2",), suffix=".bz2"),
    Case("xz", lzma.compress(GOOD), ("xz file",), suffix=".xz"),
    Case("zstd", pa.compress(GOOD, "zstd", asbytes=True), ("zstd",), suffix=".zst"),
    Case("pickle", pickle.dumps({"user": [1]}, 4), ("pickle", "never opens"), suffix=".pkl"),
    Case("PDF", b"%PDF-1.7\n" + b"x,y\n" * 9, ("PDF",), suffix=".pdf"),
    Case("SQLite", b"SQLite format 3\0" + b"\0" * 500, ("SQLite",), suffix=".db"),
    Case("UTF-16 with mark", GOOD.decode().encode("utf-16"), ("UTF-16", "--encoding utf-16")),
    Case("UTF-16 without mark", GOOD.decode().encode("utf-16-le"), ("UTF-16", "--encoding")),
    Case("not ASCII", "user,item\nü,a\n".encode(), ("ascii", "--encoding"), flags=("--encoding", "ascii")),
    Case("an unknown encoding", GOOD, ("--encoding klingon",), flags=("--encoding", "klingon")),
    Case("read as UTF-16, is UTF-8", GOOD + b"x", ("utf-16", "--encoding"), flags=("--encoding", "utf-16")),
    Case("truncated gzip", gzip.compress(MANY)[:-900], ("gzip", "damaged", "Fetch it again"), suffix=".csv.gz"),
    Case("gzip cut in its header", gzip.compress(GOOD)[:6], ("gzip", "damaged"), suffix=".csv.gz"),
    Case("gzip with a wrong checksum", gzip.compress(MANY)[:-8] + b"\0" * 8, ("gzip", "damaged"), suffix=".csv.gz"),
    Case("gzip with noise inside", gzip.compress(MANY)[:60] + b"\xff" * 99, ("gzip", "damaged"), suffix=".csv.gz"),
    Case("gzip of nothing", gzip.compress(b""), ("empty file",), suffix=".csv.gz"),
    Case("truncated Parquet", WHOLE[:-20], ("Parquet", "damaged"), suffix=".parquet"),
    Case(
        "Parquet with noise inside", WHOLE[:30] + b"\xff" * 60 + WHOLE[90:], ("Parquet", "damaged"), suffix=".parquet"
    ),
    Case("four bytes of Parquet", b"PAR1", ("Parquet", "damaged"), suffix=".parquet"),
    Case(
        "Parquet without rows", parquet(user_id=pa.array([], pa.string()), item_id=pa.array([], pa.string())), ("none",)
    ),
    Case("Parquet without items", parquet(user_id=["u"]), ("item ids", "--item-column"), suffix=".parquet"),
    Case("Parquet with decimal ids", parquet(user_id=[1.0], item_id=["a"]), ("double", "Cast"), suffix=".parquet"),
    Case("Parquet with text ratings", parquet(user=["u"], item=["a"], rating=["5"]), ("string", "Cast")),
    Case("JSON lines", b'{"user": 1, "item": 2}\n{"user": 1, "item": 3}\n', ("JSON", "Convert"), suffix=".jsonl"),
    Case("seconds and milliseconds", b"1\t2\t881250949\n1\t3\t881250949000\n", ("one unit",), suffix=".tsv"),
    Case("spreadsheet", b"\xd0\xcf\x11\xe0" + b"\0" * 500, ("spreadsheet",), suffix=".xls"),
    Case("NumPy array", b"\x93NUMPY\x01\0" + b"\0" * 500, ("NumPy",), suffix=".npy"),
    Case("HDF5", b"\x89HDF\r\n\x1a\n" + b"\0" * 500, ("HDF5",), suffix=".h5"),
    Case("Avro", b"Obj\x01" + b"\0" * 500, ("Avro",), suffix=".avro"),
    Case("ORC", b"ORC" + b"\0" * 500, ("ORC",), suffix=".orc"),
    Case("7z", b"7z\xbc\xaf\x27\x1c" + b"\0" * 500, ("7z",), suffix=".7z"),
    Case("git-LFS pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", ("git lfs pull",)),
    Case("git-annex pointer", b"/annex/objects/MD5E-s5--0.csv\n", ("git annex get",)),
    Case("web page", b"<!DOCTYPE html>\n<html></html>\n", ("web page",)),
    Case("JSON after a byte order mark", b'\xef\xbb\xbf{"user": 1}\n', ("JSON",)),
    Case("codec that is no text", GOOD, ("base64", "text encoding"), flags=("--encoding", "base64")),
    Case("codec of punctuation", GOOD, ("punycode", "text encoding"), flags=("--encoding", "punycode")),
    Case("ambiguous dates", DATED % (b"03/04/2020", b"05/06/2021"), ("03/04/2020", "2026-12-31", "--timestamp-column")),
    Case("dates in two orders", DATED % (b"31/12/2020", b"12/31/2020"), ("one order", "'12/31/2020'")),
    Case("dates of two digits", DATED % (b"31/12/20", b"01/02/21"), ("four digits",)),
    Case("dates in words", DATED % (b"31 Dec 2020", b"1 Jan 2021"), ("Write times", "'31 Dec 2020'")),
    Case("thousands in all ratings", HEAD + b'u,a,"4,000"\nv,b,"5,000"\n', ("'4,000'", "write 4000")),
    Case("line break in all ids", HEAD + b'u,"a\nb",5\nv,"a\nb",4\n', ("line break in an id",)),
    Case("only a separator line", b"sep=;\n", ("empty file",)),
    Case("Parquet with bytes as ids", parquet(user=[b"u"], item=["a"]), ("binary", "Cast")),
    Case("Parquet with true as id", parquet(user=[True], item=["a"]), ("bool", "Cast")),
    Case("Parquet with true as time", parquet(user=["u"], item=["a"], time=[True]), ("bool", "times")),
    Case("Parquet with lists of items", parquet(user=["u"], item=[["a", "b"]]), ("list", "Cast")),
    Case("header of RecBole without items", b"user_id:token\trating:float\n1\t2.0\n", ("item ids",)),
    Case("CR line ends", GOOD.replace(b"\n", b"\r"), ("CR", "Convert")),
    Case("one line of 3 MB", b"x" * 3_000_000, ("Expected", "bytes")),
    Case("fail on ragged row", GOOD + b"w,c\n", ("line 4", "2 columns for 3"), flags=("--on-bad-row", "fail")),
    Case("fail on a bad rating", GOOD + b"w,c,x\n", ("line 4", "'x'"), flags=("--on-bad-row", "fail")),
    Case(
        "duplicates refused", GOOD + b"u,a,1\n", ("line 2", "line 4", "--duplicates"), flags=("--duplicates", "error")
    ),
    Case("nothing reaches the minimum", GOOD, ("below min_rating 2", "Lower"), flags=("--min-rating", "9")),
    Case("the core is empty", GOOD, ("user below min_user_items 2",), flags=("--min-user-items", "2")),
    Case("min rating without ratings", b"user,item\nu,a\n", ("--rating-column",), flags=("--min-rating", "3")),
    Case("a minimum below zero", GOOD, ("0 or more",), flags=("--min-user-items", "-1")),
    Case("a minimum that is no number", GOOD, ("finite",), flags=("--min-rating", "nan")),
    Case("a separator that quotes", GOOD, ("separator",), flags=("--separator", '"')),
    Case("unknown policy", GOOD, ("'newest'",), 2, ("--duplicates", "newest")),
]

ACCOUNTED = [
    Accounted("short row", GOOD + b"w,c\n", {"unparsable line": 1}),
    Accounted("long row", GOOD + b"w,c,3,4\n", {"unparsable line": 1}),
    Accounted("missing user", GOOD + b",c,3\n", {"missing user id": 1}),
    Accounted("blank item", GOOD + b"w,  ,3\n", {"missing item id": 1}),
    Accounted("missing rating", GOOD + b"w,c,\n", {"missing rating": 1}),
    Accounted("NaN rating", GOOD + b"w,c,NaN\n", {"missing rating": 1}),
    Accounted("infinite rating", GOOD + b"w,c,inf\n", {"infinite rating": 1}),
    Accounted("rating too large for a float", GOOD + b"w,c,1e300\n", {"infinite rating": 1}),
    Accounted("rating in words", GOOD + b"w,c,five\n", {"non-numeric rating": 1}),
    Accounted("rating with underscore", GOOD + b"w,c,1_0\n", {"non-numeric rating": 1}),
    Accounted("NUL inside a row", GOOD * 9 + b"w,c\0,3\n", {"unparsable line": 1, **AGAIN}),
    Accounted("CR inside a row", GOOD + b"w,c\rd,3\n", {"unparsable line": 1}),
    Accounted("quote that never closes", GOOD + b'w,"c,3\nx,a,4\ny,b,4\n', {"unparsable line": 1}, kept=4),
    Accounted("quote that never closes, at the end", GOOD + b'w,"c,3', {"unparsable line": 1}),
    Accounted("two quotes that never close", GOOD + b'w,"c,3\nx,"a,4\ny,b,4\n', {"unparsable line": 2}, kept=3),
    Accounted("latin-1 in UTF-8", GOOD + b"w,caf\xe9,3\n", {"not UTF-8": 1}),
    Accounted("latin-1 in an unread column", b"user,item,name\nu,a,caf\xe9\nv,b,x\nw,c\n", {"unparsable line": 1}),
    Accounted("a line of 2 MB", GOOD + b"w," + b"c" * 2_000_000 + b",3\nx,c,3\n", {"unparsable line": 1}, kept=3),
    Accounted("a line of 9 MB", GOOD + b"w,c,3" + b"0" * 9_000_000 + b"\nx,c,3\n", {"unparsable line": 1}, kept=3),
    Accounted("unreadable time", b"user,item,time\nu,a,14\nu,b,15\nv,b,soon\n", {"missing or unreadable timestamp": 1}),
    Accounted(
        "bad rows in many", MANY + b"a,b\n" + MANY[len(HEAD) :].replace(b"u", b"w"), {"unparsable line": 1}, 4000
    ),
    Accounted("milliseconds among seconds", TIMED + b"w,c,978300000000\n", {"implausible timestamp": 1}, kept=3),
    Accounted("nanoseconds among seconds", TIMED + b"w,c,978300000000000000\n", {"implausible timestamp": 1}, kept=3),
    Accounted("a time beyond 64 bits", TIMED + b"w,c,9999999999999999999999\n", {"implausible timestamp": 1}, kept=3),
    Accounted("time zero among epochs", TIMED + b"w,c,0\n", {"implausible timestamp": 1}, kept=3),
    Accounted("infinite time", TIMED + b"w,c,inf\n", {"missing or unreadable timestamp": 1}, kept=3),
    Accounted("line break in an id", GOOD + b'w,"c\nd",3\n', {"line break in an id, rating or time": 1}),
    Accounted("header again after a byte order mark", GOOD + b"\xef\xbb\xbf" + HEAD, {"repeated header": 1}),
    Accounted("true and false and a word", GOOD_TRUTH + b"w,c,yes\n", {"non-numeric rating": 1}),
    Accounted("ids of missing markers", GOOD + b"NULL,\\N,3\n", {}, kept=3),
    Accounted("a date that does not exist", DATED % (b"31/12/2020", b"30/11/2021") + b"w,c,31/02/2021\n", BAD_DATE),
    Accounted("null in Parquet", parquet(user=["u", None, "v"], item=["a", "b", "c"]), {"missing user id": 1}),
    Accounted("NaN in Parquet", parquet(user=[1, 2, 3], item=[1, 2, 3], rating=[1, NAN, 2]), {"missing rating": 1}),
]
