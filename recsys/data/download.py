"""Public data sets: fetched from their publisher, verified against the publisher's checksum, then unpacked.

A download is whole or absent: everything happens in a hidden folder beside the target, which is renamed at the end.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import stat
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from recsys.errors import ArtifactError, ConfigError, DataError
from recsys.system.disk import storage_errors
from recsys.system.files import draft_beside, put_folder

MOVIELENS_URL = "https://files.grouplens.org/datasets/movielens"
MAX_BYTES = 4 * 2**30  # the largest set unpacks to 1.2 GB; more is not what we asked for
TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 2**16

Progress = Callable[[int, int], None]  # bytes so far, bytes in all (0: not said)


@dataclass(frozen=True)
class DataSet:
    """A data set published as `name`.zip beside `name`.zip.md5; counts are the publisher's."""

    name: str
    ratings: str  # the ratings file inside the archive's folder
    rows: int
    users: int
    items: int
    license: str  # in a line; the README inside the archive has the words that count


_RESEARCH = "research only; cite the paper; no commercial use or redistribution without permission"
_SHARE_ALIKE = "research only; cite the paper; no commercial use; redistribution under the same terms"
DATA_SETS = {
    data.name: data
    for data in (
        DataSet("ml-latest-small", "ratings.csv", 100_836, 610, 9_742, _SHARE_ALIKE),
        DataSet("ml-100k", "u.data", 100_000, 943, 1_682, _RESEARCH),
        DataSet("ml-1m", "ratings.dat", 1_000_209, 6_040, 3_883, _RESEARCH),
        DataSet("ml-20m", "ratings.csv", 20_000_263, 138_493, 27_278, _RESEARCH),
        DataSet("ml-25m", "ratings.csv", 25_000_095, 162_541, 62_423, _RESEARCH),
        DataSet("ml-32m", "ratings.csv", 32_000_204, 200_948, 87_585, _SHARE_ALIKE),
    )
}


def archive_url(data: DataSet, base_url: str = MOVIELENS_URL) -> str:
    """Address of the archive; its checksum has the same address and `.md5`."""
    return f"{base_url.rstrip('/')}/{data.name}.zip"


def download(
    data: DataSet,
    target: Path,
    base_url: str = MOVIELENS_URL,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
    timeout: float = TIMEOUT,
) -> Path:
    """Fetch `data`, verify it, unpack it as the folder `target`; returns the path of the ratings file.

    An existing `target` is refused, or with `overwrite` replaced once the new copy is verified, provided it holds
    nothing but files of this data set. Raises DataError for what the network or the archive does wrong, with the way
    to do it by hand; ArtifactError for a target in the way; ConfigError for an address that is not http(s).
    """
    url = archive_url(data, base_url)
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"Expected an address that starts with http:// or https://, found {base_url!r}.")
    if target.exists() and not (overwrite and target.is_dir()):
        raise ArtifactError(f"Expected no {target} yet, found one: use it, or set overwrite to replace the folder.")
    with storage_errors(target), draft_beside(target.resolve()) as draft:
        archive = draft.with_name(f"{data.name}.zip")
        try:
            _fetch_verified(url, archive, progress, timeout)
        except DataError as error:
            raise DataError(f"{error}\n{_by_hand(url, target)}") from error
        folder = unpack(archive, draft.with_name("unpacked")) / data.name
        if not (folder / data.ratings).is_file():
            raise DataError(f"Expected {data.name}/{data.ratings} in {url}, found no such file.")
        _move(folder, target.resolve())
    return target / data.ratings


def _by_hand(url: str, target: Path) -> str:
    name = PurePosixPath(url).name
    return (
        f"By hand: fetch {url} and {url}.md5 with a browser, check that 'md5sum {name}' prints the number in the "
        f".md5 file, unzip it, and move the folder inside to {target}."
    )


def _fetch_verified(url: str, archive: Path, progress: Progress, timeout: float) -> None:
    """Write what `url` holds to `archive`; raises DataError unless it is what the publisher's checksum says."""
    expected = _published_md5(f"{url}.md5", timeout)
    found = _fetch(url, archive, progress, timeout)
    if found != expected:
        raise DataError(f"Expected {url} with md5 {expected}, as its publisher says, found {found}: nothing was kept.")


def _published_md5(url: str, timeout: float) -> str:
    """The checksum in `MD5 (name.zip) = hex` or `hex  name.zip`, lower case."""
    with _open(url, timeout) as response:
        text = _read(url, response, 4096).decode("utf-8", errors="replace")
    found: list[str] = re.findall(r"\b[0-9a-fA-F]{32}\b", text)
    if len(found) != 1:
        raise DataError(f"Expected one md5 sum at {url}, found {text.strip()[:60]!r}.")
    return found[0].lower()


def _fetch(url: str, path: Path, progress: Progress, timeout: float) -> str:
    """Write what `url` holds to `path`; its md5. Raises DataError if the connection breaks or ends early."""
    digest, done = hashlib.md5(usedforsecurity=False), 0
    with _open(url, timeout) as response, path.open("wb") as file:
        total = response.length or 0
        while chunk := _read(url, response, _CHUNK):
            done += len(chunk)
            if done > MAX_BYTES:
                raise DataError(f"Expected at most {MAX_BYTES:,} bytes from {url}, found more.")
            file.write(chunk)
            digest.update(chunk)
            progress(done, total)
    if done < total:
        raise DataError(f"Expected {total:,} bytes from {url}, found the end after {done:,}: run it again.")
    return digest.hexdigest()


def _open(url: str, timeout: float) -> http.client.HTTPResponse:
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(url, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        raise DataError(f"Expected a file at {url}, found the answer {error.code} {error.reason}.") from error
    except (OSError, http.client.HTTPException) as error:  # URLError, refused, no name, time out
        raise DataError(f"Expected an answer from {url}, found {getattr(error, 'reason', None) or error}.") from error
    return response


def _read(url: str, response: http.client.HTTPResponse, size: int) -> bytes:
    try:
        return response.read(size)
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"Expected more of {url}, found {error or type(error).__name__}: run it again.") from error


def unpack(archive: Path, folder: Path, max_bytes: int = MAX_BYTES) -> Path:
    """Unpack a zip into the new `folder`, which is returned.

    Raises DataError for a damaged archive and, before anything is written, for one larger than `max_bytes` unpacked
    or with a name that would leave the folder or is not a plain file or folder (a link, say).
    """
    try:
        with zipfile.ZipFile(archive) as content:
            entries = content.infolist()
            for entry in entries:
                _refuse_unsafe(entry)
            size = sum(entry.file_size for entry in entries)
            if size > max_bytes:
                raise DataError(f"Expected at most {max_bytes:,} bytes in {archive.name}, found {size:,}.")
            content.extractall(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:  # or encrypted
        raise DataError(f"Expected a zip archive in {archive.name}, found {error}.") from error
    return folder


def _refuse_unsafe(entry: zipfile.ZipInfo) -> None:
    name = entry.orig_filename
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise DataError(f"Expected names inside the archive's own folder, found {name!r}.")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise DataError(f"Expected plain files in the archive, found {name!r}, which is a link or a device.")


def _move(folder: Path, target: Path) -> None:
    """Put `folder` in the place of `target`, which may only hold files that `folder` has too."""
    if target.exists():
        foreign = sorted(_files(target) - _files(folder))
        if foreign:
            raise ArtifactError(
                f"Expected only files of the data set in {target}, found {foreign[0]} too: "
                "move your own files away, or choose another folder."
            )
    put_folder(folder, target, overwrite=True)


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
