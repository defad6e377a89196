"""recsys doctor."""

import json
from importlib import metadata

import pytest
from click.testing import CliRunner

from pipelines.cli.main import main
from recsys.system.packages import install_hint

FAST = ["doctor", "--no-measure"]


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_report_fits_a_terminal_of_80_columns(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.example/" + "a-long-name/" * 20)
    lines = invoke(*FAST).splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[:4]] == ["system", "processor", "memory", "disk"]


def test_speeds_are_measured_unless_told_otherwise():
    gflops = json.loads(invoke("--json", "doctor"))["gflops"]
    assert {"cpu float32", "cpu bfloat16"} <= gflops.keys()
    assert min(gflops.values()) > 0
    assert json.loads(invoke("--json", *FAST))["gflops"] == {}


def test_a_missing_package_comes_with_the_line_that_installs_it(monkeypatch):
    def version(package: str) -> str:
        if package == "implicit":
            raise metadata.PackageNotFoundError
        return "1.2"

    monkeypatch.setattr(metadata, "version", version)
    assert f"missing     implicit: {install_hint('baselines')}" in invoke(*FAST)
    assert json.loads(invoke("--json", *FAST))["missing"] == {"implicit": "baselines"}


@pytest.mark.parametrize(
    ("uri", "shown"),
    [("", "sqlite:///"), ("http://host:5000", "http://host:5000"), ("http://me:secret@host", "http://***@host")],
)
def test_tracking_goes_where_it_says_and_passwords_stay_hidden(monkeypatch, uri, shown):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    report = invoke(*FAST)
    assert f"MLflow at {shown}" in report
    assert "secret" not in report


def test_graphics_cards_are_listed(monkeypatch):
    monkeypatch.setattr("recsys.system.hardware.gpus", lambda: [{"name": "Card 1", "memory_gb": 80.0, "bf16": True}])
    assert "gpu         Card 1, 80.0 GB, native bf16\n" in invoke(*FAST)


def test_without_a_graphics_card_the_report_says_so(monkeypatch):
    monkeypatch.setattr("recsys.system.hardware.gpus", list)
    assert "gpu         none that torch can use" in invoke(*FAST)


@pytest.mark.parametrize(("count", "said"), [(1, "1 thread\n"), (4, "4 threads\n")])
def test_threads_are_counted_in_words(monkeypatch, count, said):
    monkeypatch.setattr("torch.get_num_threads", lambda: count)
    assert said in invoke(*FAST)
