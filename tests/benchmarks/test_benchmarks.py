"""The scripts in benchmarks/ that no machine of ours can run in full still run."""

import subprocess
import sys

import pytest
import torch
from paths import ROOT

GPU = ROOT / "benchmarks" / "gpu.py"


def gpu(*arguments):
    return subprocess.run([sys.executable, GPU, *arguments], check=True, capture_output=True, text=True).stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU it measures, which takes minutes")
def test_without_a_gpu_the_gpu_benchmark_says_so():
    assert gpu().startswith("No GPU here")


def test_the_gpu_benchmark_runs_whole_at_a_toy_size(tmp_path):
    ratings = tmp_path / "ratings.csv"
    rows = [f"u{user},i{item}" for user in range(40) for item in range(20) if (user * item) % 3]
    ratings.write_text("\n".join(["user_id,item_id", *rows]) + "\n")
    printed = gpu("--tiny", "--ratings", str(ratings))
    for title in ("Batches of 300", "Epochs", "Lists of 100 for everybody", "Quality"):
        assert f"## {title}" in printed
    assert "| recsys bf16 on cpu |" in printed
