"""A nightly job that publishes to an object store: a real S3 server on this machine."""

import pandas as pd
import pytest
from tastes import two_tastes, write_csv

from pipelines.cli.errors import CommandError
from pipelines.nightly import NightlyJob, run
from recsys.errors import ConfigError

pytest.importorskip("mlflow")
s3fs = pytest.importorskip("s3fs", reason="the extra object-stores is not installed")
server = pytest.importorskip("moto.server", reason="moto, a server of S3, is not installed")
pytestmark = pytest.mark.slow

PLAN = """
ratings = "ratings.csv"
name = "books"
publish = "s3://shop/books"

[train]
model = "ease"
held-out = 0
test-bucket = 0.3

[score]
n = {n}
gates = "gates.toml"
"""


@pytest.fixture
def files(monkeypatch, tmp_path):
    """The filesystem of the store; the job is in the working directory."""
    here = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    here.start()
    host, port = here.get_host_and_port()
    settings = {
        **{"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "us-east-1"},
        **{"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"},
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "ratings.csv", two_tastes(users=60))
    s3fs.S3FileSystem.clear_instance_cache()
    found = s3fs.S3FileSystem()
    if found.exists("shop"):  # the servers of a process share what they hold
        found.rm("shop", recursive=True)
    found.mkdir("shop")
    yield found
    here.stop()


def night(folder, day, n, gate):
    (folder / "nightly.toml").write_text(PLAN.format(n=n))
    (folder / "gates.toml").write_text(gate)
    return run(NightlyJob(folder / "nightly.toml", date=day))


def current(files):
    files.invalidate_cache()
    return files.cat_file("shop/books/CURRENT").decode().strip()


def lists(files, name):
    [part] = files.glob(f"shop/books/{name}/lists/recommendations/*.parquet")
    return pd.read_parquet(files.open(part))


def test_lists_go_to_the_store_and_its_pointer_moves_after_them(files, tmp_path):
    first = night(tmp_path, "2026-11-24", 3, "coverage = { min = 0.1 }")
    assert current(files) == first.folder.name and not (first.folder / "lists").exists()
    assert lists(files, first.folder.name)["rank"].max() == 3

    with pytest.raises(CommandError, match="Not published: coverage"):
        night(tmp_path, "2026-11-25", 2, "coverage = { min = 1.1 }")
    assert current(files) == first.folder.name
    assert "The lists of 2026-11-25 were refused" in (tmp_path / "nights" / "trend.html").read_text()

    third = night(tmp_path, "2026-11-26", 4, "overlap = { min = 0.1 }")
    assert current(files) == third.folder.name and lists(files, third.folder.name)["rank"].max() == 4
    assert third.steps["score"]["result"]["manifest"]["measures"]["overlap"] == pytest.approx(3 / 4)


def test_a_pointer_that_a_killed_job_did_not_move_here_is_moved_by_the_next(files, tmp_path):
    first = night(tmp_path, "2026-11-24", 3, "coverage = { min = 0.1 }")
    (tmp_path / "nights" / "CURRENT").unlink()  # killed after the store's pointer had moved
    (first.folder / "published").unlink()
    again = night(tmp_path, "2026-11-25", 3, "coverage = { min = 0.1 }")
    assert again.folder == first.folder
    assert (tmp_path / "nights" / "CURRENT").read_text().strip() == current(files) == first.folder.name


def test_what_is_no_address_is_refused(tmp_path):
    (tmp_path / "nightly.toml").write_text(PLAN.format(n=3).replace("s3://shop/books", "books"))
    with pytest.raises(ConfigError, match="Expected publish"):
        run(NightlyJob(tmp_path / "nightly.toml"))
