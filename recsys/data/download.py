"""Public data sets: downloaded from their publisher, verified by the publisher's checksum, then unpacked.

A download is complete or absent: it is made in a hidden folder beside the target, which is renamed at the end.
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
MAX_BYTES = 4 * 2**30  # the largest set unpacks to 1.2 GB
TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 2**16

Progress = Callable[[int, int], None]  # bytes so far, bytes in all (0: unknown)


@dataclass(frozen=True)
class DataSet:
    """A data set published as `name`.zip beside `name`.zip.md5.

    Attributes
    ----------
    name : str
    ratings : str
        Name of the ratings file in the archive's folder.
    rows, users, items : int
        The publisher's counts.
    license : str
        In one line; the README in the archive has the full text.
    """

    name: str
    ratings: str
    rows: int
    users: int
    items: int
    license: str


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
    """Return the address of the archive; that of its checksum ends in `.md5` in addition."""
    return f"{base_url.rstrip('/')}/{data.name}.zip"


def download(
    data: DataSet,
    target: Path,
    base_url: str = MOVIELENS_URL,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
    timeout: float = TIMEOUT,
) -> Path:
    """Download a data set, verify it, and unpack it.

    Parameters
    ----------
    data : DataSet
    target : Path
        Folder to make.
    base_url : str
        Address of the folder of archives, http or https.
    overwrite : bool
        Whether an existing `target` is replaced once the new copy is verified, provided that it holds nothing but
        files of this data set.
    progress : callable
        Receives the bytes so far and in all (0: unknown).
    timeout : float
        Seconds to wait without a byte.

    Returns
    -------
    Path
        The ratings file.

    Raises
    ------
    DataError
        If the network or the archive fails, with the way to do it by hand.
    ArtifactError
        If the target is in the way.
    ConfigError
        If the address is not http(s).
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
    """Download `url` to `archive`. Raises DataError unless it has the publisher's checksum."""
    expected = _published_md5(f"{url}.md5", timeout)
    found = _fetch(url, archive, progress, timeout)
    if found != expected:
        raise DataError(f"Expected {url} with md5 {expected}, as its publisher says, found {found}: nothing was kept.")


def _published_md5(url: str, timeout: float) -> str:
    """The checksum in `MD5 (name.zip) = hex` or `hex  name.zip`, in lower case."""
    with _open(url, timeout) as response:
        text = _read(url, response, 4096).decode("utf-8", errors="replace")
    found: list[str] = re.findall(r"\b[0-9a-fA-F]{32}\b", text)
    if len(found) != 1:
        raise DataError(f"Expected one md5 sum at {url}, found {text.strip()[:60]!r}.")
    return found[0].lower()


def _fetch(url: str, path: Path, progress: Progress, timeout: float) -> str:
    """Download `url` to `path` and return its md5. Raises DataError if the connection breaks or ends early."""
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
    """Unpack a zip archive.

    Parameters
    ----------
    archive : Path
    folder : Path
        Folder to make.
    max_bytes : int
        Largest size of the content.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    DataError
        If the archive is damaged; and, before anything is written, if it is larger than `max_bytes` unpacked, or holds
        a name that would leave the folder, or something that is no plain file or folder (a link, for example).
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
