"""Text files as a stream of bytes: unpacked, in UTF-8, without byte order marks, in blocks of whole lines."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from recsys.data.reading.records import MAX_LINE
from recsys.errors import DataError

BLOCK = 8 << 20  # bytes; large enough for Arrow, small enough for many in flight
SAMPLE = 1 << 18  # bytes from which the layout is found; more where they hold only a few lines
FEW_LINES, LONGEST_SAMPLE = 8, 1 << 22
SIGNATURES = {  # first bytes of files that are no text, or no data
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"\xd0\xcf\x11\xe0": "a spreadsheet or another Office file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"SQLite format 3": "an SQLite database",
    b"\x80\x04": "a pickle, which recsys never opens",
    b"\x80\x05": "a pickle, which recsys never opens",
    b"\x93NUMPY": "a NumPy array",
    b"\x89HDF": "an HDF5 file",
    b"Obj\x01": "an Avro file",
    b"%PDF": "a PDF",
    b"ARROW1": "an Arrow file",
    b"ORC": "an ORC file",
}
CONTROLS = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1c\x1d\x1e\x1f"))  # bytes that text holds few of


def read_pieces(path: Path, encoding: str) -> Iterator[bytes]:
    """Read a text file, also gzipped, in pieces.

    Parameters
    ----------
    path : Path
    encoding : str
        Encoding of the file.

    Yields
    ------
    bytes
        The text in UTF-8. Where the encoding is UTF-8, the bytes as they are, valid or not.

    Raises
    ------
    DataError
        If gzip data are damaged, or if the text is not in the encoding.
    """
    codec = codecs.lookup(encoding).name
    packed = first_bytes(path, 2) == b"\x1f\x8b"
    opened: Callable[..., Any] = gzip.open if packed else open
    try:
        with _read_errors(path), opened(path, "rb") as file:
            if codec in ("utf-8", "utf-8-sig"):
                while piece := file.read(BLOCK):
                    yield piece
            else:
                decoder = codecs.getincrementaldecoder(encoding)()
                while piece := file.read(BLOCK):
                    yield _encoded(decoder.decode(piece))
                yield _encoded(decoder.decode(b"", final=True))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"Expected a whole gzip file, found {path.name} damaged: {error}. Fetch it again.") from error
    except UnicodeError as error:
        raise DataError(
            f"Expected text in the encoding {encoding}, found {path.name} to be in another ({error}). "
            "Give the right `encoding`."
        ) from error


def first_bytes(path: Path, count: int) -> bytes:
    """Return the first bytes of a file. Raises DataError where the system cannot read it."""
    with _read_errors(path), path.open("rb") as file:
        return file.read(count)


@contextlib.contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    """Raise DataError for what the system refuses while a file is read."""
    try:
        yield
    except gzip.BadGzipFile:
        raise
    except OSError as error:
        raise DataError(f"Expected to read {path}, found: {error.strerror or error}.") from error


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # utf-7 and its like can spell halves of surrogate pairs


def whole_lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Cut pieces of text into blocks of whole lines.

    Parameters
    ----------
    pieces : iterator of bytes
        Text in UTF-8.

    Yields
    ------
    bytes
        Lines with their line ends, without byte order marks at the start of a line. Of a line longer than MAX_LINE the
        rest is dropped, and a NUL marks it.
    """
    rest = b""
    for piece in pieces:
        end = piece.rfind(b"\n") + 1
        if end:
            yield without_byte_order_marks(b"".join((rest, memoryview(piece)[:end])))
            rest = piece[end:]
        else:
            rest = rest + piece if len(rest) <= MAX_LINE else rest
        if len(rest) > MAX_LINE:
            rest = rest[:MAX_LINE] + b"\0"
    if rest:
        yield without_byte_order_marks(rest + b"\n")


def without_byte_order_marks(block: bytes) -> bytes:
    """Remove byte order marks at the start of lines: each file of several, one after the other, may begin with one."""
    if b"\xef" not in block or codecs.BOM_UTF8 not in block:
        return block
    while block.startswith(codecs.BOM_UTF8):
        block = block.removeprefix(codecs.BOM_UTF8)
    while b"\n" + codecs.BOM_UTF8 in block:
        block = block.replace(b"\n" + codecs.BOM_UTF8, b"\n")
    return block


def read_sample(path: Path, encoding: str) -> list[bytes]:
    """Read the first lines of a text file.

    Parameters
    ----------
    path : Path
    encoding : str

    Returns
    -------
    list of bytes
        Whole lines of the first SAMPLE bytes, or of more where lines are long, in UTF-8, without line feeds. One of the
        first two lines that is too long even for that is there in part.

    Raises
    ------
    DataError
        If the file is no text of ratings.
    """
    sample = b""
    for piece in read_pieces(path, encoding):
        sample += piece
        if len(sample) >= LONGEST_SAMPLE:
            break
    size = SAMPLE
    while size < min(len(sample), LONGEST_SAMPLE) and sample.count(b"\n", 0, size) < FEW_LINES:
        size *= 2
    is_cut = len(sample) > size
    sample = sample[:size]
    refuse_other_kinds(sample, path)
    lines = without_byte_order_marks(sample).split(b"\n")
    if is_cut and len(lines) > 2:
        lines.pop()
    return lines


def read_lines(path: Path, encoding: str) -> list[str]:
    """Read all lines of a small text file.

    Parameters
    ----------
    path : Path
    encoding : str

    Returns
    -------
    list of str
        The lines without their line ends.

    Raises
    ------
    UnicodeDecodeError
        If bytes are not UTF-8 where the encoding says so.
    DataError
        If the file is no text.
    """
    content = b"".join(read_pieces(path, encoding))
    refuse_other_kinds(content[:SAMPLE], path)
    return [line.rstrip("\r") for line in without_byte_order_marks(content).decode().split("\n")]


def refuse_other_kinds(sample: bytes, path: Path) -> None:
    """Refuse a file that holds no lines of text.

    Parameters
    ----------
    sample : bytes
        Its first bytes, at least SAMPLE of them or the whole file.
    path : Path
        For messages.

    Raises
    ------
    DataError
        With what the file is, as far as it can be recognized, and what to do.
    """
    if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"Expected UTF-8 text, found {path.name} in UTF-16: set encoding='utf-16'.")
    if sample.startswith(b"version https://git-lfs.github.com/spec/"):
        raise DataError(
            f"Expected ratings, found {path.name} to be a pointer of git-LFS in their place. Run `git lfs pull`."
        )
    if sample.startswith(b"/annex/objects/"):
        raise DataError(f"Expected ratings, found {path.name} to be a pointer of git-annex. Run `git annex get`.")
    kind = next((name for sign, name in SIGNATURES.items() if sample.startswith(sign)), None)
    if kind is None and (len(sample) - len(sample.translate(None, CONTROLS))) * 20 > len(sample):
        kind = "binary data, or text in UTF-16 or UTF-32 (if so, set its `encoding`)"
    if kind is not None:
        raise DataError(
            f"Expected ratings as text (CSV, TSV, also gzipped) or Parquet, found {path.name} to be {kind}. "
            "Convert or unpack it first."
        )
    start = sample.removeprefix(codecs.BOM_UTF8).lstrip()
    if start[:1] in (b"{", b"["):
        raise DataError(f"Expected columns of text, found JSON in {path.name}. Convert it to CSV or Parquet.")
    if start[:15].lower().startswith((b"<!doctype html", b"<html", b"<?xml")):
        raise DataError(f"Expected columns of text, found a web page or XML in {path.name}. Fetch the data themselves.")
    if b"\n" not in sample and sample.count(b"\r") > 1:
        raise DataError(f"Expected lines that end in LF or CRLF, found only CR in {path.name}. Convert its line ends.")
    if len(sample) >= SAMPLE and b"\n" not in sample:
        raise DataError(f"Expected lines of text, found none that ends within {len(sample):,} bytes in {path.name}.")
