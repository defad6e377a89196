"""A wheel is built, installed into a folder of its own, and used from there, outside the repository."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SOURCES = ("recsys", "pipelines", "data/sample", "setup.py", "pyproject.toml", "README.md", "LICENSE")
TRAIN = ("train", "ratings.csv", "-m", "ease", "-o", "model", "--no-track")
SCORE = ("score", "model", "ratings.csv", "-n", "2", "--no-track")


def pip(*words: object) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy: the build leaves folders behind."""
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, source / name)
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", output, source)
    (file,) = output.glob("recsys_autoencoders-*.whl")
    return file


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    """A folder that holds the installed wheel and nothing else."""
    folder = tmp_path_factory.mktemp("site")
    pip("install", "--no-deps", "--no-index", "--target", folder, wheel)
    return folder


@pytest.fixture(scope="module")
def elsewhere(site, tmp_path_factory):
    """A working folder outside the repository, with a small file of ratings."""
    folder = tmp_path_factory.mktemp("elsewhere")
    rows = [f"u{user},i{item},5" for user in range(40) for item in range(12) if (user + item) % 3]
    (folder / "ratings.csv").write_text("\n".join(["user_id,item_id,rating", *rows]) + "\n")
    return folder


@pytest.fixture
def python(site, elsewhere):
    """Run Python there, with the installed wheel first on the path."""

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=elsewhere,
            env={**os.environ, "PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def recsys(python):
    return lambda *words: python("-m", "recsys_pipelines.cli", *words)


def test_the_wheel_holds_the_library_the_jobs_and_the_sample_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    folders = {name.partition("/")[0] for name in names}
    assert {name for name in folders if not name.endswith(".dist-info")} == {"recsys", "recsys_pipelines"}
    assert {
        "recsys/py.typed",
        "recsys/system/constants.json",
        "recsys/reporting/templates/report.html",
        "recsys_pipelines/py.typed",
        "recsys_pipelines/sample/items.csv",
        "recsys_pipelines/sample/ratings.csv",
    } <= set(names)


def test_the_wheel_holds_every_module_and_every_file_that_a_module_reads(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for package, folder in {"recsys": "recsys", "recsys_pipelines": "pipelines"}.items():
        for file in (ROOT / folder).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                assert f"{package}/{file.relative_to(ROOT / folder).as_posix()}" in names


def test_what_runs_is_the_installed_wheel(python, site):
    printed = python("-c", "import recsys, recsys_pipelines as jobs; print(recsys.__file__, jobs.__file__, sep='\\n')")
    assert [Path(line).parent for line in printed.split()] == [site / "recsys", site / "recsys_pipelines"]


def test_the_demo_finds_the_sample_of_the_wheel(python, site):
    printed = python("-c", "from recsys_pipelines.demo import sample_folder; print(sample_folder())")
    assert Path(printed.strip()) == site / "recsys_pipelines" / "sample"


def test_the_version_and_the_doctor_name_the_installed_distribution(recsys, wheel):
    assert recsys("--version").split()[-1] == wheel.name.split("-")[1]
    assert "torch==" in recsys("doctor", "--no-measure")


def test_a_model_is_trained_and_scores_on_ray_outside_the_repository(recsys, elsewhere):
    recsys(*TRAIN, "--overwrite")
    recsys(*SCORE, "-o", "here", "--overwrite")
    recsys(*SCORE, "-o", "on_ray", "--engine", "ray", "--workers", "1", "--overwrite")
    here, on_ray = (sorted((elsewhere / name).glob("recommendations/part-*.parquet")) for name in ("here", "on_ray"))
    assert here
    assert [file.read_bytes() for file in here] == [file.read_bytes() for file in on_ray]


def test_mlflow_loads_a_model_outside_the_repository(recsys, python):
    recsys(*TRAIN, "--overwrite")
    code = """
from pathlib import Path
import mlflow.pyfunc
import pandas as pd
from recsys.serving.pyfunc import pyfunc_arguments
mlflow.pyfunc.save_model("served", **pyfunc_arguments(Path("model")))
lists = mlflow.pyfunc.load_model("served").predict(pd.DataFrame({"user_id": ["new"], "item_id": ["i1"]}))
print(len(lists), list(lists.columns))
"""
    assert python("-W", "ignore", "-c", code).endswith("10 ['user_id', 'item_id', 'rank', 'score']\n")
