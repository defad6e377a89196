"""A message of a process that was ended without being asked, and none of one that ends by itself."""

import subprocess
import sys

import pytest
from paths import ROOT

CODE = """
import os, sys
from pipelines.cli.exit_notice import exit_notice
with exit_notice("it ended; run it with --resume"):
    {ending}
"""


@pytest.mark.parametrize(
    ("ending", "is_told"),
    [("os._exit(1)", True), ("os.kill(os.getpid(), 9)", True), ("pass", False), ("raise KeyError('own')", False)],
)
def test_the_notice_is_printed_only_if_the_process_ends_inside_the_block(ending, is_told):
    code = CODE.format(ending=ending)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ("it ended; run it with --resume" in done.stderr) == is_told
    assert ("own" in done.stderr) == ("own" in ending)
