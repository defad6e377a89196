"""Downloads, against a server on this machine that serves good, bad and hostile archives."""

import hashlib
import io
import json
import socket
import stat
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.cli.main import main
from recsys.data.download import DATA_SETS, DataSet, download, unpack
from recsys.errors import ArtifactError, ConfigError, DataError

SMALL = DATA_SETS["ml-latest-small"]
RATINGS = "userId,movieId,rating,timestamp\n1,7,4.5,964982703\n"


class Mirror:
    """What the server answers: path to (status, body, length it claims)."""

    def __init__(self, url: str):
        self.url = url
        self.answers: dict[str, tuple[int, bytes, int]] = {}

    def serve(self, path: str, body: bytes, claimed: int | None = None) -> None:
        self.answers[f"/{path}"] = (200, body, len(body) if claimed is None else claimed)

    def publish(self, archive: bytes, data: DataSet = SMALL, md5: str = "MD5 ({name}.zip) = {md5}\n") -> None:
        self.serve(f"{data.name}.zip", archive)
        digest = hashlib.md5(archive, usedforsecurity=False).hexdigest()
        self.serve(f"{data.name}.zip.md5", md5.format(name=data.name, md5=digest).encode())


@pytest.fixture
def mirror(monkeypatch) -> Iterator[Mirror]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, length = answers.get(self.path, (404, b"", 0))
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None: ...

    monkeypatch.setenv("NO_PROXY", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        mirror = Mirror(f"http://127.0.0.1:{server.server_port}")
        answers = mirror.answers
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield mirror
        server.shutdown()
        thread.join()


def archive(files: dict[str, str] | None = None) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in (files or {f"{SMALL.name}/ratings.csv": RATINGS, f"{SMALL.name}/README.txt": "x"}).items():
            file.writestr(name, text)
    return content.getvalue()


def refuse(mirror: Mirror, tmp_path: Path, match: str, **kwargs: bool) -> None:
    """The download fails with this message and leaves nothing behind."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=match):
        download(SMALL, tmp_path / "set", mirror.url, **kwargs)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("md5", ["MD5 ({name}.zip) = {md5}\n", "{md5}  {name}.zip\n", "{md5}"])
def test_a_good_archive_is_unpacked_whichever_way_its_checksum_is_written(mirror, tmp_path, md5):
    mirror.publish(archive(), md5=md5)
    ratings = download(SMALL, tmp_path / "raw" / "set", mirror.url)
    assert ratings == tmp_path / "raw" / "set" / "ratings.csv"
    assert ratings.read_text() == RATINGS
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["README.txt", "ratings.csv", "raw", "set"]


def test_progress_ends_at_the_size_of_the_archive(mirror, tmp_path):
    mirror.publish(archive())
    steps: list[tuple[int, int]] = []
    download(SMALL, tmp_path / "set", mirror.url, progress=lambda done, total: steps.append((done, total)))
    assert steps[-1] == (len(archive()), len(archive()))


def test_a_corrupted_archive_is_refused_before_unpacking(mirror, tmp_path):
    mirror.publish(archive())
    mirror.serve(f"{SMALL.name}.zip", archive({f"{SMALL.name}/ratings.csv": "forged"}))
    refuse(mirror, tmp_path, "as its publisher says, found")


def test_a_truncated_archive_is_refused(mirror, tmp_path):
    mirror.publish(archive())
    mirror.serve(f"{SMALL.name}.zip", archive()[:100], claimed=len(archive()))
    refuse(mirror, tmp_path, f"Expected {len(archive())} bytes .* found the end after 100: run it again")


def test_a_missing_checksum_means_no_download(mirror, tmp_path):
    mirror.serve(f"{SMALL.name}.zip", archive())
    refuse(mirror, tmp_path, r"\.zip\.md5, found the answer 404")


def test_a_web_page_in_place_of_the_checksum_is_named(mirror, tmp_path):
    mirror.publish(archive(), md5="<html>Please sign in</html>")
    refuse(mirror, tmp_path, "Expected one md5 sum at .*, found '<html>Please sign in")


def test_a_missing_archive_says_how_to_do_it_by_hand(mirror, tmp_path):
    mirror.publish(archive())
    del mirror.answers[f"/{SMALL.name}.zip"]
    refuse(
        mirror, tmp_path, rf"404 Not Found\.\nBy hand: fetch {mirror.url}/ml-latest-small.zip and .*{tmp_path}/set\."
    )


def test_no_network_says_how_to_do_it_by_hand(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening: refuses
        refuse(Mirror(f"http://127.0.0.1:{closed.getsockname()[1]}"), tmp_path, r"refused\.\nBy hand: fetch")


def test_a_server_that_stops_answering_is_given_up(tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(DataError, match="timed out"):
            download(SMALL, tmp_path / "set", url, timeout=0.05)


def test_only_web_addresses_are_read(tmp_path):
    with pytest.raises(ConfigError, match="http:// or https://, found 'file:///etc'"):
        download(SMALL, tmp_path / "set", "file:///etc")


def test_an_archive_without_the_ratings_is_refused(mirror, tmp_path):
    mirror.publish(archive({"other/ratings.csv": RATINGS}))
    refuse(mirror, tmp_path, "Expected ml-latest-small/ratings.csv in")


@pytest.mark.parametrize("name", ["../ratings.csv", "/etc/ratings.csv", "a/../../b.csv", "..\\b.csv", "C:/b.csv"])
def test_a_name_that_leaves_the_folder_is_refused(mirror, tmp_path, name):
    mirror.publish(archive({f"{SMALL.name}/ratings.csv": RATINGS, name: "out"}))
    refuse(mirror, tmp_path, "inside the archive's own folder")


def test_a_link_is_refused(tmp_path):
    link = zipfile.ZipInfo("set/ratings.csv")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match=r"'set/ratings\.csv', which is a link"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_more_than_the_limit_is_not_unpacked(tmp_path):
    (tmp_path / "a.zip").write_bytes(archive({"zeros": "0" * 1000}))
    with pytest.raises(DataError, match=r"at most 999 bytes in a\.zip, found 1,000"):
        unpack(tmp_path / "a.zip", tmp_path / "out", max_bytes=999)
    assert unpack(tmp_path / "a.zip", tmp_path / "out", max_bytes=1000).is_dir()


def test_what_is_not_a_zip_is_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"hello")
    with pytest.raises(DataError, match=r"Expected a zip archive in a\.zip"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


def test_damage_inside_a_zip_is_found(tmp_path):
    content = bytearray(archive({"a.csv": "".join(map(str, range(1000)))}))
    content[200:220] = bytes(20)
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"Expected a zip archive in a\.zip"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


def test_an_earlier_download_stays_without_overwrite(mirror, tmp_path):
    mirror.publish(archive())
    ratings = download(SMALL, tmp_path / "set", mirror.url)
    ratings.write_text("old")
    with pytest.raises(ArtifactError, match="set overwrite to replace the folder"):
        download(SMALL, tmp_path / "set", mirror.url)
    assert ratings.read_text() == "old"
    assert download(SMALL, tmp_path / "set", mirror.url, overwrite=True).read_text() == RATINGS


def test_overwriting_never_removes_a_file_that_is_not_part_of_the_data_set(mirror, tmp_path):
    mirror.publish(archive())
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "thesis.tex").write_text("years of work")
    with pytest.raises(ArtifactError, match=r"found thesis\.tex too: move your own files away"):
        download(SMALL, tmp_path / "set", mirror.url, overwrite=True)
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["thesis.tex"]


def test_a_failed_download_keeps_the_earlier_one(mirror, tmp_path):
    mirror.publish(archive())
    ratings = download(SMALL, tmp_path / "set", mirror.url)
    mirror.serve(f"{SMALL.name}.zip", b"garbage")
    refuse(mirror, tmp_path, "md5", overwrite=True)
    assert ratings.read_text() == RATINGS


def test_the_command_says_where_from_under_which_licence_and_what_next(mirror, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mirror.publish(archive())
    result = CliRunner().invoke(main, ["download", "ml-latest-small", "--base-url", mirror.url])
    assert result.exit_code == 0
    assert f"{mirror.url}/ml-latest-small.zip" in result.stdout
    assert "no commercial use" in result.stdout
    assert result.stdout.splitlines()[-1].split() == ["next", "recsys", "check", "data/raw/ml-latest-small/ratings.csv"]
    assert (tmp_path / "data/raw/ml-latest-small/ratings.csv").read_text() == RATINGS


def test_the_command_answers_in_json_when_asked(mirror, tmp_path):
    mirror.publish(archive())
    target = tmp_path / "here"
    result = CliRunner().invoke(
        main, ["--json", "download", "ml-latest-small", "--base-url", mirror.url, "-o", str(target)]
    )
    assert json.loads(result.stdout)["ratings"] == str(target / "ratings.csv")


def test_the_command_fails_with_a_message_and_code_1(mirror, tmp_path):
    result = CliRunner().invoke(main, ["download", "ml-1m", "--base-url", mirror.url, "-o", str(tmp_path / "x")])
    assert result.exit_code == 1
    assert "404" in result.stderr
    assert "By hand" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_unknown_name_is_wrong_usage():
    result = CliRunner().invoke(main, ["download", "ml-2m"])
    assert result.exit_code == 2
    assert "ml-latest-small" in result.stderr
