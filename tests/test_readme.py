"""README.md shows only what runs: its shell lines and its Python are executed as they are."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
# Lines that install, need the network, wait for somebody or need other data are shown and not run here.
NOT_RUN = (
    "git clone",
    "cd ",
    "make",
    "python -m venv",
    ". .venv",
    "pip ",
    "recsys download",
    "recsys serve",
    "mlflow ",
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def shell_lines() -> list[str]:
    joined = "\n".join(blocks("bash")).replace("\\\n", " ")
    lines = [line.split("  #")[0].strip() for line in joined.splitlines()]
    return [line for line in lines if line and not line.startswith(("#", *NOT_RUN)) and "data/raw" not in line]


@pytest.fixture
def clone(tmp_path):
    shutil.copytree(ROOT / "data" / "sample", tmp_path / "data" / "sample")
    return tmp_path


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_commands_run_in_the_order_they_are_shown(clone):
    lines = shell_lines()
    assert len(lines) >= 6
    for line in lines:
        run(["bash", "-ec", line.replace("recsys ", f"{sys.executable} -m pipelines.cli ", 1)], clone)
    assert list((clone / "lists" / "recommendations").glob("part-*.parquet"))


@pytest.mark.slow
def test_the_python_runs_and_prints_recommendations(clone):
    (source,) = blocks("python")
    assert run([sys.executable, "-c", source], clone).strip()


def test_it_is_short():
    assert len(README.splitlines()) <= 180


def test_every_command_and_every_model_is_in_the_tables():
    from pipelines.cli.main import COMMANDS
    from recsys.models import MODELS

    for name in (*COMMANDS, *MODELS):
        assert f"`{name}`" in README or f"`recsys {name}" in README, f"README does not mention {name}"


def test_every_folder_of_the_tree_exists():
    tree = next(block for block in blocks("text") if "recsys/" in block and "pipelines/" in block)
    for line in tree.splitlines():
        name = line.split()[0]
        assert (ROOT / name).exists(), f"README shows {name}, which is not there"
